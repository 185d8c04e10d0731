/*
 * Causal attention in tiles of EM_ATTENTION_ROWS queries by EM_ATTENTION_COLS keys, after Dao et
 * al., "FlashAttention" (2022): scores exist for one tile at a time. Forward keeps, per query, the
 * maximum and the sum of exponentials of the tiles seen (online softmax); backward forms each tile
 * again from the stored log-sum-exp:
 *     P = exp(S - lse),  dV = P^T dO,  dP = dO V^T,  dS = P (dP - rowsum(dO O)),
 *     dQ = dS K / sqrt(d),  dK = dS^T Q / sqrt(d)
 */
#include <math.h>

#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

enum { ROWS = EM_ATTENTION_ROWS, COLS = EM_ATTENTION_COLS };

uint64_t em_attention_forward_floats(const em_attention_t *at)
{
    (void)at;
    return ROWS * COLS + 2 * ROWS;
}

uint64_t em_attention_backward_floats(const em_attention_t *at)
{
    (void)at;
    return 2 * ROWS * COLS + ROWS;
}

/* One tile: queries [row, row + rows), keys [col, col + cols) of a sequence. */
typedef struct {
    uint64_t row;
    uint64_t rows;
    uint64_t col;
    uint64_t cols;
} tile_t;

/* Keys of the tile that query row r may see. */
EM_INLINE uint64_t visible(const tile_t *t, uint64_t r)
{
    const uint64_t end = t->row + r + 1;
    return end - t->col < t->cols ? end - t->col : t->cols;
}

EM_INLINE float tile_max(const float *s, uint64_t num)
{
    em_vf_t best = em_set(-INFINITY);
    uint64_t i = 0;
    for (; i + EM_LANES <= num; i += EM_LANES) {
        best = em_max(em_load(s + i), best);
    }
    if (i < num) {
        best = em_max(em_load_part(s + i, num - i, -INFINITY), best);
    }
    return em_max_lane(best);
}

/* s = exp(s - top) for the first num, 0 up to cols; returns the sum. */
EM_INLINE float exponentials(float *s, uint64_t num, uint64_t cols, float top)
{
    em_vf_t sum = em_set(0.0f);
    uint64_t i = 0;
    for (; i + EM_LANES <= num; i += EM_LANES) {
        const em_vf_t e = em_exp(em_load(s + i) - top);
        em_store(s + i, e);
        sum += e;
    }
    float total = em_sum(sum);
    if (i < num) {
        float tail[EM_LANES];
        em_store(tail, em_exp(em_load_part(s + i, num - i, 0.0f) - top));
        for (; i < num; ++i) {
            s[i] = tail[i % EM_LANES];
            total += s[i];
        }
    }
    memset(s + num, 0, (cols - num) * sizeof *s);
    return total;
}

/* Softmax of one tile, against what earlier tiles of these rows left in top and sum. */
EM_CLONES static void softmax_tile(const tile_t *t, uint64_t head_dim, float *s, float *o,
                                   uint64_t ldo, float *top, float *sum)
{
    for (uint64_t r = 0; r < t->rows; ++r) {
        float *const row = s + r * t->cols;
        const uint64_t num = visible(t, r);
        const float here = tile_max(row, num);
        const float before = top[r];
        const float now = here > before ? here : before;
        const float rescale = t->col == 0 ? 0.0f : expf(before - now);
        sum[r] = sum[r] * rescale + exponentials(row, num, t->cols, now);
        top[r] = now;
        if (t->col > 0 && rescale != 1.0f) {
            for (uint64_t c = 0; c < head_dim; ++c) {
                o[r * ldo + c] *= rescale;
            }
        }
    }
}

EM_CLONES static void finish_rows(uint64_t rows, uint64_t head_dim, const float *top,
                                  const float *sum, float *o, uint64_t ldo, float *lse)
{
    for (uint64_t r = 0; r < rows; ++r) {
        const float inv = 1.0f / sum[r];
        for (uint64_t c = 0; c < head_dim; ++c) {
            o[r * ldo + c] *= inv;
        }
        lse[r] = top[r] + logf(sum[r]);
    }
}

/* Where one head of one sequence lies. */
typedef struct {
    uint64_t d;   /* head_dim */
    uint64_t ld;  /* row stride of qkv */
    uint64_t ldo; /* row stride of o */
    uint64_t q;   /* offsets in qkv */
    uint64_t k;
    uint64_t v;
    uint64_t o;   /* offset in o */
    uint64_t lse; /* offset in lse */
    float scale;
} head_t;

EM_INLINE head_t head_at(const em_attention_t *at, uint32_t batch, uint32_t head)
{
    const uint64_t d = at->head_dim;
    const uint64_t kv_head = head / (at->heads / at->kv_heads);
    const uint64_t token = (uint64_t)batch * at->seq;
    const uint64_t tokens = (uint64_t)at->batch * at->seq;
    head_t h;
    h.d = d;
    h.ld = (at->heads + 2 * (uint64_t)at->kv_heads) * d;
    h.ldo = at->heads * d;
    h.q = token * h.ld + head * d;
    h.k = token * h.ld + (at->heads + kv_head) * d;
    h.v = h.k + at->kv_heads * d;
    h.o = token * h.ldo + head * d;
    h.lse = head * tokens + token;
    h.scale = 1.0f / sqrtf((float)d);
    return h;
}

EM_INLINE tile_t tile_at(uint64_t seq, uint64_t row, uint64_t col)
{
    tile_t t;
    t.row = row;
    t.rows = seq - row < ROWS ? seq - row : ROWS;
    t.col = col;
    const uint64_t end = row + t.rows; /* keys after the last query are never seen */
    t.cols = end - col < COLS ? end - col : COLS;
    return t;
}

void em_cpu_attention_forward(em_gemm_fn_t gemm, const em_attention_t *at, const float *qkv,
                              float *o, float *lse, float *workspace)
{
    float *const s = workspace;
    float *const top = s + ROWS * COLS;
    float *const sum = top + ROWS;
    for (uint32_t unit = 0; unit < at->batch * at->heads; ++unit) {
        const head_t h = head_at(at, unit / at->heads, unit % at->heads);
        for (uint64_t row = 0; row < at->seq; row += ROWS) {
            const uint64_t rows = at->seq - row < ROWS ? at->seq - row : ROWS;
            float *const out = o + h.o + row * h.ldo;
            for (uint64_t r = 0; r < rows; ++r) {
                top[r] = -INFINITY;
                sum[r] = 0.0f;
            }
            for (uint64_t col = 0; col < row + rows; col += COLS) {
                const tile_t t = tile_at(at->seq, row, col);
                gemm(false, true, rows, t.cols, h.d, h.scale, qkv + h.q + row * h.ld, h.ld,
                     qkv + h.k + col * h.ld, h.ld, 0.0f, s, t.cols);
                softmax_tile(&t, h.d, s, out, h.ldo, top, sum);
                gemm(false, false, rows, h.d, t.cols, 1.0f, s, t.cols, qkv + h.v + col * h.ld, h.ld,
                     col == 0 ? 0.0f : 1.0f, out, h.ldo);
            }
            finish_rows(rows, h.d, top, sum, out, h.ldo, lse + h.lse + row);
        }
    }
}

/* delta[r] = sum of d_o * o over the head */
EM_CLONES static void row_deltas(uint64_t rows, uint64_t head_dim, const float *d_o, const float *o,
                                 uint64_t ldo, float *delta)
{
    for (uint64_t r = 0; r < rows; ++r) {
        em_vf_t sum = em_set(0.0f);
        uint64_t c = 0;
        for (; c + EM_LANES <= head_dim; c += EM_LANES) {
            sum += em_load(d_o + r * ldo + c) * em_load(o + r * ldo + c);
        }
        float total = em_sum(sum);
        for (; c < head_dim; ++c) {
            total += d_o[r * ldo + c] * o[r * ldo + c];
        }
        delta[r] = total;
    }
}

/* s: scores -> P. Unseen keys get 0. */
EM_CLONES static void probabilities(const tile_t *t, const float *lse, float *s)
{
    for (uint64_t r = 0; r < t->rows; ++r) {
        (void)exponentials(s + r * t->cols, visible(t, r), t->cols, lse[r]);
    }
}

/* ds: dP -> dS = P (dP - delta); P is 0 where a key is unseen. */
EM_CLONES static void score_gradients(const tile_t *t, const float *restrict p,
                                      const float *restrict delta, float *restrict ds)
{
    for (uint64_t r = 0; r < t->rows; ++r) {
        for (uint64_t c = 0; c < t->cols; ++c) {
            ds[r * t->cols + c] = p[r * t->cols + c] * (ds[r * t->cols + c] - delta[r]);
        }
    }
}

static void zero_columns(uint64_t rows, uint64_t cols, uint64_t ld, float *x)
{
    for (uint64_t r = 0; r < rows; ++r) {
        memset(x + r * ld, 0, cols * sizeof *x);
    }
}

void em_cpu_attention_backward(em_gemm_fn_t gemm, const em_attention_t *at, const float *qkv,
                               const float *o, const float *lse, const float *d_o, float *dqkv,
                               float *workspace)
{
    float *const p = workspace;
    float *const ds = p + ROWS * COLS;
    float *const delta = ds + ROWS * COLS;
    const uint64_t width = (at->heads + 2 * (uint64_t)at->kv_heads) * at->head_dim;
    /* keys and values gather from several tiles and query heads: they start at zero */
    zero_columns((uint64_t)at->batch * at->seq, 2 * (uint64_t)at->kv_heads * at->head_dim, width,
                 dqkv + (uint64_t)at->heads * at->head_dim);
    for (uint32_t unit = 0; unit < at->batch * at->heads; ++unit) {
        const head_t h = head_at(at, unit / at->heads, unit % at->heads);
        for (uint64_t row = 0; row < at->seq; row += ROWS) {
            const uint64_t rows = at->seq - row < ROWS ? at->seq - row : ROWS;
            const float *const q = qkv + h.q + row * h.ld;
            const float *const grad = d_o + h.o + row * h.ldo;
            row_deltas(rows, h.d, grad, o + h.o + row * h.ldo, h.ldo, delta);
            for (uint64_t col = 0; col < row + rows; col += COLS) {
                const tile_t t = tile_at(at->seq, row, col);
                const float *const k = qkv + h.k + col * h.ld;
                const float *const v = qkv + h.v + col * h.ld;
                gemm(false, true, rows, t.cols, h.d, h.scale, q, h.ld, k, h.ld, 0.0f, p, t.cols);
                probabilities(&t, lse + h.lse + row, p);
                gemm(true, false, t.cols, h.d, rows, 1.0f, p, t.cols, grad, h.ldo, 1.0f,
                     dqkv + h.v + col * h.ld, h.ld);
                gemm(false, true, rows, t.cols, h.d, 1.0f, grad, h.ldo, v, h.ld, 0.0f, ds, t.cols);
                score_gradients(&t, p, delta, ds);
                gemm(false, false, rows, h.d, t.cols, h.scale, ds, t.cols, k, h.ld,
                     col == 0 ? 0.0f : 1.0f, dqkv + h.q + row * h.ld, h.ld);
                gemm(true, false, t.cols, h.d, rows, h.scale, ds, t.cols, q, h.ld, 1.0f,
                     dqkv + h.k + col * h.ld, h.ld);
            }
        }
    }
}
