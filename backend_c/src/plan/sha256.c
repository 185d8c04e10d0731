/* SHA-256 as FIPS 180-4 section 6.2 states it; the names a..h, W, K are the standard's. */
#include "plan/em_sha256.h"

#include <string.h>

#include "exactmap/plan.h"

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes (4.2.2). */
const uint32_t em_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t rotr(uint32_t x, unsigned n)
{
    return (x >> n) | (x << (32 - n));
}

/* One round (6.2.2, step 3): d and h take new values, the others stay. */
static inline void advance(const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t *d,
                           const uint32_t *e, const uint32_t *f, const uint32_t *g, uint32_t *h,
                           uint32_t word)
{
    const uint32_t sum1 = rotr(*e, 6) ^ rotr(*e, 11) ^ rotr(*e, 25);
    const uint32_t choose = (*e & *f) ^ (~*e & *g);
    const uint32_t t1 = *h + sum1 + choose + word;
    const uint32_t sum0 = rotr(*a, 2) ^ rotr(*a, 13) ^ rotr(*a, 22);
    const uint32_t majority = (*a & *b) ^ (*a & *c) ^ (*b & *c);
    *d += t1;
    *h = t1 + sum0 + majority;
}

static void compress_one(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    for (size_t t = 0; t < 16; t++) {
        w[t] = (uint32_t)block[4 * t] << 24 | (uint32_t)block[4 * t + 1] << 16 |
               (uint32_t)block[4 * t + 2] << 8 | (uint32_t)block[4 * t + 3];
    }
    for (size_t t = 16; t < 64; t++) {
        const uint32_t s0 = rotr(w[t - 15], 7) ^ rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
        const uint32_t s1 = rotr(w[t - 2], 17) ^ rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
        w[t] = s1 + w[t - 7] + s0 + w[t - 16];
    }
    uint32_t v[8]; /* a b c d e f g h */
    memcpy(v, state, 8 * sizeof *v);
    for (size_t t = 0; t < 64; t += 8) {
        /* Instead of moving a..h along, eight rounds each name them one place further. */
        advance(&v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], em_sha256_k[t] + w[t]);
        advance(&v[7], &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &v[6],
                em_sha256_k[t + 1] + w[t + 1]);
        advance(&v[6], &v[7], &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
                em_sha256_k[t + 2] + w[t + 2]);
        advance(&v[5], &v[6], &v[7], &v[0], &v[1], &v[2], &v[3], &v[4],
                em_sha256_k[t + 3] + w[t + 3]);
        advance(&v[4], &v[5], &v[6], &v[7], &v[0], &v[1], &v[2], &v[3],
                em_sha256_k[t + 4] + w[t + 4]);
        advance(&v[3], &v[4], &v[5], &v[6], &v[7], &v[0], &v[1], &v[2],
                em_sha256_k[t + 5] + w[t + 5]);
        advance(&v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[0], &v[1],
                em_sha256_k[t + 6] + w[t + 6]);
        advance(&v[1], &v[2], &v[3], &v[4], &v[5], &v[6], &v[7], &v[0],
                em_sha256_k[t + 7] + w[t + 7]);
    }
    for (size_t i = 0; i < 8; i++) {
        state[i] += v[i];
    }
}

static void compress(em_sha256_t *hash, const uint8_t *blocks, size_t num)
{
    if (hash->extended) {
        em_sha256_extended(hash->state, blocks, num);
        return;
    }
    for (size_t i = 0; i < num; i++) {
        compress_one(hash->state, blocks + 64 * i);
    }
}

void em_sha256_begin(em_sha256_t *hash)
{
    /* First 32 bits of the fractional parts of the square roots of the first 8 primes (5.3.3). */
    static const uint32_t initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memset(hash, 0, sizeof *hash);
    memcpy(hash->state, initial, sizeof initial);
    hash->extended = em_sha256_has_extension();
}

void em_sha256_add(em_sha256_t *hash, const uint8_t *bytes, size_t num_bytes)
{
    size_t held = (size_t)(hash->num_bytes % 64);
    hash->num_bytes += num_bytes;
    while (num_bytes > 0) {
        if (held == 0 && num_bytes >= 64) {
            const size_t num = num_bytes / 64;
            compress(hash, bytes, num);
            bytes += 64 * num;
            num_bytes -= 64 * num;
            continue;
        }
        const size_t taken = num_bytes < 64 - held ? num_bytes : 64 - held;
        memcpy(hash->block + held, bytes, taken);
        held += taken;
        bytes += taken;
        num_bytes -= taken;
        if (held == 64) {
            compress(hash, hash->block, 1);
            held = 0;
        }
    }
}

void em_sha256_end(em_sha256_t *hash, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    const uint64_t num_bits = hash->num_bytes * 8;
    uint8_t padding[72] = {0x80};
    const size_t held = (size_t)(hash->num_bytes % 64);
    const size_t zeros = (held < 56 ? 56 : 120) - held;
    for (size_t i = 0; i < 8; i++) {
        padding[zeros + i] = (uint8_t)(num_bits >> (56 - 8 * i));
    }
    em_sha256_add(hash, padding, zeros + 8);
    for (size_t i = 0; i < 32; i++) {
        const uint8_t byte = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
        hex[2 * i] = digits[byte >> 4];
        hex[2 * i + 1] = digits[byte & 15];
    }
    hex[64] = '\0';
}

void em_sha256_hex(const uint8_t *bytes, size_t num_bytes, char hex[65])
{
    em_sha256_t hash;
    em_sha256_begin(&hash);
    if (num_bytes > 0) {
        em_sha256_add(&hash, bytes, num_bytes);
    }
    em_sha256_end(&hash, hex);
}
