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
#include <string.h>

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

/* Copies of a bucket at the same place of another rank of the replica. */
static void copy_bucket(const em_rank_t *from, uint32_t from_index, const em_rank_t *to,
                        uint32_t to_index)
{
    const em_rank_bucket_t *const source = em_rank_find_bucket(from, from_index);
    const em_rank_bucket_t *const target = em_rank_find_bucket(to, to_index);
    const size_t bytes = (size_t)(source->end - source->begin) * sizeof(float);
    for (int kind = EM_STATE_PARAM; source != target && kind < EM_NUM_STATES; kind++) {
        memcpy(em_bucket_state(target, (em_state_kind_t)kind),
               em_bucket_state(source, (em_state_kind_t)kind), bytes);
    }
}

void em_late_align(const em_engine_shared_t *shared)
{
    const em_plan_t *const plan = shared->plan;
    for (uint32_t dp = 0; dp < shared->world.num_replicas; dp++) {
        const em_rank_t *const ranks = &shared->ranks[(uint64_t)dp * plan->num_ranks];
        for (uint32_t i = 0; i < plan->num_ties; i++) {
            const uint32_t first = (uint32_t)plan->ties[i].first;
            const uint32_t second = (uint32_t)plan->ties[i].second;
            copy_bucket(&ranks[em_plan_first_rank(plan, plan->buckets[first].stage)], first,
                        &ranks[em_plan_first_rank(plan, plan->buckets[second].stage)], second);
        }
        for (uint32_t b = 0; b < plan->num_buckets; b++) {
            const em_plan_stage_t *const stage = &plan->stages[plan->buckets[b].stage];
            for (uint32_t r = 1; r < stage->num_ranks; r++) {
                copy_bucket(&ranks[plan->place_ranks[stage->first_rank]], b,
                            &ranks[plan->place_ranks[stage->first_rank + r]], b);
            }
        }
    }
}
