/* The engine: its ranks, and the coordinator that gives them one command after another. */
#ifndef EM_ENGINE_PRIVATE_H
#define EM_ENGINE_PRIVATE_H

#include "runtime/em_checkpoint.h"
#include "runtime/em_rank.h"

/* Step times kept for the median: a run of any length takes bounded memory. */
enum { EM_MOST_STEP_TIMES = 1 << 16 };

typedef enum {
    EM_COMMAND_STEP = 0,
    EM_COMMAND_EVALUATE,
    EM_COMMAND_CLOSE, /* judge the last step's norm */
    EM_COMMAND_STOP
} em_command_t;

struct em_engine {
    em_engine_shared_t shared;
    em_engine_options_t options;
    em_rank_t *ranks; /* [replica][pipeline rank] */
    uint32_t num_ranks;
    uint32_t num_threads; /* started */

    em_command_t command;
    em_signal_t go;    /* commands given */
    em_signal_t done;  /* ranks that finished a command, over all commands */
    em_signal_t ended; /* threads that are about to return */
    uint32_t num_commands;
    bool lost; /* a rank never came back: its memory must stay */

    uint64_t *step_ns; /* [num_step_ns]: of the last steps of this run, round and round */
    uint64_t num_step_ns;
    uint64_t num_timed;       /* steps of this run */
    uint32_t norm_rank;       /* the pipeline rank that knows the total norm after a step */
    uint64_t last_checkpoint; /* steps done when the last one was written */
    _Atomic bool stop_requested;
    em_engine_result_t result;
};

/* coordinator.c: start the threads; give a command and wait, watching for progress; end them. */
em_status_t em_threads_start(em_engine_t *engine, em_error_t *err);
em_status_t em_threads_command(em_engine_t *engine, em_command_t command, em_error_t *err);
void em_threads_end(em_engine_t *engine);

/* metrics.c: JSON lines. */
void em_metrics_begin(const em_engine_t *engine);
void em_metrics_step(const em_engine_t *engine, const em_step_report_t *report);

#endif
