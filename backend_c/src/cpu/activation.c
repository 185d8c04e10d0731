/*
 * GELU (tanh form) and SwiGLU. Both come down to the logistic function s(z) = 1 / (1 + exp(-z)):
 *     gelu(u) = u s(2 k (u + c u^3)),  k = sqrt(2 / pi), c = 0.044715
 *     silu(z) = z s(z)
 */
#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

static const float two_k = 1.5957691216057308f;
static const float cubic = 0.044715f;

EM_INLINE em_vf_t logistic(em_vf_t z)
{
    return 1.0f / (1.0f + em_exp(-z));
}

EM_INLINE em_vf_t gelu(em_vf_t u)
{
    return u * logistic(two_k * u * (1.0f + cubic * u * u));
}

EM_INLINE em_vf_t gelu_slope(em_vf_t u)
{
    const em_vf_t s = logistic(two_k * u * (1.0f + cubic * u * u));
    return s + u * s * (1.0f - s) * (two_k * (1.0f + 3.0f * cubic * u * u));
}

EM_CLONES void em_cpu_gelu_forward(uint64_t n, const float *u, float *act)
{
    uint64_t i = 0;
    for (; i + EM_LANES <= n; i += EM_LANES) {
        em_store(act + i, gelu(em_load(u + i)));
    }
    if (i < n) {
        em_store_part(act + i, gelu(em_load_part(u + i, n - i, 0.0f)), n - i);
    }
}

EM_CLONES void em_cpu_gelu_backward(uint64_t n, const float *u, const float *dact, float *du)
{
    uint64_t i = 0;
    for (; i + EM_LANES <= n; i += EM_LANES) {
        em_store(du + i, em_load(dact + i) * gelu_slope(em_load(u + i)));
    }
    if (i < n) {
        const uint64_t rest = n - i;
        const em_vf_t slope = gelu_slope(em_load_part(u + i, rest, 0.0f));
        em_store_part(du + i, em_load_part(dact + i, rest, 0.0f) * slope, rest);
    }
}

EM_INLINE em_vf_t swiglu(em_vf_t gate, em_vf_t up)
{
    return gate * logistic(gate) * up;
}

EM_CLONES void em_cpu_swiglu_forward(uint64_t rows, uint64_t ffn, const float *u, float *act)
{
    for (uint64_t r = 0; r < rows; ++r) {
        const float *const gate = u + r * 2 * ffn;
        const float *const up = gate + ffn;
        float *const out = act + r * ffn;
        uint64_t i = 0;
        for (; i + EM_LANES <= ffn; i += EM_LANES) {
            em_store(out + i, swiglu(em_load(gate + i), em_load(up + i)));
        }
        if (i < ffn) {
            const uint64_t rest = ffn - i;
            em_store_part(
                out + i,
                swiglu(em_load_part(gate + i, rest, 0.0f), em_load_part(up + i, rest, 0.0f)), rest);
        }
    }
}

EM_INLINE void swiglu_slope(em_vf_t gate, em_vf_t up, em_vf_t dact, em_vf_t *dgate, em_vf_t *dup)
{
    const em_vf_t s = logistic(gate);
    *dup = dact * gate * s;
    *dgate = dact * up * (s + gate * s * (1.0f - s));
}

EM_CLONES void em_cpu_swiglu_backward(uint64_t rows, uint64_t ffn, const float *u,
                                      const float *dact, float *du)
{
    for (uint64_t r = 0; r < rows; ++r) {
        const float *const gate = u + r * 2 * ffn;
        const float *const up = gate + ffn;
        const float *const in = dact + r * ffn;
        float *const dgate = du + r * 2 * ffn;
        float *const dup = dgate + ffn;
        em_vf_t a;
        em_vf_t b;
        uint64_t i = 0;
        for (; i + EM_LANES <= ffn; i += EM_LANES) {
            swiglu_slope(em_load(gate + i), em_load(up + i), em_load(in + i), &a, &b);
            em_store(dgate + i, a);
            em_store(dup + i, b);
        }
        if (i < ffn) {
            const uint64_t rest = ffn - i;
            swiglu_slope(em_load_part(gate + i, rest, 0.0f), em_load_part(up + i, rest, 0.0f),
                         em_load_part(in + i, rest, 0.0f), &a, &b);
            em_store_part(dgate + i, a, rest);
            em_store_part(dup + i, b, rest);
        }
    }
}
