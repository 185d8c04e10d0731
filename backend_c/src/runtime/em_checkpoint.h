/*
 * Checkpoints: a folder with model.safetensors and config.json (Hugging Face's names, layouts and
 * keys), optimizer.safetensors (AdamW's moments) and state.json. docs/reference/checkpoint.md.
 */
#ifndef EM_CHECKPOINT_H
#define EM_CHECKPOINT_H

#include "io/em_safetensors.h"
#include "runtime/em_rank.h"

/* What state.json says. */
typedef struct {
    uint64_t step;    /* steps done */
    uint64_t updates; /* of them, those that moved the weights */
    uint64_t samples; /* sequences read */
    uint64_t seed;
    char plan_sha256[65];
    char data_sha256[65]; /* of the training tokens */
} em_checkpoint_state_t;

/* Whether a checkpoint can be put there: known before the first step, not after the last. */
em_status_t em_checkpoint_check_folder(const char *folder, em_error_t *err);

/* Write the whole folder under a temporary name and rename it. Replica 0's weights are taken. */
em_status_t em_checkpoint_write(const char *folder, const em_rank_t *ranks, uint32_t num_ranks,
                                const em_checkpoint_state_t *state, em_error_t *err);

/* Read weights, moments and state; the plan may cut the model differently. */
em_status_t em_checkpoint_read(const char *folder, em_rank_t *ranks, uint32_t num_ranks,
                               em_checkpoint_state_t *state, em_error_t *err);

/* Read weights alone, from a safetensors file or a folder that holds model.safetensors. Names with
 * and without the prefix "transformer." or "model." are the same. */
em_status_t em_weights_read(const char *path, em_rank_t *ranks, uint32_t num_ranks,
                            em_error_t *err);

/* config.json of a model, as transformers reads it; and back. */
em_status_t em_config_write(const char *path, const em_model_t *model, em_error_t *err);
em_status_t em_config_read(const char *path, em_model_t *model, em_error_t *err);

/* The tensor of a parameter, by its name with or without prefix; NULL if there is none. */
const em_tensor_t *em_find_parameter(const em_safetensors_t *file, const char *name);

#endif
