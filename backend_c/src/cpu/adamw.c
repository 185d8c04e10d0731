/* AdamW (Loshchilov and Hutter 2019), one pass; sums of squares in double. */
#include <math.h>

#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

EM_CLONES void em_cpu_adamw(uint64_t n, const em_adamw_step_t *step, const float *grad,
                            float *param, float *m, float *v)
{
    const em_adamw_step_t s = *step;
    const float *restrict gs = grad;
    float *restrict ps = param;
    float *restrict ms = m;
    float *restrict vs = v;
    for (uint64_t i = 0; i < n; ++i) {
        const float g = gs[i] * s.grad_scale;
        const float first = s.beta1 * ms[i] + s.one_minus_beta1 * g;
        const float second = s.beta2 * vs[i] + s.one_minus_beta2 * (g * g);
        ms[i] = first;
        vs[i] = second;
        const float update =
            first * s.inv_correction1 / (sqrtf(second * s.inv_correction2) + s.eps);
        ps[i] = ps[i] - s.decay * ps[i] - s.lr * update;
    }
}

EM_CLONES double em_cpu_sum_squares(uint64_t n, const float *x)
{
    double sums[EM_LANES] = {0};
    uint64_t i = 0;
    for (; i + EM_LANES <= n; i += EM_LANES) {
        for (uint64_t j = 0; j < EM_LANES; ++j) {
            const double value = (double)x[i + j];
            sums[j] += value * value;
        }
    }
    double total = 0.0;
    for (; i < n; ++i) {
        total += (double)x[i] * (double)x[i];
    }
    for (uint64_t j = 0; j < EM_LANES; ++j) {
        total += sums[j];
    }
    return total;
}
