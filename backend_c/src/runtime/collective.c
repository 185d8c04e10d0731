/*
 * Group operations. The mover is inline: they happen in the wait, when all members have come to it;
 * a scan needs the members before alone.
 */
#include "common/em_clock.h"
#include "runtime/em_rank.h"

static void stamp(const em_rank_t *rank, em_times_t *times)
{
    if (times != NULL) {
        times->s_ns = em_clock_ns() - rank->shared->t0_ns;
    }
}

/* Squares of the gradients that this rank counts: each parameter once in the group. A second norm
 * sums what the first one gave. */
static double own_squares(const em_rank_t *rank, const em_record_t *record)
{
    const em_plan_group_t *const group =
        &rank->shared->plan->groups[rank->program->instrs[record->post].queue];
    const bool over_replicas = (group->axes & 1u << EM_AXIS_DP) != 0;
    if (rank->has_norm) {
        return rank->norm.sum;
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < rank->num_buckets; i++) {
        const em_rank_bucket_t *const bucket = &rank->buckets[i];
        const bool here = !over_replicas || rank->dp == 0 || bucket->sharded;
        if (here && bucket->in_norm) {
            sum += em_bucket_sum_squares(rank->shared->kernels, bucket->table, bucket->num_params,
                                         bucket->begin, bucket->end, bucket->grad);
        }
    }
    return sum;
}

static void judge_norm(em_rank_t *rank, double sum)
{
    rank->norm = em_judge(sum, rank->shared->plan->train.clip);
    rank->has_norm = true;
}

/* NORM: the sum so far, and that of the first member. CHK: the last one's, on its way back. */
static em_status_t wait_scan(em_rank_t *rank, const em_record_t *record, uint32_t number,
                             em_times_t *times)
{
    const bool norm = record->post_op == EM_OP_NORM;
    const double own = norm ? own_squares(rank, record) : rank->late.used.sum;
    if (!em_local_scan_enter(record->group, number, record->member, &rank->shared->team)) {
        return EM_ERR_EXEC;
    }
    stamp(rank, times);
    double *const mine = &record->group->values[2 * (uint64_t)record->member];
    mine[0] = own;
    mine[1] = norm ? own : rank->late.least_sum;
    if (record->member > 0) {
        mine[0] = norm ? mine[-2] + own : mine[-2];
        mine[1] = mine[-1];
    }
    em_local_scan_leave(record->group);
    if (norm) {
        judge_norm(rank, mine[0]);
        rank->has_scan = true;
        rank->late.least_sum = mine[1];
    } else {
        em_late_check(rank, mine[0], mine[1]);
    }
    return EM_OK;
}

/* Between the two meetings each member reads the others' buffers and writes what is its own. */
static void operate(em_rank_t *rank, const em_record_t *record)
{
    em_rank_bucket_t *const bucket = record->bucket;
    switch ((em_op_t)record->post_op) {
    case EM_OP_NORM:
        record->group->values[record->member] = own_squares(rank, record);
        break;
    case EM_OP_AG:
        em_local_gather(record->group, record->reduce.buffers, bucket->end - bucket->begin,
                        record->target);
        em_rank_bind_params(rank, bucket, record->target);
        break;
    case EM_OP_RS:
        if (record->scatters) {
            em_local_sum_into(record->group, &record->reduce, record->add, bucket->grad);
            break;
        }
        em_local_sum_share(record->group, &record->reduce);
        break;
    default:
        em_local_sum_share(record->group, &record->reduce);
        break;
    }
}

em_status_t em_rank_wait_group(em_rank_t *rank, const em_record_t *record, em_times_t *times)
{
    em_team_t *const team = &rank->shared->team;
    const uint32_t number =
        em_local_number(rank->shared->step_round, record->per_step, record->number);
    if (record->scans) {
        return wait_scan(rank, record, number, times);
    }
    if (!em_local_group_enter(record->group, number, team)) {
        return EM_ERR_EXEC;
    }
    stamp(rank, times);
    operate(rank, record);
    if (!em_local_group_leave(record->group, number, team)) {
        return EM_ERR_EXEC;
    }
    if (record->post_op == EM_OP_NORM) {
        judge_norm(rank, em_local_sum_values(record->group));
    }
    return EM_OK;
}
