/* The CPU's kernel tables: one per way to multiply matrices. */
#include "cpu/em_cpu.h"
#include "cpu/em_cpu_ops.h"

#define EM_CPU_COMMON                                                                              \
    .column_sum = em_cpu_column_sum, .add = em_cpu_add, .add_row = em_cpu_add_row,                 \
    .norm_forward = em_cpu_norm_forward, .norm_scale = em_cpu_norm_scale,                          \
    .norm_backward = em_cpu_norm_backward, .gelu_forward = em_cpu_gelu_forward,                    \
    .gelu_backward = em_cpu_gelu_backward, .swiglu_forward = em_cpu_swiglu_forward,                \
    .swiglu_backward = em_cpu_swiglu_backward, .rotary = em_cpu_rotary,                            \
    .embed_forward = em_cpu_embed_forward, .embed_backward = em_cpu_embed_backward,                \
    .cross_entropy_forward = em_cpu_cross_entropy_forward,                                         \
    .cross_entropy_backward = em_cpu_cross_entropy_backward, .adamw = em_cpu_adamw,                \
    .sum_squares = em_cpu_sum_squares, .adamw_undo = em_cpu_adamw_undo

static void attention_forward_portable(const em_attention_t *at, const float *q, const float *kv,
                                       float *o, float *lse, float *workspace)
{
    em_cpu_attention_forward(em_cpu_gemm_portable, at, q, kv, o, lse, workspace);
}

static void attention_backward_portable(const em_attention_t *at, const float *q, const float *kv,
                                        const float *o, const float *lse, const float *d_o,
                                        float *dq, float *dkv, bool init, float *workspace)
{
    em_cpu_attention_backward(em_cpu_gemm_portable, at, q, kv, o, lse, d_o, dq, dkv, init,
                              workspace);
}

static const em_kernels_t portable = {
    .name = "cpu-portable",
    .gemm = em_cpu_gemm_portable,
    .attention_forward = attention_forward_portable,
    .attention_backward = attention_backward_portable,
    EM_CPU_COMMON,
};

#ifdef EM_HAVE_OPENBLAS
static void attention_forward_openblas(const em_attention_t *at, const float *q, const float *kv,
                                       float *o, float *lse, float *workspace)
{
    em_cpu_attention_forward(em_cpu_gemm_openblas, at, q, kv, o, lse, workspace);
}

static void attention_backward_openblas(const em_attention_t *at, const float *q, const float *kv,
                                        const float *o, const float *lse, const float *d_o,
                                        float *dq, float *dkv, bool init, float *workspace)
{
    em_cpu_attention_backward(em_cpu_gemm_openblas, at, q, kv, o, lse, d_o, dq, dkv, init,
                              workspace);
}

static const em_kernels_t openblas = {
    .name = "cpu-openblas",
    .gemm = em_cpu_gemm_openblas,
    .attention_forward = attention_forward_openblas,
    .attention_backward = attention_backward_openblas,
    EM_CPU_COMMON,
};
#endif

const em_kernels_t *em_cpu_kernels(em_cpu_gemm_t gemm)
{
#ifdef EM_HAVE_OPENBLAS
    if (gemm != EM_CPU_PORTABLE) {
        em_cpu_openblas_single_thread();
        return &openblas;
    }
#endif
    return gemm == EM_CPU_OPENBLAS ? NULL : &portable;
}
