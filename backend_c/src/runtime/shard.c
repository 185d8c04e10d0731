/* Sharded buckets: the part that rests on a rank, the whole in a slot or a buffer. */
#include <string.h>

#include "runtime/em_rank.h"

float *em_bucket_state(const em_rank_bucket_t *bucket, em_state_kind_t kind)
{
    return kind == EM_STATE_PARAM ? bucket->param : (kind == EM_STATE_M ? bucket->m : bucket->v);
}

static bool holds_head(const em_plan_t *plan, uint32_t stage)
{
    const em_plan_stage_t *const declared = &plan->stages[stage];
    for (uint32_t k = 0; k < declared->num_buckets; k++) {
        if ((plan->buckets[declared->first_bucket + k].holds & EM_HOLDS_HEAD) != 0) {
            return true;
        }
    }
    return false;
}

bool em_plan_stage_uses(const em_plan_t *plan, uint32_t stage, uint32_t pp, uint32_t bucket)
{
    const em_plan_bucket_t *const declared = &plan->buckets[bucket];
    const bool tied_head = plan->model.tied && plan->stages[stage].head && stage != 0 &&
                           em_plan_stage_on(plan, 0, pp) && !holds_head(plan, stage);
    return declared->stage == stage ||
           (tied_head && declared->stage == 0 && (declared->holds & EM_HOLDS_WTE) != 0);
}

/* `tables` picks the pointer table of a stage: its parameters' or its gradients'. */
static void bind(em_rank_t *rank, const em_rank_bucket_t *bucket, float *base, bool grads)
{
    const em_plan_t *const plan = rank->shared->plan;
    em_rank_stage_t *const own = em_rank_find_stage(rank, plan->buckets[bucket->index].stage);
    float **const pointers = grads ? own->grads : own->params;
    em_stage_bind(&own->stage, bucket->table, bucket->num_params, base, pointers);
    for (uint32_t i = 0; i < rank->num_stages; i++) {
        em_rank_stage_t *const stage = &rank->stages[i];
        if (stage != own && em_plan_stage_uses(plan, stage->index, rank->pp, bucket->index)) {
            em_stage_bind_head(em_stage_wte(pointers), grads ? stage->grads : stage->params);
        }
    }
}

void em_rank_bind_params(em_rank_t *rank, const em_rank_bucket_t *bucket, float *base)
{
    bind(rank, bucket, base, false);
}

void em_rank_bind_grads(em_rank_t *rank, const em_rank_bucket_t *bucket, float *base)
{
    bind(rank, bucket, base, true);
}

void em_rank_gather(const em_rank_t *rank, const em_rank_bucket_t *bucket, em_state_kind_t kind,
                    float *whole)
{
    const em_engine_shared_t *const shared = rank->shared;
    const uint64_t place = (uint64_t)(bucket - rank->buckets);
    for (uint32_t dp = 0; dp < shared->world.num_replicas; dp++) {
        const em_rank_t *const other =
            &shared->ranks[(uint64_t)dp * shared->plan->num_ranks + rank->pp];
        const em_rank_bucket_t *const part = &other->buckets[place];
        memcpy(whole + part->begin, em_bucket_state(part, kind),
               (size_t)(part->end - part->begin) * sizeof *whole);
    }
}

uint32_t em_plan_num_gathered(const em_plan_t *plan, uint32_t stage, uint32_t pp)
{
    uint32_t num = 0;
    for (uint32_t b = 0; b < plan->num_buckets; b++) {
        num += plan->buckets[b].shard != EM_NONE && em_plan_stage_uses(plan, stage, pp, b);
    }
    return num;
}

void em_rank_gather_stage(em_rank_t *rank, const em_rank_stage_t *stage)
{
    const em_plan_t *const plan = rank->shared->plan;
    const em_plan_pool_t *const pool = &plan->ranks[rank->pp].pools[EM_POOL_P];
    uint64_t slot = 0;
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        const em_rank_bucket_t *const bucket = &rank->buckets[i];
        if (!bucket->sharded || !em_plan_stage_uses(plan, stage->index, rank->pp, bucket->index)) {
            continue;
        }
        float *const whole = (float *)(void *)(rank->arena.base + pool->at + slot++ * pool->bytes);
        em_rank_gather(rank, bucket, EM_STATE_PARAM, whole);
        em_rank_bind_params(rank, bucket, whole);
    }
}
