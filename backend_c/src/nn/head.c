/*
 * Final norm, head and loss. Logits [T, V] never exist as a whole: each tile of EM_HEAD_TILE
 * tokens is formed, used and overwritten. F forms the gradient of its tile while it is there (one
 * product instead of the two that I would need), so that I has nothing left to do for the head; W
 * forms each tile a second time from the stash.
 */
#include "nn/em_head.h"

#include <string.h>

/* logits[rows, V] = n[rows, H] head[V, H]^T */
static void tile_logits(const em_head_ctx_t *ctx, uint64_t rows, const float *n, float *logits)
{
    const em_dims_t *const d = ctx->d;
    ctx->k->gemm(false, true, rows, d->vocab, d->hidden, 1.0f, n, d->hidden,
                 ctx->params[EM_IX_HEAD], d->hidden, 0.0f, logits, d->vocab);
}

/* A tile's rows run past the end of a sequence's slice, whose targets lie apart from the next. */
static uint64_t piece_rows(const em_dims_t *d, uint64_t t, uint64_t end)
{
    const uint64_t left = d->run - t % d->run;
    return end - t < left ? end - t : left;
}

/* Loss of the tile of `rows` tokens from token t. */
static double tile_loss(const em_head_ctx_t *ctx, uint64_t t, uint64_t rows, const int32_t *targets,
                        float *lse)
{
    const em_dims_t *const d = ctx->d;
    double loss = 0.0;
    for (uint64_t i = t; i < t + rows; i += piece_rows(d, i, t + rows)) {
        loss += ctx->k->cross_entropy_forward(piece_rows(d, i, t + rows), d->vocab,
                                              ctx->ws->logits + (i - t) * d->vocab,
                                              targets + em_token_at(d, i), lse + i);
    }
    return loss;
}

/* logits -> their gradients. */
static void tile_gradients(const em_head_ctx_t *ctx, uint64_t t, uint64_t rows,
                           const int32_t *targets, const float *lse, float scale)
{
    const em_dims_t *const d = ctx->d;
    for (uint64_t i = t; i < t + rows; i += piece_rows(d, i, t + rows)) {
        ctx->k->cross_entropy_backward(piece_rows(d, i, t + rows), d->vocab,
                                       targets + em_token_at(d, i), lse + i, scale,
                                       ctx->ws->logits + (i - t) * d->vocab);
    }
}

double em_head_f(const em_head_ctx_t *ctx, const float *x, const int32_t *targets, float scale,
                 bool forward_only, const em_head_w_t *w)
{
    const em_kernels_t *const k = ctx->k;
    const em_dims_t *const d = ctx->d;
    const em_workspace_t *const ws = ctx->ws;
    const float *const gain = ctx->params[EM_IX_NORM_W];
    const float *const bias = ctx->params[EM_IX_NORM_B];
    double loss = 0.0;
    for (uint64_t t = 0; t < d->tokens; t += d->tile) {
        const uint64_t rows = d->tokens - t < d->tile ? d->tokens - t : d->tile;
        float *const xhat = w->xhat + t * d->hidden;
        k->norm_forward(rows, d->hidden, d->llama, ctx->eps, gain, bias, x + t * d->hidden, xhat,
                        ws->tile_n, ws->tile_rstd);
        tile_logits(ctx, rows, ws->tile_n, ws->logits);
        loss += tile_loss(ctx, t, rows, targets, w->lse);
        if (!forward_only) {
            tile_gradients(ctx, t, rows, targets, w->lse, scale);
            k->gemm(false, false, rows, d->hidden, d->vocab, 1.0f, ws->logits, d->vocab,
                    ctx->params[EM_IX_HEAD], d->hidden, 0.0f, ws->tile_dn, d->hidden);
            k->norm_backward(rows, d->hidden, d->llama, gain, xhat, ws->tile_rstd, ws->tile_dn,
                             NULL, w->dy + t * d->hidden, t == 0, w->dgain, w->dbias);
        }
    }
    return loss;
}

void em_head_w_pass(const em_head_ctx_t *ctx, const int32_t *targets, float scale,
                    const em_head_w_t *w, bool accumulate_head, bool accumulate_norm)
{
    const em_kernels_t *const k = ctx->k;
    const em_dims_t *const d = ctx->d;
    const em_workspace_t *const ws = ctx->ws;
    for (uint64_t t = 0; t < d->tokens; t += d->tile) {
        const uint64_t rows = d->tokens - t < d->tile ? d->tokens - t : d->tile;
        k->norm_scale(rows, d->hidden, ctx->params[EM_IX_NORM_W], ctx->params[EM_IX_NORM_B],
                      w->xhat + t * d->hidden, ws->tile_n);
        tile_logits(ctx, rows, ws->tile_n, ws->logits);
        tile_gradients(ctx, t, rows, targets, w->lse, scale);
        k->gemm(true, false, d->vocab, d->hidden, rows, 1.0f, ws->logits, d->vocab, ws->tile_n,
                d->hidden, accumulate_head || t > 0 ? 1.0f : 0.0f, ctx->grads[EM_IX_HEAD],
                d->hidden);
    }
    k->column_sum(1, d->hidden, w->dgain, d->hidden, !accumulate_norm, ctx->grads[EM_IX_NORM_W]);
    if (!d->llama) {
        k->column_sum(1, d->hidden, w->dbias, d->hidden, !accumulate_norm,
                      ctx->grads[EM_IX_NORM_B]);
    }
}

void em_head_logits(const em_head_ctx_t *ctx, uint64_t rows, const float *x, uint64_t stride,
                    float *logits)
{
    const em_dims_t *const d = ctx->d;
    const em_workspace_t *const ws = ctx->ws;
    for (uint64_t t = 0; t < rows; ++t) {
        /* tile_dn is free here and takes the stash that nobody will read */
        ctx->k->norm_forward(1, d->hidden, d->llama, ctx->eps, ctx->params[EM_IX_NORM_W],
                             ctx->params[EM_IX_NORM_B], x + t * stride, ws->tile_dn,
                             ws->tile_n + t % d->tile * d->hidden, ws->tile_rstd);
        if (t % d->tile == d->tile - 1 || t == rows - 1) {
            const uint64_t first = t / d->tile * d->tile;
            tile_logits(ctx, t + 1 - first, ws->tile_n, logits + first * d->vocab);
        }
    }
}
