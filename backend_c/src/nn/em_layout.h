/*
 * Where everything lies: the one place that knows the layout of a, w, g, k and the workspaces.
 * docs/reference/memory-layout.md states the same formulas; sim/workload/footprint.py computes
 * them in Python; tests hold the two equal.
 *
 * Shapes as in em_stage.h. Every piece starts at a multiple of 16 floats.
 */
#ifndef EM_LAYOUT_H
#define EM_LAYOUT_H

#include "nn/em_stage.h"

/* Shapes of one pass, in 64 bits; made once per pass by em_dims. */
typedef struct {
    uint64_t tokens; /* T = microbatch * seq / slices */
    uint64_t hidden; /* H */
    uint64_t attn;   /* A */
    uint64_t kv;     /* K */
    uint64_t qkv;    /* Q */
    uint64_t ffn;    /* M */
    uint64_t up;     /* U */
    uint64_t vocab;  /* V */
    uint64_t tile;   /* tokens per tile of the head */
    bool llama;
    bool sliced;
    uint64_t run; /* rows of an item that follow each other in the token buffers too: all of them
                     in one slice, else those of one sequence */
    em_attention_t attention;
} em_dims_t;

/* Place in the microbatch's token buffers of row t of the item. */
static inline uint64_t em_token_at(const em_dims_t *d, uint64_t t)
{
    return d->sliced ? t / d->run * d->attention.seq + d->attention.first + t % d->run : t;
}

/* Shapes of slice `slice` of `slices`; sizes are those of any slice. */
em_dims_t em_dims(const em_model_t *model, uint32_t microbatch, uint32_t seq, uint32_t slices,
                  uint32_t slice);

/* Stash of one layer that I alone reads. */
typedef struct {
    float *rstd1; /* [T] of the norm before attention */
    float *rstd2; /* [T] of the norm before the MLP */
    float *qkv;   /* [T, Q], rotated for Llama; sliced: [T, A], the queries alone */
    float *lse;   /* [heads, T] */
    float *u;     /* [T, U] before the activation */
} em_layer_a_t;

/* Stash of one layer that W reads (and I: xhat, o). */
typedef struct {
    float *xhat1; /* [T, H] normalised input, before gain and bias */
    float *o;     /* [T, A] attention's output */
    float *xhat2; /* [T, H] */
    float *act;   /* [T, M] */
} em_layer_w_t;

/* What I of one layer leaves to W. */
typedef struct {
    float *dqkv;                              /* [T, Q] */
    float *dx1;                               /* [T, H] gradient of the residual after attention */
    float *du;                                /* [T, U] */
    float *dgain1, *dbias1, *dgain2, *dbias2; /* [H] sums over the microbatch; biases GPT-2 only */
} em_layer_g_t;

/* Stash of the head. F itself forms the gradient of the logits while they exist. */
typedef struct {
    float *xhat;          /* [T, H] normalised input of the head */
    float *dy;            /* [T, H] gradient of the last layer's output */
    float *lse;           /* [T] log of the softmax's denominator */
    float *dgain, *dbias; /* [H]; bias GPT-2 only */
} em_head_w_t;

/* Keys and values of a whole microbatch in one layer, for the slices after, and their gradients,
 * for the slices before. Rows are [microbatch, S]; in each all keys, then all values. */
typedef struct {
    float *kv;  /* [microbatch S, 2 K], keys rotated for Llama */
    float *dkv; /* [microbatch S, 2 K] */
} em_layer_k_t;

/* Workspace of the passes; a piece that a pass has no use for is NULL. */
typedef struct {
    float *rotary;    /* [S, head_dim], Llama only; shared by all passes */
    float *residual;  /* [T, H] F of a stage with head: the stream that has no h slot */
    float *n;         /* [T, H] F, W: a norm's output; I: its gradient */
    float *qkv;       /* [T, Q] F, sliced: before keys and values part from the queries */
    float *dact;      /* [T, M] I */
    float *d_o;       /* [T, A] I */
    float *attention; /* F, I */
    float *logits;    /* [tile, V] F, W of the head */
    float *tile_n;    /* [tile, H] F, W of the head */
    float *tile_dn;   /* [tile, H] F of the head */
    float *tile_rstd; /* [tile] F of the head */
    em_layer_g_t g;   /* B: one layer's g */
    float *flow[2];   /* [T, H] B: gradients between layers, in turns */
    uint64_t num_floats;
} em_workspace_t;

/* Pointers into the buffers; with a NULL base the addresses mean nothing, the counts all. */
em_layer_a_t em_layer_a(const em_dims_t *dims, float *a, uint32_t layer);
em_layer_w_t em_layer_w(const em_dims_t *dims, float *w, uint32_t layer);
em_layer_g_t em_layer_g(const em_dims_t *dims, float *g, uint32_t layer);
em_layer_k_t em_layer_k(const em_dims_t *dims, float *k, uint32_t layer);
em_head_w_t em_head_w(const em_stage_t *stage, const em_dims_t *dims, float *w);

/* g's gradient of the output of layer `layer` (all but the last), or, with `layer` =
 * num_layers - 1 in a stage with embedding, of the embedding's output. */
float *em_g_flow(const em_stage_t *stage, const em_dims_t *dims, float *g, uint32_t layer);

uint64_t em_a_floats(const em_stage_t *stage, const em_dims_t *dims);
uint64_t em_w_floats(const em_stage_t *stage, const em_dims_t *dims);
uint64_t em_g_floats(const em_stage_t *stage, const em_dims_t *dims);
uint64_t em_k_floats(const em_stage_t *stage, const em_dims_t *dims);

em_workspace_t em_workspace(const em_stage_t *stage, const em_dims_t *dims, em_pass_kind_t pass,
                            float *base);

/* The pointer table of a stage: five tensors of the stage, then EM_LAYER_POINTERS per layer. */
enum { EM_IX_WTE = 0, EM_IX_WPE, EM_IX_NORM_W, EM_IX_NORM_B, EM_IX_HEAD, EM_IX_LAYERS };
enum {
    EM_LX_NORM1_W = 0,
    EM_LX_NORM1_B,
    EM_LX_Q_W, /* GPT-2: the fused c_attn */
    EM_LX_Q_B,
    EM_LX_K_W,
    EM_LX_V_W,
    EM_LX_O_W,
    EM_LX_O_B,
    EM_LX_NORM2_W,
    EM_LX_NORM2_B,
    EM_LX_GATE_W,
    EM_LX_UP_W, /* GPT-2: c_fc */
    EM_LX_UP_B,
    EM_LX_DOWN_W,
    EM_LX_DOWN_B,
    EM_LAYER_POINTERS
};

#endif
