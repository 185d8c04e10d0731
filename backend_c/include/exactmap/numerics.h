/*
 * The numerics of one stage behind plain arguments: for tests, for calibration, and for programs
 * in other languages. The engine itself uses src/nn/em_stage.h.
 *
 * A handle holds one stage at one microbatch shape, its parameter tables and its workspace; the
 * caller owns parameters, gradients and microbatch buffers (64-byte aligned, sizes from
 * em_numerics_sizes). A handle serves one thread at a time. Formulas of the sizes:
 * docs/reference/memory-layout.md.
 */
#ifndef EXACTMAP_NUMERICS_H
#define EXACTMAP_NUMERICS_H

#include <stdint.h>

#include "exactmap/error.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_numerics em_numerics_t;

/* All counts in 32 bits, flags 0 or 1: what em_model_t, em_stage_t and a microbatch hold. */
typedef struct {
    uint32_t kind; /* 0 GPT-2, 1 Llama */
    uint32_t layers;
    uint32_t hidden;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t ffn;
    uint32_t vocab;
    uint32_t positions;
    uint32_t tied;
    uint32_t first_layer;
    uint32_t num_layers;
    uint32_t has_embedding;
    uint32_t has_head;
    uint32_t microbatch;
    uint32_t seq;
    uint32_t gemm; /* 0 the best there is, 1 OpenBLAS, 2 portable C */
    float norm_eps;
    float rope_theta;
    uint32_t slices; /* of every sequence; divides seq; 0 is 1 */
} em_numerics_config_t;

typedef struct {
    uint64_t h_bytes;
    uint64_t a_bytes;
    uint64_t w_bytes;
    uint64_t g_bytes;
    uint64_t workspace_bytes[4]; /* F, I, W, B */
    uint64_t workspace_max_bytes;
    uint64_t k_bytes;
    uint64_t stashless_bytes; /* scratch of an F whose stash is made again by a later F ... */
    uint64_t recompute_bytes; /* ... and of that F */
} em_numerics_sizes_t;

typedef struct {
    char name[80];
    uint64_t shape[2];
    uint64_t offset; /* floats */
    uint32_t ndim;
    uint32_t part;
    uint32_t decay;
    float init_std;
} em_numerics_param_t;

/* Buffers of one microbatch, or of one slice of it (tokens, targets and k: of all of it); NULL
 * where a pass needs none. */
typedef struct {
    const int32_t *tokens;
    const int32_t *targets;
    const float *x;
    float *y;
    const float *dy;
    float *dx;
    float *a;
    float *w;
    float *g;
    double *loss_sum;
    float scale;
    uint32_t accumulate;
    uint32_t forward_only;
    uint32_t slice;
    float *k;
} em_numerics_item_t;

EM_API em_status_t em_numerics_open(const em_numerics_config_t *config, em_numerics_t **handle,
                                    em_error_t *err);
EM_API void em_numerics_close(em_numerics_t *handle);

/* "cpu-openblas" or "cpu-portable". */
EM_API const char *em_numerics_kernels_name(const em_numerics_t *handle);

EM_API void em_numerics_sizes(const em_numerics_t *handle, em_numerics_sizes_t *sizes);

/* Tensors of a bucket of the parts `parts`; table NULL asks for the counts alone. */
EM_API em_status_t em_numerics_layout(const em_numerics_t *handle, uint32_t parts,
                                      em_numerics_param_t *table, uint32_t capacity,
                                      uint32_t *num_params, uint64_t *num_floats, em_error_t *err);

/* Use `params` and `grads` (NULL: none) as the bucket of `parts`. */
EM_API em_status_t em_numerics_bind(em_numerics_t *handle, uint32_t parts, float *params,
                                    float *grads, em_error_t *err);

/* A tied head whose weight belongs to another stage. */
EM_API void em_numerics_bind_head(em_numerics_t *handle, float *param, float *grad);

/* Start values of the bucket of `parts`. */
EM_API em_status_t em_numerics_init(const em_numerics_t *handle, uint32_t parts, uint64_t seed,
                                    float *params, em_error_t *err);

/* pass: 0 F, 1 I, 2 W, 3 B. */
EM_API em_status_t em_numerics_pass(const em_numerics_t *handle, uint32_t pass,
                                    const em_numerics_item_t *item, em_error_t *err);

/* Logits of position last_position of each sequence, or of all positions (all_positions 1); of
 * sequences in one slice. */
EM_API em_status_t em_numerics_logits(const em_numerics_t *handle, const em_numerics_item_t *item,
                                      uint32_t all_positions, uint32_t last_position, float *logits,
                                      em_error_t *err);

/* hyper: lr, beta1, beta2, eps, weight_decay, grad_scale. Floats [begin, end) of the bucket. */
EM_API em_status_t em_numerics_adamw(const em_numerics_t *handle, uint32_t parts, uint64_t begin,
                                     uint64_t end, const double hyper[6], uint64_t step,
                                     float *param, const float *grad, float *m, float *v,
                                     em_error_t *err);
EM_API em_status_t em_numerics_sum_squares(const em_numerics_t *handle, uint32_t parts,
                                           uint64_t begin, uint64_t end, const float *grad,
                                           double *sum, em_error_t *err);

#ifdef __cplusplus
}
#endif
#endif
