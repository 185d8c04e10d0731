/*
 * Sizes that cannot wrap: each operation gives false, and leaves *out alone, on overflow.
 */
#ifndef EM_CHECKED_H
#define EM_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool em_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a > UINT64_MAX - b) {
        return false;
    }
    *out = a + b;
    return true;
}

static inline bool em_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b != 0 && a > UINT64_MAX / b) {
        return false;
    }
    *out = a * b;
    return true;
}

/* The least multiple of `step` (a power of two) that is not below a. */
static inline bool em_round_up_u64(uint64_t a, uint64_t step, uint64_t *out)
{
    uint64_t sum;
    if (!em_add_u64(a, step - 1, &sum)) {
        return false;
    }
    *out = sum & ~(step - 1);
    return true;
}

#endif
