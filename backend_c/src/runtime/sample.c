/*
 * Sampling: a checkpoint continues a prompt. One stage holds the whole model; for each token the
 * last positions are computed again, which needs no cache of keys and values.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_rng.h"
#include "cpu/em_cpu.h"
#include "runtime/em_checkpoint.h"

typedef struct {
    em_stage_t stage;
    em_stage_sizes_t sizes;
    em_param_t *table;
    uint32_t num_params;
    float *params_base;
    float **params;
    float *a;
    float *w;
    float *workspace;
    float *logits;    /* [vocab] */
    uint32_t *order;  /* [vocab]: tokens, likeliest first */
    int32_t *context; /* [seq] */
} em_sampler_t;

static const uint64_t sample_stream = 0x53414D504C45u; /* "SAMPLE" */

static em_status_t read_parameters(em_sampler_t *sampler, const char *folder, em_error_t *err)
{
    char path[EM_PATH_BYTES];
    em_safetensors_t file;
    EM_RETURN_IF_ERROR(em_path_join(path, folder, "model.safetensors", err));
    EM_RETURN_IF_ERROR(em_safetensors_open(&file, path, err));
    em_status_t status = EM_OK;
    for (uint32_t i = 0; status == EM_OK && i < sampler->num_params; i++) {
        const em_param_t *const param = &sampler->table[i];
        const em_tensor_t *const tensor = em_find_parameter(&file, param->name);
        status = tensor == NULL
                     ? EM_FAIL(err, EM_ERR_DATA, "%s: tensor %s is missing", path, param->name)
                     : em_tensor_read(&file, tensor, param->ndim, param->shape,
                                      sampler->params_base + param->offset, err);
    }
    em_safetensors_close(&file);
    return status;
}

static em_status_t make(em_sampler_t *sampler, const char *folder, em_error_t *err)
{
    char path[EM_PATH_BYTES];
    em_stage_t *const stage = &sampler->stage;
    EM_RETURN_IF_ERROR(em_path_join(path, folder, "config.json", err));
    EM_RETURN_IF_ERROR(em_config_read(path, &stage->model, err));
    const uint32_t seq = stage->model.positions;
    stage->num_layers = stage->model.layers;
    stage->has_embedding = true;
    stage->has_head = true;
    EM_RETURN_IF_ERROR(em_stage_check(stage, err));
    EM_RETURN_IF_ERROR(em_stage_sizes(stage, 1, seq, &sampler->sizes, err));
    uint64_t num_floats = 0;
    EM_RETURN_IF_ERROR(
        em_stage_layout(stage, EM_PART_ALL, NULL, 0, &sampler->num_params, &num_floats, err));
    sampler->table = em_alloc_zeroed(sampler->num_params, sizeof *sampler->table);
    sampler->params = em_alloc_zeroed(em_stage_num_pointers(stage), sizeof *sampler->params);
    sampler->params_base = em_alloc_zeroed(num_floats, sizeof(float));
    sampler->a = em_alloc_zeroed(sampler->sizes.a_bytes + EM_ALIGN, 1);
    sampler->w = em_alloc_zeroed(sampler->sizes.w_bytes + EM_ALIGN, 1);
    sampler->workspace = em_alloc_zeroed(sampler->sizes.workspace_bytes[EM_PASS_F], 1);
    sampler->logits = em_alloc_zeroed(stage->model.vocab, sizeof *sampler->logits);
    sampler->order = em_alloc_zeroed(stage->model.vocab, sizeof *sampler->order);
    sampler->context = em_alloc_zeroed(seq, sizeof *sampler->context);
    EM_RETURN_ERROR_IF(
        sampler->table == NULL || sampler->params == NULL || sampler->params_base == NULL ||
            sampler->a == NULL || sampler->w == NULL || sampler->workspace == NULL ||
            sampler->logits == NULL || sampler->order == NULL || sampler->context == NULL,
        err, EM_ERR_MEMORY, "%s: no memory for the model", folder);
    EM_RETURN_IF_ERROR(em_stage_layout(stage, EM_PART_ALL, sampler->table, sampler->num_params,
                                       &sampler->num_params, &num_floats, err));
    em_stage_bind(stage, sampler->table, sampler->num_params, sampler->params_base,
                  sampler->params);
    EM_RETURN_IF_ERROR(em_stage_check_bound(stage, sampler->params, err));
    return read_parameters(sampler, folder, err);
}

static void destroy(em_sampler_t *sampler)
{
    em_free(sampler->table);
    em_free(sampler->params);
    em_free(sampler->params_base);
    em_free(sampler->a);
    em_free(sampler->w);
    em_free(sampler->workspace);
    em_free(sampler->logits);
    em_free(sampler->order);
    em_free(sampler->context);
}

/* Keep order[0 .. k) the k likeliest tokens, likeliest first; of equals the lower number. */
static uint32_t select_top(em_sampler_t *sampler, uint32_t k)
{
    const uint32_t vocab = sampler->stage.model.vocab;
    uint32_t num = 0;
    for (uint32_t t = 0; t < vocab; t++) {
        const float value = sampler->logits[t];
        uint32_t at = num;
        while (at > 0 && sampler->logits[sampler->order[at - 1]] < value) {
            at--;
        }
        if (at >= k) {
            continue;
        }
        num += num < k ? 1 : 0;
        memmove(&sampler->order[at + 1], &sampler->order[at],
                (num - 1 - at) * sizeof *sampler->order);
        sampler->order[at] = t;
    }
    return num;
}

static int32_t choose(em_sampler_t *sampler, const em_sample_options_t *options, uint64_t number)
{
    const uint32_t vocab = sampler->stage.model.vocab;
    if (options->temperature <= 0.0) {
        (void)select_top(sampler, 1);
        return (int32_t)sampler->order[0];
    }
    uint32_t num = vocab;
    if (options->top_k > 0 && options->top_k < vocab) {
        num = select_top(sampler, options->top_k);
    } else {
        for (uint32_t t = 0; t < vocab; t++) {
            sampler->order[t] = t;
        }
    }
    double most = -HUGE_VAL, sum = 0.0;
    for (uint32_t i = 0; i < num; i++) {
        most = fmax(most, (double)sampler->logits[sampler->order[i]]);
    }
    for (uint32_t i = 0; i < num; i++) {
        sum += exp(((double)sampler->logits[sampler->order[i]] - most) / options->temperature);
    }
    double left = sum * em_rng_uniform(em_rng_u64(options->seed, sample_stream), number);
    for (uint32_t i = 0; i + 1 < num; i++) {
        left -= exp(((double)sampler->logits[sampler->order[i]] - most) / options->temperature);
        if (left < 0.0) {
            return (int32_t)sampler->order[i];
        }
    }
    return (int32_t)sampler->order[num - 1];
}

static em_status_t continue_prompt(em_sampler_t *sampler, const em_sample_options_t *options,
                                   em_error_t *err)
{
    const uint32_t seq = sampler->stage.model.positions;
    uint32_t used = options->num_prompt < seq ? options->num_prompt : seq;
    memcpy(sampler->context, options->prompt + (options->num_prompt - used),
           used * sizeof *sampler->context);
    for (uint32_t made = 0; made < options->num_tokens; made++) {
        const em_stage_ctx_t ctx = {.stage = &sampler->stage,
                                    .kernels = em_cpu_kernels(EM_CPU_AUTO),
                                    .microbatch = 1,
                                    .seq = used,
                                    .params = sampler->params,
                                    .workspace = sampler->workspace};
        const em_item_t item = {
            .tokens = sampler->context, .a = sampler->a, .w = sampler->w, .forward_only = true};
        /* the scratch of a short prefix lies where the table of a longer one was */
        em_workspace_prepare(&sampler->stage, used, sampler->workspace);
        EM_RETURN_ERROR_IF(em_stage_logits(&ctx, &item, false, used - 1, sampler->logits) != EM_OK,
                           err, EM_ERR_DATA,
                           "a token of the prompt is outside of the vocabulary of %" PRIu32,
                           sampler->stage.model.vocab);
        const int32_t token = choose(sampler, options, made);
        if (token == options->stop_token) {
            break;
        }
        EM_RETURN_IF_ERROR(options->on_token(options->context, token));
        if (used == seq) { /* the window slides */
            memmove(sampler->context, sampler->context + 1, (used - 1) * sizeof *sampler->context);
            used--;
        }
        sampler->context[used++] = token;
    }
    return EM_OK;
}

em_status_t em_sample(const em_sample_options_t *options, em_error_t *err)
{
    EM_RETURN_ERROR_IF(options->num_prompt == 0, err, EM_ERR_ARGUMENT, "the prompt is empty");
    em_sampler_t sampler;
    memset(&sampler, 0, sizeof sampler);
    em_status_t status = make(&sampler, options->checkpoint, err);
    if (status == EM_OK) {
        status = continue_prompt(&sampler, options, err);
    }
    destroy(&sampler);
    return status;
}
