/*
 * Phase 2: buckets of parameters, and ties between them. Rulings 11 and 12 of the page's
 * section 10.
 */
#include <inttypes.h>

#include "plan/em_reader.h"

/* Parts that a stage has, as EM_HOLDS_ bits. */
static uint32_t parts_of(const em_plan_t *plan, const em_plan_stage_t *stage)
{
    uint32_t parts = 0;
    parts |= stage->embedding ? EM_HOLDS_WTE : 0u;
    parts |= stage->embedding && !plan->model.llama ? EM_HOLDS_WPE : 0u;
    parts |= stage->has_layers ? EM_HOLDS_LAYERS : 0u;
    parts |= stage->head ? EM_HOLDS_NORM | EM_HOLDS_HEAD : 0u;
    return parts;
}

static bool names_twice(em_reader_t *r, const int32_t *groups, uint32_t num, em_map_t *seen)
{
    em_map_clear(seen);
    for (uint32_t i = 0; i < num; i++) {
        bool added = false;
        if (em_map_insert(seen, (uint64_t)groups[i], 0, &added) == NULL) {
            return !em_no_memory(r);
        }
        if (!added) {
            return true;
        }
    }
    return false;
}

static const char *bucket_fault(em_reader_t *r, const em_plan_bucket_t *bucket, uint32_t held,
                                em_map_t *seen)
{
    const em_plan_t *const plan = r->plan;
    const int32_t *const reduce = plan->reduce_groups + bucket->first_reduce;
    if ((bucket->holds & ~parts_of(plan, &plan->stages[bucket->stage])) != 0) {
        return "it holds a part that its stage does not have";
    }
    if ((bucket->holds & held) != 0) {
        return "it holds a part that another bucket of the stage holds";
    }
    if (bucket->holds_twice) {
        return "parts must stand once each, in the order wte wpe layers norm head";
    }
    if (bucket->elements == 0) {
        return "elements must be at least 1";
    }
    if (bucket->shard == EM_UNKNOWN) {
        return "the group of shard= is not declared";
    }
    for (uint32_t i = 0; i < bucket->num_reduce; i++) {
        if (reduce[i] < 0) {
            return "a group of reduce= is not declared";
        }
    }
    return names_twice(r, reduce, bucket->num_reduce, seen) ? "reduce= names a group twice" : NULL;
}

static bool check_bucket(em_reader_t *r, uint32_t i, uint32_t *held, em_map_t *seen)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_BUCKET;
    const em_plan_bucket_t *const bucket = &plan->buckets[i];
    const em_plan_bucket_t *const before = i == 0 ? NULL : &plan->buckets[i - 1];
    if (bucket->stage >= plan->num_stages) {
        return em_refuse(r, code, bucket->line, "bucket %" PRIu32 "/%" PRIu32 ": no such stage",
                         bucket->stage, bucket->index);
    }
    const bool same = before != NULL && bucket->stage == before->stage;
    if ((before != NULL && bucket->stage < before->stage) ||
        bucket->index != (same ? before->index + 1 : 0)) {
        return em_refuse(r, code, bucket->line, "bucket %" PRIu32 "/%" PRIu32 " is out of order",
                         bucket->stage, bucket->index);
    }
    em_plan_stage_t *const stage = &EM_AT(r->store->stages, em_plan_stage_t, bucket->stage);
    if (!same) {
        stage->first_bucket = i;
        *held = 0;
    }
    stage->num_buckets++;
    const char *const wrong = bucket_fault(r, bucket, *held, seen);
    if (wrong != NULL) {
        return em_refuse(r, code, bucket->line, "bucket %" PRIu32 "/%" PRIu32 ": %s", bucket->stage,
                         bucket->index, wrong);
    }
    *held |= bucket->holds;
    return true;
}

bool em_shares_embedding(const em_plan_t *plan)
{
    const em_plan_stage_t *const last = &plan->stages[plan->num_stages - 1];
    for (uint32_t i = 0; i < last->num_buckets; i++) {
        if ((plan->buckets[last->first_bucket + i].holds & EM_HOLDS_HEAD) != 0) {
            return false;
        }
    }
    return plan->model.tied;
}

static bool check_buckets(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_BUCKET;
    em_map_t seen = {.capacity = 0};
    uint32_t held = 0;
    bool good = true;
    for (uint32_t i = 0; good && i < plan->num_buckets; i++) {
        good = check_bucket(r, i, &held, &seen);
    }
    em_map_free(&seen);
    if (!good) {
        return false;
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        const em_plan_stage_t *const stage = &plan->stages[s];
        uint32_t missing = parts_of(plan, stage);
        missing &= plan->model.tied ? ~(uint32_t)EM_HOLDS_HEAD : ~0u;
        for (uint32_t i = 0; i < stage->num_buckets; i++) {
            missing &= ~plan->buckets[stage->first_bucket + i].holds;
        }
        if (missing != 0) {
            (void)em_refuse(r, code, plan->buckets[plan->num_buckets - 1].line,
                            "no bucket holds a part of stage %" PRIu32, s);
            return em_advise(r, "every parameter is stepped by exactly one bucket");
        }
    }
    const em_plan_stage_t *const last = &plan->stages[plan->num_stages - 1];
    for (uint32_t i = 0; em_shares_embedding(plan) && i < last->num_ranks; i++) {
        const uint32_t rank = plan->place_ranks[last->first_rank + i];
        if (!em_plan_stage_on(plan, 0, rank)) {
            (void)em_refuse(r, code, plan->buckets[last->first_bucket].line,
                            "the tied head on rank %" PRIu32 " has no bucket with wte on its rank",
                            rank);
            return em_advise(r, "hold `head` in a bucket of the last stage and tie it to that of "
                                "`wte`");
        }
    }
    return true;
}

/* True if `group` joins all ranks of both stages. */
static bool joins(const em_plan_t *plan, uint32_t group, const em_plan_bucket_t *const pair[2])
{
    if ((plan->groups[group].axes & 1u << EM_AXIS_PP) == 0) {
        return false;
    }
    for (int end = 0; end < 2; end++) {
        const em_plan_stage_t *const stage = &plan->stages[pair[end]->stage];
        for (uint32_t i = 0; i < stage->num_ranks; i++) {
            if (!em_plan_group_has(plan, group, plan->place_ranks[stage->first_rank + i])) {
                return false;
            }
        }
    }
    return true;
}

static bool reduces_over(const em_plan_t *plan, const em_plan_bucket_t *bucket, int32_t group)
{
    for (uint32_t i = 0; i < bucket->num_reduce; i++) {
        if (plan->reduce_groups[bucket->first_reduce + i] == group) {
            return true;
        }
    }
    return false;
}

static const char *tie_fault(const em_plan_t *plan, const em_plan_bucket_t *const pair[2])
{
    if ((pair[0]->holds & EM_HOLDS_WTE) == 0 || (pair[1]->holds & EM_HOLDS_HEAD) == 0) {
        return "a tie joins a bucket with wte to a bucket with head";
    }
    if (pair[0]->elements != pair[1]->elements) {
        return "the tied buckets differ in elements";
    }
    const em_plan_stage_t *const stage = &plan->stages[pair[0]->stage];
    for (uint32_t i = 0; i < stage->num_ranks; i++) {
        if (em_plan_stage_on(plan, pair[1]->stage, plan->place_ranks[stage->first_rank + i])) {
            return "both are placed on one rank, which keeps one buffer: leave `head` out of the "
                   "bucket";
        }
    }
    for (uint32_t i = 0; i < pair[0]->num_reduce; i++) {
        const int32_t group = plan->reduce_groups[pair[0]->first_reduce + i];
        if (reduces_over(plan, pair[1], group) && joins(plan, (uint32_t)group, pair)) {
            return NULL;
        }
    }
    return "no group over the ranks of both is in both reduce lists";
}

static bool check_ties(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_TIE;
    if (r->raw_ties.num == 0 && plan->model.tied && !em_shares_embedding(plan)) {
        (void)em_refuse(
            r, code, plan->buckets[plan->num_buckets - 1].line,
            "the model is tied, its head has a bucket, and no tie line joins it to wte");
        return em_advise(r, "add `tie S/K S/K`, or leave `head` out of the bucket");
    }
    for (uint64_t i = 0; i < r->raw_ties.num; i++) {
        const em_raw_tie_t *const raw = &EM_AT(r->raw_ties, em_raw_tie_t, i);
        if (!plan->model.tied) {
            return em_refuse(r, code, raw->line, "the model is not tied");
        }
        const em_plan_bucket_t *pair[2] = {NULL, NULL};
        em_plan_tie_t *const tie = em_vec_push(&r->store->ties, sizeof *tie);
        if (tie == NULL) {
            return em_no_memory(r);
        }
        tie->line = raw->line;
        for (int end = 0; end < 2; end++) {
            const uint64_t key = (uint64_t)raw->stage[end] << 20 | raw->index[end];
            const uint32_t *const bucket = em_map_find(&r->bucket_of_pair, key);
            if (bucket == NULL) {
                return em_refuse(r, code, raw->line, "there is no bucket %" PRIu32 "/%" PRIu32,
                                 raw->stage[end], raw->index[end]);
            }
            pair[end] = &plan->buckets[*bucket];
            *(end == 0 ? &tie->first : &tie->second) = (int32_t)*bucket;
        }
        const char *const wrong = i > 0 ? "a second tie" : tie_fault(plan, pair);
        if (wrong != NULL) {
            return em_refuse(r, code, raw->line, "%s", wrong);
        }
    }
    return true;
}

bool em_check_parameters(em_reader_t *r)
{
    return check_buckets(r) && check_ties(r);
}
