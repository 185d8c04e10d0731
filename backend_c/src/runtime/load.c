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

/* What a validation uses of a rank at once: slots of a pool, from the first one on. */
typedef struct {
    em_pool_t pool;
    uint64_t num;
} em_eval_use_t;

/* Bytes from the first to the last of them: a run of slots has no gaps. */
static void use_place(const em_plan_rank_t *rank, const em_eval_use_t *use, uint64_t place[2])
{
    const em_plan_pool_t *const declared = &rank->pools[use->pool];
    const uint64_t num = use->num < declared->num ? use->num : declared->num;
    place[0] = num > 0 ? declared->at : 0;
    place[1] = place[0] + num * declared->bytes;
}

/* Pools may share bytes where a program's slots never live together. */
static em_status_t check_eval_overlap(const em_engine_t *engine, uint32_t pp,
                                      const em_eval_use_t *uses, int num_uses, em_error_t *err)
{
    const em_plan_rank_t *const rank = &engine->shared.plan->ranks[pp];
    for (int i = 0; i < num_uses; i++) {
        for (int k = i + 1; k < num_uses; k++) {
            uint64_t a[2], b[2];
            use_place(rank, &uses[i], a);
            use_place(rank, &uses[k], b);
            EM_RETURN_ERROR_IF(a[0] < b[1] && b[0] < a[1], err, EM_ERR_UNSUPPORTED,
                               "%s: engine.unsupported: a validation on rank %" PRIu32
                               ", whose slots of several pools share bytes",
                               engine->options.plan_name, pp);
        }
    }
    return EM_OK;
}

/* A validation holds the input and the output of a stage between two ranks at once; of a sequence
 * in slices, the keys and values of all the rank's stages; and the gathered parameters of one. */
static em_status_t check_eval_rank(const em_engine_t *engine, uint32_t pp, em_error_t *err)
{
    static const char letters[] = "hawgkp";
    const em_plan_t *const plan = engine->shared.plan;
    em_eval_use_t uses[] = {
        {EM_POOL_H, 0}, {EM_POOL_A, 0}, {EM_POOL_W, 0}, {EM_POOL_K, 0}, {EM_POOL_P, 0}};
    const int num_uses = sizeof uses / sizeof *uses;
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        if (em_plan_first_rank(plan, s) != pp) {
            continue;
        }
        const uint64_t num_h = (uint64_t)(s > 0) + (uint64_t)(s + 1 < plan->num_stages);
        const uint64_t num_gathered = em_plan_num_gathered(plan, s, pp);
        uses[0].num = num_h > uses[0].num ? num_h : uses[0].num;
        uses[3].num += plan->train.slices > 1 ? 1 : 0;
        uses[4].num = num_gathered > uses[4].num ? num_gathered : uses[4].num;
    }
    for (int i = 0; i < num_uses; i++) {
        EM_RETURN_ERROR_IF(
            plan->ranks[pp].pools[uses[i].pool].num < uses[i].num, err, EM_ERR_UNSUPPORTED,
            "%s: engine.unsupported: a validation needs %" PRIu64 " %c slots on rank %" PRIu32,
            engine->options.plan_name, uses[i].num, letters[uses[i].pool], pp);
    }
    uses[0].num = 2; /* as many as there are of them */
    uses[1].num = uses[2].num = 1;
    return check_eval_overlap(engine, pp, uses, num_uses, err);
}

static em_status_t check_eval_slots(const em_engine_t *engine, em_error_t *err)
{
    const uint32_t num_ranks = engine->shared.plan->num_ranks;
    for (uint32_t pp = 0; engine->options.eval_sequences > 0 && pp < num_ranks; pp++) {
        EM_RETURN_IF_ERROR(check_eval_rank(engine, pp, err));
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
    shared->ranks = engine->ranks;
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

/* A shard is a part of the whole bucket's start values. */
static em_status_t init_bucket(const em_rank_bucket_t *bucket, uint64_t seed, em_error_t *err)
{
    float *const whole =
        bucket->sharded ? em_alloc_zeroed(bucket->num_floats, sizeof *whole) : bucket->param;
    EM_RETURN_ERROR_IF(whole == NULL, err, EM_ERR_MEMORY, "no memory to make the weights");
    em_params_init(bucket->table, bucket->num_params, seed, bucket->num_floats, whole);
    if (bucket->sharded) {
        memcpy(bucket->param, whole + bucket->begin,
               (size_t)(bucket->end - bucket->begin) * sizeof *whole);
        em_free(whole);
    }
    return EM_OK;
}

static em_status_t init_weights(em_engine_t *engine, em_error_t *err)
{
    for (uint32_t r = 0; r < engine->num_ranks; r++) {
        const em_rank_t *const rank = &engine->ranks[r];
        for (uint32_t b = 0; b < rank->num_buckets; b++) {
            EM_RETURN_IF_ERROR(
                init_bucket(&rank->buckets[b], engine->shared.plan->train.seed, err));
        }
    }
    return EM_OK;
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
    EM_RETURN_IF_ERROR(init_weights(engine, err));
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
