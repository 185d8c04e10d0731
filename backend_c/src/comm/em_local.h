/*
 * The transport `local`: ranks are threads of one process and see each other's memory.
 *
 * The mover is inline (plan-format.md 3.7): the receiver copies, in its wait, out of the sender's
 * slot, and the sender's wait lasts until then; so a channel is two counters, and its depth does
 * not matter. A group's operation starts when all members wait for it. Sums are formed in member
 * order, each member summing a share of the elements for all: the same bits on every member,
 * whatever the share.
 *
 * A scan walks from member to member instead: each waits for the one before it alone, so that
 * nobody waits for the last. A group that scans does so once a step.
 *
 * Messages and operations of a step are numbered from 0 on their channel or group; `per_step` of
 * them make a step, so that targets follow from the number of the step, and nothing is reset.
 */
#ifndef EM_LOCAL_H
#define EM_LOCAL_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/em_signal.h"

/* One direction between two ranks of one replica. */
typedef struct {
    em_signal_t posted; /* messages that the sender has made ready */
    em_signal_t taken;  /* messages that the receiver has copied */
} em_local_channel_t;

/* One group: the ranks that sum together. */
typedef struct {
    em_signal_t arrived;  /* members in their wait */
    em_signal_t finished; /* members done with their share */
    uint32_t num_members;
    double *values; /* [num_members], of a sum of scalars; of a scan [num_members][2] */
} em_local_group_t;

/* A place where all threads of a team meet. */
typedef struct {
    em_signal_t arrived;
    em_signal_t released;
    uint32_t num_members;
} em_barrier_t;

/* An all-reduce as one member sees it. */
typedef struct {
    float *const *buffers; /* [num_members], in member order; summed in place */
    uint64_t begin;        /* this member's share of the elements */
    uint64_t end;
} em_local_reduce_t;

/* Number of message or operation `index` of step `step`, counted from the start of the run. */
static inline uint32_t em_local_number(uint64_t step, uint32_t per_step, uint32_t index)
{
    return (uint32_t)(step * per_step + index);
}

void em_local_channel_init(em_local_channel_t *channel);
void em_local_send(em_local_channel_t *channel);
/* Until message `number` has been copied. False: aborted, as in all that follow. */
bool em_local_wait_sent(em_local_channel_t *channel, uint32_t number, em_team_t *team);
/* Until message `number` is ready to be copied. */
bool em_local_wait_ready(em_local_channel_t *channel, uint32_t number, em_team_t *team);
void em_local_taken(em_local_channel_t *channel);

/* Elements [*begin, *end) of `num_elements` that member `member` sums: whole cache lines. */
void em_local_share(uint64_t num_elements, uint32_t num_members, uint32_t member, uint64_t *begin,
                    uint64_t *end);

void em_local_group_init(em_local_group_t *group, uint32_t num_members, double *values);
/* Until all members wait for operation `number`. */
bool em_local_group_enter(em_local_group_t *group, uint32_t number, em_team_t *team);
/* Until all members have finished it. */
bool em_local_group_leave(em_local_group_t *group, uint32_t number, em_team_t *team);
/* buffers[k][i] = sum over j in order of buffers[j][i], for all k and this member's i. */
void em_local_sum_share(const em_local_group_t *group, const em_local_reduce_t *reduce);
/* into[i - begin] = (add ? into[i - begin] : 0) + sum over j in order of buffers[j][i], for this
 * member's i: the others' results are their own. */
void em_local_sum_into(const em_local_group_t *group, const em_local_reduce_t *reduce, bool add,
                       float *into);
/* whole = the members' equal shards one after the other. */
void em_local_gather(const em_local_group_t *group, float *const *shards, uint64_t shard_floats,
                     float *whole);
/* Until the members at lower positions of the scan have passed operation `number`. */
bool em_local_scan_enter(em_local_group_t *group, uint32_t number, uint32_t position,
                         em_team_t *team);
void em_local_scan_leave(em_local_group_t *group);
/* Sum of the members' values in member order; between enter, set, leave. */
double em_local_sum_values(const em_local_group_t *group);

void em_barrier_init(em_barrier_t *barrier, uint32_t num_members);
/* Meet for the `round`-th time (from 0). The last to come calls `last` (may be NULL) first. */
bool em_barrier_meet(em_barrier_t *barrier, uint64_t round, em_team_t *team,
                     void (*last)(void *context), void *context);

#endif
