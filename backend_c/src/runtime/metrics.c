/* Metrics as JSON lines; docs/reference/run.md lists the keys. */
#include <inttypes.h>
#include <math.h>

#include "runtime/em_engine.h"

/* JSON has no word for what is not finite. */
static void put_number(FILE *out, const char *key, double value)
{
    if (isfinite(value)) {
        (void)fprintf(out, ", \"%s\": %.17g", key, value);
    } else {
        (void)fprintf(out, ", \"%s\": null", key);
    }
}

void em_metrics_begin(const em_engine_t *engine)
{
    FILE *const out = engine->options.metrics;
    const em_plan_t *const plan = engine->shared.plan;
    if (out == NULL) {
        return;
    }
    (void)fprintf(out,
                  "{\"record\": \"run\", \"schema_version\": 1, \"plan_sha256\": \"%s\", "
                  "\"version\": \"%s\", \"kernels\": \"%s\", \"pp\": %" PRIu32 ", \"dp\": %" PRIu32
                  ", \"first_step\": %" PRIu64 ", \"tokens_per_step\": %" PRIu64
                  ", \"arena_bytes\": [",
                  plan->file_sha256, EM_VERSION_STRING, engine->shared.kernels->name,
                  plan->num_ranks, engine->shared.world.num_replicas, engine->shared.first_step,
                  engine->result.tokens_per_step);
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        (void)fprintf(out, "%s%" PRIu64, pp == 0 ? "" : ", ", engine->ranks[pp].arena.size_bytes);
    }
    (void)fprintf(out, "], \"host_bytes\": [");
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        (void)fprintf(out, "%s%" PRIu64, pp == 0 ? "" : ", ", engine->ranks[pp].host.size_bytes);
    }
    (void)fprintf(out, "]}\n");
    (void)fflush(out);
}

void em_metrics_step(const em_engine_t *engine, const em_step_report_t *report)
{
    FILE *const out = engine->options.metrics;
    if (out == NULL) {
        return;
    }
    (void)fprintf(out, "{\"record\": \"step\", \"step\": %" PRIu64, report->step);
    put_number(out, "loss", report->loss);
    if (report->has_norm) {
        put_number(out, "grad_norm", report->grad_norm);
    }
    put_number(out, "lr", report->lr);
    (void)fprintf(out, ", \"step_ns\": %" PRIu64, report->step_ns);
    put_number(out, "tokens_per_s", report->tokens_per_s);
    if (report->skipped) {
        (void)fprintf(out, ", \"skipped\": true");
    }
    if (report->num_repeats > 0) {
        (void)fprintf(out, ", \"repeats\": %" PRIu64, report->num_repeats);
    }
    if (report->has_val_loss) {
        put_number(out, "val_loss", report->val_loss);
    }
    (void)fprintf(out, "}\n");
    (void)fflush(out);
}
