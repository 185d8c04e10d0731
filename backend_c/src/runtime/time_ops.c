/*
 * What `calibrate` asks of this machine: the engine's own passes, optimizer, hand-over and
 * all-reduce, timed as they run. All threads work at the same time, so that shared caches and
 * memory are as busy as in a run; half of them go through the passes in another order, as ranks of
 * a pipeline do. A round is a small step: passes of two microbatches, norm, optimizer; so the
 * optimizer finds its moments as cold as after a step's passes. Each number is the median over
 * rounds of each thread, and of those the mean.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_clock.h"
#include "runtime/em_time_ops.h"

enum { WARM_UP = 2, ROUND_TRIPS = 200, SLEEPING_ROUND_TRIPS = 30, CALLS = 1000 };
/* A thread that waits longer than it spins (em_signal.c) falls asleep. */
static const uint64_t pause_ns = 1000000;

const uint64_t em_time_copy_bytes[EM_TIME_COPIES] = {1u << 12, 1u << 15, 1u << 18, 1u << 21};

static bool meet(em_time_worker_t *worker)
{
    return em_barrier_meet(&worker->shared->barrier, worker->round++, &worker->shared->team, NULL,
                           NULL);
}

static void put(em_time_worker_t *worker, int quantity, uint32_t round, uint64_t ns)
{
    if (round >= WARM_UP) {
        worker->samples[quantity][round - WARM_UP] = ns;
    }
}

/* ---- passes and optimizer -------------------------------------------------------------------- */

typedef em_status_t (*pass_t)(const em_stage_ctx_t *ctx, const em_item_t *item);

static em_status_t time_pass(em_time_worker_t *worker, em_time_piece_t *piece, em_pass_kind_t pass,
                             int item, uint64_t *ns)
{
    static const pass_t passes[EM_NUM_PASSES] = {em_stage_f, em_stage_i, em_stage_w, em_stage_b};
    const uint64_t start = em_clock_ns();
    const em_status_t status = passes[pass](&piece->ctx, &piece->items[item]);
    *ns = em_clock_ns() - start;
    EM_RETURN_ERROR_IF(status != EM_OK, &worker->error, status, "a timed pass failed");
    return EM_OK;
}

/* One microbatch goes through F, I and W, the other one through F and B. */
static em_status_t time_passes(em_time_worker_t *worker, em_piece_kind_t kind, uint32_t round,
                               bool backward_first)
{
    em_time_piece_t *const piece = &worker->pieces[kind];
    uint64_t ns[EM_NUM_PASSES] = {0}, forward[EM_TIME_ITEMS] = {0};
    for (int half = 0; half < 2; half++) {
        if ((half == 0) == !backward_first) {
            EM_RETURN_IF_ERROR(time_pass(worker, piece, EM_PASS_F, 0, &forward[0]));
            EM_RETURN_IF_ERROR(time_pass(worker, piece, EM_PASS_F, 1, &forward[1]));
        } else {
            EM_RETURN_IF_ERROR(time_pass(worker, piece, EM_PASS_I, 0, &ns[EM_PASS_I]));
            EM_RETURN_IF_ERROR(time_pass(worker, piece, EM_PASS_W, 0, &ns[EM_PASS_W]));
            EM_RETURN_IF_ERROR(time_pass(worker, piece, EM_PASS_B, 1, &ns[EM_PASS_B]));
        }
    }
    ns[EM_PASS_F] = (forward[0] + forward[1]) / 2;
    for (int pass = 0; pass < EM_NUM_PASSES; pass++) {
        put(worker, EM_TIME_PASS + (int)kind * EM_NUM_PASSES + pass, round, ns[pass]);
    }
    return EM_OK;
}

static void time_optimizer(em_time_worker_t *worker, uint32_t round)
{
    em_time_piece_t *const piece = &worker->pieces[EM_PIECE_LAYERS];
    const em_kernels_t *const kernels = piece->ctx.kernels;
    const em_adamw_t adamw = {.lr = 1e-6,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .weight_decay = 0.1,
                              .grad_scale = 1.0,
                              .step = (uint64_t)round + 1};
    const uint64_t start = em_clock_ns();
    worker->sum = em_bucket_sum_squares(kernels, piece->table, piece->num_params, 0,
                                        piece->num_floats, piece->grad);
    const uint64_t middle = em_clock_ns();
    em_bucket_adamw(kernels, piece->table, piece->num_params, 0, piece->num_floats, &adamw,
                    piece->param, piece->grad, piece->m, piece->v);
    put(worker, EM_TIME_SQUARES, round, middle - start);
    put(worker, EM_TIME_ADAMW, round, em_clock_ns() - middle);
}

static em_status_t time_rounds(em_time_worker_t *worker)
{
    const uint32_t num_rounds = worker->shared->options->repeats + WARM_UP;
    for (uint32_t round = 0; round < num_rounds && meet(worker); round++) {
        /* nothing to go backward through in the first round */
        const bool backward_first = round > 0 && worker->index % 2 == 1;
        for (int kind = 0; kind < EM_NUM_PIECES; kind++) {
            EM_RETURN_IF_ERROR(time_passes(worker, (em_piece_kind_t)kind, round, backward_first));
        }
        time_optimizer(worker, round);
    }
    return EM_OK;
}

/* ---- between threads ------------------------------------------------------------------------- */

/* Copy messages that another thread has just written, as a receiver does. */
static void time_copies(em_time_worker_t *worker)
{
    em_time_shared_t *const shared = worker->shared;
    const uint32_t other = (worker->index + 1) % shared->options->num_threads;
    for (uint32_t round = 0; round < shared->options->repeats + WARM_UP; round++) {
        for (int size = 0; size < EM_TIME_COPIES; size++) {
            const size_t bytes = (size_t)em_time_copy_bytes[size];
            memset(worker->message, (int)round, bytes);
            if (!meet(worker)) {
                return;
            }
            const uint64_t start = em_clock_ns();
            memcpy(worker->received, shared->messages[other], bytes);
            put(worker, EM_TIME_COPY + size, round, em_clock_ns() - start);
            if (!meet(worker)) { /* nobody writes while another reads */
                return;
            }
        }
    }
}

/* Sum the gradients of the layers, whole and an eighth of them. */
static void time_all_reduce(em_time_worker_t *worker)
{
    em_time_shared_t *const shared = worker->shared;
    em_local_reduce_t reduce = {.buffers = shared->gradients};
    uint32_t number = 0;
    for (uint32_t round = 0; round < shared->options->repeats + WARM_UP; round++) {
        for (int part = 0; part < EM_TIME_SUMS; part++, number++) {
            em_local_share(em_time_sum_elements(worker, part), shared->options->num_threads,
                           worker->index, &reduce.begin, &reduce.end);
            if (!meet(worker)) {
                return;
            }
            const uint64_t start = em_clock_ns();
            if (!em_local_group_enter(&shared->group, number, &shared->team)) {
                return;
            }
            em_local_sum_share(&shared->group, &reduce);
            if (!em_local_group_leave(&shared->group, number, &shared->team)) {
                return;
            }
            put(worker, EM_TIME_SUM + part, round, em_clock_ns() - start);
        }
    }
}

uint64_t em_time_sum_elements(const em_time_worker_t *worker, int part)
{
    const uint64_t num = worker->pieces[EM_PIECE_LAYERS].num_floats;
    return part == 0 ? num : (num + 7) / 8;
}

static void busy_for(uint64_t ns)
{
    const uint64_t start = em_clock_ns();
    while (em_clock_ns() - start < ns) {
    }
}

static int by_size(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static uint64_t median(uint64_t *ns, uint32_t num)
{
    qsort(ns, num, sizeof *ns, by_size);
    return num % 2 == 1 ? ns[num / 2] : (ns[num / 2 - 1] + ns[num / 2]) / 2;
}

/* Half a round trip between threads 0 and 1. With `pause` each works for a while before its
 * answer, which puts the other one to sleep; that is taken off. What posting takes its sender goes
 * to *post_ns. */
static uint64_t time_round_trips(em_time_worker_t *worker, uint32_t first, uint32_t num,
                                 uint64_t pause, uint64_t *post_ns)
{
    em_time_shared_t *const shared = worker->shared;
    em_local_channel_t *const send = worker->index == 0 ? &shared->there : &shared->back;
    em_local_channel_t *const receive = worker->index == 0 ? &shared->back : &shared->there;
    uint64_t trip_ns[ROUND_TRIPS], send_ns[ROUND_TRIPS];
    for (uint32_t i = 0; i < num; i++) {
        const uint64_t start = em_clock_ns();
        if (worker->index != 0 && !em_local_wait_ready(receive, first + i, &shared->team)) {
            return 0;
        }
        busy_for(pause);
        const uint64_t middle = em_clock_ns();
        em_local_send(send);
        send_ns[i] = em_clock_ns() - middle;
        if (worker->index == 0 && !em_local_wait_ready(receive, first + i, &shared->team)) {
            return 0;
        }
        trip_ns[i] = em_clock_ns() - start;
    }
    const uint64_t ns = median(trip_ns, num);
    *post_ns = median(send_ns, num);
    return ns > 2 * pause ? (ns - 2 * pause) / 2 : 0;
}

/* What the interpreter adds to each instruction: marks for the watchdog, a look at the abort flag,
 * a reading of the clock. */
static double time_instruction(em_time_worker_t *worker)
{
    _Atomic uint32_t at = 0;
    _Atomic uint64_t progress = 0;
    volatile uint64_t sink = 0;
    const uint64_t start = em_clock_ns();
    for (uint32_t i = 0; i < CALLS; i++) {
        atomic_store_explicit(&at, i, memory_order_relaxed);
        sink = em_clock_ns();
        atomic_fetch_add_explicit(&progress, 1, memory_order_relaxed);
        if (em_team_aborted(&worker->shared->team)) {
            break;
        }
    }
    (void)sink;
    return (double)(em_clock_ns() - start) / CALLS;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *work(void *context)
{
    em_time_worker_t *const worker = context;
    if (time_rounds(worker) != EM_OK) {
        em_team_abort(&worker->shared->team);
        return NULL;
    }
    time_copies(worker);
    time_all_reduce(worker);
    worker->instruction_ns = time_instruction(worker);
    if (meet(worker) && worker->index < 2) {
        worker->hand_over_ns = time_round_trips(worker, 0, ROUND_TRIPS, 0, &worker->post_ns);
        worker->wake_ns = time_round_trips(worker, ROUND_TRIPS, SLEEPING_ROUND_TRIPS, pause_ns,
                                           &worker->wake_post_ns);
    }
    return NULL;
}

uint64_t em_time_median(em_time_worker_t *workers, int quantity)
{
    const em_time_options_t *const options = workers->shared->options;
    uint64_t sum = 0;
    for (uint32_t t = 0; t < options->num_threads; t++) {
        sum += median(workers[t].samples[quantity], options->repeats);
    }
    return sum / options->num_threads;
}

static em_status_t run(em_time_worker_t *workers, em_error_t *err)
{
    em_time_shared_t *const shared = workers->shared;
    uint32_t started = 0;
    em_status_t status = EM_OK;
    for (; started < shared->options->num_threads; started++) {
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0) {
            status = EM_FAIL(err, EM_ERR_SYSTEM, "cannot start a thread");
            em_team_abort(&shared->team);
            break;
        }
    }
    for (uint32_t t = 0; t < started; t++) {
        (void)pthread_join(workers[t].thread, NULL);
        if (status == EM_OK && workers[t].error.status != EM_OK) {
            status = workers[t].error.status;
            *err = workers[t].error;
        }
    }
    return status;
}

static em_status_t make_worker(em_time_worker_t *worker, em_error_t *err)
{
    em_time_shared_t *const shared = worker->shared;
    const uint64_t message_bytes = em_time_copy_bytes[EM_TIME_COPIES - 1];
    bool complete = true;
    for (int i = 0; i < EM_TIME_QUANTITIES; i++) {
        worker->samples[i] = em_alloc_zeroed(shared->options->repeats, sizeof **worker->samples);
        complete = complete && worker->samples[i] != NULL;
    }
    worker->message = em_alloc_zeroed(1, message_bytes);
    worker->received = em_alloc_zeroed(1, message_bytes);
    EM_RETURN_ERROR_IF(!complete || worker->message == NULL || worker->received == NULL, err,
                       EM_ERR_MEMORY, "no memory for the samples");
    for (int kind = 0; kind < EM_NUM_PIECES; kind++) {
        EM_RETURN_IF_ERROR(
            em_time_piece_make(&worker->pieces[kind], (em_piece_kind_t)kind, shared->options, err));
    }
    shared->gradients[worker->index] = worker->pieces[EM_PIECE_LAYERS].grad;
    shared->messages[worker->index] = worker->message;
    return EM_OK;
}

static void free_worker(em_time_worker_t *worker)
{
    for (int i = 0; i < EM_TIME_QUANTITIES; i++) {
        em_free(worker->samples[i]);
    }
    em_free(worker->message);
    em_free(worker->received);
    for (int kind = 0; kind < EM_NUM_PIECES; kind++) {
        em_time_piece_free(&worker->pieces[kind]);
    }
}

em_status_t em_time_ops(const em_time_options_t *options, FILE *out, em_error_t *err)
{
    EM_RETURN_ERROR_IF(options->repeats == 0 || options->layers == 0 || options->microbatch == 0 ||
                           options->seq == 0,
                       err, EM_ERR_ARGUMENT,
                       "repeats, layers, microbatch and seq must be at least 1");
    EM_RETURN_ERROR_IF(options->num_threads < 2 || options->num_threads > EM_TIME_THREADS, err,
                       EM_ERR_ARGUMENT, "threads must be 2 to %d", EM_TIME_THREADS);
    em_time_shared_t *const shared = em_alloc_zeroed(1, sizeof *shared);
    em_time_worker_t *const workers = em_alloc_zeroed(options->num_threads, sizeof *workers);
    em_status_t status = shared == NULL || workers == NULL
                             ? EM_FAIL(err, EM_ERR_MEMORY, "no memory to time in")
                             : EM_OK;
    if (status == EM_OK) {
        shared->options = options;
        em_team_init(&shared->team, options->num_threads);
        em_barrier_init(&shared->barrier, options->num_threads);
        em_local_channel_init(&shared->there);
        em_local_channel_init(&shared->back);
        em_local_group_init(&shared->group, options->num_threads, NULL);
    }
    for (uint32_t t = 0; status == EM_OK && t < options->num_threads; t++) {
        workers[t].shared = shared;
        workers[t].index = t;
        status = make_worker(&workers[t], err);
    }
    if (status == EM_OK) {
        status = run(workers, err);
    }
    if (status == EM_OK) {
        em_time_report(workers, out);
    }
    for (uint32_t t = 0; workers != NULL && t < options->num_threads; t++) {
        free_worker(&workers[t]);
    }
    em_free(workers);
    em_free(shared);
    return status;
}
