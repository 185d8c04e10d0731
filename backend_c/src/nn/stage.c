/*
 * The passes of a stage: which buffer each layer's gradient comes from and goes to. I, W and B
 * run the same layer functions on the same numbers; they differ in where g and the gradients
 * between layers live (g for I and W, the workspace for B), so their results are equal bit by bit.
 */
#include <math.h>
#include <string.h>

#include "nn/em_head.h"
#include "nn/em_layer.h"

static em_dims_t item_dims(const em_stage_ctx_t *ctx, const em_item_t *item)
{
    return em_dims(&ctx->stage->model, ctx->microbatch, ctx->seq, ctx->slices, item->slice);
}

static em_layer_ctx_t layer_ctx(const em_stage_ctx_t *ctx, const em_item_t *item,
                                const em_dims_t *d, const em_workspace_t *ws, uint32_t layer)
{
    const uint32_t base = EM_IX_LAYERS + layer * EM_LAYER_POINTERS;
    const em_layer_ctx_t out = {ctx->kernels,
                                d,
                                ctx->stage->model.norm_eps,
                                ctx->params + base,
                                ctx->grads == NULL ? NULL : ctx->grads + base,
                                ws,
                                em_layer_k(d, item->k, layer),
                                d->attention.first + d->attention.rows == d->attention.seq};
    return out;
}

static em_head_ctx_t head_ctx(const em_stage_ctx_t *ctx, const em_dims_t *d,
                              const em_workspace_t *ws)
{
    const em_head_ctx_t out = {ctx->kernels, d,          ctx->stage->model.norm_eps,
                               ctx->params,  ctx->grads, ws};
    return out;
}

void em_workspace_prepare(const em_stage_t *stage, uint32_t seq, float *workspace)
{
    if (stage->model.kind != EM_MODEL_LLAMA) {
        return;
    }
    const uint32_t half = stage->model.head_dim / 2;
    for (uint32_t position = 0; position < seq; ++position) {
        float *const row = workspace + (uint64_t)position * stage->model.head_dim;
        for (uint32_t i = 0; i < half; ++i) {
            const double exponent = 2.0 * i / stage->model.head_dim;
            const double angle = position * pow((double)stage->model.rope_theta, -exponent);
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
}

static bool tokens_valid(const int32_t *tokens, uint64_t num, uint32_t vocab, int32_t lowest)
{
    for (uint64_t i = 0; i < num; ++i) {
        if (tokens[i] < lowest || tokens[i] >= (int32_t)vocab) {
            return false;
        }
    }
    return true;
}

static em_status_t check_tokens(const em_stage_t *stage, const em_item_t *item, const em_dims_t *d,
                                bool with_targets)
{
    const uint32_t vocab = stage->model.vocab;
    for (uint64_t t = 0; t < d->tokens; t += d->run) {
        const uint64_t at = em_token_at(d, t);
        if ((stage->has_embedding && !tokens_valid(item->tokens + at, d->run, vocab, 0)) ||
            (with_targets && !tokens_valid(item->targets + at, d->run, vocab, EM_TARGET_IGNORE))) {
            return EM_ERR_DATA;
        }
    }
    return EM_OK;
}

/* x = embedding of the item's tokens at their positions. */
static void embed(const em_stage_ctx_t *ctx, const em_item_t *item, const em_dims_t *d, float *x)
{
    const float *const wpe = ctx->params[EM_IX_WPE];
    const uint64_t first = d->attention.first * d->hidden;
    for (uint64_t t = 0; t < d->tokens; t += d->run) {
        ctx->kernels->embed_forward(d->run, d->hidden, d->attention.rows,
                                    item->tokens + em_token_at(d, t), ctx->params[EM_IX_WTE],
                                    wpe == NULL ? NULL : wpe + first, x + t * d->hidden);
    }
}

/* Embedding and layers; returns the stream that leaves the last layer. */
static const float *forward_layers(const em_stage_ctx_t *ctx, const em_item_t *item,
                                   const em_dims_t *d, const em_workspace_t *ws)
{
    const em_stage_t *const stage = ctx->stage;
    float *const stream = stage->has_head ? ws->residual : item->y;
    const float *x = item->x;
    if (stage->has_embedding) {
        embed(ctx, item, d, stream);
        x = stream;
    }
    for (uint32_t layer = 0; layer < stage->num_layers; ++layer) {
        const em_layer_ctx_t lc = layer_ctx(ctx, item, d, ws, layer);
        const em_layer_a_t a = em_layer_a(d, item->a, layer);
        const em_layer_w_t w = em_layer_w(d, item->w, layer);
        em_layer_f(&lc, x, stream, &a, &w);
        x = stream;
    }
    return x;
}

em_status_t em_stage_f(const em_stage_ctx_t *ctx, const em_item_t *item)
{
    const em_stage_t *const stage = ctx->stage;
    const em_dims_t d = item_dims(ctx, item);
    const em_workspace_t ws = em_workspace(stage, &d, EM_PASS_F, ctx->workspace);
    EM_RETURN_IF_ERROR(check_tokens(stage, item, &d, stage->has_head));
    const float *const x = forward_layers(ctx, item, &d, &ws);
    if (stage->has_head) {
        const em_head_ctx_t hc = head_ctx(ctx, &d, &ws);
        const em_head_w_t w = em_head_w(stage, &d, item->w);
        *item->loss_sum = em_head_f(&hc, x, item->targets, item->scale, item->forward_only, &w);
    }
    return EM_OK;
}

/* Where the gradient of the last layer's output is. */
static const float *last_dy(const em_stage_ctx_t *ctx, const em_item_t *item, const em_dims_t *d)
{
    return ctx->stage->has_head ? em_head_w(ctx->stage, d, item->w).dy : item->dy;
}

/* A stage without layers hands the gradient on. */
static void pass_through(const em_stage_ctx_t *ctx, const em_item_t *item, const em_dims_t *d)
{
    if (ctx->stage->num_layers == 0 && !ctx->stage->has_embedding) {
        memcpy(item->dx, last_dy(ctx, item, d), (size_t)(d->tokens * d->hidden) * sizeof(float));
    }
}

em_status_t em_stage_i(const em_stage_ctx_t *ctx, const em_item_t *item)
{
    const em_stage_t *const stage = ctx->stage;
    const em_dims_t d = item_dims(ctx, item);
    const em_workspace_t ws = em_workspace(stage, &d, EM_PASS_I, ctx->workspace);
    const float *dy = last_dy(ctx, item, &d);
    for (uint32_t layer = stage->num_layers; layer-- > 0;) {
        const em_layer_ctx_t lc = layer_ctx(ctx, item, &d, &ws, layer);
        const em_layer_a_t a = em_layer_a(&d, item->a, layer);
        const em_layer_w_t w = em_layer_w(&d, item->w, layer);
        const em_layer_g_t g = em_layer_g(&d, item->g, layer);
        float *dx = item->dx;
        if (layer > 0) {
            dx = em_g_flow(stage, &d, item->g, layer - 1);
        } else if (stage->has_embedding) {
            dx = em_g_flow(stage, &d, item->g, stage->num_layers - 1);
        }
        em_layer_i(&lc, dy, dx, &a, &w, &g);
        dy = dx;
    }
    pass_through(ctx, item, &d);
    return EM_OK;
}

/* The head's part of W or B; first, so that a tied head's product is what the embedding adds to. */
static void head_weights(const em_stage_ctx_t *ctx, const em_item_t *item, const em_dims_t *d,
                         const em_workspace_t *ws)
{
    const em_stage_t *const stage = ctx->stage;
    if (stage->has_head) {
        const bool tied_here = stage->model.tied && stage->has_embedding;
        const uint32_t part = tied_here ? EM_PART_WTE : EM_PART_HEAD;
        const em_head_ctx_t hc = head_ctx(ctx, d, ws);
        const em_head_w_t w = em_head_w(stage, d, item->w);
        em_head_w_pass(&hc, item->targets, item->scale, &w, (item->accumulate & part) != 0,
                       (item->accumulate & EM_PART_NORM) != 0);
    }
}

static void zero_floats(float *x, uint64_t num)
{
    memset(x, 0, (size_t)num * sizeof *x);
}

/* The embedding's part of W or B; dx is the gradient of the embedding's output. */
static void embedding_weights(const em_stage_ctx_t *ctx, const em_item_t *item, const em_dims_t *d,
                              const float *dx)
{
    const em_stage_t *const stage = ctx->stage;
    const em_model_t *const m = &stage->model;
    if (!stage->has_embedding) {
        return;
    }
    float *const dwte = ctx->grads[EM_IX_WTE];
    float *const dwpe = ctx->grads[EM_IX_WPE];
    const bool head_wrote = m->tied && stage->has_head;
    if ((item->accumulate & EM_PART_WTE) == 0 && !head_wrote) {
        zero_floats(dwte, (uint64_t)m->vocab * m->hidden);
    }
    if (dwpe != NULL && (item->accumulate & EM_PART_WPE) == 0) {
        zero_floats(dwpe, (uint64_t)m->positions * m->hidden);
    }
    const uint64_t first = d->attention.first * d->hidden;
    for (uint64_t t = 0; t < d->tokens; t += d->run) {
        ctx->kernels->embed_backward(d->run, d->hidden, d->attention.rows,
                                     item->tokens + em_token_at(d, t), dx + t * d->hidden, dwte,
                                     dwpe == NULL ? NULL : dwpe + first);
    }
}

em_status_t em_stage_w(const em_stage_ctx_t *ctx, const em_item_t *item)
{
    const em_stage_t *const stage = ctx->stage;
    const em_dims_t d = item_dims(ctx, item);
    const em_workspace_t ws = em_workspace(stage, &d, EM_PASS_W, ctx->workspace);
    EM_RETURN_IF_ERROR(check_tokens(stage, item, &d, stage->has_head));
    head_weights(ctx, item, &d, &ws);
    const float *dy = last_dy(ctx, item, &d);
    for (uint32_t layer = stage->num_layers; layer-- > 0;) {
        const em_layer_ctx_t lc = layer_ctx(ctx, item, &d, &ws, layer);
        const em_layer_w_t w = em_layer_w(&d, item->w, layer);
        const em_layer_g_t g = em_layer_g(&d, item->g, layer);
        em_layer_w_pass(&lc, dy, &w, &g, (item->accumulate & EM_PART_LAYERS) != 0);
        if (layer > 0 || stage->has_embedding) {
            const uint32_t flow = layer > 0 ? layer - 1 : stage->num_layers - 1;
            dy = em_g_flow(stage, &d, item->g, flow);
        }
    }
    embedding_weights(ctx, item, &d, dy);
    return EM_OK;
}

em_status_t em_stage_b(const em_stage_ctx_t *ctx, const em_item_t *item)
{
    const em_stage_t *const stage = ctx->stage;
    const em_dims_t d = item_dims(ctx, item);
    const em_workspace_t ws = em_workspace(stage, &d, EM_PASS_B, ctx->workspace);
    EM_RETURN_IF_ERROR(check_tokens(stage, item, &d, stage->has_head));
    head_weights(ctx, item, &d, &ws);
    const float *dy = last_dy(ctx, item, &d);
    for (uint32_t layer = stage->num_layers; layer-- > 0;) {
        const em_layer_ctx_t lc = layer_ctx(ctx, item, &d, &ws, layer);
        const em_layer_a_t a = em_layer_a(&d, item->a, layer);
        const em_layer_w_t w = em_layer_w(&d, item->w, layer);
        float *const dx = layer > 0 || stage->has_embedding ? ws.flow[layer % 2] : item->dx;
        em_layer_i(&lc, dy, dx, &a, &w, &ws.g);
        em_layer_w_pass(&lc, dy, &w, &ws.g, (item->accumulate & EM_PART_LAYERS) != 0);
        dy = dx;
    }
    embedding_weights(ctx, item, &d, dy);
    pass_through(ctx, item, &d);
    return EM_OK;
}

em_status_t em_stage_logits(const em_stage_ctx_t *ctx, const em_item_t *item, bool all_positions,
                            uint32_t last_position, float *logits)
{
    const em_stage_t *const stage = ctx->stage;
    const em_dims_t d = item_dims(ctx, item);
    const em_workspace_t ws = em_workspace(stage, &d, EM_PASS_F, ctx->workspace);
    if (!stage->has_head || d.sliced || last_position >= ctx->seq) {
        return EM_ERR_ARGUMENT;
    }
    EM_RETURN_IF_ERROR(check_tokens(stage, item, &d, false));
    const float *const x = forward_layers(ctx, item, &d, &ws);
    const em_head_ctx_t hc = head_ctx(ctx, &d, &ws);
    if (all_positions) {
        em_head_logits(&hc, d.tokens, x, d.hidden, logits);
    } else {
        em_head_logits(&hc, ctx->microbatch, x + last_position * d.hidden, ctx->seq * d.hidden,
                       logits);
    }
    return EM_OK;
}
