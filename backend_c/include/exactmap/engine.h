/*
 * The engine: executes a plan file with real arithmetic, each rank a thread of this process.
 *
 *     em_plan_load(path, &plan, &verdict, &err);
 *     em_engine_options_init(&options);
 *     options.data_folder = "data";
 *     em_engine_load(plan, &options, &engine, &err);   all memory is taken here
 *     em_engine_run(engine, &err);                     trains; no memory is taken in a step
 *     em_engine_result(engine)->loss
 *     em_engine_free(engine); em_plan_free(plan);
 *
 * The plan decides what happens when; the engine takes no decision. What it refuses although the
 * plan is valid: docs/reference/plan-format.md section 8. Options, files and exit codes:
 * docs/reference/run.md.
 */
#ifndef EXACTMAP_ENGINE_H
#define EXACTMAP_ENGINE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "exactmap/error.h"
#include "exactmap/plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what a plan needs ------------------------------------------------------------------ */

/* Bytes that the engine itself needs on one pipeline rank; they must equal the plan's. */
typedef struct {
    uint64_t region_bytes[EM_NUM_REGIONS];
    uint64_t slot_bytes[EM_NUM_POOLS]; /* k p q: 0 if nothing is sliced, sharded */
} em_footprint_t;

EM_API em_status_t em_engine_footprint(const em_plan_t *plan, uint32_t pp,
                                       em_footprint_t *footprint, em_error_t *err);

/* Whether this build executes the plan: EM_ERR_UNSUPPORTED names what it cannot (text starts with
 * `engine.unsupported`), EM_ERR_FIELD a region or pool of another size (`engine.bytes`). Takes no
 * memory worth the name. `name` is the plan's file, for messages. */
EM_API em_status_t em_engine_check(const em_plan_t *plan, const char *name, em_error_t *err);

/* ---- running ------------------------------------------------------------------------------ */

typedef struct em_engine em_engine_t;

/* What is known after a step. */
typedef struct {
    uint64_t step;    /* from 1: steps done */
    double loss;      /* mean over the step's tokens, nats */
    bool has_norm;    /* the plan has a NORM */
    double grad_norm; /* before clipping */
    bool skipped;     /* the norm was not finite: the weights stayed */
    double lr;
    uint64_t step_ns; /* from the start barrier to the last END; of all runs of a repeated step */
    uint64_t num_repeats; /* the norm of the step before came late: this one was run again */
    double tokens_per_s;
    bool has_val_loss; /* an evaluation followed this step */
    double val_loss;
} em_step_report_t;

typedef struct {
    const char *plan_name;   /* for messages */
    const char *data_folder; /* with train.tok and val.tok */
    const char *out_folder;  /* checkpoint, replaced each time; NULL: none is written */
    const char *resume_folder;
    const char *init_path; /* weights: a safetensors file, or a folder with one */
    const char *trace_path;
    FILE *metrics;             /* JSON lines; NULL: none */
    uint64_t num_steps;        /* counted from the very first step, also after a resume */
    uint64_t checkpoint_every; /* 0: only at the end */
    uint64_t eval_every;       /* 0: only at the end, and only if eval_sequences > 0 */
    uint64_t eval_sequences;   /* 0: no evaluation */
    uint64_t trace_first;      /* steps traced, from 0, both included */
    uint64_t trace_last;
    uint64_t timeout_ns; /* without progress: EM_ERR_HUNG; 0: never */
    bool pin;            /* each rank on one core */
    bool verify_data;    /* hash the token files */
    void (*on_step)(void *context, const em_step_report_t *report); /* NULL allowed */
    void *context;
} em_engine_options_t;

EM_API void em_engine_options_init(em_engine_options_t *options);

typedef struct {
    uint64_t first_step; /* steps done before this run */
    uint64_t steps_done; /* steps done in all */
    double first_loss;   /* of this run; NAN if it made no step */
    double loss;
    bool has_val_loss;
    double val_loss;
    uint64_t tokens_per_step;
    uint64_t median_step_ns; /* 0 if it made no step */
    uint64_t skipped_steps;
    uint64_t repeated_steps;
    uint64_t step_allocations; /* calls of the allocator inside steps: 0 */
    bool interrupted;          /* em_engine_request_stop ended the run */
} em_engine_result_t;

/* Take all memory, make or read the weights, open the data. `plan` and the options' texts must
 * outlive the engine. On failure *engine is NULL. */
EM_API em_status_t em_engine_load(const em_plan_t *plan, const em_engine_options_t *options,
                                  em_engine_t **engine, em_error_t *err);

/* Train to options.num_steps, evaluate, write checkpoint and trace. Once per engine. */
EM_API em_status_t em_engine_run(em_engine_t *engine, em_error_t *err);

/* End the run after the step in progress; may be called from a signal handler. */
EM_API void em_engine_request_stop(em_engine_t *engine);

EM_API const em_engine_result_t *em_engine_result(const em_engine_t *engine);

/* Frees everything, unless a rank is lost in a step that never ended (after EM_ERR_HUNG). */
EM_API void em_engine_free(em_engine_t *engine);

/* ---- sampling ------------------------------------------------------------------------------ */

typedef struct {
    const char *checkpoint; /* folder with config.json and model.safetensors */
    const int32_t *prompt;  /* tokens */
    uint32_t num_prompt;    /* at least 1 */
    uint32_t num_tokens;    /* to make */
    int32_t stop_token;     /* end here; -1: never */
    double temperature;     /* 0: always the likeliest */
    uint32_t top_k;         /* 0: all */
    uint64_t seed;
    em_status_t (*on_token)(void *context, int32_t token); /* not EM_OK: stop */
    void *context;
} em_sample_options_t;

/* Continue a prompt. Recomputes the last positions' prefix for each token. */
EM_API em_status_t em_sample(const em_sample_options_t *options, em_error_t *err);

/* ---- timing ---------------------------------------------------------------------------------- */

typedef struct {
    bool llama;
    uint32_t layers; /* of the timed stage */
    uint32_t hidden;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t ffn;
    uint32_t vocab;
    uint32_t seq;
    uint32_t microbatch;
    uint32_t repeats;
    uint32_t num_threads; /* at work at the same time: as many as ranks will be */
} em_time_options_t;

/* Time the engine's own passes, optimizer, hand-over and all-reduce; one JSON document to `out`
 * (docs/reference/run.md). All threads work at the same time, so that caches and memory are as
 * busy as in a run. */
EM_API em_status_t em_time_ops(const em_time_options_t *options, FILE *out, em_error_t *err);

#ifdef __cplusplus
}
#endif
#endif
