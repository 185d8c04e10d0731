/* A whole run on four threads: trains, takes no memory in steps, survives every failed allocation
 * at load, ends when a rank fails, writes and reads checkpoints. Run under the sanitizers too. */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/em_arena.h"
#include "common/em_rng.h"
#include "exactmap/engine.h"
#include "io/em_file.h"
#include "runtime/em_options.h"
#include "runtime/em_rank.h"

enum { NUM_TOKENS = 3000, NUM_STEPS = 4 };

static char folder[] = "/tmp/exactmap-runtime-XXXXXX";

static const char *path_of(const char *name)
{
    static char path[EM_PATH_BYTES];
    assert(em_path_join(path, folder, name, NULL) == EM_OK);
    return path;
}

/* A token file of numbers below `below`, stated vocabulary 259. */
static void write_tokens(const char *name, uint16_t below)
{
    static uint8_t bytes[128 + 2 * NUM_TOKENS];
    char hex[65];
    memset(bytes, 0, sizeof bytes);
    memcpy(bytes, "EXMTOK01", 8);
    bytes[8] = 128;
    bytes[12] = 2;
    bytes[16] = 3, bytes[17] = 1;
    bytes[24] = NUM_TOKENS & 0xff, bytes[25] = NUM_TOKENS >> 8;
    bytes[64] = 'b';
    for (uint32_t i = 0; i < NUM_TOKENS; i++) {
        const uint64_t token = em_rng_below(9, i, below);
        bytes[128 + 2 * i] = (uint8_t)token;
        bytes[129 + 2 * i] = (uint8_t)(token >> 8);
    }
    em_sha256_hex(bytes + 128, 2 * NUM_TOKENS, hex);
    for (int i = 0; i < 32; i++) {
        char two[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        bytes[32 + i] = (uint8_t)strtoul(two, NULL, 16);
    }
    FILE *const out = fopen(path_of(name), "wb");
    assert(out != NULL && fwrite(bytes, 1, sizeof bytes, out) == sizeof bytes);
    assert(em_file_finish(out, name, NULL) == EM_OK);
}

static em_plan_t *load_plan(const char *path)
{
    static em_verdict_t verdict;
    em_plan_t *plan = NULL;
    em_error_t err;
    memset(&err, 0, sizeof err);
    if (em_plan_load(path, &plan, &verdict, &err) != EM_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
    }
    assert(plan != NULL);
    return plan;
}

static em_engine_options_t options_for_steps(uint64_t num_steps)
{
    em_engine_options_t options;
    em_engine_options_init(&options);
    options.data_folder = folder;
    options.num_steps = num_steps;
    options.eval_sequences = 5;
    return options;
}

static em_engine_result_t run(const em_plan_t *plan, const em_engine_options_t *options)
{
    em_engine_t *engine = NULL;
    em_error_t err;
    memset(&err, 0, sizeof err);
    if (em_engine_load(plan, options, &engine, &err) != EM_OK ||
        em_engine_run(engine, &err) != EM_OK) {
        (void)fprintf(stderr, "%s\n", err.text);
        assert(false);
    }
    const em_engine_result_t result = *em_engine_result(engine);
    em_engine_free(engine);
    return result;
}

/* The loss falls from ln(vocabulary) and is the same each time; steps take no memory. */
static void test_training(const em_plan_t *plan)
{
    em_engine_options_t options = options_for_steps(NUM_STEPS);
    const em_engine_result_t first = run(plan, &options);
    options.pin = true;
    options.eval_every = 2;
    const em_engine_result_t second = run(plan, &options);
    assert(first.steps_done == NUM_STEPS && first.step_allocations == 0);
    assert(second.step_allocations == 0);
    assert(fabs(first.first_loss - log(259.0)) < 1.0);
    assert(first.loss < first.first_loss);
    assert(memcmp(&first.loss, &second.loss, sizeof first.loss) == 0);
    assert(memcmp(&first.val_loss, &second.val_loss, sizeof first.val_loss) == 0);
}

/* Two halves are one whole, to the bit; the trace and the metrics are written on the way. */
static void test_resume(const em_plan_t *plan)
{
    em_engine_options_t options = options_for_steps(NUM_STEPS);
    const em_engine_result_t whole = run(plan, &options);
    char out[EM_PATH_BYTES], trace[EM_PATH_BYTES];
    assert(em_path_join(out, folder, "out", NULL) == EM_OK);
    assert(em_path_join(trace, folder, "trace", NULL) == EM_OK);
    options.num_steps = 2;
    options.out_folder = out;
    options.trace_path = trace;
    options.trace_last = 1;
    options.metrics = fopen(path_of("metrics"), "w");
    (void)run(plan, &options);
    assert(fclose(options.metrics) == 0);
    options = options_for_steps(NUM_STEPS);
    options.resume_folder = out;
    const em_engine_result_t rest = run(plan, &options);
    assert(rest.first_step == 2 && rest.steps_done == NUM_STEPS);
    assert(memcmp(&rest.loss, &whole.loss, sizeof rest.loss) == 0);
    assert(memcmp(&rest.val_loss, &whole.val_loss, sizeof rest.val_loss) == 0);
    em_folder_discard(out);
}

/* Whichever allocation fails, loading says so and gives back what it had. */
static void test_memory_faults(const em_plan_t *plan)
{
    const em_engine_options_t options = options_for_steps(1);
    uint64_t num_failed = 0;
    for (bool loaded = false; !loaded; num_failed++) {
        em_engine_t *engine = NULL;
        em_error_t err;
        memset(&err, 0, sizeof err);
        em_alloc_fail_after(num_failed);
        const em_status_t status = em_engine_load(plan, &options, &engine, &err);
        em_alloc_fail_after(UINT64_MAX);
        loaded = status == EM_OK;
        assert(loaded || (status == EM_ERR_MEMORY && engine == NULL && err.text[0] != '\0'));
        em_engine_free(engine);
        assert(num_failed < 10000);
    }
    assert(num_failed > 30);
}

/* One rank meets a token that its model does not have: all ranks end, the message names it. */
static void test_failing_rank(const em_plan_t *plan)
{
    write_tokens("train.tok", 400);
    const em_engine_options_t options = options_for_steps(NUM_STEPS);
    em_engine_t *engine = NULL;
    em_error_t err;
    memset(&err, 0, sizeof err);
    assert(em_engine_load(plan, &options, &engine, &err) == EM_OK);
    assert(em_engine_run(engine, &err) == EM_ERR_DATA);
    assert(strstr(err.text, "a token is outside of the model's vocabulary") != NULL);
    assert(strstr(err.text, "rank ") != NULL);
    em_engine_free(engine);
    write_tokens("train.tok", 100);
}

/* A stop that was asked for ends the run after its step. */
static void stop_now(void *context, const em_step_report_t *report)
{
    em_engine_t *const *const engine = context;
    if (report->step == 2) {
        em_engine_request_stop(*engine);
    }
}

static void test_stop(const em_plan_t *plan)
{
    em_engine_t *engine = NULL;
    em_engine_options_t options = options_for_steps(1000);
    options.on_step = stop_now;
    options.context = &engine;
    assert(em_engine_load(plan, &options, &engine, NULL) == EM_OK);
    assert(em_engine_run(engine, NULL) == EM_OK);
    assert(em_engine_result(engine)->interrupted);
    assert(em_engine_result(engine)->steps_done == 3);
    em_engine_free(engine);
}

/* Warm-up, cosine, floor. */
static void test_learning_rate(void)
{
    const em_plan_train_t train = {.lr = 1.0, .lr_min = 0.2, .warmup = 4, .steps = 12};
    assert(em_learning_rate(&train, 0) == 0.25 && em_learning_rate(&train, 3) == 1.0);
    assert(em_learning_rate(&train, 4) == 1.0);
    assert(fabs(em_learning_rate(&train, 8) - 0.6) < 1e-12);
    assert(em_learning_rate(&train, 12) == 0.2 && em_learning_rate(&train, 99) == 0.2);
    const em_plan_train_t flat = {.lr = 1.0, .lr_min = 0.5, .warmup = 0, .steps = 1};
    assert(em_learning_rate(&flat, 0) == 1.0 && em_learning_rate(&flat, 1) == 0.5);
}

static void test_options(void)
{
    bool flag = false, given = false;
    const char *text = NULL, *file = NULL;
    uint64_t range[2] = {0, 0}, count = 0;
    double real = 0.0;
    char message[64];
    const em_option_t options[] = {{"flag", EM_OPTION_FLAG, &flag, NULL},
                                   {"text", EM_OPTION_TEXT, &text, &given},
                                   {"range", EM_OPTION_RANGE, range, NULL},
                                   {"count", EM_OPTION_COUNT, &count, NULL},
                                   {"real", EM_OPTION_REAL, &real, NULL}};
    char words[][16] = {"me",           "--flag",  "--text", "a=b",    "file",
                        "--range=3..7", "--count", "5",      "--real", "1e-3"};
    char *argv[10];
    for (int i = 0; i < 10; i++) {
        argv[i] = words[i];
    }
    assert(em_options_read(10, argv, options, 5, &file, message, sizeof message));
    assert(flag && given && strcmp(text, "a=b") == 0 && strcmp(file, "file") == 0);
    assert(range[0] == 3 && range[1] == 7 && count == 5 && real == 1e-3);
    file = NULL;
    assert(!em_options_read(7, argv, options, 5, &file, message, sizeof message));
    assert(strcmp(message, "--count needs a whole number") == 0);
}

int main(void)
{
    assert(mkdtemp(folder) != NULL);
    write_tokens("train.tok", 100);
    write_tokens("val.tok", 100);
    em_plan_t *const plan = load_plan(EM_SOURCE_DIR "/tests/golden/runtime/four-ranks.plan");
    em_plan_t *const all = load_plan(EM_SOURCE_DIR "/tests/golden/runtime/every-feature.plan");
    test_options();
    test_learning_rate();
    test_training(plan);
    test_resume(plan);
    test_training(all);
    test_memory_faults(plan);
    test_memory_faults(all);
    test_failing_rank(plan);
    test_stop(plan);
    em_plan_free(plan);
    em_plan_free(all);
    em_folder_discard(folder);
    puts("ok");
    return 0;
}
