/* The CPU kernels, one file per family; the table (table.c) collects them. */
#ifndef EM_CPU_OPS_H
#define EM_CPU_OPS_H

#include "nn/em_kernels.h"

typedef void (*em_gemm_fn_t)(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                             float alpha, const float *a, uint64_t lda, const float *b,
                             uint64_t ldb, float beta, float *c, uint64_t ldc);

void em_cpu_gemm_portable(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                          float alpha, const float *a, uint64_t lda, const float *b, uint64_t ldb,
                          float beta, float *c, uint64_t ldc);
#ifdef EM_HAVE_OPENBLAS
void em_cpu_gemm_openblas(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                          float alpha, const float *a, uint64_t lda, const float *b, uint64_t ldb,
                          float beta, float *c, uint64_t ldc);
void em_cpu_openblas_single_thread(void);
#endif

void em_cpu_column_sum(uint64_t rows, uint64_t cols, const float *x, uint64_t ld, bool init,
                       float *y);
void em_cpu_add(uint64_t n, const float *x, float *y);
void em_cpu_add_row(uint64_t rows, uint64_t cols, const float *x, const float *bias, float *y);

void em_cpu_norm_forward(uint64_t rows, uint64_t cols, bool rms, float eps, const float *gain,
                         const float *bias, const float *x, float *xhat, float *n, float *rstd);
void em_cpu_norm_scale(uint64_t rows, uint64_t cols, const float *gain, const float *bias,
                       const float *xhat, float *n);
void em_cpu_norm_backward(uint64_t rows, uint64_t cols, bool rms, const float *gain,
                          const float *xhat, const float *rstd, const float *dn, const float *base,
                          float *dx, bool init, float *dgain, float *dbias);

void em_cpu_gelu_forward(uint64_t n, const float *u, float *act);
void em_cpu_gelu_backward(uint64_t n, const float *u, const float *dact, float *du);
void em_cpu_swiglu_forward(uint64_t rows, uint64_t ffn, const float *u, float *act);
void em_cpu_swiglu_backward(uint64_t rows, uint64_t ffn, const float *u, const float *dact,
                            float *du);

void em_cpu_rotary(uint64_t rows, uint32_t seq, uint32_t heads, uint32_t head_dim, uint64_t ld,
                   const float *table, bool inverse, float *x);

void em_cpu_attention_forward(em_gemm_fn_t gemm, const em_attention_t *at, const float *q,
                              const float *kv, float *o, float *lse, float *workspace);
void em_cpu_attention_backward(em_gemm_fn_t gemm, const em_attention_t *at, const float *q,
                               const float *kv, const float *o, const float *lse, const float *d_o,
                               float *dq, float *dkv, bool init, float *workspace);

void em_cpu_embed_forward(uint64_t rows, uint64_t cols, uint32_t seq, const int32_t *tokens,
                          const float *wte, const float *wpe, float *x);
void em_cpu_embed_backward(uint64_t rows, uint64_t cols, uint32_t seq, const int32_t *tokens,
                           const float *dx, float *dwte, float *dwpe);

double em_cpu_cross_entropy_forward(uint64_t rows, uint64_t vocab, const float *logits,
                                    const int32_t *targets, float *lse);
void em_cpu_cross_entropy_backward(uint64_t rows, uint64_t vocab, const int32_t *targets,
                                   const float *lse, float scale, float *logits);

void em_cpu_adamw(uint64_t n, const em_adamw_step_t *step, const float *grad, float *param,
                  float *m, float *v);
void em_cpu_adamw_undo(uint64_t n, const em_adamw_step_t *step, bool redo, float right_scale,
                       const float *grad, float *param, float *m, float *v);
double em_cpu_sum_squares(uint64_t n, const float *x);

#endif
