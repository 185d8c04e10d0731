/*
 * Threads of the ranks, and the watch over them.
 *
 * The coordinator is the thread that called em_engine_run. It gives a command, sleeps until all
 * ranks have carried it out, and looks up now and then whether any rank has finished an
 * instruction since. If none has for the time limit, the run hangs: the error names every rank's
 * place. A rank that fails stops the others through the team's flag.
 */
#define _GNU_SOURCE /* pthread_setaffinity_np */
#include <inttypes.h>
#include <sched.h>
#include <string.h>

#include "common/em_clock.h"
#include "runtime/em_engine.h"

enum { EM_WATCH_NS = 20 * 1000 * 1000 };
/* How long ranks may take to come back after an abort: a pass under way must end first. */
static const uint64_t end_grace_ns = 5000000000u;

static void stamp_start(void *context)
{
    em_engine_shared_t *const shared = context;
    shared->t0_ns = em_clock_ns();
}

static em_status_t carry_out(em_engine_t *engine, em_rank_t *rank)
{
    em_engine_shared_t *const shared = &engine->shared;
    if (engine->command == EM_COMMAND_EVALUATE) {
        return em_rank_evaluate(rank);
    }
    if (engine->command == EM_COMMAND_CLOSE) {
        em_late_close(rank);
        return EM_OK;
    }
    if (!em_barrier_meet(&shared->start, shared->step_round, &shared->team, stamp_start, shared)) {
        return EM_ERR_EXEC;
    }
    return em_rank_step(rank);
}

static void *run_rank(void *context)
{
    em_rank_t *const rank = context;
    /* shared is the first member of the engine */
    em_engine_t *const engine = (em_engine_t *)(void *)rank->shared;
    em_team_t *const team = &rank->shared->team;
    for (uint32_t number = 1;; number++) {
        if (!em_signal_wait(&engine->go, number, team) || engine->command == EM_COMMAND_STOP) {
            break;
        }
        if (carry_out(engine, rank) != EM_OK) {
            em_team_abort(team);
            break;
        }
        em_signal_add(&engine->done, 1);
    }
    em_signal_add(&engine->ended, 1);
    return NULL;
}

/* Rank k on the k-th core that this process may use, round and round. */
static void pin(pthread_t thread, uint32_t index)
{
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return;
    }
    uint32_t left = index % (uint32_t)CPU_COUNT(&allowed);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && left-- == 0) {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            (void)pthread_setaffinity_np(thread, sizeof one, &one);
            return;
        }
    }
#else
    (void)thread;
    (void)index;
#endif
}

em_status_t em_threads_start(em_engine_t *engine, em_error_t *err)
{
    for (uint32_t i = 0; i < engine->num_ranks; i++) {
        em_rank_t *const rank = &engine->ranks[i];
        const int failed = pthread_create(&rank->thread, NULL, run_rank, rank);
        EM_RETURN_ERROR_IF(failed != 0, err, EM_ERR_SYSTEM,
                           "cannot start the thread of rank "
                           "%" PRIu32 " dp %" PRIu32 ": %s",
                           rank->pp, rank->dp, strerror(failed));
        engine->num_threads++;
        if (engine->options.pin) {
            pin(rank->thread, i);
        }
    }
    return EM_OK;
}

static uint64_t total_progress(const em_engine_t *engine)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < engine->num_ranks; i++) {
        sum += atomic_load_explicit(&engine->ranks[i].progress, memory_order_relaxed);
    }
    return sum;
}

/* Which ranks wait where, as far as the text has room. */
static em_status_t report_hang(const em_engine_t *engine, em_error_t *err)
{
    const em_engine_shared_t *const shared = &engine->shared;
    char text[EM_ERROR_TEXT] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < engine->num_ranks && used < sizeof text - 1; i++) {
        const em_rank_t *const rank = &engine->ranks[i];
        const uint32_t at = atomic_load_explicit(&rank->at, memory_order_relaxed);
        const em_instr_t *const instr = &rank->program->instrs[at];
        char op[96];
        (void)em_instr_text(shared->plan, instr, op, sizeof op);
        const int num = snprintf(text + used, sizeof text - used,
                                 "\n  rank %" PRIu32 " dp %" PRIu32 " line %" PRIu32 ": %s",
                                 rank->pp, rank->dp, instr->line, op);
        used += num > 0 ? (size_t)num : 0;
    }
    const char *const what = engine->command == EM_COMMAND_STEP ? "" : "validation after";
    (void)EM_FAIL(err, EM_ERR_HUNG, "%s: %s step %" PRIu64 ": no progress for %.3g s%s",
                  shared->plan_name, what, shared->step + 1,
                  (double)engine->options.timeout_ns * 1e-9, text);
    em_hint(err, "a pass that takes longer than the limit looks the same: raise --timeout");
    return EM_ERR_HUNG;
}

/* The first rank's own error, by replica and rank. */
static em_status_t report_failure(const em_engine_t *engine, em_error_t *err)
{
    for (uint32_t i = 0; i < engine->num_ranks; i++) {
        const em_error_t *const found = &engine->ranks[i].error;
        if (found->status != EM_OK) {
            if (err != NULL && err->status == EM_OK) {
                *err = *found;
            }
            return found->status;
        }
    }
    return EM_FAIL(err, EM_ERR_EXEC, "a rank stopped without a reason");
}

em_status_t em_threads_command(em_engine_t *engine, em_command_t command, em_error_t *err)
{
    em_engine_shared_t *const shared = &engine->shared;
    engine->command = command;
    engine->num_commands++;
    em_signal_add(&engine->go, 1);
    const uint32_t target = engine->num_commands * engine->num_ranks;
    uint64_t progress = total_progress(engine);
    uint64_t since_ns = em_clock_ns();
    while (!em_signal_wait_for(&engine->done, target, EM_WATCH_NS)) {
        if (em_team_aborted(&shared->team)) {
            em_threads_end(engine);
            return report_failure(engine, err);
        }
        const uint64_t now_ns = em_clock_ns();
        const uint64_t seen = total_progress(engine);
        if (seen != progress) {
            progress = seen;
            since_ns = now_ns;
        } else if (engine->options.timeout_ns != 0 &&
                   now_ns - since_ns > engine->options.timeout_ns) {
            const em_status_t status = report_hang(engine, err);
            em_team_abort(&shared->team);
            em_threads_end(engine);
            return status;
        }
    }
    return EM_OK;
}

void em_threads_end(em_engine_t *engine)
{
    if (engine->num_threads == 0) {
        return;
    }
    if (!em_team_aborted(&engine->shared.team)) {
        engine->command = EM_COMMAND_STOP;
        em_signal_add(&engine->go, 1);
    }
    const uint64_t start_ns = em_clock_ns();
    while (!em_signal_wait_for(&engine->ended, engine->num_threads, EM_WATCH_NS)) {
        if (em_clock_ns() - start_ns > end_grace_ns) {
            engine->lost = true;
            engine->num_threads = 0;
            return;
        }
    }
    for (uint32_t i = 0; i < engine->num_threads; i++) {
        (void)pthread_join(engine->ranks[i].thread, NULL);
    }
    engine->num_threads = 0;
}
