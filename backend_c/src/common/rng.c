/* splitmix64 in counter mode. See em_rng.h. */
#include "common/em_rng.h"

#include <math.h>

static const uint64_t golden_gamma = 0x9E3779B97F4A7C15u;

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

uint64_t em_rng_u64(uint64_t key, uint64_t counter)
{
    /* The key goes through the mixer too: keys that differ by multiples of the gamma would
     * otherwise give shifted copies of one stream. */
    return mix(mix(key + golden_gamma) + (counter + 1) * golden_gamma);
}

uint64_t em_rng_key(uint64_t seed, const char *name)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (const char *c = name; *c != '\0'; ++c) {
        hash = (hash ^ (uint64_t)(unsigned char)*c) * 0x100000001B3u;
    }
    return mix(hash ^ mix(seed + golden_gamma));
}

double em_rng_uniform(uint64_t key, uint64_t counter)
{
    return (double)(em_rng_u64(key, counter) >> 11) * 0x1.0p-53;
}

double em_rng_normal(uint64_t key, uint64_t counter)
{
    const uint64_t pair = counter & ~(uint64_t)1;
    const double two_pi = 6.283185307179586476925286766559;
    const double u = 1.0 - em_rng_uniform(key, pair); /* in (0, 1] */
    const double angle = two_pi * em_rng_uniform(key, pair + 1);
    const double radius = sqrt(-2.0 * log(u));
    return radius * ((counter & 1) == 0 ? cos(angle) : sin(angle));
}

uint64_t em_rng_below(uint64_t key, uint64_t counter, uint64_t bound)
{
    /* High half of a 64 x 64 product, without a 128-bit type. */
    const uint64_t r = em_rng_u64(key, counter);
    const uint64_t r_lo = r & 0xFFFFFFFFu, r_hi = r >> 32;
    const uint64_t b_lo = bound & 0xFFFFFFFFu, b_hi = bound >> 32;
    const uint64_t low = (r_lo * b_lo) >> 32;
    const uint64_t mid = r_hi * b_lo + low;
    const uint64_t mid2 = r_lo * b_hi + (mid & 0xFFFFFFFFu);
    return r_hi * b_hi + (mid >> 32) + (mid2 >> 32);
}
