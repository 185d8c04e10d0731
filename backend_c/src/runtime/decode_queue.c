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

/* What a post gives to the others. */
static float *offered(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record)
{
    em_rank_bucket_t *const bucket = record->bucket;
    switch ((em_op_t)instr->op) {
    case EM_OP_AG:
        record->target = em_decode_slot(walk->rank, EM_POOL_P, instr);
        return bucket->param;
    case EM_OP_AR:
        em_decode_clear(walk, bucket);
        return bucket->grad;
    case EM_OP_RS:
        em_decode_clear(walk, bucket);
        record->scatters = instr->queue == walk->rank->shared->plan->buckets[instr->bucket].shard;
        record->add = record->scatters && bucket->reduced;
        bucket->reduced = true;
        return record->scatters ? bucket->open : bucket->grad;
    default: /* NORM CHK */
        return NULL;
    }
}

/* The elements that this rank sums in its wait. */
static void share_out(em_record_t *record)
{
    const em_rank_bucket_t *const bucket = record->bucket;
    if (record->scatters) {
        record->reduce.begin = bucket->begin;
        record->reduce.end = bucket->end;
    } else if (record->post_op == EM_OP_AR || record->post_op == EM_OP_RS) {
        em_local_share(bucket->end - bucket->begin, record->group->num_members, record->member,
                       &record->reduce.begin, &record->reduce.end);
    }
}

void em_decode_group(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record)
{
    em_rank_t *const rank = walk->rank;
    const em_world_t *const world = &rank->shared->world;
    em_world_group_t *const group = em_world_group(world, instr->queue, rank->pp, rank->dp);
    const em_scan_t scan = world->plan->groups[instr->queue].scan;
    const uint32_t members = group->local.num_members;
    record->group = &group->local;
    record->per_step = group->per_step;
    record->member = em_world_member(world, instr->queue, rank->pp, rank->dp);
    record->bucket = em_rank_find_bucket(rank, (uint32_t)instr->bucket);
    if (instr->op != EM_OP_WC) {
        record->number = walk->posted[world->plan->num_channels + (uint32_t)instr->queue]++;
        float *const buffer = offered(walk, instr, record);
        group->buffers[(uint64_t)record->number * members + record->member] = buffer;
        return;
    }
    const em_record_t *const post = &rank->records[record->post];
    record->number = post->number;
    record->target = post->target;
    record->scatters = post->scatters;
    record->add = post->add;
    record->scans = scan != EM_SCAN_NONE;
    record->reduce.buffers = &group->buffers[(uint64_t)record->number * members];
    if (record->bucket != NULL) {
        share_out(record);
    }
    if (scan == EM_SCAN_DOWN) {
        record->member = members - 1 - record->member;
    }
}
