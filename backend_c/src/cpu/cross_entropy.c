/* Softmax cross-entropy over a tile of logits: log-sum-exp with the maximum taken out. */
#include <math.h>

#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

EM_CLONES static float row_lse(uint64_t vocab, const float *x)
{
    const float low = -INFINITY;
    em_vf_t best = em_set(low);
    uint64_t i = 0;
    for (; i + EM_LANES <= vocab; i += EM_LANES) {
        best = em_max(em_load(x + i), best);
    }
    if (i < vocab) {
        best = em_max(em_load_part(x + i, vocab - i, low), best);
    }
    const float top = em_max_lane(best);
    em_vf_t sum = em_set(0.0f);
    for (i = 0; i + EM_LANES <= vocab; i += EM_LANES) {
        sum += em_exp(em_load(x + i) - top);
    }
    float total = em_sum(sum);
    if (i < vocab) {
        float tail[EM_LANES];
        em_store(tail, em_exp(em_load_part(x + i, vocab - i, 0.0f) - top));
        for (uint64_t j = 0; j < vocab - i; ++j) {
            total += tail[j];
        }
    }
    return top + logf(total);
}

double em_cpu_cross_entropy_forward(uint64_t rows, uint64_t vocab, const float *logits,
                                    const int32_t *targets, float *lse)
{
    double loss = 0.0;
    for (uint64_t r = 0; r < rows; ++r) {
        lse[r] = row_lse(vocab, logits + r * vocab);
        if (targets[r] >= 0) {
            loss += (double)lse[r] - (double)logits[r * vocab + (uint64_t)targets[r]];
        }
    }
    return loss;
}

EM_CLONES static void row_softmax(uint64_t vocab, float lse, float scale, float *x)
{
    uint64_t i = 0;
    for (; i + EM_LANES <= vocab; i += EM_LANES) {
        em_store(x + i, em_exp(em_load(x + i) - lse) * scale);
    }
    if (i < vocab) {
        em_store_part(x + i, em_exp(em_load_part(x + i, vocab - i, 0.0f) - lse) * scale, vocab - i);
    }
}

void em_cpu_cross_entropy_backward(uint64_t rows, uint64_t vocab, const int32_t *targets,
                                   const float *lse, float scale, float *logits)
{
    for (uint64_t r = 0; r < rows; ++r) {
        float *const row = logits + r * vocab;
        if (targets[r] >= 0) {
            row_softmax(vocab, lse[r], scale, row);
            row[targets[r]] -= scale;
        } else {
            memset(row, 0, vocab * sizeof *row);
        }
    }
}
