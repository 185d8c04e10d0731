/*
 * A decoder-only transformer, cut into pipeline stages: sizes, parameters, and the passes
 * F (forward), I (input gradient), W (weight gradient) and B (I and W fused) of one item: a
 * microbatch, or a slice of one.
 *
 * Slices (Li et al., TeraPipe, arXiv:2102.07988; Sun et al., Seq1F1B, arXiv:2406.03488): every
 * sequence of a microbatch is cut into `slices` equal runs of tokens, and item s holds run s of
 * each sequence. F runs the slices of a microbatch in ascending order, I and B in descending order,
 * for attention reads the keys and values of the slices before; those, and their gradients, wait
 * in the microbatch's k slot. One slice needs no k slot and is the plain microbatch, bit by bit.
 *
 * Shapes: T = microbatch * seq / slices tokens of an item; S = seq; H hidden; A = heads * head_dim;
 * K = kv_heads * head_dim; Q = A + 2 K (fused q, k, v); M = ffn; U = M (GPT-2) or 2 M (Llama: gate
 * and up); V vocab. All tensors are float32, row-major. What a, w, g and k hold:
 * docs/reference/memory-layout.md.
 *
 * Rules: nothing here allocates, prints or keeps state; the caller owns every byte and gives a
 * workspace. Results depend on the inputs and the kernel table alone: B equals I then W bit by
 * bit, and a model cut into several stages equals the whole one bit by bit.
 *
 * Typical use, per rank thread:
 *     em_stage_check, em_stage_sizes                  at load
 *     em_stage_layout per bucket, em_stage_bind       at load (parameters, then gradients)
 *     em_workspace_prepare                            at load, once per workspace
 *     em_params_init                                  at load, or read a checkpoint
 *     em_stage_f, em_stage_i, em_stage_w, em_stage_b  in the step
 *     em_bucket_sum_squares, em_bucket_adamw          at the step's end
 */
#ifndef EM_STAGE_H
#define EM_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "exactmap/error.h"
#include "nn/em_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the model and a stage of it ------------------------------------------------------- */

typedef enum {
    EM_MODEL_GPT2 = 0, /* LayerNorm, GELU (tanh), learned positions, biases, fused qkv */
    EM_MODEL_LLAMA = 1 /* RMSNorm, SwiGLU, rotary positions, grouped-query attention, no bias */
} em_model_kind_t;

typedef struct {
    em_model_kind_t kind;
    uint32_t layers;
    uint32_t hidden;
    uint32_t heads;
    uint32_t kv_heads; /* divides heads; equals heads without grouped queries */
    uint32_t head_dim; /* even for Llama; heads * head_dim may differ from hidden */
    uint32_t ffn;      /* inner size of the MLP */
    uint32_t vocab;
    uint32_t positions; /* longest sequence; rows of wpe for GPT-2 */
    float norm_eps;
    float rope_theta; /* Llama only */
    bool tied;        /* the head uses the embedding's weight */
} em_model_t;

typedef struct {
    em_model_t model;
    uint32_t first_layer; /* the stage runs layers first_layer .. first_layer + num_layers - 1 */
    uint32_t num_layers;  /* may be 0 in a stage of embedding or head alone */
    bool has_embedding;
    bool has_head; /* final norm, head and loss */
} em_stage_t;

/* Check model and stage: ranges, divisibility, sizes that fit. */
EM_API em_status_t em_stage_check(const em_stage_t *stage, em_error_t *err);

/* ---- sizes ----------------------------------------------------------------------------- */

typedef enum { EM_PASS_F = 0, EM_PASS_I, EM_PASS_W, EM_PASS_B, EM_NUM_PASSES } em_pass_kind_t;

/* Bytes of one item's buffers; each a multiple of 64, each buffer 64-byte aligned. */
typedef struct {
    uint64_t h_bytes;                        /* x, y, dx or dy: [T, H] */
    uint64_t a_bytes;                        /* stash that I alone reads */
    uint64_t w_bytes;                        /* stash that W (and I) reads */
    uint64_t g_bytes;                        /* what I leaves to W */
    uint64_t k_bytes;                        /* keys, values, their gradients: of a whole
                                                microbatch, all layers; 0 with one slice */
    uint64_t workspace_bytes[EM_NUM_PASSES]; /* scratch of F, I, W, B, incl. the rotary table */
    uint64_t workspace_max_bytes;            /* the largest of them */
} em_stage_sizes_t;

/* Sizes of a microbatch in one slice. */
EM_API em_status_t em_stage_sizes(const em_stage_t *stage, uint32_t microbatch, uint32_t seq,
                                  em_stage_sizes_t *sizes, em_error_t *err);

/* Sizes of an item of seq / slices tokens of each sequence; slices divides seq. */
EM_API em_status_t em_stage_slice_sizes(const em_stage_t *stage, uint32_t microbatch, uint32_t seq,
                                        uint32_t slices, em_stage_sizes_t *sizes, em_error_t *err);

/* Scratch of an F whose stash is thrown away, to be made again: its own workspace, then a, then w.
 * Such an F may run with forward_only: the stash of the head that RC makes has the gradient. */
static inline uint64_t em_stage_stashless_bytes(const em_stage_sizes_t *sizes)
{
    return sizes->workspace_bytes[EM_PASS_F] + sizes->a_bytes + sizes->w_bytes;
}

/* Scratch of RC, which is F once more into a new stash: its own workspace, then the y (or, in a
 * stage with head, the loss) that nobody reads. */
static inline uint64_t em_stage_recompute_bytes(const em_stage_sizes_t *sizes)
{
    return sizes->workspace_bytes[EM_PASS_F] + sizes->h_bytes;
}

/* An item's stash away from the device: a, then w. */
static inline uint64_t em_stage_offload_bytes(const em_stage_sizes_t *sizes)
{
    return sizes->a_bytes + sizes->w_bytes;
}

/* ---- parameters ------------------------------------------------------------------------ */

/* Parts of a stage that a bucket of the plan may hold; a list of parts is a mask. Whatever the
 * order in which the plan names them, the layout follows this order. */
enum {
    EM_PART_WTE = 1u << 0,    /* token embedding (has_embedding) */
    EM_PART_WPE = 1u << 1,    /* learned positions (has_embedding, GPT-2; else empty) */
    EM_PART_LAYERS = 1u << 2, /* the stage's layers */
    EM_PART_NORM = 1u << 3,   /* final norm (has_head) */
    EM_PART_HEAD = 1u << 4,   /* head weight (has_head); empty if tied and has_embedding too;
                                 a copy of wte, under its name, if tied and wte is elsewhere */
    EM_PART_ALL = (1u << 5) - 1
};

/* "wte", "wpe", "layers", "norm", "head" -> bit; 0 if unknown (`len` characters of `name`). */
EM_API uint32_t em_part_from_name(const char *name, size_t len);

typedef enum { EM_INIT_NORMAL = 0, EM_INIT_ZEROS, EM_INIT_ONES } em_init_t;

enum { EM_PARAM_NAME = 80 };

/* One tensor of a bucket. Names and layouts are Hugging Face's: GPT-2 matrices are [in, out],
 * Llama matrices are [out, in]. */
typedef struct {
    char name[EM_PARAM_NAME];
    uint64_t shape[2]; /* shape[1] is 1 if ndim is 1 */
    uint64_t num_elements;
    uint64_t offset; /* floats from the start of the bucket; a multiple of 16 */
    uint32_t ndim;
    uint32_t part;  /* one EM_PART_ bit */
    uint32_t index; /* place in the pointer table of the stage, see em_stage_bind */
    em_init_t init;
    float init_std; /* EM_INIT_NORMAL */
    bool decay;     /* weight decay applies (matrices only) */
} em_param_t;

/* Lay out the tensors of `parts` in one bucket. `table` (capacity entries) may be NULL to ask
 * for the counts alone. *num_floats includes the padding after each tensor, so it is a multiple
 * of 16. Padding is zero and stays zero (em_params_init sets it; gradients must start zeroed). */
EM_API em_status_t em_stage_layout(const em_stage_t *stage, uint32_t parts, em_param_t *table,
                                   uint32_t capacity, uint32_t *num_params, uint64_t *num_floats,
                                   em_error_t *err);

/* Length of the pointer tables (em_stage_ctx_t params and grads) of a stage. */
EM_API uint32_t em_stage_num_pointers(const em_stage_t *stage);

/* pointers[table[i].index] = base + table[i].offset for each tensor of one bucket. Call once per
 * bucket, for parameters and for gradients; the pointer tables start zeroed. If the model is tied
 * and the stage has embedding and head, the head's pointer follows the embedding's. */
EM_API void em_stage_bind(const em_stage_t *stage, const em_param_t *table, uint32_t num_params,
                          float *base, float **pointers);

/* Tied head whose weight lives in another stage of this rank: bind it to that tensor. */
EM_API void em_stage_bind_head(float *head, float **pointers);

/* Pointer of wte in a bound table (NULL where the stage has none): for em_stage_bind_head. */
EM_API float *em_stage_wte(float *const *pointers);

/* True if every tensor that the stage needs is bound; else err names the first that is not. */
EM_API em_status_t em_stage_check_bound(const em_stage_t *stage, float *const *pointers,
                                        em_error_t *err);

/* Deterministic start values of one bucket, from (seed, tensor name) alone: they do not depend on
 * the partition. Matrices normal(0, 0.02), residual projections 0.02 / sqrt(2 layers), norm gains
 * 1, biases 0, padding 0. */
EM_API void em_params_init(const em_param_t *table, uint32_t num_params, uint64_t seed,
                           uint64_t num_floats, float *base);

/* ---- passes ---------------------------------------------------------------------------- */

enum { EM_TARGET_IGNORE = -1 }; /* a target that adds neither loss nor gradient */

/* What stays the same for all microbatches of a stage on one rank. */
typedef struct {
    const em_stage_t *stage;
    const em_kernels_t *kernels;
    uint32_t microbatch; /* sequences */
    uint32_t seq;        /* tokens of a whole sequence */
    float *const *params;
    float *const *grads; /* W and B only */
    float *workspace;    /* at least the pass's workspace_bytes, prepared, 64-byte aligned */
    uint32_t slices;     /* of every sequence; divides seq; 0 is 1 */
} em_stage_ctx_t;

/* The buffers of one item. NULL where the pass or the stage has no use for one:
 *   F  reads tokens (has_embedding) or x, targets (has_head); writes y (not has_head), a, w and
 *      *loss_sum (has_head: sum over tokens of the cross-entropy, in double, written not added)
 *   I  reads dy (not has_head), a, w; writes dx (not has_embedding), g
 *   W  reads tokens (has_embedding), targets (has_head), w, g, dy (not has_head); writes grads
 *   B  reads what I and W read but g; writes dx (not has_embedding), grads
 * With several slices, of slice s:
 *   F  reads k's keys and values of slices 0 .. s-1 and writes those of slice s
 *   I, B  read k's keys and values of slices 0 .. s and add to their gradients; the last slice,
 *      which comes first, writes the gradients of all slices instead
 * tokens and targets are then still those of the whole microbatch; all else is the item's own. F
 * run again (RC) writes the same bits to k, at any time while the slot lives.
 * x must stay alive until W (the plan says so); this version does not read it after F. */
typedef struct {
    const int32_t *tokens;  /* [microbatch, S] */
    const int32_t *targets; /* [microbatch, S], EM_TARGET_IGNORE allowed */
    const float *x;         /* [T, H] */
    float *y;               /* [T, H]; may not alias x */
    const float *dy;        /* [T, H] */
    float *dx;              /* [T, H]; may not alias dy */
    float *a;
    float *w;
    float *g;
    double *loss_sum;
    float scale;         /* gradient of the loss w.r.t. each token's loss: 1 / tokens per step;
                            the same in F, W and B of an item (has_head) */
    uint32_t accumulate; /* W, B: mask of EM_PART_ whose gradients are added to; the others are
                            written. A tied head's gradient belongs to the part that holds it: to
                            EM_PART_WTE if the stage has the embedding, else to EM_PART_HEAD */
    bool forward_only;   /* F: y or loss alone (validation); a and w are scratch afterwards */
    uint32_t slice;      /* 0 .. slices - 1 */
    float *k;            /* k_bytes of this microbatch; F, I, B of a stage with layers */
} em_item_t;

/* Put what all passes of a rank share (the rotary table, nothing for GPT-2) at the start of the
 * workspace; seq is the whole sequence, whatever the slices. Once after the workspace is made;
 * stages of one model may share a workspace. */
EM_API void em_workspace_prepare(const em_stage_t *stage, uint32_t seq, float *workspace);

/* Passes of one item. EM_ERR_DATA: a token or target out of range (nothing else fails). */
EM_API em_status_t em_stage_f(const em_stage_ctx_t *ctx, const em_item_t *item);
EM_API em_status_t em_stage_i(const em_stage_ctx_t *ctx, const em_item_t *item);
EM_API em_status_t em_stage_w(const em_stage_ctx_t *ctx, const em_item_t *item);
EM_API em_status_t em_stage_b(const em_stage_ctx_t *ctx, const em_item_t *item);

/* Forward of a stage with a head, giving logits instead of a loss; one slice. all_positions:
 * logits is [T, V], else [microbatch, V] of position last_position of each sequence. Uses
 * item->tokens or x, a and w as F does. A shorter prefix: set ctx->seq to its length and prepare
 * the workspace again whenever the length changes (the rotary table's place and size follow it). */
EM_API em_status_t em_stage_logits(const em_stage_ctx_t *ctx, const em_item_t *item,
                                   bool all_positions, uint32_t last_position, float *logits);

/* ---- optimizer ------------------------------------------------------------------------- */

typedef struct {
    double lr;
    double beta1;
    double beta2;
    double eps;
    double weight_decay; /* decoupled; on tensors with decay alone */
    double grad_scale;   /* gradients are multiplied by it first: the clip factor */
    uint64_t step;       /* 1 for the first update (bias correction) */
} em_adamw_t;

/* AdamW on floats [begin, end) of a bucket (multiples of 16; a shard or the whole). The pointers
 * are those of float `begin`. */
EM_API void em_bucket_adamw(const em_kernels_t *kernels, const em_param_t *table,
                            uint32_t num_params, uint64_t begin, uint64_t end,
                            const em_adamw_t *adamw, float *param, const float *grad, float *m,
                            float *v);

/* Take em_bucket_adamw with `done` and the same gradients back: weights and moments are what they
 * were, within rounding; with `redo` that update made with right_scale as its grad_scale instead.
 */
EM_API void em_bucket_adamw_undo(const em_kernels_t *kernels, const em_param_t *table,
                                 uint32_t num_params, uint64_t begin, uint64_t end,
                                 const em_adamw_t *done, bool redo, double right_scale,
                                 float *param, const float *grad, float *m, float *v);

/* Sum of squares, in double, of the gradients [begin, end) of a bucket, tensor after tensor;
 * the pointer is that of float `begin`. */
EM_API double em_bucket_sum_squares(const em_kernels_t *kernels, const em_param_t *table,
                                    uint32_t num_params, uint64_t begin, uint64_t end,
                                    const float *grad);

#ifdef __cplusplus
}
#endif
#endif
