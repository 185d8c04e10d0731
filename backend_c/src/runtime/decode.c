/*
 * A program becomes an array of records: slots become addresses, queues become counters.
 *
 * One walk in program order, as the checks of the plan do it: whoever brings a slot to life leaves
 * its address for those that use it. Whether a W writes gradients or adds to them is decided here
 * too, as ZERO stands at a fixed place.
 */
#include <inttypes.h>
#include <string.h>

#include "runtime/em_rank.h"

/* Where the data of one (stage, microbatch) are, as far as the walk has come. */
typedef struct {
    float *x;
    float *y;
    float *dy;
    float *dx;
    float *a;
    float *w;
    float *g;
} em_places_t;

typedef struct {
    em_rank_t *rank;
    em_places_t *places; /* [stage of this rank][microbatch] */
    uint32_t *posted;    /* [channel, then group]: posts so far */
    uint32_t *receives;  /* [channel]: receives posted so far */
    uint32_t *posts;     /* indices of posts not yet waited, one list for all queues */
    uint32_t num_posts;
    uint32_t num_works;
} em_walk_t;

static float *slot(const em_rank_t *rank, em_pool_t pool, const em_instr_t *instr)
{
    const int32_t index = em_instr_slot(instr, pool);
    if (index < 0) {
        return NULL;
    }
    const em_plan_pool_t *const declared = &rank->shared->plan->ranks[rank->pp].pools[pool];
    return (float *)(void *)(rank->arena.base + declared->at + (uint64_t)index * declared->bytes);
}

static em_places_t *places_of(const em_walk_t *walk, int32_t stage, int32_t microbatch)
{
    const em_rank_stage_t *const found = em_rank_find_stage(walk->rank, (uint32_t)stage);
    const uint64_t row = (uint64_t)(found - walk->rank->stages);
    return &walk->places[row * walk->rank->shared->plan->train.m + (uint64_t)microbatch];
}

/* Parts whose gradients this W adds to; those that it writes are fresh no more. */
static uint32_t accumulate_mask(em_rank_t *rank, const em_rank_stage_t *stage)
{
    const em_plan_t *const plan = rank->shared->plan;
    uint32_t mask = 0;
    bool own_head = false;
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        em_rank_bucket_t *const bucket = &rank->buckets[i];
        if (plan->buckets[bucket->index].stage == stage->index) {
            const uint32_t holds = plan->buckets[bucket->index].holds;
            mask |= holds & ~bucket->fresh;
            bucket->fresh &= ~holds;
            own_head = own_head || (holds & EM_HOLDS_HEAD) != 0;
        }
    }
    if (!plan->model.tied || !stage->stage.has_head || stage->stage.has_embedding || own_head) {
        return mask;
    }
    /* The head's weight is the embedding's, in a bucket of stage 0 on this rank. */
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        em_rank_bucket_t *const bucket = &rank->buckets[i];
        const em_plan_bucket_t *const declared = &plan->buckets[bucket->index];
        if (declared->stage == 0 && (declared->holds & EM_HOLDS_WTE) != 0) {
            mask |= (bucket->fresh & EM_HOLDS_WTE) != 0 ? 0u : (uint32_t)EM_PART_HEAD;
            bucket->fresh &= ~(uint32_t)EM_HOLDS_WTE;
        }
    }
    return mask;
}

static void decode_work(em_walk_t *walk, const em_instr_t *instr, em_record_t *record)
{
    em_rank_t *const rank = walk->rank;
    em_engine_shared_t *const shared = rank->shared;
    const em_plan_train_t *const train = &shared->plan->train;
    em_rank_stage_t *const stage = em_rank_find_stage(rank, (uint32_t)instr->stage);
    em_places_t *const at = places_of(walk, instr->stage, instr->microbatch);
    float *const h = slot(rank, EM_POOL_H, instr);
    if (instr->op == EM_OP_F) {
        at->y = h;
        at->a = slot(rank, EM_POOL_A, instr);
        at->w = slot(rank, EM_POOL_W, instr);
    } else if (instr->op == EM_OP_I || instr->op == EM_OP_B) {
        at->dx = h;
        at->g = slot(rank, EM_POOL_G, instr);
    }
    em_work_t *const work = &rank->works[walk->num_works++];
    const uint64_t step_tokens =
        shared->plan->mesh.size[EM_AXIS_DP] * train->m * train->microbatch * train->seq;
    work->stage = stage;
    work->microbatch = (uint32_t)instr->microbatch;
    work->item = (em_item_t){
        .tokens = stage->stage.has_embedding ? rank->tokens : NULL,
        .targets = stage->stage.has_head ? rank->targets : NULL,
        .x = stage->stage.has_embedding ? NULL : at->x,
        .y = stage->stage.has_head ? NULL : at->y,
        .dy = stage->stage.has_head ? NULL : at->dy,
        .dx = stage->stage.has_embedding ? NULL : at->dx,
        .a = at->a,
        .w = at->w,
        .g = at->g,
        .loss_sum = stage->stage.has_head
                        ? &shared->losses[rank->dp * train->m + (uint64_t)instr->microbatch]
                        : NULL,
        .scale = (float)(1.0 / (double)step_tokens)};
    if (instr->op == EM_OP_W || instr->op == EM_OP_B) {
        work->item.accumulate = accumulate_mask(rank, stage);
    }
    record->work = work;
}

static void remember_post(em_walk_t *walk, uint32_t index)
{
    walk->posts[walk->num_posts++] = index;
}

/* The post that a wait belongs to: the oldest with its operand. */
static uint32_t find_post(em_walk_t *walk, const em_instr_t *wait)
{
    const em_instr_t *const instrs = walk->rank->program->instrs;
    for (uint32_t i = 0; i < walk->num_posts; i++) {
        const em_instr_t *const post = &instrs[walk->posts[i]];
        const bool sends = post->op == EM_OP_SF || post->op == EM_OP_SB;
        const bool receives = post->op == EM_OP_RF || post->op == EM_OP_RB;
        const bool kind = wait->op == EM_OP_WS   ? sends
                          : wait->op == EM_OP_WR ? receives
                                                 : !sends && !receives;
        if (kind && post->queue == wait->queue && post->stage == wait->stage &&
            post->microbatch == wait->microbatch && post->bucket == wait->bucket) {
            const uint32_t found = walk->posts[i];
            walk->num_posts--;
            memmove(&walk->posts[i], &walk->posts[i + 1],
                    (walk->num_posts - i) * sizeof *walk->posts);
            return found;
        }
    }
    return UINT32_MAX; /* never in a plan that was accepted */
}

static void decode_channel(em_walk_t *walk, const em_instr_t *instr, em_record_t *record,
                           uint32_t index)
{
    em_rank_t *const rank = walk->rank;
    em_world_channel_t *const channel =
        em_world_channel(&rank->shared->world, instr->queue, rank->dp);
    em_places_t *const at = places_of(walk, instr->stage, instr->microbatch);
    record->channel = &channel->local;
    record->per_step = channel->per_step;
    switch ((em_op_t)instr->op) {
    case EM_OP_SF:
    case EM_OP_SB:
        record->number = walk->posted[instr->queue]++;
        channel->sources[record->number] = instr->op == EM_OP_SF ? at->y : at->dx;
        remember_post(walk, index);
        break;
    case EM_OP_RF:
    case EM_OP_RB:
        record->number = walk->receives[instr->queue]++;
        record->target = slot(rank, EM_POOL_H, instr);
        *(instr->op == EM_OP_RF ? &at->x : &at->dy) = record->target;
        remember_post(walk, index);
        break;
    default: /* WS, WR: as their post */
        record->post = find_post(walk, instr);
        record->number = rank->records[record->post].number;
        record->target = rank->records[record->post].target;
        if (instr->op == EM_OP_WR) {
            record->source = &channel->sources[record->number];
        }
        break;
    }
}

static em_rank_bucket_t *bucket_of(const em_rank_t *rank, int32_t index)
{
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        if (rank->buckets[i].index == (uint32_t)index) {
            return &rank->buckets[i];
        }
    }
    return NULL;
}

static void decode_group(em_walk_t *walk, const em_instr_t *instr, em_record_t *record,
                         uint32_t index)
{
    em_rank_t *const rank = walk->rank;
    const em_world_t *const world = &rank->shared->world;
    em_world_group_t *const group = em_world_group(world, instr->queue, rank->pp, rank->dp);
    const uint32_t members = group->local.num_members;
    record->group = &group->local;
    record->per_step = group->per_step;
    record->member = em_world_member(world, instr->queue, rank->pp, rank->dp);
    record->bucket = bucket_of(rank, instr->bucket);
    if (instr->op != EM_OP_WC) {
        record->number = walk->posted[rank->shared->plan->num_channels + (uint32_t)instr->queue]++;
        if (instr->op == EM_OP_AR) {
            group->buffers[(uint64_t)record->number * members + record->member] =
                record->bucket->grad;
        }
        remember_post(walk, index);
        return;
    }
    record->post = find_post(walk, instr);
    record->post_op = rank->records[record->post].op;
    record->number = rank->records[record->post].number;
    if (record->post_op == EM_OP_AR) {
        record->reduce.buffers = &group->buffers[(uint64_t)record->number * members];
        em_local_share(record->bucket->num_floats, members, record->member, &record->reduce.begin,
                       &record->reduce.end);
    }
}

static void decode_instr(em_walk_t *walk, uint32_t index)
{
    em_rank_t *const rank = walk->rank;
    const em_instr_t *const instr = &rank->program->instrs[index];
    em_record_t *const record = &rank->records[index];
    record->op = instr->op;
    record->post = UINT32_MAX;
    switch ((em_op_t)instr->op) {
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
        decode_work(walk, instr, record);
        break;
    case EM_OP_SF:
    case EM_OP_SB:
    case EM_OP_RF:
    case EM_OP_RB:
    case EM_OP_WS:
    case EM_OP_WR:
        decode_channel(walk, instr, record, index);
        break;
    case EM_OP_AR:
    case EM_OP_NORM:
    case EM_OP_WC:
        decode_group(walk, instr, record, index);
        break;
    case EM_OP_LF:
        places_of(walk, instr->stage + 1, instr->microbatch)->x =
            places_of(walk, instr->stage, instr->microbatch)->y;
        break;
    case EM_OP_LB:
        places_of(walk, instr->stage - 1, instr->microbatch)->dy =
            places_of(walk, instr->stage, instr->microbatch)->dx;
        break;
    case EM_OP_ZERO:
        record->bucket = bucket_of(rank, instr->bucket);
        record->bucket->fresh = rank->shared->plan->buckets[instr->bucket].holds;
        break;
    case EM_OP_OPT:
        record->bucket = bucket_of(rank, instr->bucket);
        break;
    default: /* MARK, END */
        break;
    }
}

em_status_t em_rank_decode(em_rank_t *rank, em_error_t *err)
{
    const em_plan_t *const plan = rank->shared->plan;
    rank->num_records = (uint32_t)rank->program->num_instrs;
    const uint64_t num_queues = (uint64_t)plan->num_channels + plan->num_groups + 1;
    em_walk_t walk = {.rank = rank};
    rank->records = em_alloc_zeroed(rank->num_records, sizeof *rank->records);
    rank->works = em_alloc_zeroed(rank->num_records, sizeof *rank->works);
    walk.places = em_alloc_zeroed((uint64_t)rank->num_stages * plan->train.m, sizeof *walk.places);
    walk.posted = em_alloc_zeroed(num_queues, sizeof *walk.posted);
    walk.receives = em_alloc_zeroed(num_queues, sizeof *walk.receives);
    walk.posts = em_alloc_zeroed(rank->num_records, sizeof *walk.posts);
    const bool enough = rank->records != NULL && rank->works != NULL && walk.places != NULL &&
                        walk.posted != NULL && walk.receives != NULL && walk.posts != NULL;
    for (uint32_t i = 0; enough && i < rank->num_records; i++) {
        decode_instr(&walk, i);
    }
    em_free(walk.places);
    em_free(walk.posted);
    em_free(walk.receives);
    em_free(walk.posts);
    EM_RETURN_ERROR_IF(!enough, err, EM_ERR_MEMORY,
                       "no memory for the %" PRIu32 " instructions of rank %" PRIu32 " dp %" PRIu32,
                       rank->num_records, rank->pp, rank->dp);
    return EM_OK;
}
