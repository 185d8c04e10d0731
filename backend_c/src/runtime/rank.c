/* A rank's arena, stages and buckets. See em_rank.h. */
#include <inttypes.h>
#include <string.h>

#include "runtime/em_rank.h"

em_rank_stage_t *em_rank_find_stage(const em_rank_t *rank, uint32_t stage)
{
    for (uint32_t i = 0; i < rank->num_stages; i++) {
        if (rank->stages[i].index == stage) {
            return &rank->stages[i];
        }
    }
    return NULL;
}

em_rank_bucket_t *em_rank_find_bucket(const em_rank_t *rank, uint32_t index)
{
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        if (rank->buckets[i].index == index) {
            return &rank->buckets[i];
        }
    }
    return NULL;
}

static em_status_t no_memory(const em_rank_t *rank, em_error_t *err)
{
    return EM_FAIL(err, EM_ERR_MEMORY, "no memory for the tables of rank %" PRIu32 " dp %" PRIu32,
                   rank->pp, rank->dp);
}

static void *region(const em_rank_t *rank, em_region_t kind)
{
    return rank->arena.base + rank->shared->plan->ranks[rank->pp].regions[kind].at;
}

static em_status_t make_stage(em_rank_t *rank, uint32_t index, em_error_t *err)
{
    const em_plan_t *const plan = rank->shared->plan;
    em_rank_stage_t *const made = &rank->stages[rank->num_stages];
    made->index = index;
    em_plan_stage(plan, index, &made->stage);
    EM_RETURN_IF_ERROR(em_stage_slice_sizes(&made->stage, (uint32_t)plan->train.microbatch,
                                            (uint32_t)plan->train.seq, (uint32_t)plan->train.slices,
                                            &made->sizes, err));
    rank->num_stages++;
    const uint32_t num_pointers = em_stage_num_pointers(&made->stage);
    made->params = em_alloc_zeroed(num_pointers, sizeof *made->params);
    made->grads = em_alloc_zeroed(num_pointers, sizeof *made->grads);
    if (made->params == NULL || made->grads == NULL) {
        return no_memory(rank, err);
    }
    made->ctx = (em_stage_ctx_t){.stage = &made->stage,
                                 .kernels = rank->shared->kernels,
                                 .microbatch = (uint32_t)plan->train.microbatch,
                                 .seq = (uint32_t)plan->train.seq,
                                 .slices = (uint32_t)plan->train.slices,
                                 .params = made->params,
                                 .grads = made->grads,
                                 .workspace = region(rank, EM_REGION_WORKSPACE)};
    return EM_OK;
}

/* Whether another bucket, which counts, holds the same parameter. */
static bool is_second_of_tie(const em_plan_t *plan, uint32_t bucket)
{
    for (uint32_t i = 0; i < plan->num_ties; i++) {
        if (plan->ties[i].second == (int32_t)bucket) {
            return true;
        }
    }
    return false;
}

/* Which of its floats rest here: a sharded bucket is cut into as many parts as there are replicas.
 */
static void place_shard(const em_rank_t *rank, em_rank_bucket_t *bucket)
{
    const em_plan_bucket_t *const declared = &rank->shared->plan->buckets[bucket->index];
    bucket->end = bucket->num_floats;
    bucket->sharded = declared->shard != EM_NONE;
    if (bucket->sharded) {
        const uint64_t part = declared->elements / rank->shared->world.num_replicas;
        bucket->num_floats = declared->elements;
        bucket->begin = rank->dp * part;
        bucket->end = bucket->begin + part;
    }
}

/* Slot 0 of a pool: where a sharded bucket's pointers lead before its first AG or ZERO. */
static float *first_slot(const em_rank_t *rank, em_pool_t pool)
{
    const em_plan_pool_t *const declared = &rank->shared->plan->ranks[rank->pp].pools[pool];
    return (float *)(void *)(rank->arena.base + declared->at);
}

/* The next bucket of the rank, at *floats of each of its regions. */
static em_status_t make_bucket(em_rank_t *rank, em_rank_stage_t *stage, uint32_t index,
                               uint64_t *floats, em_error_t *err)
{
    const em_plan_t *const plan = rank->shared->plan;
    em_rank_bucket_t *const made = &rank->buckets[rank->num_buckets++];
    const uint32_t holds = plan->buckets[index].holds;
    made->index = index;
    made->is_first = em_plan_first_rank(plan, stage->index) == rank->pp;
    made->in_norm = made->is_first && !is_second_of_tie(plan, index);
    EM_RETURN_IF_ERROR(
        em_stage_layout(&stage->stage, holds, NULL, 0, &made->num_params, &made->num_floats, err));
    if (made->num_params > 0) {
        made->table = em_alloc_zeroed(made->num_params, sizeof *made->table);
        if (made->table == NULL) {
            return no_memory(rank, err);
        }
        EM_RETURN_IF_ERROR(em_stage_layout(&stage->stage, holds, made->table, made->num_params,
                                           &made->num_params, &made->num_floats, err));
    }
    place_shard(rank, made);
    const uint64_t resting = made->end - made->begin;
    made->param = (float *)region(rank, EM_REGION_PARAMS) + *floats;
    made->grad = (float *)region(rank, EM_REGION_GRADS) + *floats;
    made->m = (float *)region(rank, EM_REGION_MOMENTS) + 2 * *floats;
    made->v = made->m + resting;
    *floats += resting;
    float *const param = made->sharded ? first_slot(rank, EM_POOL_P) : made->param;
    float *const grad = made->sharded ? first_slot(rank, EM_POOL_Q) : made->grad;
    em_stage_bind(&stage->stage, made->table, made->num_params, param, stage->params);
    em_stage_bind(&stage->stage, made->table, made->num_params, grad, stage->grads);
    return EM_OK;
}

/* A tied head on the embedding's rank, in another stage, uses the embedding's weight. */
static void bind_tied_head(em_rank_t *rank)
{
    const em_plan_t *const plan = rank->shared->plan;
    em_rank_stage_t *const first = em_rank_find_stage(rank, 0);
    em_rank_stage_t *const last = em_rank_find_stage(rank, plan->num_stages - 1);
    if (!plan->model.tied || first == NULL || last == NULL || first == last) {
        return;
    }
    const em_plan_stage_t *const declared = &plan->stages[last->index];
    for (uint32_t k = 0; k < declared->num_buckets; k++) {
        if ((plan->buckets[declared->first_bucket + k].holds & EM_HOLDS_HEAD) != 0) {
            return; /* a copy of its own */
        }
    }
    em_stage_bind_head(em_stage_wte(first->params), last->params);
    em_stage_bind_head(em_stage_wte(first->grads), last->grads);
}

static em_status_t make_stages(em_rank_t *rank, em_error_t *err)
{
    const em_plan_t *const plan = rank->shared->plan;
    uint32_t num_stages = 0, num_buckets = 0;
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        if (em_plan_stage_on(plan, s, rank->pp)) {
            num_stages++;
            num_buckets += plan->stages[s].num_buckets;
        }
    }
    rank->stages = em_alloc_zeroed(num_stages, sizeof *rank->stages);
    rank->buckets = em_alloc_zeroed(num_buckets == 0 ? 1 : num_buckets, sizeof *rank->buckets);
    if (rank->stages == NULL || rank->buckets == NULL) {
        return no_memory(rank, err);
    }
    uint64_t floats = 0;
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        if (!em_plan_stage_on(plan, s, rank->pp)) {
            continue;
        }
        EM_RETURN_IF_ERROR(make_stage(rank, s, err));
        em_rank_stage_t *const stage = &rank->stages[rank->num_stages - 1];
        for (uint32_t k = 0; k < plan->stages[s].num_buckets; k++) {
            EM_RETURN_IF_ERROR(
                make_bucket(rank, stage, plan->stages[s].first_bucket + k, &floats, err));
        }
    }
    bind_tied_head(rank);
    for (uint32_t i = 0; i < rank->num_stages; i++) {
        EM_RETURN_IF_ERROR(
            em_stage_check_bound(&rank->stages[i].stage, rank->stages[i].params, err));
    }
    em_workspace_prepare(&rank->stages[0].stage, (uint32_t)plan->train.seq,
                         region(rank, EM_REGION_WORKSPACE));
    return EM_OK;
}

/* Tokens, then targets, at the start of the staging; receive buffers behind them stay unused. */
static void place_token_buffers(em_rank_t *rank)
{
    const em_plan_t *const plan = rank->shared->plan;
    const uint64_t bytes = plan->train.microbatch * plan->train.seq * sizeof(int32_t);
    unsigned char *at = region(rank, EM_REGION_STAGING);
    if (em_plan_stage_on(plan, 0, rank->pp)) {
        rank->tokens = (int32_t *)(void *)at;
        at += (bytes + EM_ALIGN - 1) / EM_ALIGN * EM_ALIGN;
    }
    if (em_plan_stage_on(plan, plan->num_stages - 1, rank->pp)) {
        rank->targets = (int32_t *)(void *)at;
    }
}

em_status_t em_rank_make(em_rank_t *rank, em_engine_shared_t *shared, uint32_t pp, uint32_t dp,
                         em_error_t *err)
{
    rank->pp = pp;
    rank->dp = dp;
    rank->shared = shared;
    rank->program = em_plan_program(shared->plan, pp, dp);
    atomic_init(&rank->at, 0);
    atomic_init(&rank->progress, 0);
    EM_RETURN_IF_ERROR(em_arena_create(&rank->arena, shared->plan->ranks[pp].arena_bytes, err));
    EM_RETURN_IF_ERROR(em_arena_create(&rank->host, em_plan_host_bytes(shared->plan, pp), err));
    EM_RETURN_IF_ERROR(make_stages(rank, err));
    place_token_buffers(rank);
    return EM_OK;
}

void em_rank_free(em_rank_t *rank)
{
    for (uint32_t i = 0; i < rank->num_stages; i++) {
        em_free(rank->stages[i].params);
        em_free(rank->stages[i].grads);
    }
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        em_free(rank->buckets[i].table);
    }
    em_free(rank->stages);
    em_free(rank->buckets);
    em_free(rank->records);
    em_free(rank->works);
    em_free(rank->copies);
    em_free(rank->times);
    em_arena_destroy(&rank->arena);
    em_arena_destroy(&rank->host);
}
