/*
 * A program becomes an array of records: slots become addresses, queues become counters.
 *
 * One walk in program order, as the checks of the plan do it: whoever brings a slot to life leaves
 * its address for those that use it. Whether a W writes gradients or adds to them is decided here
 * too, as ZERO stands at a fixed place.
 */
#include <inttypes.h>

#include "runtime/em_decode.h"

float *em_decode_slot(const em_rank_t *rank, em_pool_t pool, const em_instr_t *instr)
{
    const int32_t index = em_instr_slot(instr, pool);
    if (index < 0) {
        return NULL;
    }
    const em_plan_pool_t *const declared = &rank->shared->plan->ranks[rank->pp].pools[pool];
    unsigned char *const base =
        pool == EM_POOL_O ? rank->host.base : rank->arena.base + declared->at;
    return (float *)(void *)(base + (uint64_t)index * declared->bytes);
}

em_places_t *em_decode_places(const em_decoding_t *walk, int32_t stage, const em_instr_t *instr)
{
    const em_rank_stage_t *const found = em_rank_find_stage(walk->rank, (uint32_t)stage);
    const em_plan_train_t *const train = &walk->rank->shared->plan->train;
    const uint64_t row = (uint64_t)(found - walk->rank->stages);
    const uint64_t microbatch = row * train->m + (uint64_t)instr->microbatch;
    return &walk->places[microbatch * train->slices + em_decode_slice(instr)];
}

static void decode_instr(em_decoding_t *walk, uint32_t index)
{
    em_rank_t *const rank = walk->rank;
    const em_instr_t *const instr = &rank->program->instrs[index];
    em_record_t *const record = &rank->records[index];
    record->op = instr->op;
    record->post = UINT32_MAX;
    if (instr->op >= EM_OP_WS && instr->op <= EM_OP_WLD) {
        record->post = (uint32_t)instr->match;
        record->post_op = rank->records[record->post].op;
    }
    switch ((em_op_t)instr->op) {
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
    case EM_OP_RC:
    case EM_OP_FB:
        em_decode_passes(walk, instr, record);
        break;
    case EM_OP_SF:
    case EM_OP_SB:
    case EM_OP_RF:
    case EM_OP_RB:
    case EM_OP_WS:
    case EM_OP_WR:
        em_decode_channel(walk, instr, record);
        break;
    case EM_OP_AG:
    case EM_OP_RS:
    case EM_OP_AR:
    case EM_OP_NORM:
    case EM_OP_CHK:
    case EM_OP_WC:
        em_decode_group(walk, instr, record);
        break;
    case EM_OP_OFF:
    case EM_OP_LD:
    case EM_OP_WOFF:
    case EM_OP_WLD:
        em_decode_copy(walk, instr, record);
        break;
    case EM_OP_LF:
        em_decode_places(walk, instr->stage + 1, instr)->x =
            em_decode_places(walk, instr->stage, instr)->y;
        break;
    case EM_OP_LB:
        em_decode_places(walk, instr->stage - 1, instr)->dy =
            em_decode_places(walk, instr->stage, instr)->dx;
        break;
    case EM_OP_ZERO:
        em_decode_zero(walk, instr, record, index);
        break;
    case EM_OP_PV:
    case EM_OP_UNDO:
        record->bucket = em_rank_find_bucket(rank, (uint32_t)instr->bucket);
        break;
    case EM_OP_OPT:
        record->bucket = em_rank_find_bucket(rank, (uint32_t)instr->bucket);
        em_decode_clear(walk, record->bucket);
        break;
    default: /* FREE, MARK, END */
        break;
    }
}

static uint64_t count_works(const em_rank_t *rank, bool copies)
{
    uint64_t num = 0;
    for (uint32_t i = 0; i < rank->num_records; i++) {
        const em_instr_t *const instr = &rank->program->instrs[i];
        uint32_t num_passes = 0;
        (void)em_plan_passes(rank->shared->plan, instr, &num_passes);
        num += copies ? instr->op == EM_OP_OFF || instr->op == EM_OP_LD : num_passes;
    }
    return num;
}

em_status_t em_rank_decode(em_rank_t *rank, em_error_t *err)
{
    const em_plan_t *const plan = rank->shared->plan;
    rank->num_records = (uint32_t)rank->program->num_instrs;
    const uint64_t num_queues = (uint64_t)plan->num_channels + plan->num_groups + 1;
    em_decoding_t walk = {.rank = rank};
    rank->records = em_alloc_zeroed(rank->num_records, sizeof *rank->records);
    rank->works = em_alloc_zeroed(count_works(rank, false) + 1, sizeof *rank->works);
    rank->copies = em_alloc_zeroed(count_works(rank, true) + 1, sizeof *rank->copies);
    walk.places = em_alloc_zeroed((uint64_t)rank->num_stages * plan->train.m * plan->train.slices,
                                  sizeof *walk.places);
    walk.posted = em_alloc_zeroed(num_queues, sizeof *walk.posted);
    walk.receives = em_alloc_zeroed(num_queues, sizeof *walk.receives);
    const bool enough = rank->records != NULL && rank->works != NULL && rank->copies != NULL &&
                        walk.places != NULL && walk.posted != NULL && walk.receives != NULL;
    for (uint32_t i = 0; enough && i < rank->num_records; i++) {
        decode_instr(&walk, i);
    }
    em_free(walk.places);
    em_free(walk.posted);
    em_free(walk.receives);
    EM_RETURN_ERROR_IF(!enough, err, EM_ERR_MEMORY,
                       "no memory for the %" PRIu32 " instructions of rank %" PRIu32 " dp %" PRIu32,
                       rank->num_records, rank->pp, rank->dp);
    return EM_OK;
}
