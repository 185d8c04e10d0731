/* The learning rate of a step: linear warm-up, then half a cosine down to lr_min. */
#include <math.h>

#include "runtime/em_rank.h"

double em_learning_rate(const em_plan_train_t *train, uint64_t step)
{
    const double pi = 3.14159265358979323846;
    if (step < train->warmup) {
        return train->lr * (double)(step + 1) / (double)train->warmup;
    }
    if (step >= train->steps || train->steps <= train->warmup) {
        return train->lr_min;
    }
    const double done = (double)(step - train->warmup) / (double)(train->steps - train->warmup);
    return train->lr_min + 0.5 * (train->lr - train->lr_min) * (1.0 + cos(pi * done));
}
