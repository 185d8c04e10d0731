/*
 * Token files and the sampler (docs/reference/data.md; the Python twin is exactmap.sim.data).
 *
 * The file: 128 bytes of header (magic EXMTOK01, header size, bytes per token, vocabulary, number
 * of tokens, sha256 of the tokens, tokenizer's name, zeros), then little-endian uint16 or uint32.
 * A window w of `seq` tokens is [w * seq, w * seq + seq], the last of them a target alone.
 */
#ifndef EM_TOKENS_H
#define EM_TOKENS_H

#include <stdbool.h>
#include <stdint.h>

#include "exactmap/error.h"
#include "io/em_file.h"

enum { EM_TOKENS_HEADER = 128, EM_TOKENIZER_NAME = 33 };

typedef struct {
    em_mapped_t map;
    const uint8_t *data;
    uint32_t token_bytes; /* 2 or 4 */
    uint64_t vocab;
    uint64_t num_tokens;
    char sha256[65];
    char tokenizer[EM_TOKENIZER_NAME];
} em_tokens_t;

/* Map a token file; `verify` also compares the hash of its tokens. */
em_status_t em_tokens_open(em_tokens_t *tokens, const char *path, bool verify, em_error_t *err);
void em_tokens_close(em_tokens_t *tokens);

/* Whole windows in the file: (num_tokens - 1) / seq, 0 for an empty file. */
uint64_t em_tokens_num_windows(const em_tokens_t *tokens, uint64_t seq);

/* Inputs and targets of a window, `seq` each; either may be NULL. A token of 2^31 or more (no
 * vocabulary has it) becomes INT32_MAX, which no model accepts. */
void em_tokens_read(const em_tokens_t *tokens, uint64_t window, uint64_t seq, int32_t *inputs,
                    int32_t *targets);

/* The window of sample number `sample` (from 0, over the whole run): a permutation of the windows
 * seeded anew in each epoch. num_windows > 0. */
uint64_t em_sample_window(uint64_t num_windows, uint64_t seed, uint64_t sample);

#endif
