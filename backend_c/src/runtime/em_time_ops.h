/* Threads that time the engine's operators, and what they have measured. */
#ifndef EM_TIME_OPS_H
#define EM_TIME_OPS_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#include "comm/em_local.h"
#include "runtime/em_time_piece.h"

enum { EM_TIME_THREADS = 256, EM_TIME_COPIES = 4, EM_TIME_SUMS = 2 };

/* Quantities that are sampled once a round. */
enum {
    EM_TIME_PASS = 0, /* [piece][F I W B] */
    EM_TIME_ADAMW = EM_TIME_PASS + (int)EM_NUM_PIECES * (int)EM_NUM_PASSES,
    EM_TIME_SQUARES,
    EM_TIME_COPY,                                /* [EM_TIME_COPIES] */
    EM_TIME_SUM = EM_TIME_COPY + EM_TIME_COPIES, /* [EM_TIME_SUMS] */
    EM_TIME_QUANTITIES = EM_TIME_SUM + EM_TIME_SUMS
};

extern const uint64_t em_time_copy_bytes[EM_TIME_COPIES]; /* ascending */

typedef struct {
    const em_time_options_t *options;
    em_team_t team;
    em_barrier_t barrier;
    em_local_channel_t there;
    em_local_channel_t back;
    em_local_group_t group;
    float *gradients[EM_TIME_THREADS]; /* of the layers */
    void *messages[EM_TIME_THREADS];
} em_time_shared_t;

typedef struct {
    em_time_shared_t *shared;
    uint32_t index;
    uint64_t round;
    em_time_piece_t pieces[EM_NUM_PIECES];
    void *message;
    void *received;
    uint64_t *samples[EM_TIME_QUANTITIES]; /* [repeats] ns */
    volatile double sum;                   /* so that it is formed */
    uint64_t hand_over_ns;                 /* threads 0 and 1, as the next three */
    uint64_t post_ns;
    uint64_t wake_ns;
    uint64_t wake_post_ns;
    double instruction_ns;
    em_error_t error;
    pthread_t thread;
} em_time_worker_t;

/* Elements of the `part`-th all-reduce that is timed. */
uint64_t em_time_sum_elements(const em_time_worker_t *worker, int part);
/* Median of each thread's samples, and of those the mean. */
uint64_t em_time_median(em_time_worker_t *workers, int quantity);
/* One JSON document. */
void em_time_report(em_time_worker_t *workers, FILE *out);

#endif
