/*
 * SHA-256 (FIPS 180-4), fed piece by piece. For one piece: em_sha256_hex of exactmap/plan.h.
 *
 * Where the processor has instructions for it (x86 SHA extensions) they are used; the digest is the
 * same.
 */
#ifndef EM_SHA256_H
#define EM_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t num_bytes;
    uint8_t block[64];
    bool extended; /* use the processor's own instructions; begin sets it where there are some */
} em_sha256_t;

void em_sha256_begin(em_sha256_t *hash);
void em_sha256_add(em_sha256_t *hash, const uint8_t *bytes, size_t num_bytes);
void em_sha256_end(em_sha256_t *hash, char hex[65]);

/* Constants of the 64 rounds. */
extern const uint32_t em_sha256_k[64];
/* True if this processor has instructions for SHA-256 and this file was compiled for them. */
bool em_sha256_has_extension(void);
/* Take `num` blocks of 64 bytes into the state by them. */
void em_sha256_extended(uint32_t state[8], const uint8_t *blocks, size_t num);

#endif
