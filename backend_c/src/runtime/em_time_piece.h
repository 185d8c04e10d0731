/*
 * A stage with everything that its passes need, for timing: parameters, gradients, moments, and
 * two microbatches in flight, so that a pass finds its buffers as cold as in a pipeline.
 */
#ifndef EM_TIME_PIECE_H
#define EM_TIME_PIECE_H

#include "exactmap/engine.h"
#include "nn/em_stage.h"

enum { EM_TIME_ITEMS = 2 };

/* Stages that are timed on their own: a cost model puts any stage together from them. */
typedef enum {
    EM_PIECE_LAYERS = 0,
    EM_PIECE_EMBEDDING,
    EM_PIECE_HEAD,
    EM_NUM_PIECES
} em_piece_kind_t;

typedef struct {
    em_stage_t stage;
    em_stage_sizes_t sizes;
    em_param_t *table;
    uint32_t num_params;
    uint64_t num_floats;
    float *param, *grad, *m, *v;
    float **params, **grads;
    float *workspace;
    float *dy; /* gradient of the stage's output, read alone */
    float *x[EM_TIME_ITEMS];
    int32_t *tokens;
    double loss;
    em_item_t items[EM_TIME_ITEMS];
    em_stage_ctx_t ctx;
} em_time_piece_t;

/* The piece starts zeroed; whatever the status, em_time_piece_free takes it. */
em_status_t em_time_piece_make(em_time_piece_t *piece, em_piece_kind_t kind,
                               const em_time_options_t *options, em_error_t *err);
void em_time_piece_free(em_time_piece_t *piece);

#endif
