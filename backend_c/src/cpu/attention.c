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

/* One tile: queries [row, row + rows), keys [col, col + cols), both by position in a sequence. */
typedef struct {
    uint64_t row;
    uint64_t rows;
    uint64_t col;
    uint64_t cols;
} tile_t;

/* Keys of the tile that query row r may see: none where a slice begins amid a tile's rows. */
EM_INLINE uint64_t visible(const tile_t *t, uint64_t r)
{
    const uint64_t end = t->row + r + 1;
    if (end <= t->col) {
        return 0;
    }
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

/* Where one head of one sequence lies: offsets of its first row. */
typedef struct {
    uint64_t d;     /* head_dim */
    uint64_t ldo;   /* row stride of o */
    uint64_t token; /* row of the first query, in q, o and their gradients */
    uint64_t key;   /* row of the first key */
    uint64_t col_q; /* first column in q, o and their gradients */
    uint64_t col_k; /* first columns in kv and its gradient */
    uint64_t col_v;
    uint64_t lse; /* offset in lse */
    float scale;
} head_t;

EM_INLINE head_t head_at(const em_attention_t *at, uint32_t batch, uint32_t head)
{
    const uint64_t d = at->head_dim;
    const uint64_t kv_head = head / (at->heads / at->kv_heads);
    head_t h;
    h.d = d;
    h.ldo = at->heads * d;
    h.token = (uint64_t)batch * at->rows;
    h.key = (uint64_t)batch * at->seq;
    h.col_q = head * d;
    h.col_k = kv_head * d;
    h.col_v = h.col_k + at->kv_heads * d;
    h.lse = (uint64_t)at->batch * at->rows * head + h.token;
    h.scale = 1.0f / sqrtf((float)d);
    return h;
}

/* The tile of the `rows` queries from position `row` and the keys from `col`. */
EM_INLINE tile_t tile_at(uint64_t row, uint64_t rows, uint64_t col)
{
    const uint64_t end = row + rows; /* keys after the last query are never seen */
    const tile_t t = {row, rows, col, end - col < COLS ? end - col : COLS};
    return t;
}

void em_cpu_attention_forward(em_gemm_fn_t gemm, const em_attention_t *at, const float *q,
                              const float *kv, float *o, float *lse, float *workspace)
{
    float *const s = workspace;
    float *const top = s + ROWS * COLS;
    float *const sum = top + ROWS;
    for (uint32_t unit = 0; unit < at->batch * at->heads; ++unit) {
        const head_t h = head_at(at, unit / at->heads, unit % at->heads);
        for (uint64_t row = 0; row < at->rows; row += ROWS) {
            const uint64_t rows = at->rows - row < ROWS ? at->rows - row : ROWS;
            const uint64_t position = at->first + row;
            const float *const query = q + (h.token + row) * at->ld_q + h.col_q;
            float *const out = o + (h.token + row) * h.ldo + h.col_q;
            for (uint64_t r = 0; r < rows; ++r) {
                top[r] = -INFINITY;
                sum[r] = 0.0f;
            }
            for (uint64_t col = 0; col < position + rows; col += COLS) {
                const tile_t t = tile_at(position, rows, col);
                const float *const keys = kv + (h.key + col) * at->ld_kv;
                gemm(false, true, rows, t.cols, h.d, h.scale, query, at->ld_q, keys + h.col_k,
                     at->ld_kv, 0.0f, s, t.cols);
                softmax_tile(&t, h.d, s, out, h.ldo, top, sum);
                gemm(false, false, rows, h.d, t.cols, 1.0f, s, t.cols, keys + h.col_v, at->ld_kv,
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

void em_cpu_attention_backward(em_gemm_fn_t gemm, const em_attention_t *at, const float *q,
                               const float *kv, const float *o, const float *lse, const float *d_o,
                               float *dq, float *dkv, bool init, float *workspace)
{
    float *const p = workspace;
    float *const ds = p + ROWS * COLS;
    float *const delta = ds + ROWS * COLS;
    if (init) {
        /* keys and values gather from several tiles, query heads and slices */
        zero_columns((uint64_t)at->batch * at->seq, 2 * (uint64_t)at->kv_heads * at->head_dim,
                     at->ld_dkv, dkv);
    }
    for (uint32_t unit = 0; unit < at->batch * at->heads; ++unit) {
        const head_t h = head_at(at, unit / at->heads, unit % at->heads);
        for (uint64_t row = 0; row < at->rows; row += ROWS) {
            const uint64_t rows = at->rows - row < ROWS ? at->rows - row : ROWS;
            const uint64_t position = at->first + row;
            const uint64_t at_o = (h.token + row) * h.ldo + h.col_q;
            const float *const query = q + (h.token + row) * at->ld_q + h.col_q;
            const float *const grad = d_o + at_o;
            row_deltas(rows, h.d, grad, o + at_o, h.ldo, delta);
            for (uint64_t col = 0; col < position + rows; col += COLS) {
                const tile_t t = tile_at(position, rows, col);
                const float *const k = kv + (h.key + col) * at->ld_kv + h.col_k;
                const float *const v = kv + (h.key + col) * at->ld_kv + h.col_v;
                float *const grads = dkv + (h.key + col) * at->ld_dkv;
                gemm(false, true, rows, t.cols, h.d, h.scale, query, at->ld_q, k, at->ld_kv, 0.0f,
                     p, t.cols);
                probabilities(&t, lse + h.lse + row, p);
                gemm(true, false, t.cols, h.d, rows, 1.0f, p, t.cols, grad, h.ldo, 1.0f,
                     grads + h.col_v, at->ld_dkv);
                gemm(false, true, rows, t.cols, h.d, 1.0f, grad, h.ldo, v, at->ld_kv, 0.0f, ds,
                     t.cols);
                score_gradients(&t, p, delta, ds);
                gemm(false, false, rows, h.d, t.cols, h.scale, ds, t.cols, k, at->ld_kv,
                     col == 0 ? 0.0f : 1.0f, dq + (h.token + row) * at->ld_dq + h.col_q, at->ld_dq);
                gemm(true, false, t.cols, h.d, rows, h.scale, ds, t.cols, query, at->ld_q, 1.0f,
                     grads + h.col_k, at->ld_dkv);
            }
        }
    }
}
