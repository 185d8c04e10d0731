/* One transformer layer: its forward, input-gradient and weight-gradient passes. */
#ifndef EM_LAYER_H
#define EM_LAYER_H

#include "nn/em_layout.h"

/* What the layer passes of one stage pass share. */
typedef struct {
    const em_kernels_t *k;
    const em_dims_t *d;
    float eps;
    float *const *params; /* of this layer: EM_LX_ */
    float *const *grads;
    const em_workspace_t *ws;
    em_layer_k_t kv; /* sliced: keys, values and their gradients, of this layer */
    bool last_slice; /* whose I comes first: it writes gradients that the others add to */
} em_layer_ctx_t;

/* y = layer(x); y may be x. */
void em_layer_f(const em_layer_ctx_t *ctx, const float *x, float *y, const em_layer_a_t *a,
                const em_layer_w_t *w);
/* dx from dy; dx may not be dy. */
void em_layer_i(const em_layer_ctx_t *ctx, const float *dy, float *dx, const em_layer_a_t *a,
                const em_layer_w_t *w, const em_layer_g_t *g);
/* Weight gradients, written or added to. */
void em_layer_w_pass(const em_layer_ctx_t *ctx, const float *dy, const em_layer_w_t *w,
                     const em_layer_g_t *g, bool accumulate);

#endif
