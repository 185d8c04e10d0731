/* Sums over rows, additions, embedding, rotary positions. */
#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

EM_CLONES static void add_rows(uint64_t rows, uint64_t cols, const float *restrict x, uint64_t ld,
                               float *restrict y)
{
    uint64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *const p = x + r * ld;
        for (uint64_t c = 0; c < cols; ++c) {
            y[c] += (p[c] + p[ld + c]) + (p[2 * ld + c] + p[3 * ld + c]);
        }
    }
    for (; r < rows; ++r) {
        for (uint64_t c = 0; c < cols; ++c) {
            y[c] += x[r * ld + c];
        }
    }
}

void em_cpu_column_sum(uint64_t rows, uint64_t cols, const float *x, uint64_t ld, bool init,
                       float *y)
{
    if (init) {
        memset(y, 0, cols * sizeof *y);
    }
    add_rows(rows, cols, x, ld, y);
}

EM_CLONES void em_cpu_add(uint64_t n, const float *x, float *y)
{
    const float *restrict from = x;
    float *restrict to = y;
    for (uint64_t i = 0; i < n; ++i) {
        to[i] += from[i];
    }
}

EM_CLONES static void add_bias(uint64_t rows, uint64_t cols, const float *x,
                               const float *restrict bias, float *y)
{
    for (uint64_t r = 0; r < rows; ++r) {
        for (uint64_t c = 0; c < cols; ++c) {
            y[r * cols + c] = x[r * cols + c] + bias[c];
        }
    }
}

void em_cpu_add_row(uint64_t rows, uint64_t cols, const float *x, const float *bias, float *y)
{
    if (x != NULL && bias != NULL) {
        add_bias(rows, cols, x, bias, y);
    } else if (x != NULL) {
        memmove(y, x, rows * cols * sizeof *y);
    } else if (bias != NULL) {
        for (uint64_t r = 0; r < rows; ++r) {
            memcpy(y + r * cols, bias, cols * sizeof *y);
        }
    } else {
        memset(y, 0, rows * cols * sizeof *y);
    }
}

EM_CLONES static void rotate_head(uint32_t half, const float *restrict cosine,
                                  const float *restrict sine, float sign, float *restrict low,
                                  float *restrict high)
{
    for (uint32_t i = 0; i < half; ++i) {
        const float s = sign * sine[i];
        const float a = low[i];
        const float b = high[i];
        low[i] = a * cosine[i] - b * s;
        high[i] = b * cosine[i] + a * s;
    }
}

void em_cpu_rotary(uint64_t rows, uint32_t seq, uint32_t heads, uint32_t head_dim, uint64_t ld,
                   const float *table, bool inverse, float *x)
{
    const uint32_t half = head_dim / 2;
    for (uint64_t r = 0; r < rows; ++r) {
        const float *const angles = table + r % seq * head_dim;
        for (uint32_t h = 0; h < heads; ++h) {
            float *const head = x + r * ld + (uint64_t)h * head_dim;
            rotate_head(half, angles, angles + half, inverse ? -1.0f : 1.0f, head, head + half);
        }
    }
}

void em_cpu_embed_forward(uint64_t rows, uint64_t cols, uint32_t seq, const int32_t *tokens,
                          const float *wte, const float *wpe, float *x)
{
    for (uint64_t r = 0; r < rows; ++r) {
        float *const row = x + r * cols;
        memcpy(row, wte + (uint64_t)tokens[r] * cols, cols * sizeof *row);
        if (wpe != NULL) {
            em_cpu_add(cols, wpe + r % seq * cols, row);
        }
    }
}

void em_cpu_embed_backward(uint64_t rows, uint64_t cols, uint32_t seq, const int32_t *tokens,
                           const float *dx, float *dwte, float *dwpe)
{
    for (uint64_t r = 0; r < rows; ++r) {
        const float *const row = dx + r * cols;
        em_cpu_add(cols, row, dwte + (uint64_t)tokens[r] * cols);
        if (dwpe != NULL) {
            em_cpu_add(cols, row, dwpe + r % seq * cols);
        }
    }
}
