/* Decoding: which counter each post and wait uses, and where its bytes are. */
#include "runtime/em_decode.h"

void em_decode_channel(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record)
{
    em_rank_t *const rank = walk->rank;
    em_world_channel_t *const channel =
        em_world_channel(&rank->shared->world, instr->queue, rank->dp);
    em_places_t *const at = em_decode_places(walk, instr->stage, instr);
    record->channel = &channel->local;
    record->per_step = channel->per_step;
    switch ((em_op_t)instr->op) {
    case EM_OP_SF:
    case EM_OP_SB:
        record->number = walk->posted[instr->queue]++;
        channel->sources[record->number] = instr->op == EM_OP_SF ? at->y : at->dx;
        break;
    case EM_OP_RF:
    case EM_OP_RB:
        record->number = walk->receives[instr->queue]++;
        record->target = em_decode_slot(rank, EM_POOL_H, instr);
        *(instr->op == EM_OP_RF ? &at->x : &at->dy) = record->target;
        break;
    default: /* WS, WR: as their post */
        record->number = rank->records[record->post].number;
        record->target = rank->records[record->post].target;
        if (instr->op == EM_OP_WR) {
            record->source = &channel->sources[record->number];
        }
        break;
    }
}

void em_decode_group(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record)
{
    em_rank_t *const rank = walk->rank;
    const em_world_t *const world = &rank->shared->world;
    em_world_group_t *const group = em_world_group(world, instr->queue, rank->pp, rank->dp);
    const uint32_t members = group->local.num_members;
    record->group = &group->local;
    record->per_step = group->per_step;
    record->member = em_world_member(world, instr->queue, rank->pp, rank->dp);
    record->bucket = em_decode_bucket(rank, instr->bucket);
    if (instr->op != EM_OP_WC) {
        record->number = walk->posted[rank->shared->plan->num_channels + (uint32_t)instr->queue]++;
        if (instr->op == EM_OP_AR) {
            em_decode_clear(walk, record->bucket);
            group->buffers[(uint64_t)record->number * members + record->member] =
                record->bucket->grad;
        }
        return;
    }
    record->number = rank->records[record->post].number;
    if (record->post_op == EM_OP_AR) {
        record->reduce.buffers = &group->buffers[(uint64_t)record->number * members];
        em_local_share(record->bucket->num_floats, members, record->member, &record->reduce.begin,
                       &record->reduce.end);
    }
}
