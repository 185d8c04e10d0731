/* AdamW and sums of squares over a bucket or a shard of it. See em_stage.h. */
#include <math.h>

#include "nn/em_stage.h"

/* The part of tensor `p`, padding included, that lies in [begin, end); false if none does. The
 * padding belongs to the tensor before it: its gradients are zero, it stays zero. */
static bool clip_range(const em_param_t *table, uint32_t num_params, uint32_t i, uint64_t begin,
                       uint64_t end, uint64_t *from, uint64_t *to)
{
    const uint64_t next = i + 1 < num_params ? table[i + 1].offset : end;
    *from = table[i].offset > begin ? table[i].offset : begin;
    *to = next < end ? next : end;
    return *from < *to;
}

static em_adamw_step_t step_of(const em_adamw_t *adamw)
{
    em_adamw_step_t step;
    step.lr = (float)adamw->lr;
    step.beta1 = (float)adamw->beta1;
    step.beta2 = (float)adamw->beta2;
    step.one_minus_beta1 = (float)(1.0 - adamw->beta1);
    step.one_minus_beta2 = (float)(1.0 - adamw->beta2);
    step.eps = (float)adamw->eps;
    step.decay = 0.0f;
    step.inv_correction1 = (float)(1.0 / (1.0 - pow(adamw->beta1, (double)adamw->step)));
    step.inv_correction2 = (float)(1.0 / (1.0 - pow(adamw->beta2, (double)adamw->step)));
    step.grad_scale = (float)adamw->grad_scale;
    return step;
}

static float decay_of(const em_param_t *param, const em_adamw_t *adamw)
{
    return param->decay ? (float)(adamw->lr * adamw->weight_decay) : 0.0f;
}

void em_bucket_adamw(const em_kernels_t *kernels, const em_param_t *table, uint32_t num_params,
                     uint64_t begin, uint64_t end, const em_adamw_t *adamw, float *param,
                     const float *grad, float *m, float *v)
{
    em_adamw_step_t step = step_of(adamw);
    for (uint32_t i = 0; i < num_params; ++i) {
        uint64_t from = 0;
        uint64_t to = 0;
        if (clip_range(table, num_params, i, begin, end, &from, &to)) {
            step.decay = decay_of(&table[i], adamw);
            const uint64_t at = from - begin;
            kernels->adamw(to - from, &step, grad + at, param + at, m + at, v + at);
        }
    }
}

void em_bucket_adamw_undo(const em_kernels_t *kernels, const em_param_t *table, uint32_t num_params,
                          uint64_t begin, uint64_t end, const em_adamw_t *done, bool redo,
                          double right_scale, float *param, const float *grad, float *m, float *v)
{
    em_adamw_step_t step = step_of(done);
    for (uint32_t i = 0; i < num_params; ++i) {
        uint64_t from = 0;
        uint64_t to = 0;
        if (clip_range(table, num_params, i, begin, end, &from, &to)) {
            step.decay = decay_of(&table[i], done);
            const uint64_t at = from - begin;
            kernels->adamw_undo(to - from, &step, redo, (float)right_scale, grad + at, param + at,
                                m + at, v + at);
        }
    }
}

double em_bucket_sum_squares(const em_kernels_t *kernels, const em_param_t *table,
                             uint32_t num_params, uint64_t begin, uint64_t end, const float *grad)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < num_params; ++i) {
        uint64_t from = 0;
        uint64_t to = 0;
        if (clip_range(table, num_params, i, begin, end, &from, &to)) {
            sum += kernels->sum_squares(to - from, grad + (from - begin));
        }
    }
    return sum;
}
