/* The end of the model: final norm, head, cross-entropy, tile by tile of tokens. */
#ifndef EM_HEAD_H
#define EM_HEAD_H

#include "nn/em_layout.h"

typedef struct {
    const em_kernels_t *k;
    const em_dims_t *d;
    float eps;
    float *const *params;
    float *const *grads;
    const em_workspace_t *ws;
} em_head_ctx_t;

/* Sum of the tokens' losses. Unless `forward_only`, w->dy receives the gradient of the last
 * layer's output and w->dgain, w->dbias the norm's sums, all times `scale`. */
double em_head_f(const em_head_ctx_t *ctx, const float *x, const int32_t *targets, float scale,
                 bool forward_only, const em_head_w_t *w);

/* Gradients of head and norm; the logits are formed again, tile by tile. */
void em_head_w_pass(const em_head_ctx_t *ctx, const int32_t *targets, float scale,
                    const em_head_w_t *w, bool accumulate_head, bool accumulate_norm);

/* Logits of `rows` rows of x (row stride `stride` floats) into logits [rows, V]. */
void em_head_logits(const em_head_ctx_t *ctx, uint64_t rows, const float *x, uint64_t stride,
                    float *logits);

#endif
