/*
 * exactmap-run: executes a plan file; also samples a checkpoint and times the engine's operators.
 * Options, outputs and exit codes: docs/reference/run.md.
 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exactmap/engine.h"
#include "runtime/em_options.h"

enum { EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

static const char usage[] =
    "usage: exactmap-run PLAN --data DIR [--steps N] [--out DIR] [--checkpoint-every K]\n"
    "           [--resume DIR | --init PATH] [--eval-every K] [--eval-sequences N]\n"
    "           [--metrics FILE] [--trace FILE --trace-steps A..B] [--timeout S] [--pin]\n"
    "           [--no-verify] [--progress] [--json]\n"
    "       exactmap-run PLAN --check | --footprint\n"
    "       exactmap-run --sample --init DIR [--prompt TEXT | --prompt-tokens N,N,..]\n"
    "           [--tokens N] [--temperature T] [--top-k K] [--seed S]\n"
    "       exactmap-run --time-ops [--kind gpt|llama] [--layers N] [--hidden N] [--heads N]\n"
    "           [--kv-heads N] [--head-dim N] [--ffn N] [--vocab N] [--seq N] [--microbatch N]\n"
    "           [--repeats N] [--threads N]\n"
    "       exactmap-run --version | --help\n";

typedef struct {
    em_engine_options_t engine;
    const char *metrics_path;
    double timeout_s;
    uint64_t trace_steps[2];
    bool trace_steps_given;
    bool steps_given;
    bool timeout_given;
    bool no_verify;
    bool progress;
    bool json;
    bool check;
    bool footprint;
    bool sample;
    bool time_ops;
    bool version;
    bool help;
    const char *prompt;
    const char *prompt_tokens;
    uint64_t num_tokens;
    double temperature;
    uint64_t top_k;
    uint64_t seed;
    const char *kind;
    uint64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab, seq, microbatch, repeats;
    uint64_t num_threads;
} arguments_t;

/* The engine that a SIGINT stops after the step in progress. */
static em_engine_t *volatile running;

static void on_interrupt(int number)
{
    (void)number;
    if (running != NULL) {
        em_engine_request_stop(running);
    }
}

static int fail(const em_error_t *err, em_status_t status)
{
    (void)fprintf(stderr, "error: %s\n", err->text[0] != '\0' ? err->text : em_status_name(status));
    if (err->hint[0] != '\0') {
        (void)fprintf(stderr, "hint: %s\n", err->hint);
    }
    return em_status_exit_code(status);
}

static int usage_error(const char *message)
{
    (void)fprintf(stderr, "error: %s\n%s", message, usage);
    return EXIT_USAGE;
}

/* ---- training ------------------------------------------------------------------------------ */

static void show_progress(void *context, const em_step_report_t *report)
{
    const uint64_t *const num_steps = context;
    (void)fprintf(stderr, "\rstep %" PRIu64 "/%" PRIu64 "  loss %.4f  %.0f tokens/s   ",
                  report->step, *num_steps, report->loss, report->tokens_per_s);
    if (report->has_val_loss) {
        (void)fprintf(stderr, "validation %.4f\n", report->val_loss);
    }
    (void)fflush(stderr);
}

static void put_number(const char *key, double value)
{
    if (isfinite(value)) {
        (void)printf(", \"%s\": %.17g", key, value);
    } else {
        (void)printf(", \"%s\": null", key);
    }
}

static double tokens_per_s(const em_engine_result_t *result)
{
    return result->median_step_ns == 0
               ? NAN
               : (double)result->tokens_per_step / ((double)result->median_step_ns * 1e-9);
}

/* Of a rank's o slots. */
static uint64_t host_bytes(const em_plan_t *plan, uint32_t pp)
{
    const em_plan_pool_t *const pool = &plan->ranks[pp].pools[EM_POOL_O];
    return pool->num * pool->bytes;
}

static void print_json(const arguments_t *args, const em_plan_t *plan,
                       const em_engine_result_t *result)
{
    (void)printf(
        "{\"schema_version\": 1, \"plan_sha256\": \"%s\", \"version\": \"%s\", "
        "\"first_step\": %" PRIu64 ", \"steps\": %" PRIu64 ", \"tokens_per_step\": %" PRIu64
        ", \"median_step_ns\": %" PRIu64 ", \"skipped_steps\": %" PRIu64
        ", \"repeated_steps\": %" PRIu64 ", \"step_allocations\": %" PRIu64 ", \"interrupted\": %s",
        plan->file_sha256, EM_VERSION_STRING, result->first_step, result->steps_done,
        result->tokens_per_step, result->median_step_ns, result->skipped_steps,
        result->repeated_steps, result->step_allocations, result->interrupted ? "true" : "false");
    put_number("tokens_per_s", tokens_per_s(result));
    put_number("first_loss", result->first_loss);
    put_number("loss", result->loss);
    put_number("val_loss", result->has_val_loss ? result->val_loss : NAN);
    (void)printf(", \"arena_bytes\": [");
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        (void)printf("%s%" PRIu64, pp == 0 ? "" : ", ", plan->ranks[pp].arena_bytes);
    }
    (void)printf("], \"host_bytes\": [");
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        (void)printf("%s%" PRIu64, pp == 0 ? "" : ", ", host_bytes(plan, pp));
    }
    (void)printf("], \"checkpoint\": %s}\n", args->engine.out_folder != NULL ? "true" : "false");
}

static void print_text(const em_plan_t *plan, const em_engine_result_t *result)
{
    (void)printf("plan %s\nsteps %" PRIu64 "..%" PRIu64 "%s", plan->file_sha256, result->first_step,
                 result->steps_done, result->interrupted ? " (stopped)" : "");
    if (result->median_step_ns > 0) {
        (void)printf(", loss %.4f -> %.4f, %.3f ms a step, %.0f tokens/s", result->first_loss,
                     result->loss, (double)result->median_step_ns * 1e-6, tokens_per_s(result));
    }
    (void)printf("\n");
    if (result->has_val_loss) {
        (void)printf("validation loss %.4f\n", result->val_loss);
    }
    uint64_t bytes = 0;
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        bytes += host_bytes(plan, pp);
    }
    if (bytes > 0) {
        (void)printf("host bytes %" PRIu64 " a replica, for stashes away from the ranks\n", bytes);
    }
    if (result->skipped_steps > 0) {
        (void)printf("%" PRIu64 " steps were skipped: their gradients were not finite\n",
                     result->skipped_steps);
    }
    if (result->repeated_steps > 0) {
        (void)printf("%" PRIu64 " steps were repeated: the norm of the step before came late\n",
                     result->repeated_steps);
    }
}

static int train(arguments_t *args, const em_plan_t *plan, em_error_t *err)
{
    if (args->metrics_path != NULL) {
        args->engine.metrics = fopen(args->metrics_path, "w");
        if (args->engine.metrics == NULL) {
            (void)em_fail(err, EM_ERR_IO, __FILE__, __LINE__, "%s: cannot write the metrics",
                          args->metrics_path);
            return fail(err, EM_ERR_IO);
        }
    }
    if (args->progress || isatty(STDERR_FILENO)) {
        args->engine.on_step = show_progress;
        args->engine.context = &args->engine.num_steps;
    }
    em_engine_t *engine = NULL;
    em_status_t status = em_engine_load(plan, &args->engine, &engine, err);
    if (status == EM_OK) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_interrupt;
        action.sa_flags = SA_RESTART; /* else a write to a pipe would end as failed */
        running = engine;
        (void)sigaction(SIGINT, &action, NULL);
        status = em_engine_run(engine, err);
        running = NULL;
    }
    int code = 0;
    if (args->engine.on_step != NULL) {
        (void)fprintf(stderr, "\n");
    }
    if (status == EM_OK) {
        const em_engine_result_t *const result = em_engine_result(engine);
        if (args->json) {
            print_json(args, plan, result);
        } else {
            print_text(plan, result);
        }
        code = result->interrupted ? EXIT_INTERRUPTED : 0;
    } else {
        code = fail(err, status);
    }
    em_engine_free(engine);
    if (args->engine.metrics != NULL) {
        const bool failed = ferror(args->engine.metrics) != 0;
        if ((fclose(args->engine.metrics) != 0 || failed) && code == 0) {
            (void)fprintf(stderr, "error: %s: cannot write the metrics\n", args->metrics_path);
            code = em_status_exit_code(EM_ERR_IO);
        }
    }
    return code;
}

/* ---- a plan without running it --------------------------------------------------------------- */

static int print_footprint(const em_plan_t *plan, em_error_t *err)
{
    static const char *const regions[] = {"params", "grads", "moments", "staging", "workspace"};
    static const char letters[] = "hawgkpqo";
    (void)printf("{\"schema_version\": 1, \"plan_sha256\": \"%s\", \"ranks\": [",
                 plan->file_sha256);
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        em_footprint_t need;
        const em_status_t status = em_engine_footprint(plan, pp, &need, err);
        if (status != EM_OK) {
            return fail(err, status);
        }
        (void)printf("%s{\"pp\": %" PRIu32 ", \"arena_bytes\": %" PRIu64
                     ", \"host_bytes\": %" PRIu64,
                     pp == 0 ? "" : ", ", pp, plan->ranks[pp].arena_bytes, host_bytes(plan, pp));
        for (int i = 0; i < EM_NUM_REGIONS; i++) {
            (void)printf(", \"%s\": %" PRIu64, regions[i], need.region_bytes[i]);
        }
        for (int i = 0; i < EM_NUM_POOLS; i++) {
            (void)printf(", \"%c\": %" PRIu64, letters[i], need.slot_bytes[i]);
        }
        (void)printf("}");
    }
    (void)printf("]}\n");
    return 0;
}

static int with_plan(arguments_t *args, const char *path)
{
    em_error_t err;
    memset(&err, 0, sizeof err);
    em_plan_t *plan = NULL;
    em_verdict_t *const verdict = calloc(1, sizeof *verdict);
    if (verdict == NULL) {
        return em_status_exit_code(EM_ERR_MEMORY);
    }
    em_status_t status = em_plan_load(path, &plan, verdict, &err);
    int code = 0;
    if (status != EM_OK) {
        if (verdict->code != EM_VERDICT_OK) { /* the whole text, which an error would cut */
            (void)fprintf(stderr, "error: %s:%" PRIu64 ": %s: %s\n", path, verdict->line,
                          em_verdict_name(verdict->code), verdict->text);
            if (verdict->hint[0] != '\0') {
                (void)fprintf(stderr, "hint: %s\n", verdict->hint);
            }
            code = em_status_exit_code(status);
        } else {
            code = fail(&err, status);
        }
    } else if (args->footprint || args->check) {
        status = em_engine_check(plan, path, &err);
        if (status != EM_OK && (args->check || status == EM_ERR_UNSUPPORTED)) {
            code = fail(&err, status);
        } else if (args->footprint) {
            em_error_clear(&err);
            code = print_footprint(plan, &err);
        } else {
            (void)printf("ok %s\n", plan->file_sha256);
        }
    } else {
        args->engine.plan_name = path;
        if (!args->steps_given) {
            args->engine.num_steps = plan->train.steps;
        }
        code = train(args, plan, &err);
        if (code == em_status_exit_code(EM_ERR_HUNG)) {
            /* A lost rank still reads the plan and its arena: leave without taking anything down.
             */
            (void)fflush(NULL);
            _exit(code);
        }
    }
    em_plan_free(plan);
    free(verdict);
    return code;
}

/* ---- sampling and timing ------------------------------------------------------------------------
 */

enum { BYTE_BOS = 256, BYTE_EOS = 257 };

static em_status_t put_token(void *context, int32_t token)
{
    const bool *const as_numbers = context;
    if (*as_numbers) {
        (void)printf("%" PRId32 "\n", token);
    } else if (token < BYTE_BOS) {
        (void)putchar(token);
    }
    return fflush(stdout) == 0 ? EM_OK : EM_ERR_IO;
}

/* The prompt's tokens into `tokens` (room for all its bytes and one more); 0: malformed. */
static uint32_t read_prompt(const arguments_t *args, int32_t *tokens)
{
    uint32_t num = 0;
    if (args->prompt_tokens == NULL) {
        tokens[num++] = BYTE_BOS;
        for (const char *c = args->prompt; *c != '\0'; c++) {
            tokens[num++] = (unsigned char)*c;
        }
        return num;
    }
    for (const char *at = args->prompt_tokens;;) {
        char *end = NULL;
        const long value = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (value < 0 || value > INT32_MAX) {
            return 0;
        }
        tokens[num++] = (int32_t)value;
        if (*end == '\0') {
            return num;
        }
        if (*end != ',') {
            return 0;
        }
        at = end + 1;
    }
}

static int sample(arguments_t *args)
{
    em_error_t err;
    memset(&err, 0, sizeof err);
    if (args->engine.init_path == NULL) {
        return usage_error("--sample needs --init DIR, a checkpoint");
    }
    if (args->num_tokens > INT32_MAX || args->top_k > INT32_MAX) {
        return usage_error("--tokens, --top-k: too large");
    }
    const char *const text = args->prompt_tokens != NULL ? args->prompt_tokens : args->prompt;
    int32_t *const tokens = calloc(strlen(text) + 1, sizeof *tokens);
    if (tokens == NULL) {
        return em_status_exit_code(EM_ERR_MEMORY);
    }
    bool as_numbers = args->prompt_tokens != NULL;
    const em_sample_options_t options = {.checkpoint = args->engine.init_path,
                                         .prompt = tokens,
                                         .num_prompt = read_prompt(args, tokens),
                                         .num_tokens = (uint32_t)args->num_tokens,
                                         .stop_token = as_numbers ? -1 : BYTE_EOS,
                                         .temperature = args->temperature,
                                         .top_k = (uint32_t)args->top_k,
                                         .seed = args->seed,
                                         .on_token = put_token,
                                         .context = &as_numbers};
    int code = 0;
    if (options.num_prompt == 0) {
        code = usage_error("--prompt-tokens: expected numbers parted by commas");
    } else {
        const em_status_t status = em_sample(&options, &err);
        code = status == EM_OK ? 0 : fail(&err, status);
    }
    free(tokens);
    return code;
}

static int time_ops(const arguments_t *args)
{
    em_error_t err;
    memset(&err, 0, sizeof err);
    const uint64_t numbers[] = {args->layers,     args->hidden,  args->heads,      args->kv_heads,
                                args->head_dim,   args->ffn,     args->vocab,      args->seq,
                                args->microbatch, args->repeats, args->num_threads};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (numbers[i] > INT32_MAX) {
            return usage_error("--time-ops: a number is too large");
        }
    }
    const bool llama = strcmp(args->kind, "llama") == 0;
    if (!llama && strcmp(args->kind, "gpt") != 0) {
        return usage_error("--kind: expected gpt or llama");
    }
    const em_time_options_t options = {.llama = llama,
                                       .layers = (uint32_t)args->layers,
                                       .hidden = (uint32_t)args->hidden,
                                       .heads = (uint32_t)args->heads,
                                       .kv_heads = (uint32_t)args->kv_heads,
                                       .head_dim = (uint32_t)args->head_dim,
                                       .ffn = (uint32_t)args->ffn,
                                       .vocab = (uint32_t)args->vocab,
                                       .seq = (uint32_t)args->seq,
                                       .microbatch = (uint32_t)args->microbatch,
                                       .repeats = (uint32_t)args->repeats,
                                       .num_threads = (uint32_t)args->num_threads};
    const em_status_t status = em_time_ops(&options, stdout, &err);
    return status == EM_OK ? 0 : fail(&err, status);
}

/* ---- arguments ----------------------------------------------------------------------------------
 */

static bool read_arguments(int argc, char **argv, arguments_t *a, const char **plan, char *message,
                           uint32_t size)
{
    em_engine_options_t *const e = &a->engine;
    const em_option_t options[] = {
        {"data", EM_OPTION_TEXT, &e->data_folder, NULL},
        {"steps", EM_OPTION_COUNT, &e->num_steps, &a->steps_given},
        {"out", EM_OPTION_TEXT, &e->out_folder, NULL},
        {"checkpoint-every", EM_OPTION_COUNT, &e->checkpoint_every, NULL},
        {"resume", EM_OPTION_TEXT, &e->resume_folder, NULL},
        {"init", EM_OPTION_TEXT, &e->init_path, NULL},
        {"trace", EM_OPTION_TEXT, &e->trace_path, NULL},
        {"trace-steps", EM_OPTION_RANGE, a->trace_steps, &a->trace_steps_given},
        {"metrics", EM_OPTION_TEXT, &a->metrics_path, NULL},
        {"eval-every", EM_OPTION_COUNT, &e->eval_every, NULL},
        {"eval-sequences", EM_OPTION_COUNT, &e->eval_sequences, NULL},
        {"timeout", EM_OPTION_REAL, &a->timeout_s, &a->timeout_given},
        {"pin", EM_OPTION_FLAG, &e->pin, NULL},
        {"no-verify", EM_OPTION_FLAG, &a->no_verify, NULL},
        {"progress", EM_OPTION_FLAG, &a->progress, NULL},
        {"json", EM_OPTION_FLAG, &a->json, NULL},
        {"check", EM_OPTION_FLAG, &a->check, NULL},
        {"footprint", EM_OPTION_FLAG, &a->footprint, NULL},
        {"sample", EM_OPTION_FLAG, &a->sample, NULL},
        {"prompt", EM_OPTION_TEXT, &a->prompt, NULL},
        {"prompt-tokens", EM_OPTION_TEXT, &a->prompt_tokens, NULL},
        {"tokens", EM_OPTION_COUNT, &a->num_tokens, NULL},
        {"temperature", EM_OPTION_REAL, &a->temperature, NULL},
        {"top-k", EM_OPTION_COUNT, &a->top_k, NULL},
        {"seed", EM_OPTION_COUNT, &a->seed, NULL},
        {"time-ops", EM_OPTION_FLAG, &a->time_ops, NULL},
        {"kind", EM_OPTION_TEXT, &a->kind, NULL},
        {"layers", EM_OPTION_COUNT, &a->layers, NULL},
        {"hidden", EM_OPTION_COUNT, &a->hidden, NULL},
        {"heads", EM_OPTION_COUNT, &a->heads, NULL},
        {"kv-heads", EM_OPTION_COUNT, &a->kv_heads, NULL},
        {"head-dim", EM_OPTION_COUNT, &a->head_dim, NULL},
        {"ffn", EM_OPTION_COUNT, &a->ffn, NULL},
        {"vocab", EM_OPTION_COUNT, &a->vocab, NULL},
        {"seq", EM_OPTION_COUNT, &a->seq, NULL},
        {"microbatch", EM_OPTION_COUNT, &a->microbatch, NULL},
        {"repeats", EM_OPTION_COUNT, &a->repeats, NULL},
        {"threads", EM_OPTION_COUNT, &a->num_threads, NULL},
        {"version", EM_OPTION_FLAG, &a->version, NULL},
        {"help", EM_OPTION_FLAG, &a->help, NULL}};
    return em_options_read(argc, argv, options, sizeof options / sizeof *options, plan, message,
                           size);
}

static const char *check_arguments(arguments_t *a)
{
    if (a->engine.trace_path != NULL && !a->trace_steps_given) {
        return "--trace needs --trace-steps A..B";
    }
    if (a->timeout_given && !(a->timeout_s >= 0.0 && a->timeout_s < 1e9)) {
        return "--timeout: expected seconds, 0 for never";
    }
    if (!a->check && !a->footprint && a->engine.data_folder == NULL) {
        return "--data DIR is missing";
    }
    if (a->engine.checkpoint_every > 0 && a->engine.out_folder == NULL) {
        return "--checkpoint-every needs --out DIR";
    }
    if (a->engine.eval_every > 0 && a->engine.eval_sequences == 0) {
        return "--eval-every needs --eval-sequences N";
    }
    return NULL;
}

static int run_program(int argc, char **argv)
{
    arguments_t args;
    char message[256] = "";
    const char *plan = NULL;
    memset(&args, 0, sizeof args);
    em_engine_options_init(&args.engine);
    args.prompt = "";
    args.num_tokens = 256;
    args.temperature = 0.8;
    args.kind = "llama";
    args.layers = 1, args.hidden = 128, args.heads = 4, args.kv_heads = 4, args.head_dim = 32;
    args.ffn = 384, args.vocab = 259, args.seq = 128, args.microbatch = 4, args.repeats = 15;
    args.num_threads = 2;
    if (!read_arguments(argc, argv, &args, &plan, message, sizeof message)) {
        return usage_error(message);
    }
    if (args.help || args.version) {
        (void)printf(args.help ? "%s" : "exactmap-run %s\n", args.help ? usage : EM_VERSION_STRING);
        return 0;
    }
    if (args.sample) {
        return sample(&args);
    }
    if (args.time_ops) {
        return time_ops(&args);
    }
    if (plan == NULL) {
        return usage_error("a plan file is missing");
    }
    const char *const wrong = check_arguments(&args);
    if (wrong != NULL) {
        return usage_error(wrong);
    }
    args.engine.trace_first = args.trace_steps[0];
    args.engine.trace_last = args.trace_steps[1];
    args.engine.verify_data = !args.no_verify;
    if (args.timeout_given) {
        args.engine.timeout_ns = (uint64_t)(args.timeout_s * 1e9);
    }
    return with_plan(&args, plan);
}

int main(int argc, char **argv)
{
    const int code = run_program(argc, argv);
    if ((ferror(stdout) != 0 || fflush(stdout) != 0) && code == 0) {
        (void)fprintf(stderr, "error: cannot write the result to stdout\n");
        return em_status_exit_code(EM_ERR_IO);
    }
    return code;
}
