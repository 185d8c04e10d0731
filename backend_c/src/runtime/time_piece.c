/* The stages that are timed. See em_time_piece.h. */
#include "runtime/em_time_piece.h"

#include <string.h>

#include "common/em_arena.h"
#include "common/em_rng.h"
#include "cpu/em_cpu.h"

/* At least one line: a pass may have no use for a buffer, and NULL says that memory is short. */
static void *take(uint64_t bytes)
{
    return em_alloc_zeroed(1, bytes < EM_ALIGN ? EM_ALIGN : bytes);
}

static void fill(float *x, uint64_t num, uint64_t key)
{
    for (uint64_t i = 0; i < num; i++) {
        x[i] = (float)em_rng_normal(key, i);
    }
}

static em_stage_t stage_of(const em_time_options_t *o, em_piece_kind_t kind)
{
    return (em_stage_t){.model = {.kind = o->llama ? EM_MODEL_LLAMA : EM_MODEL_GPT2,
                                  .layers = o->layers,
                                  .hidden = o->hidden,
                                  .heads = o->heads,
                                  .kv_heads = o->kv_heads,
                                  .head_dim = o->head_dim,
                                  .ffn = o->ffn,
                                  .vocab = o->vocab,
                                  .positions = o->seq,
                                  .norm_eps = 1e-5f,
                                  .rope_theta = 10000.0f,
                                  .tied = false},
                        .num_layers = kind == EM_PIECE_LAYERS ? o->layers : 0,
                        .has_embedding = kind == EM_PIECE_EMBEDDING,
                        .has_head = kind == EM_PIECE_HEAD};
}

static bool take_item(em_time_piece_t *piece, int number, uint64_t num_floats, uint64_t num_tokens)
{
    const em_stage_sizes_t *const sizes = &piece->sizes;
    em_item_t *const item = &piece->items[number];
    float *const x = piece->x[number] = take(sizes->h_bytes);
    if (x != NULL) {
        fill(x, num_floats, 1);
    }
    *item = (em_item_t){.tokens = piece->tokens,
                        .targets = piece->tokens,
                        .x = x,
                        .y = take(sizes->h_bytes),
                        .dy = piece->dy,
                        .dx = take(sizes->h_bytes),
                        .a = take(sizes->a_bytes),
                        .w = take(sizes->w_bytes),
                        .g = take(sizes->g_bytes),
                        .loss_sum = &piece->loss,
                        .scale = 1.0f / (float)num_tokens,
                        .accumulate = EM_PART_ALL};
    return x != NULL && item->y != NULL && item->dx != NULL && item->a != NULL && item->w != NULL &&
           item->g != NULL;
}

static bool take_buffers(em_time_piece_t *piece, const em_time_options_t *o)
{
    const uint64_t num_tokens = (uint64_t)o->microbatch * o->seq;
    const uint64_t num_activations = num_tokens * o->hidden;
    const uint64_t param_bytes = piece->num_floats * sizeof(float);
    const uint32_t num_pointers = em_stage_num_pointers(&piece->stage);
    piece->table = take(piece->num_params * sizeof *piece->table);
    piece->params = take(num_pointers * sizeof *piece->params);
    piece->grads = take(num_pointers * sizeof *piece->grads);
    piece->param = take(param_bytes);
    piece->grad = take(param_bytes);
    piece->m = take(param_bytes);
    piece->v = take(param_bytes);
    piece->workspace = take(piece->sizes.workspace_max_bytes);
    piece->dy = take(piece->sizes.h_bytes);
    piece->tokens = take(num_tokens * sizeof *piece->tokens);
    if (piece->table == NULL || piece->params == NULL || piece->grads == NULL ||
        piece->param == NULL || piece->grad == NULL || piece->m == NULL || piece->v == NULL ||
        piece->workspace == NULL || piece->dy == NULL || piece->tokens == NULL) {
        return false;
    }
    fill(piece->dy, num_activations, 2);
    for (uint64_t i = 0; i < num_tokens; i++) {
        piece->tokens[i] = (int32_t)em_rng_below(3, i, o->vocab);
    }
    for (int i = 0; i < EM_TIME_ITEMS; i++) {
        if (!take_item(piece, i, num_activations, num_tokens)) {
            return false;
        }
    }
    return true;
}

em_status_t em_time_piece_make(em_time_piece_t *piece, em_piece_kind_t kind,
                               const em_time_options_t *options, em_error_t *err)
{
    piece->stage = stage_of(options, kind);
    EM_RETURN_IF_ERROR(em_stage_check(&piece->stage, err));
    EM_RETURN_IF_ERROR(
        em_stage_sizes(&piece->stage, options->microbatch, options->seq, &piece->sizes, err));
    EM_RETURN_IF_ERROR(em_stage_layout(&piece->stage, EM_PART_ALL, NULL, 0, &piece->num_params,
                                       &piece->num_floats, err));
    EM_RETURN_ERROR_IF(!take_buffers(piece, options), err, EM_ERR_MEMORY,
                       "no memory for the timed stages");
    EM_RETURN_IF_ERROR(em_stage_layout(&piece->stage, EM_PART_ALL, piece->table, piece->num_params,
                                       &piece->num_params, &piece->num_floats, err));
    em_stage_bind(&piece->stage, piece->table, piece->num_params, piece->param, piece->params);
    em_stage_bind(&piece->stage, piece->table, piece->num_params, piece->grad, piece->grads);
    em_params_init(piece->table, piece->num_params, 1, piece->num_floats, piece->param);
    em_workspace_prepare(&piece->stage, options->seq, piece->workspace);
    piece->ctx = (em_stage_ctx_t){.stage = &piece->stage,
                                  .kernels = em_cpu_kernels(EM_CPU_AUTO),
                                  .microbatch = options->microbatch,
                                  .seq = options->seq,
                                  .params = piece->params,
                                  .grads = piece->grads,
                                  .workspace = piece->workspace};
    return EM_OK;
}

void em_time_piece_free(em_time_piece_t *piece)
{
    void *const blocks[] = {piece->table, piece->params, piece->grads, piece->param,
                            piece->grad,  piece->m,      piece->v,     piece->workspace,
                            piece->dy,    piece->tokens};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        em_free(blocks[i]);
    }
    for (int i = 0; i < EM_TIME_ITEMS; i++) {
        const em_item_t *const item = &piece->items[i];
        void *const buffers[] = {piece->x[i], item->y, item->dx, item->a, item->w, item->g};
        for (size_t k = 0; k < sizeof buffers / sizeof *buffers; k++) {
            em_free(buffers[k]);
        }
    }
    memset(piece, 0, sizeof *piece);
}
