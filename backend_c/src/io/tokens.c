/* Token files and the sampler. See em_tokens.h. */
#include "io/em_tokens.h"

#include <inttypes.h>
#include <string.h>

#include "common/em_rng.h"
#include "exactmap/plan.h" /* em_sha256_hex */

static const char magic[] = "EXMTOK01";
static const char hint[] = "token files are written by `exactmap data`";

static uint64_t little(const uint8_t *bytes, int num)
{
    uint64_t value = 0;
    for (int i = num - 1; i >= 0; i--) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static em_status_t read_header(em_tokens_t *tokens, const char *path, em_error_t *err)
{
    const uint8_t *const bytes = tokens->map.data;
    EM_RETURN_ERROR_IF(tokens->map.num_bytes < EM_TOKENS_HEADER, err, EM_ERR_DATA,
                       "%s: not a token file: %" PRIu64 " bytes, expected a header of %d", path,
                       tokens->map.num_bytes, EM_TOKENS_HEADER);
    EM_RETURN_ERROR_IF(memcmp(bytes, magic, 8) != 0, err, EM_ERR_DATA,
                       "%s: not a token file: it does not start with %s", path, magic);
    EM_RETURN_ERROR_IF(little(bytes + 8, 4) != EM_TOKENS_HEADER, err, EM_ERR_DATA,
                       "%s: header size: got %" PRIu64 ", expected %d", path, little(bytes + 8, 4),
                       EM_TOKENS_HEADER);
    tokens->token_bytes = (uint32_t)little(bytes + 12, 4);
    EM_RETURN_ERROR_IF(tokens->token_bytes != 2 && tokens->token_bytes != 4, err, EM_ERR_DATA,
                       "%s: bytes per token: got %" PRIu32 ", expected 2 or 4", path,
                       tokens->token_bytes);
    tokens->vocab = little(bytes + 16, 8);
    const uint64_t most = tokens->token_bytes == 2 ? 1u << 16 : (uint64_t)1 << 31;
    EM_RETURN_ERROR_IF(tokens->vocab == 0 || tokens->vocab > most, err, EM_ERR_DATA,
                       "%s: vocabulary: got %" PRIu64 ", expected 1 to %" PRIu64, path,
                       tokens->vocab, most);
    tokens->num_tokens = little(bytes + 24, 8);
    const uint64_t data_bytes = tokens->map.num_bytes - EM_TOKENS_HEADER;
    EM_RETURN_ERROR_IF(data_bytes % tokens->token_bytes != 0 ||
                           data_bytes / tokens->token_bytes != tokens->num_tokens,
                       err, EM_ERR_DATA,
                       "%s: cut short or too long: %" PRIu64 " bytes of tokens, expected %" PRIu64
                       " tokens of %" PRIu32 " bytes",
                       path, data_bytes, tokens->num_tokens, tokens->token_bytes);
    for (int i = 0; i < 32; i++) {
        (void)snprintf(tokens->sha256 + 2 * i, 3, "%02x", bytes[32 + i]);
    }
    for (int i = 0; i < 32 && bytes[64 + i] != 0; i++) {
        const uint8_t c = bytes[64 + i];
        tokens->tokenizer[i] = c > 0x20 && c < 0x7F && c != '"' && c != '\\' ? (char)c : '?';
    }
    tokens->data = bytes + EM_TOKENS_HEADER;
    return EM_OK;
}

em_status_t em_tokens_open(em_tokens_t *tokens, const char *path, bool verify, em_error_t *err)
{
    memset(tokens, 0, sizeof *tokens);
    EM_RETURN_IF_ERROR(em_mapped_open(&tokens->map, path, err));
    em_status_t status = read_header(tokens, path, err);
    if (status == EM_OK && verify) {
        char found[65];
        em_sha256_hex(tokens->data, (size_t)(tokens->map.num_bytes - EM_TOKENS_HEADER), found);
        if (strcmp(found, tokens->sha256) != 0) {
            status = EM_FAIL(err, EM_ERR_HASH,
                             "%s: the tokens are damaged: sha256 %.16s.., expected %.16s..", path,
                             found, tokens->sha256);
        }
    }
    if (status != EM_OK) {
        em_hint(err, "%s", hint);
        em_tokens_close(tokens);
    }
    return status;
}

void em_tokens_close(em_tokens_t *tokens)
{
    em_mapped_close(&tokens->map);
    tokens->data = NULL;
}

uint64_t em_tokens_num_windows(const em_tokens_t *tokens, uint64_t seq)
{
    return tokens->num_tokens == 0 ? 0 : (tokens->num_tokens - 1) / seq;
}

static int32_t token_at(const em_tokens_t *tokens, uint64_t index)
{
    const uint8_t *const at = tokens->data + index * tokens->token_bytes;
    if (tokens->token_bytes == 2) {
        return (int32_t)little(at, 2);
    }
    const uint64_t value = little(at, 4);
    return value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

void em_tokens_read(const em_tokens_t *tokens, uint64_t window, uint64_t seq, int32_t *inputs,
                    int32_t *targets)
{
    const uint64_t start = window * seq;
    for (uint64_t i = 0; i < seq; i++) {
        if (inputs != NULL) {
            inputs[i] = token_at(tokens, start + i);
        }
        if (targets != NULL) {
            targets[i] = token_at(tokens, start + i + 1);
        }
    }
}

/* ---- the sampler --------------------------------------------------------------------------- */

enum { EM_FEISTEL_ROUNDS = 4 };

uint64_t em_sample_window(uint64_t num_windows, uint64_t seed, uint64_t sample)
{
    const uint64_t key = em_rng_u64(seed, sample / num_windows);
    /* Two halves of as many bits as hold every window. */
    uint32_t bits = 1;
    while (bits < 64 && (num_windows - 1) >> bits != 0) {
        bits++;
    }
    const uint32_t half = (bits + 1) / 2;
    const uint64_t mask = ((uint64_t)1 << half) - 1;
    uint64_t value = sample % num_windows;
    do { /* the network permutes [0, 4^half): walk its cycle until back among the windows */
        uint64_t left = value >> half, right = value & mask;
        for (uint64_t round = 0; round < EM_FEISTEL_ROUNDS; round++) {
            const uint64_t next = left ^ (em_rng_u64(key + round, right) & mask);
            left = right;
            right = next;
        }
        value = left << half | right;
    } while (value >= num_windows);
    return value;
}
