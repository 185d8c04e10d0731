/* What was timed, as one JSON document. See em_time_ops.h; keys: docs/reference/run.md. */
#include <inttypes.h>

#include "cpu/em_cpu.h"
#include "runtime/em_time_ops.h"

static void report_shape(const em_time_options_t *o, FILE *out)
{
    (void)fprintf(out,
                  "{\"schema_version\": 1, \"kernels\": \"%s\", \"kind\": \"%s\", \"layers\": "
                  "%" PRIu32 ", \"hidden\": %" PRIu32 ", \"heads\": %" PRIu32
                  ", \"kv_heads\": %" PRIu32 ", \"head_dim\": %" PRIu32 ", \"ffn\": %" PRIu32
                  ", \"vocab\": %" PRIu32 ", \"seq\": %" PRIu32 ", \"microbatch\": %" PRIu32
                  ", \"repeats\": %" PRIu32 ", \"num_threads\": %" PRIu32 ",\n",
                  em_cpu_kernels(EM_CPU_AUTO)->name, o->llama ? "llama" : "gpt", o->layers,
                  o->hidden, o->heads, o->kv_heads, o->head_dim, o->ffn, o->vocab, o->seq,
                  o->microbatch, o->repeats, o->num_threads);
}

static void report_passes(em_time_worker_t *workers, FILE *out)
{
    static const char *const names[EM_NUM_PIECES] = {"layers", "embedding", "head"};
    static const char letters[] = "FIWB";
    (void)fprintf(out, " \"pass_ns\": {");
    for (int kind = 0; kind < EM_NUM_PIECES; kind++) {
        (void)fprintf(out, "%s\"%s\": {", kind == 0 ? "" : ", ", names[kind]);
        for (int pass = 0; pass < EM_NUM_PASSES; pass++) {
            (void)fprintf(out, "%s\"%c\": %" PRIu64, pass == 0 ? "" : ", ", letters[pass],
                          em_time_median(workers, EM_TIME_PASS + kind * EM_NUM_PASSES + pass));
        }
        (void)fprintf(out, "}");
    }
    (void)fprintf(out, "},\n");
}

void em_time_report(em_time_worker_t *workers, FILE *out)
{
    const em_time_options_t *const o = workers->shared->options;
    const uint64_t num_elements = workers->pieces[EM_PIECE_LAYERS].num_floats;
    report_shape(o, out);
    report_passes(workers, out);
    (void)fprintf(out,
                  " \"adamw\": {\"num_elements\": %" PRIu64 ", \"ns\": %" PRIu64
                  "}, \"sum_squares\": {\"num_elements\": %" PRIu64 ", \"ns\": %" PRIu64
                  "},\n \"copies\": [",
                  num_elements, em_time_median(workers, EM_TIME_ADAMW), num_elements,
                  em_time_median(workers, EM_TIME_SQUARES));
    for (int size = 0; size < EM_TIME_COPIES; size++) {
        (void)fprintf(out, "%s{\"num_bytes\": %" PRIu64 ", \"ns\": %" PRIu64 "}",
                      size == 0 ? "" : ", ", em_time_copy_bytes[size],
                      em_time_median(workers, EM_TIME_COPY + size));
    }
    (void)fprintf(out, "],\n \"all_reduce\": [");
    for (int part = 0; part < EM_TIME_SUMS; part++) {
        (void)fprintf(out,
                      "%s{\"num_members\": %" PRIu32 ", \"num_bytes\": %" PRIu64
                      ", \"ns\": %" PRIu64 "}",
                      part == 0 ? "" : ", ", o->num_threads,
                      em_time_sum_elements(workers, part) * (uint64_t)sizeof(float),
                      em_time_median(workers, EM_TIME_SUM + part));
    }
    (void)fprintf(out,
                  "],\n \"awake\": {\"hand_over_ns\": %" PRIu64 ", \"post_ns\": %" PRIu64
                  "}, \"asleep\": {\"hand_over_ns\": %" PRIu64 ", \"post_ns\": %" PRIu64 "},\n",
                  workers[0].hand_over_ns, workers[0].post_ns, workers[0].wake_ns,
                  workers[0].wake_post_ns);
    double instruction_ns = 0.0;
    for (uint32_t t = 0; t < o->num_threads; t++) {
        instruction_ns += workers[t].instruction_ns / o->num_threads;
    }
    (void)fprintf(out, " \"instruction_ns\": %.1f}\n", instruction_ns);
}
