/*
 * A pre-norm decoder layer:
 *     x1 = x + O(attention(QKV(norm1(x))))        y = x1 + Down(act(Up(norm2(x1))))
 *
 * The stash holds the normalised inputs xhat instead of x and norm(x): with 1/std they give the
 * norm's gradient, with gain and bias the products' left sides, so that no residual stream is
 * kept. I forms all gradients with respect to activations and leaves those that W multiplies.
 */
#include "nn/em_layer.h"

#include <string.h>

/* A linear map of GPT-2 ([in, out] and a bias) or Llama ([out, in], none). Llama's q, k, v and
 * gate, up are up to three matrices whose outputs stand side by side. */
typedef struct {
    uint32_t weight[3];
    uint64_t width[3];
    uint32_t count;
    uint32_t bias; /* EM_LAYER_POINTERS: none */
    uint64_t in;
    uint64_t out; /* sum of the widths */
} linear_t;

static linear_t single(uint32_t weight, uint32_t bias, uint64_t in, uint64_t out)
{
    const linear_t lin = {{weight, 0, 0}, {out, 0, 0}, 1, bias, in, out};
    return lin;
}

static linear_t qkv_linear(const em_dims_t *d)
{
    if (!d->llama) {
        return single(EM_LX_Q_W, EM_LX_Q_B, d->hidden, d->qkv);
    }
    const linear_t lin = {{EM_LX_Q_W, EM_LX_K_W, EM_LX_V_W},
                          {d->attn, d->kv, d->kv},
                          3,
                          EM_LAYER_POINTERS,
                          d->hidden,
                          d->qkv};
    return lin;
}

static linear_t o_linear(const em_dims_t *d)
{
    return single(EM_LX_O_W, d->llama ? EM_LAYER_POINTERS : EM_LX_O_B, d->attn, d->hidden);
}

static linear_t up_linear(const em_dims_t *d)
{
    if (!d->llama) {
        return single(EM_LX_UP_W, EM_LX_UP_B, d->hidden, d->ffn);
    }
    const linear_t lin = {
        {EM_LX_GATE_W, EM_LX_UP_W, 0}, {d->ffn, d->ffn, 0}, 2, EM_LAYER_POINTERS, d->hidden, d->up};
    return lin;
}

static linear_t down_linear(const em_dims_t *d)
{
    return single(EM_LX_DOWN_W, d->llama ? EM_LAYER_POINTERS : EM_LX_DOWN_B, d->ffn, d->hidden);
}

/* One matrix where the group's matrices follow each other without padding, in `table`. */
static linear_t fuse(const linear_t *lin, float *const *table)
{
    for (uint32_t i = 1; i < lin->count; ++i) {
        if (table[lin->weight[i]] != table[lin->weight[i - 1]] + lin->width[i - 1] * lin->in) {
            return *lin;
        }
    }
    linear_t fused = *lin;
    fused.count = 1;
    fused.width[0] = lin->out;
    return fused;
}

/* y = x W + bias, or y = base + x W + bias (base may be y). */
static void linear_forward(const em_layer_ctx_t *ctx, const linear_t *group, const float *x,
                           const float *base, float *y)
{
    const em_kernels_t *const k = ctx->k;
    const uint64_t rows = ctx->d->tokens;
    const linear_t lin = fuse(group, ctx->params);
    const float *const bias = lin.bias < EM_LAYER_POINTERS ? ctx->params[lin.bias] : NULL;
    const bool add = base != NULL || bias != NULL;
    if (bias != NULL || (base != NULL && base != y)) {
        k->add_row(rows, lin.out, base, bias, y);
    }
    uint64_t column = 0;
    for (uint32_t i = 0; i < lin.count; ++i) {
        const float *const weight = ctx->params[lin.weight[i]];
        const bool trans = ctx->d->llama;
        k->gemm(false, trans, rows, lin.width[i], lin.in, 1.0f, x, lin.in, weight,
                trans ? lin.in : lin.width[i], add ? 1.0f : 0.0f, y + column, lin.out);
        column += lin.width[i];
    }
}

/* dx = dy W^T */
static void linear_input_grad(const em_layer_ctx_t *ctx, const linear_t *group, const float *dy,
                              float *dx)
{
    const linear_t lin = fuse(group, ctx->params);
    uint64_t column = 0;
    for (uint32_t i = 0; i < lin.count; ++i) {
        const float *const weight = ctx->params[lin.weight[i]];
        const bool trans = !ctx->d->llama;
        ctx->k->gemm(false, trans, ctx->d->tokens, lin.in, lin.width[i], 1.0f, dy + column, lin.out,
                     weight, trans ? lin.width[i] : lin.in, i == 0 ? 0.0f : 1.0f, dx, lin.in);
        column += lin.width[i];
    }
}

/* dW = x^T dy, dbias = sum of dy over tokens */
static void linear_weight_grad(const em_layer_ctx_t *ctx, const linear_t *group, const float *x,
                               const float *dy, bool accumulate)
{
    const em_kernels_t *const k = ctx->k;
    const uint64_t rows = ctx->d->tokens;
    const linear_t lin = fuse(group, ctx->grads);
    const float beta = accumulate ? 1.0f : 0.0f;
    uint64_t column = 0;
    for (uint32_t i = 0; i < lin.count; ++i) {
        float *const grad = ctx->grads[lin.weight[i]];
        if (ctx->d->llama) {
            k->gemm(true, false, lin.width[i], lin.in, rows, 1.0f, dy + column, lin.out, x, lin.in,
                    beta, grad, lin.in);
        } else {
            k->gemm(true, false, lin.in, lin.width[i], rows, 1.0f, x, lin.in, dy + column, lin.out,
                    beta, grad, lin.width[i]);
        }
        column += lin.width[i];
    }
    if (lin.bias < EM_LAYER_POINTERS) {
        k->column_sum(rows, lin.out, dy, lin.out, !accumulate, ctx->grads[lin.bias]);
    }
}

/* q and k of every row, in place. */
static void rotate(const em_layer_ctx_t *ctx, bool inverse, float *qkv)
{
    const em_dims_t *const d = ctx->d;
    if (d->llama) {
        const em_attention_t *const at = &d->attention;
        ctx->k->rotary(d->tokens, at->rows, at->heads + at->kv_heads, at->head_dim, d->qkv,
                       ctx->ws->rotary + (uint64_t)at->first * at->head_dim, inverse, qkv);
    }
}

/* Rows of keys and values of this slice, one sequence after the other: between `wide`, rows of Q,
 * and `kv`, rows of 2 K in the k slot. */
static void copy_keys(const em_dims_t *d, bool to_slot, float *wide, float *kv)
{
    const em_attention_t *const at = &d->attention;
    for (uint64_t t = 0; t < d->tokens; ++t) {
        float *const row = wide + t * d->qkv + d->attn;
        float *const slot = kv + (t / at->rows * at->seq + at->first + t % at->rows) * 2 * d->kv;
        memcpy(to_slot ? slot : row, to_slot ? row : slot, 2 * d->kv * sizeof(float));
    }
}

/* o = attention(n Wqkv). Sliced: keys and values go to the k slot, queries alone to the stash. */
static void attend(const em_layer_ctx_t *ctx, const float *n, const em_layer_a_t *a, float *o)
{
    const em_dims_t *const d = ctx->d;
    const linear_t qkv = qkv_linear(d);
    float *const wide = d->sliced ? ctx->ws->qkv : a->qkv;
    const float *kv = a->qkv + d->attn;
    linear_forward(ctx, &qkv, n, NULL, wide);
    rotate(ctx, false, wide);
    if (d->sliced) {
        copy_keys(d, true, wide, ctx->kv.kv);
        for (uint64_t t = 0; t < d->tokens; ++t) {
            memcpy(a->qkv + t * d->attn, wide + t * d->qkv, d->attn * sizeof(float));
        }
        kv = ctx->kv.kv;
    }
    ctx->k->attention_forward(&d->attention, a->qkv, kv, o, a->lse, ctx->ws->attention);
}

/* dn from d_o, by way of g->dqkv. Sliced: the slices after this one have left their share of the
 * gradients of its keys and values in the k slot, where its own completes them. */
static void attend_back(const em_layer_ctx_t *ctx, const em_layer_a_t *a, const float *o,
                        const em_layer_g_t *g, float *dn)
{
    const em_dims_t *const d = ctx->d;
    const linear_t qkv = qkv_linear(d);
    const float *const kv = d->sliced ? ctx->kv.kv : a->qkv + d->attn;
    float *const dkv = d->sliced ? ctx->kv.dkv : g->dqkv + d->attn;
    ctx->k->attention_backward(&d->attention, a->qkv, kv, o, a->lse, ctx->ws->d_o, g->dqkv, dkv,
                               ctx->last_slice, ctx->ws->attention);
    if (d->sliced) {
        copy_keys(d, false, g->dqkv, dkv);
    }
    rotate(ctx, true, g->dqkv);
    linear_input_grad(ctx, &qkv, g->dqkv, dn);
}

void em_layer_f(const em_layer_ctx_t *ctx, const float *x, float *y, const em_layer_a_t *a,
                const em_layer_w_t *w)
{
    const em_kernels_t *const k = ctx->k;
    const em_dims_t *const d = ctx->d;
    float *const n = ctx->ws->n;
    const linear_t o = o_linear(d);
    const linear_t up = up_linear(d);
    const linear_t down = down_linear(d);

    k->norm_forward(d->tokens, d->hidden, d->llama, ctx->eps, ctx->params[EM_LX_NORM1_W],
                    ctx->params[EM_LX_NORM1_B], x, w->xhat1, n, a->rstd1);
    attend(ctx, n, a, w->o);
    linear_forward(ctx, &o, w->o, x, y);

    k->norm_forward(d->tokens, d->hidden, d->llama, ctx->eps, ctx->params[EM_LX_NORM2_W],
                    ctx->params[EM_LX_NORM2_B], y, w->xhat2, n, a->rstd2);
    linear_forward(ctx, &up, n, NULL, a->u);
    if (d->llama) {
        k->swiglu_forward(d->tokens, d->ffn, a->u, w->act);
    } else {
        k->gelu_forward(d->tokens * d->ffn, a->u, w->act);
    }
    linear_forward(ctx, &down, w->act, y, y);
}

void em_layer_i(const em_layer_ctx_t *ctx, const float *dy, float *dx, const em_layer_a_t *a,
                const em_layer_w_t *w, const em_layer_g_t *g)
{
    const em_kernels_t *const k = ctx->k;
    const em_dims_t *const d = ctx->d;
    float *const dn = ctx->ws->n;
    const linear_t o = o_linear(d);
    const linear_t up = up_linear(d);
    const linear_t down = down_linear(d);

    linear_input_grad(ctx, &down, dy, ctx->ws->dact);
    if (d->llama) {
        k->swiglu_backward(d->tokens, d->ffn, a->u, ctx->ws->dact, g->du);
    } else {
        k->gelu_backward(d->tokens * d->ffn, a->u, ctx->ws->dact, g->du);
    }
    linear_input_grad(ctx, &up, g->du, dn);
    k->norm_backward(d->tokens, d->hidden, d->llama, ctx->params[EM_LX_NORM2_W], w->xhat2, a->rstd2,
                     dn, dy, g->dx1, true, g->dgain2, g->dbias2);

    linear_input_grad(ctx, &o, g->dx1, ctx->ws->d_o);
    attend_back(ctx, a, w->o, g, dn);
    k->norm_backward(d->tokens, d->hidden, d->llama, ctx->params[EM_LX_NORM1_W], w->xhat1, a->rstd1,
                     dn, g->dx1, dx, true, g->dgain1, g->dbias1);
}

void em_layer_w_pass(const em_layer_ctx_t *ctx, const float *dy, const em_layer_w_t *w,
                     const em_layer_g_t *g, bool accumulate)
{
    const em_kernels_t *const k = ctx->k;
    const em_dims_t *const d = ctx->d;
    float *const n = ctx->ws->n;
    const linear_t qkv = qkv_linear(d);
    const linear_t o = o_linear(d);
    const linear_t up = up_linear(d);
    const linear_t down = down_linear(d);

    linear_weight_grad(ctx, &down, w->act, dy, accumulate);
    k->norm_scale(d->tokens, d->hidden, ctx->params[EM_LX_NORM2_W], ctx->params[EM_LX_NORM2_B],
                  w->xhat2, n);
    linear_weight_grad(ctx, &up, n, g->du, accumulate);
    linear_weight_grad(ctx, &o, w->o, g->dx1, accumulate);
    k->norm_scale(d->tokens, d->hidden, ctx->params[EM_LX_NORM1_W], ctx->params[EM_LX_NORM1_B],
                  w->xhat1, n);
    linear_weight_grad(ctx, &qkv, n, g->dqkv, accumulate);

    /* The norms' sums over the microbatch are rows of one: column_sum writes or adds them. */
    k->column_sum(1, d->hidden, g->dgain2, d->hidden, !accumulate, ctx->grads[EM_LX_NORM2_W]);
    k->column_sum(1, d->hidden, g->dgain1, d->hidden, !accumulate, ctx->grads[EM_LX_NORM1_W]);
    if (!d->llama) {
        k->column_sum(1, d->hidden, g->dbias2, d->hidden, !accumulate, ctx->grads[EM_LX_NORM2_B]);
        k->column_sum(1, d->hidden, g->dbias1, d->hidden, !accumulate, ctx->grads[EM_LX_NORM1_B]);
    }
}
