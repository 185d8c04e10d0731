/* Decoding: passes and braids, copies to the host, and which gradients a pass writes. */
#include "runtime/em_decode.h"

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

void em_decode_zero(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record,
                    uint32_t index)
{
    em_rank_bucket_t *const bucket = em_rank_find_bucket(walk->rank, (uint32_t)instr->bucket);
    bucket->fresh = walk->rank->shared->plan->buckets[instr->bucket].holds;
    bucket->zero = index;
    bucket->open = bucket->sharded ? em_decode_slot(walk->rank, EM_POOL_Q, instr) : bucket->grad;
    record->bucket = bucket;
    record->target = bucket->open;
}

void em_decode_clear(em_decoding_t *walk, em_rank_bucket_t *bucket)
{
    if (bucket->fresh != 0) {
        walk->rank->records[bucket->zero].parts |= bucket->fresh;
        bucket->fresh = 0;
    }
}

/* Where a stage's buffers may lie in the workspace: behind what its F needs itself. */
static float *behind_forward(const em_rank_stage_t *stage)
{
    return stage->ctx.workspace + stage->sizes.workspace_bytes[EM_PASS_F] / sizeof(float);
}

/* Slots that a pass names, and the scratch of those that it need not name. */
static void take_slots(const em_rank_t *rank, const em_instr_t *pass, const em_rank_stage_t *stage,
                       em_places_t *at)
{
    float *const h = em_decode_slot(rank, EM_POOL_H, pass);
    switch ((em_op_t)pass->op) {
    case EM_OP_F:
        at->y = h;
        at->a = em_decode_slot(rank, EM_POOL_A, pass);
        at->w = em_decode_slot(rank, EM_POOL_W, pass);
        at->k = em_decode_slot(rank, EM_POOL_K, pass);
        if (em_is_stashless(pass)) {
            at->a = behind_forward(stage);
            at->w = at->a + stage->sizes.a_bytes / sizeof(float);
        }
        break;
    case EM_OP_RC:
        at->a = em_decode_slot(rank, EM_POOL_A, pass);
        at->w = em_decode_slot(rank, EM_POOL_W, pass);
        break;
    case EM_OP_I:
    case EM_OP_B:
        at->dx = h;
        at->g = em_decode_slot(rank, EM_POOL_G, pass);
        break;
    default:
        break;
    }
}

static void decode_pass(em_decoding_t *walk, const em_instr_t *pass)
{
    em_rank_t *const rank = walk->rank;
    em_engine_shared_t *const shared = rank->shared;
    const em_plan_train_t *const train = &shared->plan->train;
    em_rank_stage_t *const stage = em_rank_find_stage(rank, (uint32_t)pass->stage);
    em_places_t *const at = em_decode_places(walk, pass->stage, pass);
    const uint32_t slice = em_decode_slice(pass);
    take_slots(rank, pass, stage, at);
    em_work_t *const work = &rank->works[walk->num_works++];
    const uint64_t step_tokens =
        shared->plan->mesh.size[EM_AXIS_DP] * train->m * train->microbatch * train->seq;
    const bool again = pass->op == EM_OP_RC;
    const uint64_t microbatch = rank->dp * train->m + (uint64_t)pass->microbatch;
    double *const loss = &shared->losses[microbatch * train->slices + slice];
    work->op = pass->op;
    work->stage = stage;
    work->microbatch = (uint32_t)pass->microbatch;
    work->item = (em_item_t){.tokens = stage->stage.has_embedding ? rank->tokens : NULL,
                             .targets = stage->stage.has_head ? rank->targets : NULL,
                             .x = stage->stage.has_embedding ? NULL : at->x,
                             .y = again ? behind_forward(stage) : at->y,
                             .dy = stage->stage.has_head ? NULL : at->dy,
                             .dx = stage->stage.has_embedding ? NULL : at->dx,
                             .a = at->a,
                             .w = at->w,
                             .g = at->g,
                             .k = (at - slice)->k,
                             .slice = slice,
                             .loss_sum = again ? &rank->unread_loss : loss,
                             .scale = (float)(1.0 / (double)step_tokens),
                             .forward_only = em_is_stashless(pass)};
    if (stage->stage.has_head) {
        work->item.y = NULL;
    } else {
        work->item.loss_sum = NULL;
    }
    if (pass->op == EM_OP_W || pass->op == EM_OP_B) {
        work->item.accumulate = accumulate_mask(rank, stage);
    }
}

void em_decode_passes(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record)
{
    const em_instr_t *const passes =
        em_plan_passes(walk->rank->shared->plan, instr, &record->num_works);
    record->work = &walk->rank->works[walk->num_works];
    for (uint32_t i = 0; i < record->num_works; i++) {
        decode_pass(walk, &passes[i]);
    }
}

/* The wait copies; so it finds the addresses of its post. */
void em_decode_copy(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record)
{
    em_rank_t *const rank = walk->rank;
    if (record->post != UINT32_MAX) {
        record->copy = rank->records[record->post].copy;
        return;
    }
    const em_rank_stage_t *const stage = em_rank_find_stage(rank, (uint32_t)instr->stage);
    em_places_t *const at = em_decode_places(walk, instr->stage, instr);
    if (instr->op == EM_OP_OFF) {
        at->o = em_decode_slot(rank, EM_POOL_O, instr);
    } else {
        at->a = em_decode_slot(rank, EM_POOL_A, instr);
        at->w = em_decode_slot(rank, EM_POOL_W, instr);
    }
    record->copy = &rank->copies[walk->num_copies++];
    *record->copy = (em_copy_t){.a = at->a,
                                .w = at->w,
                                .host = at->o,
                                .a_bytes = stage->sizes.a_bytes,
                                .w_bytes = stage->sizes.w_bytes};
}
