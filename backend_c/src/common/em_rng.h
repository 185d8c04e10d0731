/*
 * Counter-based random numbers: value i of stream `key` is a function of (key, i) alone, so that
 * any part of a tensor can be made anywhere. Mixer: splitmix64 (Steele, Lea, Flood 2014,
 * "Fast splittable pseudorandom number generators").
 */
#ifndef EM_RNG_H
#define EM_RNG_H

#include <stddef.h>
#include <stdint.h>

#include "exactmap/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Value `counter` of stream `key`: 64 uniform bits. */
EM_API uint64_t em_rng_u64(uint64_t key, uint64_t counter);

/* A stream's key from a seed and a name. */
EM_API uint64_t em_rng_key(uint64_t seed, const char *name);

/* Uniform in [0, 1), 53 bits. */
EM_API double em_rng_uniform(uint64_t key, uint64_t counter);

/* Standard normal (Box-Muller; counters 2i and 2i + 1 share one pair of uniforms). */
EM_API double em_rng_normal(uint64_t key, uint64_t counter);

/* Uniform integer in [0, bound), without bias to speak of (128-bit multiply); bound > 0. */
EM_API uint64_t em_rng_below(uint64_t key, uint64_t counter, uint64_t bound);

#ifdef __cplusplus
}
#endif
#endif
