/* The parameter tensors of a stage: names, shapes, places, start values. See em_stage.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/em_checked.h"
#include "common/em_rng.h"
#include "nn/em_layout.h"

enum { PAD = 16 };

static const float init_std = 0.02f;

em_status_t em_stage_check(const em_stage_t *stage, em_error_t *err)
{
    const em_model_t *const m = &stage->model;
    const struct {
        const char *name;
        uint32_t value;
    } counts[] = {{"layers", m->layers},     {"hidden", m->hidden},      {"heads", m->heads},
                  {"kv_heads", m->kv_heads}, {"head_dim", m->head_dim},  {"ffn", m->ffn},
                  {"vocab", m->vocab},       {"positions", m->positions}};
    const uint32_t limit = 1u << 24;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
        EM_RETURN_ERROR_IF(counts[i].value == 0 || counts[i].value > limit, err, EM_ERR_FIELD,
                           "model %s: got %" PRIu32 ", expected 1 to %" PRIu32, counts[i].name,
                           counts[i].value, limit);
    }
    EM_RETURN_ERROR_IF(m->kind != EM_MODEL_GPT2 && m->kind != EM_MODEL_LLAMA, err, EM_ERR_FIELD,
                       "model kind: got %d, expected %d (gpt2) or %d (llama)", (int)m->kind,
                       EM_MODEL_GPT2, EM_MODEL_LLAMA);
    EM_RETURN_ERROR_IF(m->heads % m->kv_heads != 0, err, EM_ERR_FIELD,
                       "model kv_heads: got %" PRIu32 ", expected a divisor of heads %" PRIu32,
                       m->kv_heads, m->heads);
    EM_RETURN_ERROR_IF(m->kind == EM_MODEL_LLAMA && m->head_dim % 2 != 0, err, EM_ERR_FIELD,
                       "model head_dim: got %" PRIu32 ", expected an even number (rotary)",
                       m->head_dim);
    EM_RETURN_ERROR_IF((uint64_t)m->heads * m->head_dim > limit, err, EM_ERR_FIELD,
                       "model heads * head_dim: got %" PRIu64 ", expected at most %" PRIu32,
                       (uint64_t)m->heads * m->head_dim, limit);
    EM_RETURN_ERROR_IF(!(m->norm_eps > 0.0f) || !(m->norm_eps < 1.0f), err, EM_ERR_FIELD,
                       "model norm_eps: got %g, expected a number in (0, 1)", (double)m->norm_eps);
    EM_RETURN_ERROR_IF(
        m->kind == EM_MODEL_LLAMA && (!(m->rope_theta > 1.0f) || !isfinite(m->rope_theta)), err,
        EM_ERR_FIELD, "model rope_theta: got %g, expected a number above 1", (double)m->rope_theta);
    EM_RETURN_ERROR_IF((uint64_t)stage->first_layer + stage->num_layers > m->layers, err,
                       EM_ERR_FIELD,
                       "stage layers: got %" PRIu32 " from %" PRIu32 ", the model has %" PRIu32,
                       stage->num_layers, stage->first_layer, m->layers);
    EM_RETURN_ERROR_IF(stage->num_layers == 0 && !stage->has_embedding && !stage->has_head, err,
                       EM_ERR_FIELD, "stage: got nothing, expected layers, embedding or head");
    EM_RETURN_ERROR_IF(
        stage->num_layers > 0 && stage->has_embedding && stage->first_layer != 0, err, EM_ERR_FIELD,
        "stage with embedding: got first layer %" PRIu32 ", expected 0", stage->first_layer);
    EM_RETURN_ERROR_IF(stage->num_layers > 0 && stage->has_head &&
                           stage->first_layer + stage->num_layers != m->layers,
                       err, EM_ERR_FIELD,
                       "stage with head: got last layer %" PRIu32 ", expected %" PRIu32,
                       stage->first_layer + stage->num_layers, m->layers);
    return EM_OK;
}

uint32_t em_part_from_name(const char *name, size_t len)
{
    static const char *const names[] = {"wte", "wpe", "layers", "norm", "head"};
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) {
            return 1u << i;
        }
    }
    return 0;
}

/* What em_stage_layout fills: a table that may be absent, and the running place. */
typedef struct {
    em_param_t *table;
    uint32_t capacity;
    uint32_t num;
    uint64_t floats;
    bool overflow;
} layout_t;

typedef struct {
    uint32_t part;
    uint32_t index;
    em_init_t init;
    float std;
} kind_t;

static void add_tensor(layout_t *out, kind_t kind, uint64_t rows, uint64_t cols, const char *name)
{
    uint64_t elements = 0;
    uint64_t padded = 0;
    uint64_t end = 0;
    if (!em_mul_u64(rows, cols, &elements) || !em_round_up_u64(elements, PAD, &padded) ||
        !em_add_u64(out->floats, padded, &end) || end > (uint64_t)1 << 56) {
        out->overflow = true;
        return;
    }
    if (out->table != NULL && out->num < out->capacity) {
        em_param_t *const p = &out->table[out->num];
        memset(p, 0, sizeof *p);
        (void)snprintf(p->name, sizeof p->name, "%s", name);
        p->shape[0] = rows;
        p->shape[1] = cols;
        p->num_elements = elements;
        p->offset = out->floats;
        p->ndim = kind.init == EM_INIT_NORMAL ? 2 : 1; /* all matrices, and they alone, are drawn */
        p->part = kind.part;
        p->index = kind.index;
        p->init = kind.init;
        p->init_std = kind.std;
        p->decay = kind.init == EM_INIT_NORMAL;
    }
    out->num += 1;
    out->floats = end;
}

static void add_gpt2_layer(layout_t *out, const em_model_t *m, uint32_t layer, uint32_t base)
{
    const em_dims_t d = em_dims(m, 1, 1, 1, 0);
    const float residual_std = init_std / sqrtf(2.0f * (float)m->layers);
    const struct {
        const char *suffix;
        uint32_t index;
        em_init_t init;
        float std;
        uint64_t rows;
        uint64_t cols;
    } tensors[] = {
        {"ln_1.weight", EM_LX_NORM1_W, EM_INIT_ONES, 0, d.hidden, 1},
        {"ln_1.bias", EM_LX_NORM1_B, EM_INIT_ZEROS, 0, d.hidden, 1},
        {"attn.c_attn.weight", EM_LX_Q_W, EM_INIT_NORMAL, init_std, d.hidden, d.qkv},
        {"attn.c_attn.bias", EM_LX_Q_B, EM_INIT_ZEROS, 0, d.qkv, 1},
        {"attn.c_proj.weight", EM_LX_O_W, EM_INIT_NORMAL, residual_std, d.attn, d.hidden},
        {"attn.c_proj.bias", EM_LX_O_B, EM_INIT_ZEROS, 0, d.hidden, 1},
        {"ln_2.weight", EM_LX_NORM2_W, EM_INIT_ONES, 0, d.hidden, 1},
        {"ln_2.bias", EM_LX_NORM2_B, EM_INIT_ZEROS, 0, d.hidden, 1},
        {"mlp.c_fc.weight", EM_LX_UP_W, EM_INIT_NORMAL, init_std, d.hidden, d.ffn},
        {"mlp.c_fc.bias", EM_LX_UP_B, EM_INIT_ZEROS, 0, d.ffn, 1},
        {"mlp.c_proj.weight", EM_LX_DOWN_W, EM_INIT_NORMAL, residual_std, d.ffn, d.hidden},
        {"mlp.c_proj.bias", EM_LX_DOWN_B, EM_INIT_ZEROS, 0, d.hidden, 1},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; ++i) {
        char name[EM_PARAM_NAME];
        (void)snprintf(name, sizeof name, "transformer.h.%" PRIu32 ".%s", layer, tensors[i].suffix);
        const kind_t kind = {EM_PART_LAYERS, base + tensors[i].index, tensors[i].init,
                             tensors[i].std};
        add_tensor(out, kind, tensors[i].rows, tensors[i].cols, name);
    }
}

static void add_llama_layer(layout_t *out, const em_model_t *m, uint32_t layer, uint32_t base)
{
    const em_dims_t d = em_dims(m, 1, 1, 1, 0);
    const float residual_std = init_std / sqrtf(2.0f * (float)m->layers);
    /* q, k, v stand in a row, as do gate and up: where no padding comes between (sizes that are
     * multiples of 16) each group is one matrix and one product. */
    const struct {
        const char *suffix;
        uint32_t index;
        em_init_t init;
        float std;
        uint64_t rows;
        uint64_t cols;
    } tensors[] = {
        {"input_layernorm.weight", EM_LX_NORM1_W, EM_INIT_ONES, 0, d.hidden, 1},
        {"self_attn.q_proj.weight", EM_LX_Q_W, EM_INIT_NORMAL, init_std, d.attn, d.hidden},
        {"self_attn.k_proj.weight", EM_LX_K_W, EM_INIT_NORMAL, init_std, d.kv, d.hidden},
        {"self_attn.v_proj.weight", EM_LX_V_W, EM_INIT_NORMAL, init_std, d.kv, d.hidden},
        {"self_attn.o_proj.weight", EM_LX_O_W, EM_INIT_NORMAL, residual_std, d.hidden, d.attn},
        {"post_attention_layernorm.weight", EM_LX_NORM2_W, EM_INIT_ONES, 0, d.hidden, 1},
        {"mlp.gate_proj.weight", EM_LX_GATE_W, EM_INIT_NORMAL, init_std, d.ffn, d.hidden},
        {"mlp.up_proj.weight", EM_LX_UP_W, EM_INIT_NORMAL, init_std, d.ffn, d.hidden},
        {"mlp.down_proj.weight", EM_LX_DOWN_W, EM_INIT_NORMAL, residual_std, d.hidden, d.ffn},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; ++i) {
        char name[EM_PARAM_NAME];
        (void)snprintf(name, sizeof name, "model.layers.%" PRIu32 ".%s", layer, tensors[i].suffix);
        const kind_t kind = {EM_PART_LAYERS, base + tensors[i].index, tensors[i].init,
                             tensors[i].std};
        add_tensor(out, kind, tensors[i].rows, tensors[i].cols, name);
    }
}

em_status_t em_stage_layout(const em_stage_t *stage, uint32_t parts, em_param_t *table,
                            uint32_t capacity, uint32_t *num_params, uint64_t *num_floats,
                            em_error_t *err)
{
    EM_RETURN_IF_ERROR(em_stage_check(stage, err));
    EM_RETURN_ERROR_IF((parts & ~(uint32_t)EM_PART_ALL) != 0, err, EM_ERR_ARGUMENT,
                       "parts: got mask 0x%" PRIx32 ", expected bits of 0x%x", parts,
                       (unsigned)EM_PART_ALL);
    const em_model_t *const m = &stage->model;
    const bool gpt2 = m->kind == EM_MODEL_GPT2;
    const char *const wte = gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight";
    layout_t out = {table, capacity, 0, 0, false};
    if ((parts & EM_PART_WTE) != 0 && stage->has_embedding) {
        const kind_t kind = {EM_PART_WTE, EM_IX_WTE, EM_INIT_NORMAL, init_std};
        add_tensor(&out, kind, m->vocab, m->hidden, wte);
    }
    if ((parts & EM_PART_WPE) != 0 && stage->has_embedding && gpt2) {
        const kind_t kind = {EM_PART_WPE, EM_IX_WPE, EM_INIT_NORMAL, init_std};
        add_tensor(&out, kind, m->positions, m->hidden, "transformer.wpe.weight");
    }
    for (uint32_t i = 0; (parts & EM_PART_LAYERS) != 0 && i < stage->num_layers; ++i) {
        const uint32_t base = EM_IX_LAYERS + i * EM_LAYER_POINTERS;
        if (gpt2) {
            add_gpt2_layer(&out, m, stage->first_layer + i, base);
        } else {
            add_llama_layer(&out, m, stage->first_layer + i, base);
        }
    }
    if ((parts & EM_PART_NORM) != 0 && stage->has_head) {
        const kind_t gain = {EM_PART_NORM, EM_IX_NORM_W, EM_INIT_ONES, 0};
        add_tensor(&out, gain, m->hidden, 1,
                   gpt2 ? "transformer.ln_f.weight" : "model.norm.weight");
        if (gpt2) {
            const kind_t bias = {EM_PART_NORM, EM_IX_NORM_B, EM_INIT_ZEROS, 0};
            add_tensor(&out, bias, m->hidden, 1, "transformer.ln_f.bias");
        }
    }
    if ((parts & EM_PART_HEAD) != 0 && stage->has_head && !(m->tied && stage->has_embedding)) {
        const kind_t kind = {EM_PART_HEAD, EM_IX_HEAD, EM_INIT_NORMAL, init_std};
        add_tensor(&out, kind, m->vocab, m->hidden, m->tied ? wte : "lm_head.weight");
    }
    EM_RETURN_ERROR_IF(out.overflow, err, EM_ERR_OVERFLOW,
                       "the parameters of the stage are too many to count");
    EM_RETURN_ERROR_IF(table != NULL && out.num > capacity, err, EM_ERR_ARGUMENT,
                       "table: got room for %" PRIu32 " tensors, expected %" PRIu32, capacity,
                       out.num);
    *num_params = out.num;
    *num_floats = out.floats;
    return EM_OK;
}

uint32_t em_stage_num_pointers(const em_stage_t *stage)
{
    return EM_IX_LAYERS + stage->num_layers * EM_LAYER_POINTERS;
}

void em_stage_bind(const em_stage_t *stage, const em_param_t *table, uint32_t num_params,
                   float *base, float **pointers)
{
    for (uint32_t i = 0; i < num_params; ++i) {
        pointers[table[i].index] = base + table[i].offset;
        if (table[i].index == EM_IX_WTE && stage->model.tied && stage->has_head) {
            pointers[EM_IX_HEAD] = pointers[EM_IX_WTE];
        }
    }
}

void em_stage_bind_head(float *head, float **pointers)
{
    pointers[EM_IX_HEAD] = head;
}

float *em_stage_wte(float *const *pointers)
{
    return pointers[EM_IX_WTE];
}

static bool layer_needs(const em_model_t *m, uint32_t role)
{
    switch (role) {
    case EM_LX_NORM1_B:
    case EM_LX_NORM2_B:
    case EM_LX_Q_B:
    case EM_LX_O_B:
    case EM_LX_UP_B:
    case EM_LX_DOWN_B:
        return m->kind == EM_MODEL_GPT2;
    case EM_LX_K_W:
    case EM_LX_V_W:
    case EM_LX_GATE_W:
        return m->kind == EM_MODEL_LLAMA;
    default:
        return true;
    }
}

em_status_t em_stage_check_bound(const em_stage_t *stage, float *const *pointers, em_error_t *err)
{
    const bool gpt2 = stage->model.kind == EM_MODEL_GPT2;
    const struct {
        const char *name;
        uint32_t index;
        bool needed;
    } own[] = {{"wte", EM_IX_WTE, stage->has_embedding},
               {"wpe", EM_IX_WPE, stage->has_embedding && gpt2},
               {"norm", EM_IX_NORM_W, stage->has_head},
               {"norm", EM_IX_NORM_B, stage->has_head && gpt2},
               {"head", EM_IX_HEAD, stage->has_head}};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; ++i) {
        EM_RETURN_ERROR_IF(own[i].needed && pointers[own[i].index] == NULL, err, EM_ERR_FIELD,
                           "stage: part %s is in no bucket", own[i].name);
    }
    for (uint32_t layer = 0; layer < stage->num_layers; ++layer) {
        for (uint32_t role = 0; role < EM_LAYER_POINTERS; ++role) {
            EM_RETURN_ERROR_IF(layer_needs(&stage->model, role) &&
                                   pointers[EM_IX_LAYERS + layer * EM_LAYER_POINTERS + role] ==
                                       NULL,
                               err, EM_ERR_FIELD, "stage: part layers is in no bucket");
        }
    }
    return EM_OK;
}

void em_params_init(const em_param_t *table, uint32_t num_params, uint64_t seed,
                    uint64_t num_floats, float *base)
{
    memset(base, 0, (size_t)num_floats * sizeof *base);
    for (uint32_t i = 0; i < num_params; ++i) {
        const em_param_t *const p = &table[i];
        float *const values = base + p->offset;
        if (p->init == EM_INIT_ONES) {
            for (uint64_t j = 0; j < p->num_elements; ++j) {
                values[j] = 1.0f;
            }
        } else if (p->init == EM_INIT_NORMAL) {
            const uint64_t key = em_rng_key(seed, p->name);
            for (uint64_t j = 0; j < p->num_elements; ++j) {
                values[j] = (float)((double)p->init_std * em_rng_normal(key, j));
            }
        }
    }
}
