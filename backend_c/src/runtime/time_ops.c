/*
 * What `calibrate` asks of this machine: the engine's own passes, optimizer, hand-over and
 * all-reduce, timed as they run, with two threads at work so that shared caches and memory are
 * as busy as in a run. Each number is the median over repeats and threads.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "comm/em_local.h"
#include "common/em_arena.h"
#include "common/em_clock.h"
#include "common/em_rng.h"
#include "cpu/em_cpu.h"
#include "exactmap/engine.h"
#include "nn/em_stage.h"

enum { NUM_THREADS = 2, WARM_UP = 2, ROUND_TRIPS = 200, CALLS = 1000 };

/* Stages that are timed on their own: a cost model puts any stage together from them. */
enum { PIECE_LAYERS = 0, PIECE_EMBEDDING, PIECE_HEAD, NUM_PIECES };

typedef struct {
    em_stage_t stage;
    em_stage_sizes_t sizes;
    em_param_t *table;
    uint32_t num_params;
    uint64_t num_floats;
    float *param, *grad, *m, *v;
    float **params, **grads;
    float *x, *y, *dy, *dx, *a, *w, *g, *workspace;
    int32_t *tokens;
} piece_t;

typedef struct {
    const em_time_options_t *options;
    em_team_t team;
    em_barrier_t barrier;
    em_local_channel_t there;
    em_local_channel_t back;
    em_local_group_t group;
    float *buffers[NUM_THREADS]; /* gradients of the layers */
} shared_t;

/* Samples of one quantity by one thread. */
typedef struct {
    uint64_t *ns;
} samples_t;

enum {
    Q_PASS = 0, /* [piece][F I W B] */
    Q_ADAMW = Q_PASS + NUM_PIECES * EM_NUM_PASSES,
    Q_SQUARES,
    Q_COPY,
    Q_ALL_REDUCE,
    NUM_QUANTITIES
};

typedef struct {
    shared_t *shared;
    uint32_t index;
    uint64_t round;
    piece_t pieces[NUM_PIECES];
    samples_t samples[NUM_QUANTITIES];
    uint64_t hand_over_ns; /* thread 0 */
    uint64_t wake_ns;
    uint64_t group_ns;
    double instruction_ns;
    em_error_t error;
    pthread_t thread;
} worker_t;

static bool meet(worker_t *worker)
{
    return em_barrier_meet(&worker->shared->barrier, worker->round++, &worker->shared->team, NULL,
                           NULL);
}

/* ---- buffers ------------------------------------------------------------------------------- */

static void *take(uint64_t bytes)
{
    return bytes == 0 ? NULL : em_alloc_zeroed(1, bytes);
}

static void fill(float *x, uint64_t num, uint64_t key)
{
    for (uint64_t i = 0; x != NULL && i < num; i++) {
        x[i] = (float)em_rng_normal(key, i);
    }
}

static em_status_t make_piece(worker_t *worker, int kind, piece_t *piece)
{
    const em_time_options_t *const o = worker->shared->options;
    em_error_t *const err = &worker->error;
    piece->stage = (em_stage_t){
        .model = {.kind = o->llama ? EM_MODEL_LLAMA : EM_MODEL_GPT2,
                  .layers = o->layers,
                  .hidden = o->hidden,
                  .heads = o->heads,
                  .kv_heads = o->kv_heads,
                  .head_dim = o->head_dim,
                  .ffn = o->ffn,
                  .vocab = o->vocab,
                  .positions = o->seq,
                  .norm_eps = 1e-5f,
                  .rope_theta = 10000.0f,
                  .tied = false},
        .num_layers = kind == PIECE_LAYERS ? o->layers : 0,
        .has_embedding = kind == PIECE_EMBEDDING,
        .has_head = kind == PIECE_HEAD};
    EM_RETURN_IF_ERROR(em_stage_check(&piece->stage, err));
    EM_RETURN_IF_ERROR(em_stage_sizes(&piece->stage, o->microbatch, o->seq, &piece->sizes, err));
    EM_RETURN_IF_ERROR(em_stage_layout(&piece->stage, EM_PART_ALL, NULL, 0, &piece->num_params,
                                       &piece->num_floats, err));
    const uint64_t tokens = (uint64_t)o->microbatch * o->seq;
    const uint64_t param_bytes = piece->num_floats * sizeof(float);
    const uint32_t num_pointers = em_stage_num_pointers(&piece->stage);
    piece->table = take(piece->num_params * sizeof *piece->table);
    piece->params = take(num_pointers * sizeof *piece->params);
    piece->grads = take(num_pointers * sizeof *piece->grads);
    piece->param = take(param_bytes);
    piece->grad = take(param_bytes);
    piece->m = take(param_bytes);
    piece->v = take(param_bytes);
    piece->x = take(piece->sizes.h_bytes);
    piece->y = take(piece->sizes.h_bytes);
    piece->dy = take(piece->sizes.h_bytes);
    piece->dx = take(piece->sizes.h_bytes);
    piece->a = take(piece->sizes.a_bytes + EM_ALIGN);
    piece->w = take(piece->sizes.w_bytes + EM_ALIGN);
    piece->g = take(piece->sizes.g_bytes + EM_ALIGN);
    piece->workspace = take(piece->sizes.workspace_max_bytes);
    piece->tokens = take(tokens * sizeof *piece->tokens);
    EM_RETURN_ERROR_IF(piece->table == NULL || piece->params == NULL || piece->grads == NULL ||
                           piece->param == NULL || piece->grad == NULL || piece->m == NULL ||
                           piece->v == NULL || piece->x == NULL || piece->y == NULL ||
                           piece->dy == NULL || piece->dx == NULL || piece->a == NULL ||
                           piece->w == NULL || piece->g == NULL || piece->workspace == NULL ||
                           piece->tokens == NULL,
                       err, EM_ERR_MEMORY, "no memory for the timed stages");
    EM_RETURN_IF_ERROR(em_stage_layout(&piece->stage, EM_PART_ALL, piece->table, piece->num_params,
                                       &piece->num_params, &piece->num_floats, err));
    em_stage_bind(&piece->stage, piece->table, piece->num_params, piece->param, piece->params);
    em_stage_bind(&piece->stage, piece->table, piece->num_params, piece->grad, piece->grads);
    em_params_init(piece->table, piece->num_params, 1, piece->num_floats, piece->param);
    em_workspace_prepare(&piece->stage, o->seq, piece->workspace);
    fill(piece->x, tokens * o->hidden, 1);
    fill(piece->dy, tokens * o->hidden, 2);
    for (uint64_t i = 0; i < tokens; i++) {
        piece->tokens[i] = (int32_t)em_rng_below(3, i, o->vocab);
    }
    return EM_OK;
}

static void free_piece(piece_t *piece)
{
    void *const blocks[] = {piece->table, piece->params, piece->grads, piece->param, piece->grad,
                            piece->m,     piece->v,      piece->x,     piece->y,     piece->dy,
                            piece->dx,    piece->a,      piece->w,     piece->g,
                            piece->workspace, piece->tokens};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        em_free(blocks[i]);
    }
}

static em_status_t make_worker(worker_t *worker)
{
    for (int i = 0; i < NUM_QUANTITIES; i++) {
        worker->samples[i].ns =
            take(worker->shared->options->repeats * sizeof(uint64_t));
        EM_RETURN_ERROR_IF(worker->samples[i].ns == NULL, &worker->error, EM_ERR_MEMORY,
                           "no memory for the samples");
    }
    for (int kind = 0; kind < NUM_PIECES; kind++) {
        EM_RETURN_IF_ERROR(make_piece(worker, kind, &worker->pieces[kind]));
    }
    worker->shared->buffers[worker->index] = worker->pieces[PIECE_LAYERS].grad;
    return EM_OK;
}

static void free_worker(worker_t *worker)
{
    for (int i = 0; i < NUM_QUANTITIES; i++) {
        em_free(worker->samples[i].ns);
    }
    for (int kind = 0; kind < NUM_PIECES; kind++) {
        free_piece(&worker->pieces[kind]);
    }
}

/* ---- measuring ------------------------------------------------------------------------------ */

typedef em_status_t (*pass_t)(const em_stage_ctx_t *ctx, const em_item_t *item);

static void time_passes(worker_t *worker, int kind)
{
    static const pass_t passes[EM_NUM_PASSES] = {em_stage_f, em_stage_i, em_stage_w, em_stage_b};
    const em_time_options_t *const o = worker->shared->options;
    piece_t *const piece = &worker->pieces[kind];
    double loss = 0.0;
    const em_stage_ctx_t ctx = {.stage = &piece->stage,
                                .kernels = em_cpu_kernels(EM_CPU_AUTO),
                                .microbatch = o->microbatch,
                                .seq = o->seq,
                                .params = piece->params,
                                .grads = piece->grads,
                                .workspace = piece->workspace};
    const em_item_t item = {.tokens = piece->tokens,
                            .targets = piece->tokens,
                            .x = piece->x,
                            .y = piece->y,
                            .dy = piece->dy,
                            .dx = piece->dx,
                            .a = piece->a,
                            .w = piece->w,
                            .g = piece->g,
                            .loss_sum = &loss,
                            .scale = 1.0f / (float)(o->microbatch * o->seq),
                            .accumulate = EM_PART_ALL};
    for (uint32_t i = 0; i < o->repeats + WARM_UP && meet(worker); i++) {
        for (int pass = 0; pass < EM_NUM_PASSES; pass++) {
            const uint64_t start = em_clock_ns();
            const em_status_t status = passes[pass](&ctx, &item);
            const uint64_t ns = em_clock_ns() - start;
            if (status != EM_OK) {
                (void)EM_FAIL(&worker->error, status, "a timed pass failed");
                em_team_abort(&worker->shared->team);
                return;
            }
            if (i >= WARM_UP) {
                worker->samples[Q_PASS + kind * EM_NUM_PASSES + pass].ns[i - WARM_UP] = ns;
            }
        }
    }
}

static void time_optimizer(worker_t *worker)
{
    const uint32_t repeats = worker->shared->options->repeats;
    piece_t *const piece = &worker->pieces[PIECE_LAYERS];
    const em_kernels_t *const kernels = em_cpu_kernels(EM_CPU_AUTO);
    volatile double keep = 0.0; /* so that the sum is formed */
    for (uint32_t i = 0; i < repeats + WARM_UP && meet(worker); i++) {
        const em_adamw_t adamw = {.lr = 1e-6,
                                  .beta1 = 0.9,
                                  .beta2 = 0.95,
                                  .eps = 1e-8,
                                  .weight_decay = 0.1,
                                  .grad_scale = 1.0,
                                  .step = i + 1};
        const uint64_t start = em_clock_ns();
        keep = em_bucket_sum_squares(kernels, piece->table, piece->num_params, 0,
                                     piece->num_floats, piece->grad);
        const uint64_t middle = em_clock_ns();
        em_bucket_adamw(kernels, piece->table, piece->num_params, 0, piece->num_floats, &adamw,
                        piece->param, piece->grad, piece->m, piece->v);
        const uint64_t end = em_clock_ns();
        if (i >= WARM_UP) {
            worker->samples[Q_SQUARES].ns[i - WARM_UP] = middle - start;
            worker->samples[Q_ADAMW].ns[i - WARM_UP] = end - middle;
        }
    }
    (void)keep;
}

/* Copy a message that the other thread has just written, as a receiver does. */
static void time_copy(worker_t *worker, worker_t *other)
{
    const uint32_t repeats = worker->shared->options->repeats;
    piece_t *const mine = &worker->pieces[PIECE_LAYERS];
    const piece_t *const theirs = &other->pieces[PIECE_LAYERS];
    const uint64_t bytes = mine->sizes.h_bytes;
    for (uint32_t i = 0; i < repeats + WARM_UP; i++) {
        memset(mine->y, (int)i, (size_t)bytes);
        if (!meet(worker)) {
            return;
        }
        const uint64_t start = em_clock_ns();
        memcpy(mine->dx, theirs->y, (size_t)bytes);
        const uint64_t ns = em_clock_ns() - start;
        if (i >= WARM_UP) {
            worker->samples[Q_COPY].ns[i - WARM_UP] = ns;
        }
        if (!meet(worker)) { /* nobody writes while another reads */
            return;
        }
    }
}

static void time_all_reduce(worker_t *worker)
{
    shared_t *const shared = worker->shared;
    const uint32_t repeats = shared->options->repeats;
    em_local_reduce_t reduce = {.buffers = shared->buffers};
    em_local_share(worker->pieces[PIECE_LAYERS].num_floats, NUM_THREADS, worker->index,
                   &reduce.begin, &reduce.end);
    uint32_t number = 0;
    for (uint32_t i = 0; i < repeats + WARM_UP && meet(worker); i++, number++) {
        const uint64_t start = em_clock_ns();
        if (!em_local_group_enter(&shared->group, number, &shared->team)) {
            return;
        }
        em_local_sum_share(&shared->group, &reduce);
        if (!em_local_group_leave(&shared->group, number, &shared->team)) {
            return;
        }
        if (i >= WARM_UP) {
            worker->samples[Q_ALL_REDUCE].ns[i - WARM_UP] = em_clock_ns() - start;
        }
    }
    const uint64_t start = em_clock_ns();
    for (uint32_t i = 0; i < ROUND_TRIPS; i++, number++) {
        if (!em_local_group_enter(&shared->group, number, &shared->team) ||
            !em_local_group_leave(&shared->group, number, &shared->team)) {
            return;
        }
    }
    worker->group_ns = (em_clock_ns() - start) / ROUND_TRIPS;
}

static void busy_for(uint64_t ns)
{
    const uint64_t start = em_clock_ns();
    while (em_clock_ns() - start < ns) {
    }
}

/* Half a round trip between two threads; `pause_ns` of work before each answer puts the other one
 * to sleep, and is taken off. */
static uint64_t time_round_trips(worker_t *worker, uint32_t first, uint32_t num, uint64_t pause_ns)
{
    shared_t *const shared = worker->shared;
    em_local_channel_t *const send = worker->index == 0 ? &shared->there : &shared->back;
    em_local_channel_t *const receive = worker->index == 0 ? &shared->back : &shared->there;
    if (!meet(worker)) {
        return 0;
    }
    const uint64_t start = em_clock_ns();
    for (uint32_t i = first; i < first + num; i++) {
        if (worker->index == 0) {
            busy_for(pause_ns);
            em_local_send(send);
        }
        if (!em_local_wait_ready(receive, i, &shared->team)) {
            return 0;
        }
        if (worker->index != 0) {
            busy_for(pause_ns);
            em_local_send(send);
        }
    }
    const uint64_t ns = (em_clock_ns() - start) / (2 * (uint64_t)num);
    return ns > pause_ns ? ns - pause_ns : 0;
}

/* What the interpreter adds to each instruction: marks for the watchdog, a look at the abort flag,
 * a reading of the clock. */
static double time_instruction(worker_t *worker)
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

static void *work(void *context)
{
    worker_t *const worker = context;
    worker_t *const other = worker->index == 0 ? worker + 1 : worker - 1;
    const uint64_t pause_ns = 1000000; /* longer than any spinning */
    for (int kind = 0; kind < NUM_PIECES; kind++) {
        time_passes(worker, kind);
    }
    time_optimizer(worker);
    time_copy(worker, other);
    time_all_reduce(worker);
    worker->hand_over_ns = time_round_trips(worker, 0, ROUND_TRIPS, 0);
    worker->wake_ns = time_round_trips(worker, ROUND_TRIPS, 20, pause_ns);
    worker->instruction_ns = time_instruction(worker);
    return NULL;
}

/* ---- the report ------------------------------------------------------------------------------ */

static int by_size(const void *left, const void *right)
{
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Median of each thread's samples, and of those the mean. */
static uint64_t median(worker_t *workers, int quantity)
{
    const uint32_t repeats = workers->shared->options->repeats;
    uint64_t sum = 0;
    for (int t = 0; t < NUM_THREADS; t++) {
        uint64_t *const ns = workers[t].samples[quantity].ns;
        qsort(ns, repeats, sizeof *ns, by_size);
        sum += repeats % 2 == 1 ? ns[repeats / 2] : (ns[repeats / 2 - 1] + ns[repeats / 2]) / 2;
    }
    return sum / NUM_THREADS;
}

static void report(worker_t *workers, FILE *out)
{
    static const char *const names[NUM_PIECES] = {"layers", "embedding", "head"};
    static const char letters[] = "FIWB";
    const em_time_options_t *const o = workers->shared->options;
    const piece_t *const layers = &workers->pieces[PIECE_LAYERS];
    const uint64_t bytes = layers->num_floats * sizeof(float);
    (void)fprintf(out,
                  "{\"schema_version\": 1, \"kernels\": \"%s\", \"kind\": \"%s\", \"layers\": "
                  "%" PRIu32 ", \"hidden\": %" PRIu32 ", \"heads\": %" PRIu32
                  ", \"kv_heads\": %" PRIu32 ", \"head_dim\": %" PRIu32 ", \"ffn\": %" PRIu32
                  ", \"vocab\": %" PRIu32 ", \"seq\": %" PRIu32 ", \"microbatch\": %" PRIu32
                  ", \"repeats\": %" PRIu32 ", \"num_threads\": %d,\n \"pass_ns\": {",
                  em_cpu_kernels(EM_CPU_AUTO)->name, o->llama ? "llama" : "gpt", o->layers,
                  o->hidden, o->heads, o->kv_heads, o->head_dim, o->ffn, o->vocab, o->seq,
                  o->microbatch, o->repeats, NUM_THREADS);
    for (int kind = 0; kind < NUM_PIECES; kind++) {
        (void)fprintf(out, "%s\"%s\": {", kind == 0 ? "" : ", ", names[kind]);
        for (int pass = 0; pass < EM_NUM_PASSES; pass++) {
            (void)fprintf(out, "%s\"%c\": %" PRIu64, pass == 0 ? "" : ", ", letters[pass],
                          median(workers, Q_PASS + kind * EM_NUM_PASSES + pass));
        }
        (void)fprintf(out, "}");
    }
    (void)fprintf(out,
                  "},\n \"adamw\": {\"num_elements\": %" PRIu64 ", \"ns\": %" PRIu64
                  "}, \"sum_squares\": {\"num_elements\": %" PRIu64 ", \"ns\": %" PRIu64 "},\n",
                  layers->num_floats, median(workers, Q_ADAMW), layers->num_floats,
                  median(workers, Q_SQUARES));
    (void)fprintf(out,
                  " \"channel\": {\"num_bytes\": %" PRIu64 ", \"copy_ns\": %" PRIu64
                  ", \"hand_over_ns\": %" PRIu64 ", \"wake_ns\": %" PRIu64 "},\n",
                  layers->sizes.h_bytes, median(workers, Q_COPY), workers[0].hand_over_ns,
                  workers[0].wake_ns);
    (void)fprintf(out,
                  " \"all_reduce\": {\"num_members\": %d, \"num_bytes\": %" PRIu64
                  ", \"ns\": %" PRIu64 ", \"meet_ns\": %" PRIu64 "},\n",
                  NUM_THREADS, bytes, median(workers, Q_ALL_REDUCE), workers[0].group_ns);
    (void)fprintf(out, " \"instruction_ns\": %.1f}\n",
                  0.5 * (workers[0].instruction_ns + workers[1].instruction_ns));
}

static em_status_t run(worker_t *workers, em_error_t *err)
{
    uint32_t started = 0;
    em_status_t status = EM_OK;
    for (; started < NUM_THREADS; started++) {
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0) {
            status = EM_FAIL(err, EM_ERR_SYSTEM, "cannot start a thread");
            em_team_abort(&workers->shared->team);
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

em_status_t em_time_ops(const em_time_options_t *options, FILE *out, em_error_t *err)
{
    EM_RETURN_ERROR_IF(options->repeats == 0 || options->layers == 0 || options->microbatch == 0 ||
                           options->seq == 0,
                       err, EM_ERR_ARGUMENT,
                       "repeats, layers, microbatch and seq must be at least 1");
    shared_t shared;
    worker_t *const workers = em_alloc_zeroed(NUM_THREADS, sizeof *workers);
    EM_RETURN_ERROR_IF(workers == NULL, err, EM_ERR_MEMORY, "no memory to time in");
    memset(&shared, 0, sizeof shared);
    shared.options = options;
    em_team_init(&shared.team, NUM_THREADS);
    em_barrier_init(&shared.barrier, NUM_THREADS);
    em_local_channel_init(&shared.there);
    em_local_channel_init(&shared.back);
    em_local_group_init(&shared.group, NUM_THREADS, NULL);
    em_status_t status = EM_OK;
    for (uint32_t t = 0; t < NUM_THREADS; t++) {
        workers[t].shared = &shared;
        workers[t].index = t;
        if (status == EM_OK) {
            status = make_worker(&workers[t]);
            if (status != EM_OK) {
                *err = workers[t].error;
            }
        }
    }
    if (status == EM_OK) {
        status = run(workers, err);
    }
    if (status == EM_OK) {
        report(workers, out);
    }
    for (uint32_t t = 0; t < NUM_THREADS; t++) {
        free_worker(&workers[t]);
    }
    em_free(workers);
    return status;
}
