/*
 * Vectors of 16 floats in portable GNU C, and what hot loops need: one source that gcc compiles
 * for AVX-512, AVX2 and the baseline (EM_CLONES), chosen once at load.
 *
 * Results may depend on the CPU (width of the fused operations), never on the call.
 */
#ifndef EM_SIMD_H
#define EM_SIMD_H

#include <stdint.h>
#include <string.h>

/* Sums of products may be fused; sqrt need not set errno. For the including file alone. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "fp-contract=fast", "no-math-errno", "no-trapping-math")
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed between inlined functions alone */
#endif

/* Function versions need ifunc, which sanitizers do not survive. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) &&   \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define EM_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EM_CLONES
#endif

#define EM_INLINE static inline __attribute__((always_inline, unused))

enum { EM_LANES = 16 };

typedef float em_vf_t __attribute__((vector_size(64)));
typedef int32_t em_vi_t __attribute__((vector_size(64)));
typedef float em_vfu_t __attribute__((vector_size(64), aligned(4), may_alias));

EM_INLINE em_vf_t em_load(const float *p)
{
    return *(const em_vfu_t *)p;
}

EM_INLINE void em_store(float *p, em_vf_t v)
{
    *(em_vfu_t *)p = v;
}

EM_INLINE em_vf_t em_set(float x)
{
    const em_vf_t zero = {0};
    return zero + x;
}

/* The first `num` < 16 floats at p; the other lanes are `fill`. */
EM_INLINE em_vf_t em_load_part(const float *p, uint64_t num, float fill)
{
    float lanes[EM_LANES];
    for (int i = 0; i < EM_LANES; ++i) {
        lanes[i] = fill;
    }
    memcpy(lanes, p, num * sizeof *p);
    return em_load(lanes);
}

EM_INLINE void em_store_part(float *p, em_vf_t v, uint64_t num)
{
    float lanes[EM_LANES];
    em_store(lanes, v);
    memcpy(p, lanes, num * sizeof *p);
}

/* Lane by lane: mask (all ones or zero) ? a : b. */
EM_INLINE em_vf_t em_select(em_vi_t mask, em_vf_t a, em_vf_t b)
{
    return (em_vf_t)((mask & (em_vi_t)a) | (~mask & (em_vi_t)b));
}

EM_INLINE em_vf_t em_max(em_vf_t a, em_vf_t b)
{
    return em_select(a > b, a, b);
}

EM_INLINE em_vf_t em_min(em_vf_t a, em_vf_t b)
{
    return em_select(a < b, a, b);
}

/* Sums and maxima across lanes, in a fixed tree. */
EM_INLINE float em_sum(em_vf_t v)
{
    float x[EM_LANES];
    em_store(x, v);
    for (int half = EM_LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) {
            x[i] += x[i + half];
        }
    }
    return x[0];
}

EM_INLINE float em_max_lane(em_vf_t v)
{
    float x[EM_LANES];
    em_store(x, v);
    float best = x[0];
    for (int i = 1; i < EM_LANES; ++i) {
        best = x[i] > best ? x[i] : best;
    }
    return best;
}

/*
 * exp(x), relative error below 1e-7 for x in [-87, 88]; below and above it stays at the values
 * there (about 1e-38 and 2e38), a NaN gives a NaN. x = n ln 2 + r, |r| <= ln 2 / 2; Taylor
 * polynomial of degree 7 in r (truncation below 6e-9); ln 2 split so that n * high is exact.
 */
EM_INLINE em_vf_t em_exp(em_vf_t x)
{
    const em_vf_t round = em_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    /* comparisons are false for a NaN, which therefore passes */
    x = em_select(x < em_set(-87.0f), em_set(-87.0f), x);
    x = em_select(x > em_set(88.0f), em_set(88.0f), x);
    const em_vf_t shifted = x * 1.44269504f + round;
    const em_vf_t n = shifted - round;
    em_vf_t r = x - n * 0x1.62e400p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    em_vf_t p = em_set(1.0f / 5040.0f);
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    const em_vi_t exponent = ((em_vi_t)shifted - 0x4B400000 + 127) << 23;
    return p * (em_vf_t)exponent;
}

#endif
