/*
 * The norm of the gradients, judged at once or late.
 *
 * With a barrier every rank knows the total before its OPT. Without one the norm scans along the
 * ranks (Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section 4): an OPT trusts
 * the partial sum, that of the ranks so far, and the next step's CHK brings the total. A partial
 * sum never falls on the way, and a clip factor never rises with its sum; so if the first member of
 * the scan used the right factor all did. Its sum travels with the total, and every rank knows
 * whether any was wrong: that flags the step in progress, whose passes began with wrong weights.
 * UNDO puts the weights right, and the step is run again.
 */
#include <math.h>

#include "runtime/em_rank.h"

em_judgement_t em_judge(double sum, double clip)
{
    const double norm = sqrt(sum);
    const bool clips = clip > 0.0 && isfinite(sum) && norm > clip;
    return (em_judgement_t){
        .sum = sum, .finite = isfinite(sum), .scale = clips ? clip / norm : 1.0};
}

static bool differ(const em_judgement_t *a, const em_judgement_t *b)
{
    return a->finite != b->finite || a->scale < b->scale || a->scale > b->scale;
}

void em_late_check(em_rank_t *rank, double total_sum, double least_sum)
{
    em_late_t *const late = &rank->late;
    const double clip = rank->shared->plan->train.clip;
    const em_judgement_t least = em_judge(least_sum, clip);
    late->right = em_judge(total_sum, clip);
    late->flagged = late->pending && differ(&least, &late->right);
    late->wrong = late->pending && differ(&late->used, &late->right);
    if (late->wrong && !late->right.finite) {
        rank->num_updates--; /* it is going to be taken back */
    }
    late->pending = false;
}

void em_late_undo(em_rank_t *rank, const em_rank_bucket_t *bucket)
{
    const em_late_t *const late = &rank->late;
    if (bucket->undo) {
        em_bucket_adamw_undo(rank->shared->kernels, bucket->table, bucket->num_params,
                             bucket->begin, bucket->end, &late->adamw, late->right.finite,
                             late->right.scale, bucket->param, bucket->grad, bucket->m, bucket->v);
    }
}

void em_late_end_step(em_rank_t *rank)
{
    em_late_t *const late = &rank->late;
    if (late->flagged) {
        return; /* it will be run again */
    }
    rank->num_updates += !rank->has_norm || rank->norm.finite ? 1 : 0;
    late->pending = rank->has_scan;
    late->used = rank->norm;
    late->adamw = rank->adamw;
}

void em_late_close(em_rank_t *rank)
{
    em_late_check(rank, rank->shared->total_sum, rank->shared->least_sum);
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        rank->buckets[i].undo = rank->late.wrong;
        em_late_undo(rank, &rank->buckets[i]);
    }
}
