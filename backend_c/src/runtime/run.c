/* The run: steps, validations, checkpoints, metrics, trace. See exactmap/engine.h. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/em_engine.h"

void em_engine_request_stop(em_engine_t *engine)
{
    atomic_store(&engine->stop_requested, true);
}

/* Sums of all microbatches in order, so that the result does not depend on the schedule. */
static double step_loss(const em_engine_t *engine)
{
    const em_engine_shared_t *const shared = &engine->shared;
    const uint64_t num = shared->world.num_replicas * shared->plan->train.m;
    const uint64_t slices = shared->plan->train.slices;
    double sum = 0.0;
    for (uint64_t i = 0; i < num; i++) {
        double microbatch = shared->losses[i * slices];
        for (uint64_t k = 1; k < slices; k++) {
            microbatch += shared->losses[i * slices + k];
        }
        sum += microbatch;
    }
    return sum / (double)engine->result.tokens_per_step;
}

static em_status_t write_checkpoint(em_engine_t *engine, em_error_t *err)
{
    const em_engine_shared_t *const shared = &engine->shared;
    const em_plan_train_t *const train = &shared->plan->train;
    if (engine->options.out_folder == NULL ||
        engine->last_checkpoint == engine->result.steps_done) {
        return EM_OK;
    }
    em_checkpoint_state_t state = {.step = engine->result.steps_done,
                                   .updates = engine->ranks[0].num_updates,
                                   .samples = shared->first_sample +
                                              (engine->result.steps_done - shared->first_step) *
                                                  shared->world.num_replicas * train->m *
                                                  train->microbatch,
                                   .seed = train->seed};
    memcpy(state.plan_sha256, shared->plan->file_sha256, sizeof state.plan_sha256);
    memcpy(state.data_sha256, shared->train.sha256, sizeof state.data_sha256);
    EM_RETURN_IF_ERROR(em_checkpoint_write(engine->options.out_folder, engine->ranks,
                                           engine->num_ranks, &state, err));
    engine->last_checkpoint = engine->result.steps_done;
    return EM_OK;
}

/* CHK, PV and UNDO of the last step, so that the weights may be looked at. */
static em_status_t close_step(em_engine_t *engine, em_error_t *err)
{
    const em_late_t *const late = &engine->ranks[engine->norm_rank].late;
    if (!late->pending) {
        return EM_OK;
    }
    engine->shared.total_sum = late->used.sum;
    engine->shared.least_sum = late->least_sum;
    EM_RETURN_IF_ERROR(em_threads_command(engine, EM_COMMAND_CLOSE, err));
    em_late_align(&engine->shared);
    return EM_OK;
}

static em_status_t evaluate(em_engine_t *engine, em_error_t *err)
{
    em_evaluate_begin(&engine->shared);
    EM_RETURN_IF_ERROR(em_threads_command(engine, EM_COMMAND_EVALUATE, err));
    engine->result.val_loss = em_evaluate_end(&engine->shared);
    engine->result.has_val_loss = true;
    return EM_OK;
}

/* Let all ranks run the step once; adds its time. */
static em_status_t run_step(em_engine_t *engine, uint64_t *step_ns, em_error_t *err)
{
    const uint64_t allocations = em_alloc_count();
    EM_RETURN_IF_ERROR(em_threads_command(engine, EM_COMMAND_STEP, err));
    engine->result.step_allocations += em_alloc_count() - allocations;
    uint64_t last_ns = 0;
    for (uint32_t r = 0; r < engine->num_ranks; r++) {
        last_ns = engine->ranks[r].end_ns > last_ns ? engine->ranks[r].end_ns : last_ns;
    }
    *step_ns += last_ns;
    engine->shared.step_round++;
    return EM_OK;
}

static em_status_t train_step(em_engine_t *engine, uint64_t step, em_step_report_t *report,
                              em_error_t *err)
{
    em_engine_shared_t *const shared = &engine->shared;
    const em_engine_options_t *const options = &engine->options;
    shared->step = step;
    shared->lr = em_learning_rate(&shared->plan->train, step);
    shared->tracing =
        options->trace_path != NULL && step >= options->trace_first && step <= options->trace_last;
    shared->trace_slot = shared->tracing ? step - options->trace_first : 0;
    const em_rank_t *const judge = &engine->ranks[engine->norm_rank];
    uint64_t step_ns = 0, num_runs = 0;
    do { /* flagged: it began with wrong weights, which are right now */
        EM_RETURN_IF_ERROR(run_step(engine, &step_ns, err));
        num_runs++;
    } while (judge->late.flagged);
    engine->step_ns[engine->num_timed++ % engine->num_step_ns] = step_ns;
    *report = (em_step_report_t){.step = step + 1,
                                 .loss = step_loss(engine),
                                 .has_norm = judge->has_norm,
                                 .grad_norm = sqrt(judge->norm.sum),
                                 .skipped = judge->has_norm && !judge->norm.finite,
                                 .lr = shared->lr,
                                 .step_ns = step_ns,
                                 .num_repeats = num_runs - 1,
                                 .tokens_per_s = (double)engine->result.tokens_per_step /
                                                 ((double)step_ns * 1e-9)};
    engine->result.skipped_steps += report->skipped ? 1 : 0;
    engine->result.repeated_steps += report->num_repeats > 0 ? 1 : 0;
    engine->result.loss = report->loss;
    if (engine->result.steps_done == engine->result.first_step) {
        engine->result.first_loss = report->loss;
    }
    engine->result.steps_done = step + 1;
    return EM_OK;
}

static bool every(uint64_t period, uint64_t step)
{
    return period > 0 && step % period == 0;
}

static em_status_t train(em_engine_t *engine, em_error_t *err)
{
    const em_engine_options_t *const options = &engine->options;
    for (uint64_t step = engine->shared.first_step; step < options->num_steps; step++) {
        em_step_report_t report;
        EM_RETURN_IF_ERROR(train_step(engine, step, &report, err));
        const bool stop = atomic_load(&engine->stop_requested);
        const bool last = stop || step + 1 == options->num_steps;
        const bool evaluates =
            options->eval_sequences > 0 && (last || every(options->eval_every, step + 1));
        const bool writes = last || every(options->checkpoint_every, step + 1);
        if (evaluates || writes) {
            EM_RETURN_IF_ERROR(close_step(engine, err));
        }
        if (evaluates) {
            EM_RETURN_IF_ERROR(evaluate(engine, err));
            report.has_val_loss = true;
            report.val_loss = engine->result.val_loss;
        }
        em_metrics_step(engine, &report);
        if (options->on_step != NULL) {
            options->on_step(options->context, &report);
        }
        if (writes) {
            EM_RETURN_IF_ERROR(write_checkpoint(engine, err));
        }
        if (stop) {
            engine->result.interrupted = true;
            break;
        }
    }
    return EM_OK;
}

static int by_size(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static em_status_t write_trace(em_engine_t *engine, em_error_t *err)
{
    const em_engine_options_t *const options = &engine->options;
    if (options->trace_path == NULL || engine->result.steps_done <= options->trace_first) {
        return EM_OK;
    }
    const uint64_t end = engine->result.steps_done < options->trace_last + 1
                             ? engine->result.steps_done
                             : options->trace_last + 1;
    return em_trace_write(&engine->shared, engine->ranks, engine->num_ranks, options->trace_first,
                          end - options->trace_first, options->trace_path, err);
}

/* A norm that scans ends at the last rank of the scan; any other is known to all. */
static uint32_t find_norm_rank(const em_plan_t *plan)
{
    const em_program_t *const program = &plan->programs[0];
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        if (instr->op == EM_OP_NORM && plan->groups[instr->queue].scan == EM_SCAN_UP) {
            return plan->num_ranks - 1;
        }
    }
    return 0;
}

em_status_t em_engine_run(em_engine_t *engine, em_error_t *err)
{
    engine->result.first_loss = NAN;
    engine->result.loss = NAN;
    engine->last_checkpoint = UINT64_MAX;
    engine->norm_rank = find_norm_rank(engine->shared.plan);
    em_metrics_begin(engine);
    em_status_t status = em_threads_start(engine, err);
    if (status == EM_OK) {
        status = train(engine, err);
    }
    if (status == EM_OK && engine->shared.step_round == 0) {
        /* no step was asked for: judge and write the weights as they are */
        status = engine->options.eval_sequences > 0 ? evaluate(engine, err) : EM_OK;
        status = status == EM_OK ? write_checkpoint(engine, err) : status;
    }
    if (status != EM_OK) {
        em_team_abort(&engine->shared.team);
    }
    em_threads_end(engine);
    EM_RETURN_IF_ERROR(status);
    EM_RETURN_IF_ERROR(write_trace(engine, err));
    const uint64_t num =
        engine->num_timed < engine->num_step_ns ? engine->num_timed : engine->num_step_ns;
    if (num > 0) {
        qsort(engine->step_ns, (size_t)num, sizeof *engine->step_ns, by_size);
        engine->result.median_step_ns = engine->step_ns[num / 2];
    }
    return EM_OK;
}
