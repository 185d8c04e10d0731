/* Channels, groups and barriers between threads. See em_local.h. */
#include "comm/em_local.h"

#include <string.h>

/* Floats summed at a time: stays in the first-level cache with two buffers beside it. */
enum { EM_SUM_BLOCK = 1024 };
enum { EM_LINE_FLOATS = 16 };

void em_local_channel_init(em_local_channel_t *channel)
{
    em_signal_init(&channel->posted);
    em_signal_init(&channel->taken);
}

void em_local_send(em_local_channel_t *channel)
{
    em_signal_add(&channel->posted, 1);
}

bool em_local_wait_sent(em_local_channel_t *channel, uint32_t number, em_team_t *team)
{
    return em_signal_wait(&channel->taken, number + 1, team);
}

bool em_local_wait_ready(em_local_channel_t *channel, uint32_t number, em_team_t *team)
{
    return em_signal_wait(&channel->posted, number + 1, team);
}

void em_local_taken(em_local_channel_t *channel)
{
    em_signal_add(&channel->taken, 1);
}

void em_local_share(uint64_t num_elements, uint32_t num_members, uint32_t member, uint64_t *begin,
                    uint64_t *end)
{
    const uint64_t lines = (num_elements + EM_LINE_FLOATS - 1) / EM_LINE_FLOATS;
    const uint64_t each = lines / num_members;
    const uint64_t more = lines % num_members; /* the first members take one line more */
    const uint64_t first = each * member + (member < more ? member : more);
    const uint64_t last = first + each + (member < more ? 1 : 0);
    *begin = first * EM_LINE_FLOATS < num_elements ? first * EM_LINE_FLOATS : num_elements;
    *end = last * EM_LINE_FLOATS < num_elements ? last * EM_LINE_FLOATS : num_elements;
}

void em_local_group_init(em_local_group_t *group, uint32_t num_members, double *values)
{
    em_signal_init(&group->arrived);
    em_signal_init(&group->finished);
    group->num_members = num_members;
    group->values = values;
}

bool em_local_group_enter(em_local_group_t *group, uint32_t number, em_team_t *team)
{
    em_signal_add(&group->arrived, 1);
    return em_signal_wait(&group->arrived, (number + 1) * group->num_members, team);
}

bool em_local_group_leave(em_local_group_t *group, uint32_t number, em_team_t *team)
{
    em_signal_add(&group->finished, 1);
    return em_signal_wait(&group->finished, (number + 1) * group->num_members, team);
}

/* sum = the members' floats from `at` on, in member order. */
static void sum_block(const em_local_group_t *group, float *const *buffers, uint64_t at, size_t num,
                      float *sum)
{
    memcpy(sum, buffers[0] + at, num * sizeof *sum);
    for (uint32_t k = 1; k < group->num_members; k++) {
        const float *const other = buffers[k] + at;
        for (size_t i = 0; i < num; i++) {
            sum[i] += other[i];
        }
    }
}

static size_t block_at(const em_local_reduce_t *reduce, uint64_t at)
{
    const uint64_t left = reduce->end - at;
    return left < EM_SUM_BLOCK ? (size_t)left : EM_SUM_BLOCK;
}

void em_local_sum_share(const em_local_group_t *group, const em_local_reduce_t *reduce)
{
    float sum[EM_SUM_BLOCK];
    for (uint64_t at = reduce->begin; at < reduce->end; at += EM_SUM_BLOCK) {
        const size_t num = block_at(reduce, at);
        sum_block(group, reduce->buffers, at, num, sum);
        for (uint32_t k = 0; k < group->num_members; k++) {
            memcpy(reduce->buffers[k] + at, sum, num * sizeof *sum);
        }
    }
}

void em_local_sum_into(const em_local_group_t *group, const em_local_reduce_t *reduce, bool add,
                       float *into)
{
    float sum[EM_SUM_BLOCK];
    for (uint64_t at = reduce->begin; at < reduce->end; at += EM_SUM_BLOCK) {
        const size_t num = block_at(reduce, at);
        float *const out = into + (at - reduce->begin);
        sum_block(group, reduce->buffers, at, num, sum);
        for (size_t i = 0; i < num; i++) {
            out[i] = add ? out[i] + sum[i] : sum[i];
        }
    }
}

void em_local_gather(const em_local_group_t *group, float *const *shards, uint64_t shard_floats,
                     float *whole)
{
    for (uint32_t k = 0; k < group->num_members; k++) {
        memcpy(whole + k * shard_floats, shards[k], (size_t)shard_floats * sizeof *whole);
    }
}

bool em_local_scan_enter(em_local_group_t *group, uint32_t number, uint32_t position,
                         em_team_t *team)
{
    return em_signal_wait(&group->finished, number * group->num_members + position, team);
}

void em_local_scan_leave(em_local_group_t *group)
{
    em_signal_add(&group->finished, 1);
}

double em_local_sum_values(const em_local_group_t *group)
{
    double sum = 0.0;
    for (uint32_t k = 0; k < group->num_members; k++) {
        sum += group->values[k];
    }
    return sum;
}

void em_barrier_init(em_barrier_t *barrier, uint32_t num_members)
{
    em_signal_init(&barrier->arrived);
    em_signal_init(&barrier->released);
    barrier->num_members = num_members;
}

bool em_barrier_meet(em_barrier_t *barrier, uint64_t round, em_team_t *team,
                     void (*last)(void *context), void *context)
{
    const uint32_t full = (uint32_t)(round + 1) * barrier->num_members;
    /* Who brings the count to full is last; only members count, and each once a round. */
    const uint32_t before = atomic_fetch_add(&barrier->arrived.value, 1);
    if (before + 1 == full) {
        if (last != NULL) {
            last(context);
        }
        em_signal_add(&barrier->released, 1);
        return true;
    }
    return em_signal_wait(&barrier->released, (uint32_t)(round + 1), team);
}
