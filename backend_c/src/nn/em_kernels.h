/*
 * The table of kernels through which nn sees a device. src/cpu implements it; a GPU may too.
 *
 * All tensors are float32, row-major; `ld` is a row's stride in floats. Kernels neither allocate
 * nor keep state; each is deterministic. Sizes are small enough for int32 products to be formed
 * in 64 bits (em_stage_check bounds them).
 */
#ifndef EM_KERNELS_H
#define EM_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exactmap/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tokens per tile of the head: logits exist for so many tokens at a time. */
enum { EM_HEAD_TILE = 128 };
/* Rows and columns of an attention tile: scores exist for one tile at a time. */
enum { EM_ATTENTION_ROWS = 64, EM_ATTENTION_COLS = 256 };

/* Causal attention in `batch` sequences of `seq` tokens, of the queries of `rows` tokens of each,
 * those from position `first` on, to all keys up to their own. Queries are [batch * rows, heads *
 * head_dim]; keys and values [batch * seq, 2 kv_heads * head_dim], all key heads and then all value
 * heads; each with the row stride given here, so that they may lie side by side. Query head h reads
 * key head h / (heads / kv_heads). */
typedef struct {
    uint32_t batch;
    uint32_t seq;
    uint32_t first;
    uint32_t rows;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint64_t ld_q;
    uint64_t ld_kv;
    uint64_t ld_dq;
    uint64_t ld_dkv;
} em_attention_t;

/* One AdamW update of n floats; corrections precomputed by the caller. */
typedef struct {
    float lr;
    float beta1;
    float beta2;
    float one_minus_beta1; /* rounded from double: 1 - 0.999f is off by 1e-5 */
    float one_minus_beta2;
    float eps;
    float decay;           /* lr * weight_decay: p -= decay * p */
    float inv_correction1; /* 1 / (1 - beta1^step) */
    float inv_correction2; /* 1 / (1 - beta2^step) */
    float grad_scale;
} em_adamw_step_t;

typedef struct {
    const char *name; /* e.g. "cpu-openblas", "cpu-portable" */

    /* C[m,n] = alpha op(A)[m,k] op(B)[k,n] + beta C; op transposes if its flag is set. beta 0
     * writes C without reading it. */
    void (*gemm)(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k, float alpha,
                 const float *a, uint64_t lda, const float *b, uint64_t ldb, float beta, float *c,
                 uint64_t ldc);

    /* y[r] = (init ? 0 : y) + sum over rows of x; x is [rows, cols]. */
    void (*column_sum)(uint64_t rows, uint64_t cols, const float *x, uint64_t ld, bool init,
                       float *y);
    /* y += x over n floats. */
    void (*add)(uint64_t n, const float *x, float *y);
    /* Each row of y = row of x + bias (NULL: 0 in its place); x may be y. What a product with
     * beta 1 then adds to. */
    void (*add_row)(uint64_t rows, uint64_t cols, const float *x, const float *bias, float *y);

    /* xhat = (x - mean) rstd (mean 0 for RMS), n = xhat gain + bias (bias NULL for RMS). */
    void (*norm_forward)(uint64_t rows, uint64_t cols, bool rms, float eps, const float *gain,
                         const float *bias, const float *x, float *xhat, float *n, float *rstd);
    /* n = xhat gain + bias: the norm's output again, from its stash. */
    void (*norm_scale)(uint64_t rows, uint64_t cols, const float *gain, const float *bias,
                       const float *xhat, float *n);
    /* dx = base + gradient of the norm (base NULL: 0; may be dx itself); dgain, dbias = sums over
     * these rows (dbias NULL for RMS), written if init, else added to. */
    void (*norm_backward)(uint64_t rows, uint64_t cols, bool rms, const float *gain,
                          const float *xhat, const float *rstd, const float *dn, const float *base,
                          float *dx, bool init, float *dgain, float *dbias);

    /* act = gelu_tanh(u); du = dact * gelu'(u). n floats. */
    void (*gelu_forward)(uint64_t n, const float *u, float *act);
    void (*gelu_backward)(uint64_t n, const float *u, const float *dact, float *du);
    /* u = [rows, 2 ffn] (gate, up): act = silu(gate) up, [rows, ffn]; and back. */
    void (*swiglu_forward)(uint64_t rows, uint64_t ffn, const float *u, float *act);
    void (*swiglu_backward)(uint64_t rows, uint64_t ffn, const float *u, const float *dact,
                            float *du);

    /* Rotate `heads` heads of head_dim of each row (row stride ld) by the angle of its position
     * row % seq; table is [seq, head_dim]: cosines, then sines, of head_dim / 2 frequencies (for a
     * slice, seq is its length and the table begins at its first position).
     * Half-split convention. inverse: the transposed rotation (the gradient). */
    void (*rotary)(uint64_t rows, uint32_t seq, uint32_t heads, uint32_t head_dim, uint64_t ld,
                   const float *table, bool inverse, float *x);

    /* o [T, heads * head_dim], lse [heads, T] (log of the softmax's denominator, per query);
     * T = batch * rows. */
    void (*attention_forward)(const em_attention_t *at, const float *q, const float *kv, float *o,
                              float *lse, float *workspace);
    /* dq from do, written; dkv of all keys that these queries see, added to, after all of the
     * sequences' dkv has been set to zero if init. `o` and lse of the forward pass. */
    void (*attention_backward)(const em_attention_t *at, const float *q, const float *kv,
                               const float *o, const float *lse, const float *d_o, float *dq,
                               float *dkv, bool init, float *workspace);

    /* x[t] = wte[tokens[t]] + wpe[t % seq] (wpe NULL: none); slices as for rotary. Tokens are
     * valid. */
    void (*embed_forward)(uint64_t rows, uint64_t cols, uint32_t seq, const int32_t *tokens,
                          const float *wte, const float *wpe, float *x);
    /* dwte[tokens[t]] += dx[t]; dwpe[t % seq] += dx[t] (dwpe NULL: none), in order of t. */
    void (*embed_backward)(uint64_t rows, uint64_t cols, uint32_t seq, const int32_t *tokens,
                           const float *dx, float *dwte, float *dwpe);

    /* Per row of logits [rows, vocab]: lse; returns the sum of lse - logit[target]. */
    double (*cross_entropy_forward)(uint64_t rows, uint64_t vocab, const float *logits,
                                    const int32_t *targets, float *lse);
    /* logits = (softmax - onehot) scale, in place, from lse; a row without target becomes 0. */
    void (*cross_entropy_backward)(uint64_t rows, uint64_t vocab, const int32_t *targets,
                                   const float *lse, float scale, float *logits);

    void (*adamw)(uint64_t n, const em_adamw_step_t *step, const float *grad, float *param,
                  float *m, float *v);
    double (*sum_squares)(uint64_t n, const float *x);

    /* Take the update `step`, made with the same grad, back: and, with redo, make it again with
     * right_scale in place of step->grad_scale. Within rounding. */
    void (*adamw_undo)(uint64_t n, const em_adamw_step_t *step, bool redo, float right_scale,
                       const float *grad, float *param, float *m, float *v);
} em_kernels_t;

/* Floats of workspace of the attention kernels. */
EM_API uint64_t em_attention_forward_floats(const em_attention_t *at);
EM_API uint64_t em_attention_backward_floats(const em_attention_t *at);

#ifdef __cplusplus
}
#endif
#endif
