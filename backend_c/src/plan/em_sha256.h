/* SHA-256 (FIPS 180-4), fed piece by piece. For one piece: em_sha256_hex of exactmap/plan.h. */
#ifndef EM_SHA256_H
#define EM_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t num_bytes;
    uint8_t block[64];
} em_sha256_t;

void em_sha256_begin(em_sha256_t *hash);
void em_sha256_add(em_sha256_t *hash, const uint8_t *bytes, size_t num_bytes);
void em_sha256_end(em_sha256_t *hash, char hex[65]);

#endif
