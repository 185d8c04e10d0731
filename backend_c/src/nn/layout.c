/*
 * Layout of stash, hand-over, keys and values, and workspace. See em_layout.h.
 *
 * Every function lays pieces out with one cursor, so that a piece's place and the total come from
 * the same lines. em_stage_check has bounded the sizes: nothing here can wrap.
 */
#include "nn/em_layout.h"

#include <inttypes.h>
#include <string.h>

#include "common/em_checked.h"

enum { PAD = 16 };

/* A walk through a buffer: NULL base counts only. */
typedef struct {
    float *base;
    uint64_t used;
} cursor_t;

static float *take(cursor_t *cursor, uint64_t num_floats)
{
    float *const piece = cursor->base == NULL ? NULL : cursor->base + cursor->used;
    cursor->used += (num_floats + PAD - 1) / PAD * PAD;
    return piece;
}

em_dims_t em_dims(const em_model_t *model, uint32_t microbatch, uint32_t seq, uint32_t slices,
                  uint32_t slice)
{
    em_dims_t d;
    memset(&d, 0, sizeof d);
    d.sliced = slices > 1;
    const uint32_t rows = d.sliced ? seq / slices : seq;
    d.tokens = (uint64_t)microbatch * rows;
    d.run = d.sliced ? rows : d.tokens;
    d.hidden = model->hidden;
    d.attn = (uint64_t)model->heads * model->head_dim;
    d.kv = (uint64_t)model->kv_heads * model->head_dim;
    d.qkv = d.attn + 2 * d.kv;
    d.ffn = model->ffn;
    d.llama = model->kind == EM_MODEL_LLAMA;
    d.up = d.llama ? 2 * d.ffn : d.ffn;
    d.vocab = model->vocab;
    d.tile = d.tokens < EM_HEAD_TILE ? d.tokens : EM_HEAD_TILE;
    d.attention = (em_attention_t){.batch = microbatch,
                                   .seq = seq,
                                   .first = slice * rows,
                                   .rows = rows,
                                   .heads = model->heads,
                                   .kv_heads = model->kv_heads,
                                   .head_dim = model->head_dim,
                                   .ld_q = d.sliced ? d.attn : d.qkv,
                                   .ld_kv = d.sliced ? 2 * d.kv : d.qkv,
                                   .ld_dq = d.qkv,
                                   .ld_dkv = d.sliced ? 2 * d.kv : d.qkv};
    return d;
}

static em_layer_a_t take_layer_a(cursor_t *c, const em_dims_t *d)
{
    em_layer_a_t a;
    a.rstd1 = take(c, d->tokens);
    a.rstd2 = take(c, d->tokens);
    a.qkv = take(c, d->tokens * (d->sliced ? d->attn : d->qkv));
    a.lse = take(c, d->tokens * d->attention.heads);
    a.u = take(c, d->tokens * d->up);
    return a;
}

static em_layer_w_t take_layer_w(cursor_t *c, const em_dims_t *d)
{
    em_layer_w_t w;
    w.xhat1 = take(c, d->tokens * d->hidden);
    w.o = take(c, d->tokens * d->attn);
    w.xhat2 = take(c, d->tokens * d->hidden);
    w.act = take(c, d->tokens * d->ffn);
    return w;
}

static em_layer_g_t take_layer_g(cursor_t *c, const em_dims_t *d)
{
    em_layer_g_t g;
    memset(&g, 0, sizeof g);
    g.dqkv = take(c, d->tokens * d->qkv);
    g.dx1 = take(c, d->tokens * d->hidden);
    g.du = take(c, d->tokens * d->up);
    g.dgain1 = take(c, d->hidden);
    g.dgain2 = take(c, d->hidden);
    if (!d->llama) {
        g.dbias1 = take(c, d->hidden);
        g.dbias2 = take(c, d->hidden);
    }
    return g;
}

static em_layer_k_t take_layer_k(cursor_t *c, const em_dims_t *d)
{
    const uint64_t num = (uint64_t)d->attention.batch * d->attention.seq * 2 * d->kv;
    em_layer_k_t k;
    k.kv = take(c, num);
    k.dkv = take(c, num);
    return k;
}

static em_head_w_t take_head_w(cursor_t *c, const em_dims_t *d)
{
    em_head_w_t w;
    memset(&w, 0, sizeof w);
    w.xhat = take(c, d->tokens * d->hidden);
    w.dy = take(c, d->tokens * d->hidden);
    w.lse = take(c, d->tokens);
    w.dgain = take(c, d->hidden);
    if (!d->llama) {
        w.dbias = take(c, d->hidden);
    }
    return w;
}

static uint64_t layer_a_floats(const em_dims_t *d)
{
    cursor_t c = {NULL, 0};
    (void)take_layer_a(&c, d);
    return c.used;
}

static uint64_t layer_w_floats(const em_dims_t *d)
{
    cursor_t c = {NULL, 0};
    (void)take_layer_w(&c, d);
    return c.used;
}

static uint64_t layer_g_floats(const em_dims_t *d)
{
    cursor_t c = {NULL, 0};
    (void)take_layer_g(&c, d);
    return c.used;
}

static uint64_t layer_k_floats(const em_dims_t *d)
{
    cursor_t c = {NULL, 0};
    (void)take_layer_k(&c, d);
    return c.used;
}

em_layer_a_t em_layer_a(const em_dims_t *dims, float *a, uint32_t layer)
{
    cursor_t c = {a, layer * layer_a_floats(dims)};
    return take_layer_a(&c, dims);
}

em_layer_w_t em_layer_w(const em_dims_t *dims, float *w, uint32_t layer)
{
    cursor_t c = {w, layer * layer_w_floats(dims)};
    return take_layer_w(&c, dims);
}

em_layer_g_t em_layer_g(const em_dims_t *dims, float *g, uint32_t layer)
{
    cursor_t c = {g, layer * layer_g_floats(dims)};
    return take_layer_g(&c, dims);
}

em_layer_k_t em_layer_k(const em_dims_t *dims, float *k, uint32_t layer)
{
    cursor_t c = {k, layer * layer_k_floats(dims)};
    return take_layer_k(&c, dims);
}

em_head_w_t em_head_w(const em_stage_t *stage, const em_dims_t *dims, float *w)
{
    cursor_t c = {w, stage->num_layers * layer_w_floats(dims)};
    return take_head_w(&c, dims);
}

float *em_g_flow(const em_stage_t *stage, const em_dims_t *dims, float *g, uint32_t layer)
{
    cursor_t c = {g, stage->num_layers * layer_g_floats(dims)};
    for (uint32_t i = 0; i < layer; ++i) {
        (void)take(&c, dims->tokens * dims->hidden);
    }
    return take(&c, dims->tokens * dims->hidden);
}

uint64_t em_a_floats(const em_stage_t *stage, const em_dims_t *dims)
{
    return stage->num_layers * layer_a_floats(dims);
}

uint64_t em_w_floats(const em_stage_t *stage, const em_dims_t *dims)
{
    cursor_t c = {NULL, stage->num_layers * layer_w_floats(dims)};
    if (stage->has_head) {
        (void)take_head_w(&c, dims);
    }
    return c.used;
}

uint64_t em_g_floats(const em_stage_t *stage, const em_dims_t *dims)
{
    cursor_t c = {NULL, stage->num_layers * layer_g_floats(dims)};
    const uint32_t num_flows =
        stage->num_layers == 0 ? 0 : stage->num_layers - (stage->has_embedding ? 0u : 1u);
    for (uint32_t i = 0; i < num_flows; ++i) {
        (void)take(&c, dims->tokens * dims->hidden);
    }
    return c.used;
}

uint64_t em_k_floats(const em_stage_t *stage, const em_dims_t *dims)
{
    return dims->sliced ? stage->num_layers * layer_k_floats(dims) : 0;
}

/* The head works on one tile at a time, after the layers: in their place. */
static void take_head_tile(cursor_t *c, const em_dims_t *d, em_pass_kind_t pass, em_workspace_t *ws)
{
    ws->logits = take(c, d->tile * d->vocab);
    ws->tile_n = take(c, d->tile * d->hidden);
    if (pass == EM_PASS_F) {
        ws->tile_dn = take(c, d->tile * d->hidden);
        ws->tile_rstd = take(c, d->tile);
    }
}

static void take_layer_scratch(cursor_t *c, const em_dims_t *d, em_pass_kind_t pass,
                               em_workspace_t *ws)
{
    ws->n = take(c, d->tokens * d->hidden);
    if (pass == EM_PASS_F) {
        ws->attention = take(c, em_attention_forward_floats(&d->attention));
        if (d->sliced) {
            ws->qkv = take(c, d->tokens * d->qkv);
        }
    }
    if (pass == EM_PASS_I || pass == EM_PASS_B) {
        ws->dact = take(c, d->tokens * d->ffn);
        ws->d_o = take(c, d->tokens * d->attn);
        ws->attention = take(c, em_attention_backward_floats(&d->attention));
    }
}

em_workspace_t em_workspace(const em_stage_t *stage, const em_dims_t *dims, em_pass_kind_t pass,
                            float *base)
{
    em_workspace_t ws;
    memset(&ws, 0, sizeof ws);
    cursor_t c = {base, 0};
    if (dims->llama) {
        ws.rotary = take(&c, (uint64_t)dims->attention.seq * dims->attention.head_dim);
    }
    if (pass == EM_PASS_F && stage->has_head) {
        ws.residual = take(&c, dims->tokens * dims->hidden);
    }
    if (pass == EM_PASS_B && stage->num_layers > 0) {
        ws.g = take_layer_g(&c, dims);
        ws.flow[0] = take(&c, dims->tokens * dims->hidden);
        ws.flow[1] = take(&c, dims->tokens * dims->hidden);
    }
    cursor_t head = c;
    if (stage->num_layers > 0) {
        take_layer_scratch(&c, dims, pass, &ws);
    }
    if (stage->has_head && pass != EM_PASS_I) {
        take_head_tile(&head, dims, pass, &ws);
    }
    ws.num_floats = c.used > head.used ? c.used : head.used;
    return ws;
}

em_status_t em_stage_sizes(const em_stage_t *stage, uint32_t microbatch, uint32_t seq,
                           em_stage_sizes_t *sizes, em_error_t *err)
{
    return em_stage_slice_sizes(stage, microbatch, seq, 1, sizes, err);
}

em_status_t em_stage_slice_sizes(const em_stage_t *stage, uint32_t microbatch, uint32_t seq,
                                 uint32_t slices, em_stage_sizes_t *sizes, em_error_t *err)
{
    EM_RETURN_IF_ERROR(em_stage_check(stage, err));
    const em_model_t *const m = &stage->model;
    EM_RETURN_ERROR_IF(microbatch == 0, err, EM_ERR_FIELD,
                       "microbatch: got 0, expected at least 1");
    EM_RETURN_ERROR_IF(seq == 0 || seq > m->positions, err, EM_ERR_FIELD,
                       "sequence: got %" PRIu32 " tokens, expected 1 to %" PRIu32
                       " (positions of the model)",
                       seq, m->positions);
    EM_RETURN_ERROR_IF(slices == 0 || seq % slices != 0, err, EM_ERR_FIELD,
                       "slices: got %" PRIu32 ", expected a divisor of seq %" PRIu32, slices, seq);
    const uint64_t tokens = (uint64_t)microbatch * seq;
    /* The widest row of any buffer, times a generous count of buffers per layer, times layers. */
    const em_dims_t dims = em_dims(m, microbatch, seq, slices, 0);
    const uint64_t row = 4 * (dims.hidden + dims.qkv + dims.up + dims.vocab);
    uint64_t total = 0;
    EM_RETURN_ERROR_IF(tokens > UINT32_MAX || !em_mul_u64(tokens, row, &total) ||
                           !em_mul_u64(total, (uint64_t)stage->num_layers + 4, &total) ||
                           total > (uint64_t)1 << 56,
                       err, EM_ERR_OVERFLOW,
                       "a microbatch of %" PRIu32 " x %" PRIu32 " tokens is too large to count",
                       microbatch, seq);
    memset(sizes, 0, sizeof *sizes);
    sizes->h_bytes = (dims.tokens * dims.hidden + PAD - 1) / PAD * PAD * sizeof(float);
    sizes->a_bytes = em_a_floats(stage, &dims) * sizeof(float);
    sizes->w_bytes = em_w_floats(stage, &dims) * sizeof(float);
    sizes->g_bytes = em_g_floats(stage, &dims) * sizeof(float);
    sizes->k_bytes = em_k_floats(stage, &dims) * sizeof(float);
    for (int pass = 0; pass < EM_NUM_PASSES; ++pass) {
        const uint64_t bytes =
            em_workspace(stage, &dims, (em_pass_kind_t)pass, NULL).num_floats * sizeof(float);
        sizes->workspace_bytes[pass] = bytes;
        if (bytes > sizes->workspace_max_bytes) {
            sizes->workspace_max_bytes = bytes;
        }
    }
    return EM_OK;
}
