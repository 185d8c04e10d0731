/* The public door to the numerics: plain arguments around nn and the CPU's kernels. */
#include "exactmap/numerics.h"

#include <string.h>

#include "common/em_arena.h"
#include "cpu/em_cpu.h"
#include "nn/em_stage.h"

struct em_numerics {
    em_stage_t stage;
    em_stage_ctx_t ctx;
    em_stage_sizes_t sizes;
    float **params;
    float **grads;
    float *workspace;
    em_param_t *table; /* of all parts; what any bucket holds is at most this long */
    uint32_t capacity;
};

static em_stage_t stage_of(const em_numerics_config_t *c)
{
    em_stage_t stage;
    memset(&stage, 0, sizeof stage);
    stage.model.kind = (em_model_kind_t)c->kind;
    stage.model.layers = c->layers;
    stage.model.hidden = c->hidden;
    stage.model.heads = c->heads;
    stage.model.kv_heads = c->kv_heads;
    stage.model.head_dim = c->head_dim;
    stage.model.ffn = c->ffn;
    stage.model.vocab = c->vocab;
    stage.model.positions = c->positions;
    stage.model.norm_eps = c->norm_eps;
    stage.model.rope_theta = c->rope_theta;
    stage.model.tied = c->tied != 0;
    stage.first_layer = c->first_layer;
    stage.num_layers = c->num_layers;
    stage.has_embedding = c->has_embedding != 0;
    stage.has_head = c->has_head != 0;
    return stage;
}

em_status_t em_numerics_open(const em_numerics_config_t *config, em_numerics_t **handle,
                             em_error_t *err)
{
    const em_stage_t stage = stage_of(config);
    em_stage_sizes_t sizes;
    uint32_t num_params = 0;
    uint64_t num_floats = 0;
    const uint32_t slices = config->slices == 0 ? 1 : config->slices;
    EM_RETURN_IF_ERROR(
        em_stage_slice_sizes(&stage, config->microbatch, config->seq, slices, &sizes, err));
    EM_RETURN_IF_ERROR(
        em_stage_layout(&stage, EM_PART_ALL, NULL, 0, &num_params, &num_floats, err));
    EM_RETURN_ERROR_IF(config->gemm > EM_CPU_PORTABLE, err, EM_ERR_ARGUMENT,
                       "gemm: got %u, expected 0, 1 or 2", (unsigned)config->gemm);
    const em_kernels_t *const kernels = em_cpu_kernels((em_cpu_gemm_t)config->gemm);
    EM_RETURN_ERROR_IF(kernels == NULL, err, EM_ERR_MISSING, "this build has no OpenBLAS");

    em_numerics_t *const n = em_alloc_zeroed(1, sizeof *n);
    EM_RETURN_ERROR_IF(n == NULL, err, EM_ERR_MEMORY, "no memory for a stage");
    n->stage = stage;
    n->sizes = sizes;
    n->capacity = num_params;
    n->params = em_alloc_zeroed(em_stage_num_pointers(&stage), sizeof *n->params);
    n->grads = em_alloc_zeroed(em_stage_num_pointers(&stage), sizeof *n->grads);
    n->table = em_alloc_zeroed(num_params, sizeof *n->table);
    /* an embedding alone has passes without workspace: one float keeps the pointer real */
    n->workspace = em_alloc_zeroed(1, sizes.workspace_max_bytes + sizeof *n->workspace);
    if (n->params == NULL || n->grads == NULL || n->table == NULL || n->workspace == NULL) {
        em_numerics_close(n);
        return EM_FAIL(err, EM_ERR_MEMORY, "no memory for a stage's tables and workspace");
    }
    em_workspace_prepare(&n->stage, config->seq, n->workspace);
    const em_stage_ctx_t ctx = {&n->stage, kernels,  config->microbatch, config->seq,
                                n->params, n->grads, n->workspace,       slices};
    n->ctx = ctx;
    *handle = n;
    return EM_OK;
}

void em_numerics_close(em_numerics_t *handle)
{
    if (handle != NULL) {
        em_free(handle->params);
        em_free(handle->grads);
        em_free(handle->table);
        em_free(handle->workspace);
        em_free(handle);
    }
}

const char *em_numerics_kernels_name(const em_numerics_t *handle)
{
    return handle->ctx.kernels->name;
}

void em_numerics_sizes(const em_numerics_t *handle, em_numerics_sizes_t *sizes)
{
    sizes->h_bytes = handle->sizes.h_bytes;
    sizes->a_bytes = handle->sizes.a_bytes;
    sizes->w_bytes = handle->sizes.w_bytes;
    sizes->g_bytes = handle->sizes.g_bytes;
    memcpy(sizes->workspace_bytes, handle->sizes.workspace_bytes, sizeof sizes->workspace_bytes);
    sizes->workspace_max_bytes = handle->sizes.workspace_max_bytes;
    sizes->k_bytes = handle->sizes.k_bytes;
    sizes->stashless_bytes = em_stage_stashless_bytes(&handle->sizes);
    sizes->recompute_bytes = em_stage_recompute_bytes(&handle->sizes);
}

/* Lay the bucket of `parts` out in the handle's own table. */
static em_status_t lay_out(const em_numerics_t *n, uint32_t parts, uint32_t *num_params,
                           uint64_t *num_floats, em_error_t *err)
{
    return em_stage_layout(&n->stage, parts, n->table, n->capacity, num_params, num_floats, err);
}

em_status_t em_numerics_layout(const em_numerics_t *handle, uint32_t parts,
                               em_numerics_param_t *table, uint32_t capacity, uint32_t *num_params,
                               uint64_t *num_floats, em_error_t *err)
{
    EM_RETURN_IF_ERROR(lay_out(handle, parts, num_params, num_floats, err));
    EM_RETURN_ERROR_IF(table != NULL && capacity < *num_params, err, EM_ERR_ARGUMENT,
                       "table: got room for %u tensors, expected %u", (unsigned)capacity,
                       (unsigned)*num_params);
    for (uint32_t i = 0; table != NULL && i < *num_params; ++i) {
        const em_param_t *const p = &handle->table[i];
        memcpy(table[i].name, p->name, sizeof table[i].name);
        memcpy(table[i].shape, p->shape, sizeof table[i].shape);
        table[i].offset = p->offset;
        table[i].ndim = p->ndim;
        table[i].part = p->part;
        table[i].decay = p->decay ? 1 : 0;
        table[i].init_std = p->init_std;
    }
    return EM_OK;
}

em_status_t em_numerics_bind(em_numerics_t *handle, uint32_t parts, float *params, float *grads,
                             em_error_t *err)
{
    uint32_t num = 0;
    uint64_t floats = 0;
    EM_RETURN_IF_ERROR(lay_out(handle, parts, &num, &floats, err));
    em_stage_bind(&handle->stage, handle->table, num, params, handle->params);
    if (grads != NULL) {
        em_stage_bind(&handle->stage, handle->table, num, grads, handle->grads);
    }
    return EM_OK;
}

void em_numerics_bind_head(em_numerics_t *handle, float *param, float *grad)
{
    em_stage_bind_head(param, handle->params);
    em_stage_bind_head(grad, handle->grads);
}

em_status_t em_numerics_init(const em_numerics_t *handle, uint32_t parts, uint64_t seed,
                             float *params, em_error_t *err)
{
    uint32_t num = 0;
    uint64_t floats = 0;
    EM_RETURN_IF_ERROR(lay_out(handle, parts, &num, &floats, err));
    em_params_init(handle->table, num, seed, floats, params);
    return EM_OK;
}

static em_item_t item_of(const em_numerics_item_t *in)
{
    em_item_t item;
    memset(&item, 0, sizeof item);
    item.tokens = in->tokens;
    item.targets = in->targets;
    item.x = in->x;
    item.y = in->y;
    item.dy = in->dy;
    item.dx = in->dx;
    item.a = in->a;
    item.w = in->w;
    item.g = in->g;
    item.loss_sum = in->loss_sum;
    item.scale = in->scale;
    item.accumulate = in->accumulate;
    item.forward_only = in->forward_only != 0;
    item.slice = in->slice;
    item.k = in->k;
    return item;
}

em_status_t em_numerics_pass(const em_numerics_t *handle, uint32_t pass,
                             const em_numerics_item_t *item, em_error_t *err)
{
    static em_status_t (*const passes[EM_NUM_PASSES])(const em_stage_ctx_t *, const em_item_t *) = {
        em_stage_f, em_stage_i, em_stage_w, em_stage_b};
    EM_RETURN_ERROR_IF(pass >= EM_NUM_PASSES, err, EM_ERR_ARGUMENT, "pass: got %u, expected 0 to 3",
                       (unsigned)pass);
    EM_RETURN_IF_ERROR(em_stage_check_bound(&handle->stage, handle->params, err));
    if (pass == EM_PASS_W || pass == EM_PASS_B) {
        EM_RETURN_IF_ERROR(em_stage_check_bound(&handle->stage, handle->grads, err));
    }
    EM_RETURN_ERROR_IF(item->slice >= handle->ctx.slices, err, EM_ERR_ARGUMENT,
                       "slice: got %u, expected less than %u", (unsigned)item->slice,
                       (unsigned)handle->ctx.slices);
    EM_RETURN_ERROR_IF(handle->sizes.k_bytes > 0 && item->k == NULL && pass != EM_PASS_W, err,
                       EM_ERR_ARGUMENT, "k: got none, expected %llu bytes for several slices",
                       (unsigned long long)handle->sizes.k_bytes);
    const em_item_t it = item_of(item);
    const em_status_t status = passes[pass](&handle->ctx, &it);
    EM_RETURN_ERROR_IF(status != EM_OK, err, status, "a token or target is not in the vocabulary");
    return EM_OK;
}

em_status_t em_numerics_logits(const em_numerics_t *handle, const em_numerics_item_t *item,
                               uint32_t all_positions, uint32_t last_position, float *logits,
                               em_error_t *err)
{
    EM_RETURN_IF_ERROR(em_stage_check_bound(&handle->stage, handle->params, err));
    const em_item_t it = item_of(item);
    const em_status_t status =
        em_stage_logits(&handle->ctx, &it, all_positions != 0, last_position, logits);
    EM_RETURN_ERROR_IF(
        status != EM_OK, err, status,
        "logits: a token is not in the vocabulary, the stage has no head, the position "
        "is not in the sequence, or the sequence is in several slices");
    return EM_OK;
}

em_status_t em_numerics_adamw(const em_numerics_t *handle, uint32_t parts, uint64_t begin,
                              uint64_t end, const double hyper[6], uint64_t step, float *param,
                              const float *grad, float *m, float *v, em_error_t *err)
{
    uint32_t num = 0;
    uint64_t floats = 0;
    EM_RETURN_IF_ERROR(lay_out(handle, parts, &num, &floats, err));
    EM_RETURN_ERROR_IF(begin > end || end > floats || step == 0, err, EM_ERR_ARGUMENT,
                       "adamw: range or step outside the bucket");
    const em_adamw_t adamw = {hyper[0], hyper[1], hyper[2], hyper[3], hyper[4], hyper[5], step};
    em_bucket_adamw(handle->ctx.kernels, handle->table, num, begin, end, &adamw, param, grad, m, v);
    return EM_OK;
}

em_status_t em_numerics_sum_squares(const em_numerics_t *handle, uint32_t parts, uint64_t begin,
                                    uint64_t end, const float *grad, double *sum, em_error_t *err)
{
    uint32_t num = 0;
    uint64_t floats = 0;
    EM_RETURN_IF_ERROR(lay_out(handle, parts, &num, &floats, err));
    EM_RETURN_ERROR_IF(begin > end || end > floats, err, EM_ERR_ARGUMENT,
                       "sum of squares: range outside the bucket");
    *sum = em_bucket_sum_squares(handle->ctx.kernels, handle->table, num, begin, end, grad);
    return EM_OK;
}
