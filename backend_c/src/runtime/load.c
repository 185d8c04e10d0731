/* Loading: all memory, weights and data of a run. See exactmap/engine.h. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "common/em_checked.h"
#include "cpu/em_cpu.h"
#include "runtime/em_engine.h"

void em_engine_options_init(em_engine_options_t *options)
{
    memset(options, 0, sizeof *options);
    options->plan_name = "plan";
    options->timeout_ns = 300000000000u;
    options->verify_data = true;
}

static em_status_t open_data(em_engine_t *engine, const char *name, em_tokens_t *tokens,
                             uint64_t *num_windows, em_error_t *err)
{
    const em_plan_t *const plan = engine->shared.plan;
    char path[EM_PATH_BYTES];
    EM_RETURN_IF_ERROR(em_path_join(path, engine->options.data_folder, name, err));
    EM_RETURN_IF_ERROR(em_tokens_open(tokens, path, engine->options.verify_data, err));
    EM_RETURN_ERROR_IF(tokens->vocab > plan->model.vocab, err, EM_ERR_DATA,
                       "%s: vocabulary of %" PRIu64 ", the plan's model has %" PRIu64, path,
                       tokens->vocab, plan->model.vocab);
    *num_windows = em_tokens_num_windows(tokens, plan->train.seq);
    EM_RETURN_ERROR_IF(*num_windows == 0, err, EM_ERR_DATA,
                       "%s: %" PRIu64 " tokens, expected at least %" PRIu64 " (one sequence)", path,
                       tokens->num_tokens, plan->train.seq + 1);
    return EM_OK;
}

static em_status_t open_all_data(em_engine_t *engine, em_error_t *err)
{
    em_engine_shared_t *const shared = &engine->shared;
    const em_plan_train_t *const train = &shared->plan->train;
    EM_RETURN_ERROR_IF(engine->options.data_folder == NULL, err, EM_ERR_ARGUMENT,
                       "no data folder was given");
    EM_RETURN_IF_ERROR(open_data(engine, "train.tok", &shared->train, &shared->train_windows, err));
    if (engine->options.eval_sequences == 0) {
        return EM_OK;
    }
    EM_RETURN_IF_ERROR(open_data(engine, "val.tok", &shared->val, &shared->val_windows, err));
    shared->num_eval_sequences = engine->options.eval_sequences < shared->val_windows
                                     ? engine->options.eval_sequences
                                     : shared->val_windows;
    shared->num_eval_microbatches =
        (shared->num_eval_sequences + train->microbatch - 1) / train->microbatch;
    shared->eval_losses =
        em_alloc_zeroed(shared->num_eval_microbatches, sizeof *shared->eval_losses);
    EM_RETURN_ERROR_IF(shared->eval_losses == NULL, err, EM_ERR_MEMORY,
                       "no memory for %" PRIu64 " validation losses",
                       shared->num_eval_microbatches);
    return EM_OK;
}

/* Arenas that this machine cannot hold would be given out all the same, and end the process when
 * they are touched: so what they take together is held against its memory first. */
static em_status_t check_memory(const em_engine_t *engine, em_error_t *err)
{
    const em_plan_t *const plan = engine->shared.plan;
    const long num_pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    uint64_t bytes = 0, memory_bytes = UINT64_MAX;
    bool fits = true;
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        uint64_t rank_bytes = 0, replicas_bytes = 0;
        fits = fits &&
               em_add_u64(plan->ranks[pp].arena_bytes, em_plan_host_bytes(plan, pp), &rank_bytes) &&
               em_mul_u64(rank_bytes, plan->mesh.size[EM_AXIS_DP], &replicas_bytes) &&
               em_add_u64(bytes, replicas_bytes, &bytes);
    }
    if (num_pages > 0 && page_bytes > 0) {
        memory_bytes = (uint64_t)num_pages * (uint64_t)page_bytes;
    }
    EM_RETURN_ERROR_IF(!fits, err, EM_ERR_MEMORY,
                       "%s: the arenas of all ranks do not fit 64 bits of bytes",
                       engine->options.plan_name);
    EM_RETURN_ERROR_IF(bytes > memory_bytes, err, EM_ERR_MEMORY,
                       "%s: the arenas of all ranks take %" PRIu64
                       " bytes, this machine has %" PRIu64,
                       engine->options.plan_name, bytes, memory_bytes);
    return EM_OK;
}

/* Bytes of one slot of a validation, as places in the arena; none without the pool. */
static void slot_place(const em_plan_rank_t *rank, em_pool_t pool, uint64_t index,
                       uint64_t place[2])
{
    const em_plan_pool_t *const declared = &rank->pools[pool];
    place[0] = index < declared->num ? declared->at + index * declared->bytes : 0;
    place[1] = index < declared->num ? place[0] + declared->bytes : 0;
}

/* Pools may share bytes where a program's slots never live together; a validation uses the first
 * two h slots, the first a and the first w slot at once. */
static em_status_t check_eval_overlap(const em_engine_t *engine, uint32_t pp, em_error_t *err)
{
    uint64_t places[4][2];
    const em_plan_rank_t *const rank = &engine->shared.plan->ranks[pp];
    slot_place(rank, EM_POOL_H, 0, places[0]);
    slot_place(rank, EM_POOL_H, 1, places[1]);
    slot_place(rank, EM_POOL_A, 0, places[2]);
    slot_place(rank, EM_POOL_W, 0, places[3]);
    for (int i = 0; i < 4; i++) {
        for (int k = i + 1; k < 4; k++) {
            const bool overlap = places[i][0] < places[k][1] && places[k][0] < places[i][1];
            EM_RETURN_ERROR_IF(overlap, err, EM_ERR_UNSUPPORTED,
                               "%s: engine.unsupported: a validation on rank %" PRIu32
                               ", whose h, a and w slots share bytes",
                               engine->options.plan_name, pp);
        }
    }
    return EM_OK;
}

/* Stages of a rank that a validation runs there. */
static uint32_t count_judged(const em_plan_t *plan, uint32_t pp)
{
    uint32_t num = 0;
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        num += em_plan_first_rank(plan, s) == pp;
    }
    return num;
}

/* A validation holds the input and the output of a stage between two ranks at once, and, of a
 * sequence in slices, the keys and values of all the rank's stages. */
static em_status_t check_eval_slots(const em_engine_t *engine, em_error_t *err)
{
    const em_plan_t *const plan = engine->shared.plan;
    for (uint32_t s = 1; engine->options.eval_sequences > 0 && s + 1 < plan->num_stages; s++) {
        const uint32_t pp = em_plan_first_rank(plan, s);
        EM_RETURN_ERROR_IF(plan->ranks[pp].pools[EM_POOL_H].num < 2, err, EM_ERR_UNSUPPORTED,
                           "%s: engine.unsupported: a validation needs 2 h slots on rank %" PRIu32,
                           engine->options.plan_name, pp);
    }
    for (uint32_t pp = 0; engine->options.eval_sequences > 0 && pp < plan->num_ranks; pp++) {
        const uint32_t num = plan->train.slices > 1 ? count_judged(plan, pp) : 0;
        EM_RETURN_ERROR_IF(plan->ranks[pp].pools[EM_POOL_K].num < num, err, EM_ERR_UNSUPPORTED,
                           "%s: engine.unsupported: a validation needs %" PRIu32
                           " k slots on rank %" PRIu32,
                           engine->options.plan_name, num, pp);
        EM_RETURN_IF_ERROR(check_eval_overlap(engine, pp, err));
    }
    return EM_OK;
}

static em_status_t make_ranks(em_engine_t *engine, em_error_t *err)
{
    em_engine_shared_t *const shared = &engine->shared;
    const em_plan_t *const plan = shared->plan;
    EM_RETURN_IF_ERROR(em_world_make(&shared->world, plan, err));
    const uint32_t num_ranks = plan->num_ranks * shared->world.num_replicas;
    shared->losses = em_alloc_zeroed(
        shared->world.num_replicas * plan->train.m * plan->train.slices, sizeof *shared->losses);
    engine->ranks = em_alloc_zeroed(num_ranks, sizeof *engine->ranks);
    EM_RETURN_ERROR_IF(shared->losses == NULL || engine->ranks == NULL, err, EM_ERR_MEMORY,
                       "no memory for %" PRIu32 " ranks", num_ranks);
    for (uint32_t dp = 0; dp < shared->world.num_replicas; dp++) {
        for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
            em_rank_t *const rank = &engine->ranks[engine->num_ranks++];
            EM_RETURN_IF_ERROR(em_rank_make(rank, shared, pp, dp, err));
            EM_RETURN_IF_ERROR(em_rank_decode(rank, err));
        }
    }
    em_team_init(&shared->team, num_ranks);
    em_barrier_init(&shared->start, num_ranks);
    em_signal_init(&engine->go);
    em_signal_init(&engine->done);
    em_signal_init(&engine->ended);
    return EM_OK;
}

static void init_weights(em_engine_t *engine)
{
    for (uint32_t r = 0; r < engine->num_ranks; r++) {
        const em_rank_t *const rank = &engine->ranks[r];
        for (uint32_t b = 0; b < rank->num_buckets; b++) {
            const em_rank_bucket_t *const bucket = &rank->buckets[b];
            em_params_init(bucket->table, bucket->num_params, engine->shared.plan->train.seed,
                           bucket->num_floats, bucket->param);
        }
    }
}

static em_status_t resume(em_engine_t *engine, em_error_t *err)
{
    em_engine_shared_t *const shared = &engine->shared;
    const char *const folder = engine->options.resume_folder;
    em_checkpoint_state_t state;
    EM_RETURN_IF_ERROR(em_checkpoint_read(folder, engine->ranks, engine->num_ranks, &state, err));
    static const char hint[] = "to start anew from these weights use --init";
    if (state.seed != shared->plan->train.seed) {
        (void)EM_FAIL(err, EM_ERR_DATA,
                      "%s: the checkpoint was trained with seed %" PRIu64
                      ", the plan's is %" PRIu64,
                      folder, state.seed, shared->plan->train.seed);
        em_hint(err, "%s", hint);
        return EM_ERR_DATA;
    }
    if (strcmp(state.data_sha256, shared->train.sha256) != 0) {
        (void)EM_FAIL(err, EM_ERR_DATA,
                      "%s: the checkpoint was trained on other data: sha256 %.16s.., train.tok has "
                      "%.16s..",
                      folder, state.data_sha256, shared->train.sha256);
        em_hint(err, "%s", hint);
        return EM_ERR_DATA;
    }
    shared->first_step = state.step;
    shared->first_sample = state.samples;
    for (uint32_t r = 0; r < engine->num_ranks; r++) {
        engine->ranks[r].num_updates = state.updates;
    }
    return EM_OK;
}

static em_status_t load_weights(em_engine_t *engine, em_error_t *err)
{
    EM_RETURN_ERROR_IF(engine->options.resume_folder != NULL && engine->options.init_path != NULL,
                       err, EM_ERR_ARGUMENT, "--resume and --init exclude each other");
    init_weights(engine);
    if (engine->options.resume_folder != NULL) {
        return resume(engine, err);
    }
    if (engine->options.init_path != NULL) {
        return em_weights_read(engine->options.init_path, engine->ranks, engine->num_ranks, err);
    }
    return EM_OK;
}

/* Room for the times of the traced steps and of each step, taken now. */
static em_status_t make_records(em_engine_t *engine, em_error_t *err)
{
    em_engine_options_t *const options = &engine->options;
    const uint64_t first = engine->shared.first_step;
    const uint64_t num_steps = options->num_steps > first ? options->num_steps - first : 0;
    engine->num_step_ns = num_steps < EM_MOST_STEP_TIMES ? num_steps : EM_MOST_STEP_TIMES;
    engine->step_ns = em_alloc_zeroed(engine->num_step_ns + 1, sizeof *engine->step_ns);
    EM_RETURN_ERROR_IF(engine->step_ns == NULL, err, EM_ERR_MEMORY,
                       "no memory for the times of %" PRIu64 " steps", engine->num_step_ns);
    if (options->trace_path == NULL) {
        return EM_OK;
    }
    EM_RETURN_ERROR_IF(options->trace_first > options->trace_last || options->trace_first < first ||
                           options->trace_last >= options->num_steps,
                       err, EM_ERR_ARGUMENT,
                       "--trace-steps %" PRIu64 "..%" PRIu64 ": expected steps within %" PRIu64
                       "..%" PRIu64,
                       options->trace_first, options->trace_last, first,
                       options->num_steps == 0 ? 0 : options->num_steps - 1);
    const uint64_t num_traced = options->trace_last - options->trace_first + 1;
    for (uint32_t r = 0; r < engine->num_ranks; r++) {
        em_rank_t *const rank = &engine->ranks[r];
        uint64_t num = 0;
        rank->times = em_mul_u64(num_traced, rank->num_records, &num)
                          ? em_alloc_zeroed(num, sizeof *rank->times)
                          : NULL;
        EM_RETURN_ERROR_IF(rank->times == NULL, err, EM_ERR_MEMORY,
                           "no memory to trace %" PRIu64 " steps", num_traced);
    }
    return EM_OK;
}

static em_status_t load(em_engine_t *engine, em_error_t *err)
{
    const em_plan_train_t *const train = &engine->shared.plan->train;
    EM_RETURN_IF_ERROR(em_engine_check(engine->shared.plan, engine->options.plan_name, err));
    EM_RETURN_IF_ERROR(check_eval_slots(engine, err));
    EM_RETURN_IF_ERROR(check_memory(engine, err));
    if (engine->options.out_folder != NULL) {
        EM_RETURN_IF_ERROR(em_checkpoint_check_folder(engine->options.out_folder, err));
    }
    EM_RETURN_IF_ERROR(open_all_data(engine, err));
    EM_RETURN_IF_ERROR(make_ranks(engine, err));
    EM_RETURN_IF_ERROR(load_weights(engine, err));
    EM_RETURN_IF_ERROR(make_records(engine, err));
    engine->result.tokens_per_step =
        engine->shared.world.num_replicas * train->m * train->microbatch * train->seq;
    engine->result.first_step = engine->shared.first_step;
    engine->result.steps_done = engine->shared.first_step;
    return EM_OK;
}

em_status_t em_engine_load(const em_plan_t *plan, const em_engine_options_t *options,
                           em_engine_t **out, em_error_t *err)
{
    *out = NULL;
    em_engine_t *const engine = em_alloc_zeroed(1, sizeof *engine);
    EM_RETURN_ERROR_IF(engine == NULL, err, EM_ERR_MEMORY, "no memory for the engine");
    engine->options = *options;
    engine->shared.plan = plan;
    engine->shared.plan_name = options->plan_name;
    engine->shared.kernels = em_cpu_kernels(EM_CPU_AUTO);
    const em_status_t status = load(engine, err);
    if (status != EM_OK) {
        em_engine_free(engine);
        return status;
    }
    *out = engine;
    return EM_OK;
}

const em_engine_result_t *em_engine_result(const em_engine_t *engine)
{
    return &engine->result;
}

void em_engine_free(em_engine_t *engine)
{
    if (engine == NULL) {
        return;
    }
    em_threads_end(engine);
    if (engine->lost) {
        return; /* a thread may still write to it */
    }
    for (uint32_t r = 0; r < engine->num_ranks; r++) {
        em_rank_free(&engine->ranks[r]);
    }
    em_world_free(&engine->shared.world);
    em_tokens_close(&engine->shared.train);
    em_tokens_close(&engine->shared.val);
    em_free(engine->shared.losses);
    em_free(engine->shared.eval_losses);
    em_free(engine->step_ns);
    em_free(engine->ranks);
    em_free(engine);
}
