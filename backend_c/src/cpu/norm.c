/*
 * LayerNorm and RMSNorm, forward and backward, one row at a time.
 *
 * With xhat = (x - mean) rstd (RMS: mean 0) and e = dn gain:
 *     dx = rstd (e - mean(e) - xhat mean(e xhat))      (RMS: without mean(e))
 *     dgain = sum over rows of dn xhat,   dbias = sum over rows of dn
 */
#include <math.h>

#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

EM_INLINE float row_sum(const float *x, uint64_t num)
{
    em_vf_t sum = em_set(0.0f);
    uint64_t i = 0;
    for (; i + EM_LANES <= num; i += EM_LANES) {
        sum += em_load(x + i);
    }
    if (i < num) {
        sum += em_load_part(x + i, num - i, 0.0f);
    }
    return em_sum(sum);
}

/* sum of (x - mean)^2 */
EM_INLINE float row_squares(const float *x, float mean, uint64_t num)
{
    em_vf_t sum = em_set(0.0f);
    uint64_t i = 0;
    for (; i + EM_LANES <= num; i += EM_LANES) {
        const em_vf_t d = em_load(x + i) - mean;
        sum += d * d;
    }
    if (i < num) {
        const em_vf_t d = em_load_part(x + i, num - i, mean) - mean;
        sum += d * d;
    }
    return em_sum(sum);
}

EM_CLONES static void forward_row(uint64_t cols, bool rms, float eps, const float *restrict gain,
                                  const float *restrict bias, const float *restrict x,
                                  float *restrict xhat, float *restrict n, float *restrict rstd)
{
    const float inv = 1.0f / (float)cols;
    const float mean = rms ? 0.0f : row_sum(x, cols) * inv;
    const float r = 1.0f / sqrtf(row_squares(x, mean, cols) * inv + eps);
    *rstd = r;
    for (uint64_t c = 0; c < cols; ++c) {
        const float value = (x[c] - mean) * r;
        xhat[c] = value;
        n[c] = value * gain[c] + (bias != NULL ? bias[c] : 0.0f);
    }
}

void em_cpu_norm_forward(uint64_t rows, uint64_t cols, bool rms, float eps, const float *gain,
                         const float *bias, const float *x, float *xhat, float *n, float *rstd)
{
    for (uint64_t r = 0; r < rows; ++r) {
        forward_row(cols, rms, eps, gain, bias, x + r * cols, xhat + r * cols, n + r * cols,
                    rstd + r);
    }
}

EM_CLONES static void scale_rows(uint64_t rows, uint64_t cols, const float *restrict gain,
                                 const float *restrict bias, const float *restrict xhat,
                                 float *restrict n)
{
    for (uint64_t r = 0; r < rows; ++r) {
        for (uint64_t c = 0; c < cols; ++c) {
            n[r * cols + c] = xhat[r * cols + c] * gain[c] + (bias != NULL ? bias[c] : 0.0f);
        }
    }
}

void em_cpu_norm_scale(uint64_t rows, uint64_t cols, const float *gain, const float *bias,
                       const float *xhat, float *n)
{
    scale_rows(rows, cols, gain, bias, xhat, n);
}

/* The two means of a row: of e, and of e xhat. */
EM_INLINE void backward_means(uint64_t cols, const float *gain, const float *xhat, const float *dn,
                              float *mean, float *mean_xhat)
{
    em_vf_t sum = em_set(0.0f);
    em_vf_t sum_xhat = em_set(0.0f);
    uint64_t i = 0;
    for (; i + EM_LANES <= cols; i += EM_LANES) {
        const em_vf_t e = em_load(dn + i) * em_load(gain + i);
        sum += e;
        sum_xhat += e * em_load(xhat + i);
    }
    if (i < cols) {
        const uint64_t rest = cols - i;
        const em_vf_t e = em_load_part(dn + i, rest, 0.0f) * em_load_part(gain + i, rest, 0.0f);
        sum += e;
        sum_xhat += e * em_load_part(xhat + i, rest, 0.0f);
    }
    *mean = em_sum(sum) / (float)cols;
    *mean_xhat = em_sum(sum_xhat) / (float)cols;
}

EM_CLONES static void backward_row(uint64_t cols, bool rms, const float *restrict gain,
                                   const float *restrict xhat, float rstd, const float *restrict dn,
                                   const float *base, float *dx, float *restrict dgain,
                                   float *restrict dbias)
{
    float mean = 0.0f;
    float mean_xhat = 0.0f;
    backward_means(cols, gain, xhat, dn, &mean, &mean_xhat);
    if (rms) {
        mean = 0.0f;
    }
    if (base != NULL) {
        for (uint64_t c = 0; c < cols; ++c) {
            dx[c] = base[c] + rstd * (dn[c] * gain[c] - mean - xhat[c] * mean_xhat);
        }
    } else {
        for (uint64_t c = 0; c < cols; ++c) {
            dx[c] = rstd * (dn[c] * gain[c] - mean - xhat[c] * mean_xhat);
        }
    }
    for (uint64_t c = 0; c < cols; ++c) {
        dgain[c] += dn[c] * xhat[c];
    }
    if (dbias != NULL) {
        for (uint64_t c = 0; c < cols; ++c) {
            dbias[c] += dn[c];
        }
    }
}

void em_cpu_norm_backward(uint64_t rows, uint64_t cols, bool rms, const float *gain,
                          const float *xhat, const float *rstd, const float *dn, const float *base,
                          float *dx, bool init, float *dgain, float *dbias)
{
    if (init) {
        memset(dgain, 0, cols * sizeof *dgain);
        if (dbias != NULL) {
            memset(dbias, 0, cols * sizeof *dbias);
        }
    }
    for (uint64_t r = 0; r < rows; ++r) {
        backward_row(cols, rms, gain, xhat + r * cols, rstd[r], dn + r * cols,
                     base == NULL ? NULL : base + r * cols, dx + r * cols, dgain, dbias);
    }
}
