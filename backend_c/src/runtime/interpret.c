/*
 * One training step of one rank: a loop over records. No memory is taken here, nothing is looked
 * up, and the kernel is only asked for the time and, where a partner is late, for sleep.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/em_clock.h"
#include "runtime/em_rank.h"

/* Another rank failed: end quietly, it has the message. */
static em_status_t stopped(void)
{
    return EM_ERR_EXEC;
}

static void load_tokens(em_rank_t *rank, uint32_t microbatch)
{
    const em_engine_shared_t *const shared = rank->shared;
    const em_plan_train_t *const train = &shared->plan->train;
    if (rank->loaded == (uint64_t)microbatch + 1) {
        return;
    }
    const uint64_t per_step = shared->world.num_replicas * train->m * train->microbatch;
    const uint64_t first = shared->first_sample + (shared->step - shared->first_step) * per_step +
                           (rank->dp * train->m + microbatch) * train->microbatch;
    for (uint64_t i = 0; i < train->microbatch; i++) {
        const uint64_t window = em_sample_window(shared->train_windows, train->seed, first + i);
        em_tokens_read(&shared->train, window, train->seq,
                       rank->tokens == NULL ? NULL : rank->tokens + i * train->seq,
                       rank->targets == NULL ? NULL : rank->targets + i * train->seq);
    }
    rank->loaded = (uint64_t)microbatch + 1;
}

static em_status_t fail_at(em_rank_t *rank, uint32_t index, em_status_t status, const char *what)
{
    char text[160];
    const em_instr_t *const instr = &rank->program->instrs[index];
    (void)em_instr_text(rank->shared->plan, instr, text, sizeof text);
    return EM_FAIL(&rank->error, status,
                   "%s:%" PRIu32 ": rank %" PRIu32 " dp %" PRIu32 ": %s: step %" PRIu64 ": %s",
                   rank->shared->plan_name, instr->line, rank->pp, rank->dp, text,
                   rank->shared->step + 1, what);
}

static em_status_t run_pass(em_rank_t *rank, const em_work_t *work, uint32_t index)
{
    if (work->item.tokens != NULL || work->item.targets != NULL) {
        load_tokens(rank, work->microbatch);
    }
    const em_stage_ctx_t *const ctx = &work->stage->ctx;
    em_status_t status;
    switch ((em_op_t)work->op) {
    case EM_OP_I:
        status = em_stage_i(ctx, &work->item);
        break;
    case EM_OP_W:
        status = em_stage_w(ctx, &work->item);
        break;
    case EM_OP_B:
        status = em_stage_b(ctx, &work->item);
        break;
    default: /* F, RC */
        status = em_stage_f(ctx, &work->item);
        break;
    }
    return status == EM_OK
               ? EM_OK
               : fail_at(rank, index, status, "a token is outside of the model's vocabulary");
}

/* A pass, or the members of a braid in listed order. */
static em_status_t run_passes(em_rank_t *rank, const em_record_t *record, uint32_t index)
{
    for (uint32_t i = 0; i < record->num_works; i++) {
        EM_RETURN_IF_ERROR(run_pass(rank, &record->work[i], index));
    }
    return EM_OK;
}

/* The mover is inline: comp copies, in the wait. */
static void copy_stash(em_rank_t *rank, const em_record_t *record, em_times_t *times)
{
    const em_copy_t *const copy = record->copy;
    float *const host_w = copy->host + copy->a_bytes / sizeof(float);
    if (times != NULL) {
        times->s_ns = em_clock_ns() - rank->shared->t0_ns;
    }
    if (record->op == EM_OP_WOFF) {
        memcpy(copy->host, copy->a, (size_t)copy->a_bytes);
        memcpy(host_w, copy->w, (size_t)copy->w_bytes);
    } else {
        memcpy(copy->a, copy->host, (size_t)copy->a_bytes);
        memcpy(copy->w, host_w, (size_t)copy->w_bytes);
    }
}

/* Gradients of parts that this rank's passes never write: without them it adds nothing. And the
 * padding of a q slot, where anything may lie. */
static void open_bucket(em_rank_t *rank, const em_record_t *record)
{
    const em_rank_bucket_t *const bucket = record->bucket;
    float *const grad = record->target;
    if (bucket->sharded) {
        em_rank_bind_grads(rank, bucket, grad);
    } else if (record->parts == 0) {
        return;
    }
    for (uint32_t i = 0; i < bucket->num_params; i++) {
        const em_param_t *const param = &bucket->table[i];
        const uint64_t next =
            i + 1 < bucket->num_params ? bucket->table[i + 1].offset : bucket->num_floats;
        const uint64_t used = (record->parts & param->part) != 0 ? 0 : param->num_elements;
        memset(grad + param->offset + used, 0,
               (size_t)(next - param->offset - used) * sizeof(float));
    }
}

static em_status_t wait_message(em_rank_t *rank, const em_record_t *record, em_times_t *times)
{
    em_team_t *const team = &rank->shared->team;
    const uint32_t number =
        em_local_number(rank->shared->step_round, record->per_step, record->number);
    if (record->op == EM_OP_WS) {
        return em_local_wait_sent(record->channel, number, team) ? EM_OK : stopped();
    }
    if (!em_local_wait_ready(record->channel, number, team)) {
        return stopped();
    }
    if (times != NULL) {
        times->s_ns = em_clock_ns() - rank->shared->t0_ns;
    }
    memcpy(record->target, *record->source, (size_t)em_plan_message_bytes(rank->shared->plan));
    em_local_taken(record->channel);
    return EM_OK;
}

static void run_optimizer(em_rank_t *rank, const em_record_t *record)
{
    const em_rank_bucket_t *const bucket = record->bucket;
    if ((rank->has_norm && !rank->norm.finite) || rank->late.flagged) {
        return; /* the weights stay */
    }
    rank->adamw.grad_scale = rank->norm.scale;
    em_bucket_adamw(rank->shared->kernels, bucket->table, bucket->num_params, bucket->begin,
                    bucket->end, &rank->adamw, bucket->param, bucket->grad, bucket->m, bucket->v);
}

static em_status_t run_record(em_rank_t *rank, uint32_t index, em_times_t *times)
{
    const em_record_t *const record = &rank->records[index];
    switch ((em_op_t)record->op) {
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
    case EM_OP_RC:
    case EM_OP_FB:
        return run_passes(rank, record, index);
    case EM_OP_SF:
    case EM_OP_SB:
        em_local_send(record->channel);
        return EM_OK;
    case EM_OP_WS:
    case EM_OP_WR:
        return wait_message(rank, record, times);
    case EM_OP_WC:
        return em_rank_wait_group(rank, record, times);
    case EM_OP_WOFF:
    case EM_OP_WLD:
        copy_stash(rank, record, times);
        return EM_OK;
    case EM_OP_ZERO:
        open_bucket(rank, record);
        return EM_OK;
    case EM_OP_PV:
        record->bucket->undo = rank->late.wrong;
        return EM_OK;
    case EM_OP_UNDO:
        em_late_undo(rank, record->bucket);
        return EM_OK;
    case EM_OP_OPT:
        run_optimizer(rank, record);
        return EM_OK;
    default: /* RF RB AG RS AR NORM CHK OFF LD: the wait does it; LF LB FREE MARK END: nothing */
        return EM_OK;
    }
}

em_status_t em_rank_step(em_rank_t *rank)
{
    em_engine_shared_t *const shared = rank->shared;
    em_times_t *const times =
        shared->tracing ? rank->times + shared->trace_slot * rank->num_records : NULL;
    const em_plan_train_t *const train = &shared->plan->train;
    rank->loaded = 0;
    rank->has_norm = false;
    rank->has_scan = false;
    rank->norm = em_judge(0.0, 0.0);
    rank->late.flagged = false;
    rank->adamw = (em_adamw_t){.lr = shared->lr,
                               .beta1 = train->beta1,
                               .beta2 = train->beta2,
                               .eps = train->eps,
                               .weight_decay = train->decay,
                               .step = rank->num_updates + 1};
    uint64_t now = times != NULL ? em_clock_ns() - shared->t0_ns : 0;
    for (uint32_t i = 0; i < rank->num_records; i++) {
        atomic_store_explicit(&rank->at, i, memory_order_relaxed);
        if (times != NULL) {
            times[i] = (em_times_t){.a_ns = now};
        }
        EM_RETURN_IF_ERROR(run_record(rank, i, times != NULL ? &times[i] : NULL));
        if (times != NULL) {
            now = em_clock_ns() - shared->t0_ns;
            times[i].e_ns = now;
        }
        atomic_fetch_add_explicit(&rank->progress, 1, memory_order_relaxed);
        if (em_team_aborted(&shared->team)) {
            return stopped();
        }
    }
    rank->end_ns = em_clock_ns() - shared->t0_ns;
    em_late_end_step(rank);
    return EM_OK;
}
