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

static float update_of(const em_adamw_step_t *s, float first, float second)
{
    return first * s->inv_correction1 / (sqrtf(second * s->inv_correction2) + s->eps);
}

/* beta times a moment as it was, once what an update added is gone again. What is left of rounding
 * alone is nothing: a first moment of noise beside no second one would throw the weight far away.
 */
static double decayed_before(double after, double added)
{
    const double left = after - added;
    return fabs(left) <= 0x1p-22 * fabs(added) ? 0.0 : left;
}

/* In double, so that only the rounding of what is there remains. By Cauchy and Schwarz a second
 * moment is at least `least` times the first one's square; where rounding took that, it is given.
 */
void em_cpu_adamw_undo(uint64_t n, const em_adamw_step_t *step, bool redo, float right_scale,
                       const float *grad, float *param, float *m, float *v)
{
    const em_adamw_step_t s = *step;
    const double lr = (double)s.lr, beta1 = (double)s.beta1, beta2 = (double)s.beta2;
    const double one_minus_beta1 = (double)s.one_minus_beta1;
    const double one_minus_beta2 = (double)s.one_minus_beta2;
    const double least = beta1 * beta1 < beta2 ? one_minus_beta2 * (1.0 - beta1 * beta1 / beta2) /
                                                     (one_minus_beta1 * one_minus_beta1)
                                               : 0.0;
    for (uint64_t i = 0; i < n; ++i) {
        const double wrong = (double)(grad[i] * s.grad_scale);
        const double right = redo ? (double)(grad[i] * right_scale) : 0.0;
        const double before = (double)param[i] + lr * (double)update_of(&s, m[i], v[i]);
        double first = decayed_before((double)m[i], one_minus_beta1 * wrong);
        double second = decayed_before((double)v[i], one_minus_beta2 * wrong * wrong);
        if (redo) {
            first += one_minus_beta1 * right;
            second += one_minus_beta2 * right * right;
        } else {
            first = beta1 > 0.0 ? first / beta1 : 0.0;
            second = beta2 > 0.0 ? second / beta2 : 0.0;
        }
        m[i] = (float)first;
        v[i] = (float)(second > least * first * first ? second : least * first * first);
        param[i] = redo ? (float)(before - lr * (double)update_of(&s, m[i], v[i]))
                        : (float)(before / (1.0 - (double)s.decay));
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
