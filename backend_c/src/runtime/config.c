/* config.json of a model, in the words of Hugging Face transformers. See em_checkpoint.h. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "runtime/em_checkpoint.h"

enum { EM_BYTE_BOS = 256, EM_BYTE_EOS = 257, EM_BYTE_PAD = 258, EM_BYTE_VOCAB = 259 };

static const char *yes_no(bool value)
{
    return value ? "true" : "false";
}

static void write_gpt2(FILE *out, const em_model_t *m)
{
    (void)fprintf(out,
                  "{\n  \"architectures\": [\"GPT2LMHeadModel\"],\n  \"model_type\": \"gpt2\",\n"
                  "  \"vocab_size\": %" PRIu32 ",\n  \"n_positions\": %" PRIu32
                  ",\n  \"n_ctx\": %" PRIu32 ",\n  \"n_embd\": %" PRIu32
                  ",\n  \"n_layer\": %" PRIu32 ",\n  \"n_head\": %" PRIu32
                  ",\n  \"n_inner\": %" PRIu32
                  ",\n  \"activation_function\": \"gelu_new\",\n  \"layer_norm_epsilon\": %.9g,\n"
                  "  \"attn_pdrop\": 0.0,\n  \"embd_pdrop\": 0.0,\n  \"resid_pdrop\": 0.0,\n",
                  m->vocab, m->positions, m->positions, m->hidden, m->layers, m->heads, m->ffn,
                  (double)m->norm_eps);
    if (m->heads * m->head_dim != m->hidden || m->kv_heads != m->heads) {
        /* GPT-2 knows no such model: keys of our own, so that at least we read it back */
        (void)fprintf(out,
                      "  \"head_dim\": %" PRIu32 ",\n  \"num_key_value_heads\": %" PRIu32 ",\n",
                      m->head_dim, m->kv_heads);
    }
}

static void write_llama(FILE *out, const em_model_t *m)
{
    (void)fprintf(out,
                  "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n"
                  "  \"model_type\": \"llama\",\n  \"vocab_size\": %" PRIu32
                  ",\n  \"max_position_embeddings\": %" PRIu32 ",\n  \"hidden_size\": %" PRIu32
                  ",\n  \"num_hidden_layers\": %" PRIu32 ",\n  \"num_attention_heads\": %" PRIu32
                  ",\n  \"num_key_value_heads\": %" PRIu32 ",\n  \"head_dim\": %" PRIu32
                  ",\n  \"intermediate_size\": %" PRIu32
                  ",\n  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": %.9g,\n"
                  "  \"rope_theta\": %.9g,\n  \"attention_bias\": false,\n"
                  "  \"attention_dropout\": 0.0,\n  \"mlp_bias\": false,\n",
                  m->vocab, m->positions, m->hidden, m->layers, m->heads, m->kv_heads, m->head_dim,
                  m->ffn, (double)m->norm_eps, (double)m->rope_theta);
}

em_status_t em_config_write(const char *path, const em_model_t *model, em_error_t *err)
{
    FILE *const out = fopen(path, "w");
    EM_RETURN_ERROR_IF(out == NULL, err, EM_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (model->kind == EM_MODEL_GPT2) {
        write_gpt2(out, model);
    } else {
        write_llama(out, model);
    }
    if (model->vocab == EM_BYTE_VOCAB) {
        (void)fprintf(out,
                      "  \"bos_token_id\": %d,\n  \"eos_token_id\": %d,\n"
                      "  \"pad_token_id\": %d,\n",
                      EM_BYTE_BOS, EM_BYTE_EOS, EM_BYTE_PAD);
    } else { /* keep transformers from assuming its defaults, which may not be in the vocabulary */
        (void)fprintf(out, "  \"bos_token_id\": null,\n  \"eos_token_id\": null,\n");
    }
    (void)fprintf(out, "  \"tie_word_embeddings\": %s,\n  \"torch_dtype\": \"float32\"\n}\n",
                  yes_no(model->tied));
    return em_file_finish(out, path, err);
}

typedef struct {
    const em_json_t *json;
    const char *path;
    em_error_t *err;
} em_config_t;

static const em_json_value_t *find(const em_config_t *config, const char *key)
{
    return em_json_get(config->json, &config->json->values[0], key);
}

/* A dimension; missing or null gives `otherwise`, or is an error if that is 0. */
static em_status_t read_dim(const em_config_t *config, const char *key, uint32_t otherwise,
                            uint32_t *out)
{
    const em_json_value_t *const value = find(config, key);
    uint64_t number = otherwise;
    const bool absent = value == NULL || value->kind == EM_JSON_NULL;
    const bool good = absent || em_json_u64(config->json, value, &number);
    EM_RETURN_ERROR_IF(!good || number == 0 || number > INT32_MAX, config->err, EM_ERR_DATA,
                       "%s: %s: expected a whole number of at least 1", config->path, key);
    *out = (uint32_t)number;
    return EM_OK;
}

static em_status_t read_real(const em_config_t *config, const em_json_value_t *object,
                             const char *key, double otherwise, float *out)
{
    double number = otherwise;
    const em_json_value_t *const value = em_json_get(config->json, object, key);
    EM_RETURN_ERROR_IF(value != NULL && !em_json_double(config->json, value, &number), config->err,
                       EM_ERR_DATA, "%s: %s: expected a number", config->path, key);
    *out = (float)number;
    return EM_OK;
}

static em_status_t read_gpt2(const em_config_t *config, em_model_t *model)
{
    model->kind = EM_MODEL_GPT2;
    EM_RETURN_IF_ERROR(read_dim(config, "vocab_size", 0, &model->vocab));
    EM_RETURN_IF_ERROR(read_dim(config, "n_positions", 0, &model->positions));
    EM_RETURN_IF_ERROR(read_dim(config, "n_embd", 0, &model->hidden));
    EM_RETURN_IF_ERROR(read_dim(config, "n_layer", 0, &model->layers));
    EM_RETURN_IF_ERROR(read_dim(config, "n_head", 0, &model->heads));
    EM_RETURN_ERROR_IF(model->hidden > UINT32_MAX / 4, config->err, EM_ERR_DATA,
                       "%s: n_embd: too large", config->path);
    EM_RETURN_IF_ERROR(read_dim(config, "n_inner", 4 * model->hidden, &model->ffn));
    EM_RETURN_IF_ERROR(read_dim(config, "num_key_value_heads", model->heads, &model->kv_heads));
    EM_RETURN_IF_ERROR(
        read_dim(config, "head_dim", model->hidden / model->heads, &model->head_dim));
    return read_real(config, config->json->values, "layer_norm_epsilon", 1e-5, &model->norm_eps);
}

/* The base of the rotation: `rope_theta`, or nested in `rope_parameters` as transformers 5 does. */
static em_status_t read_rope(const em_config_t *config, em_model_t *model)
{
    const em_json_value_t *const nested = find(config, "rope_parameters");
    const em_json_value_t *const type = em_json_get(config->json, nested, "rope_type");
    char name[32] = "default";
    EM_RETURN_ERROR_IF(
        nested != NULL && nested->kind != EM_JSON_NULL && nested->kind != EM_JSON_OBJECT,
        config->err, EM_ERR_DATA, "%s: rope_parameters: expected an object", config->path);
    EM_RETURN_ERROR_IF(type != NULL && (!em_json_string(config->json, type, name, sizeof name) ||
                                        strcmp(name, "default") != 0),
                       config->err, EM_ERR_UNSUPPORTED,
                       "%s: rope_parameters.rope_type: only \"default\" is supported",
                       config->path);
    const bool inside = em_json_get(config->json, nested, "rope_theta") != NULL;
    return read_real(config, inside ? nested : config->json->values, "rope_theta", 10000.0,
                     &model->rope_theta);
}

static em_status_t read_llama(const em_config_t *config, em_model_t *model)
{
    model->kind = EM_MODEL_LLAMA;
    EM_RETURN_IF_ERROR(read_dim(config, "vocab_size", 0, &model->vocab));
    EM_RETURN_IF_ERROR(read_dim(config, "max_position_embeddings", 0, &model->positions));
    EM_RETURN_IF_ERROR(read_dim(config, "hidden_size", 0, &model->hidden));
    EM_RETURN_IF_ERROR(read_dim(config, "num_hidden_layers", 0, &model->layers));
    EM_RETURN_IF_ERROR(read_dim(config, "num_attention_heads", 0, &model->heads));
    EM_RETURN_IF_ERROR(read_dim(config, "num_key_value_heads", model->heads, &model->kv_heads));
    EM_RETURN_IF_ERROR(
        read_dim(config, "head_dim", model->hidden / model->heads, &model->head_dim));
    EM_RETURN_IF_ERROR(read_dim(config, "intermediate_size", 0, &model->ffn));
    EM_RETURN_IF_ERROR(
        read_real(config, config->json->values, "rms_norm_eps", 1e-6, &model->norm_eps));
    return read_rope(config, model);
}

static em_status_t read_model(const em_config_t *config, em_model_t *model)
{
    char kind[32] = "";
    memset(model, 0, sizeof *model);
    (void)em_json_string(config->json, find(config, "model_type"), kind, sizeof kind);
    const bool gpt2 = strcmp(kind, "gpt2") == 0;
    EM_RETURN_ERROR_IF(!gpt2 && strcmp(kind, "llama") != 0, config->err, EM_ERR_DATA,
                       "%s: model_type: got \"%s\", expected gpt2 or llama", config->path, kind);
    const em_json_value_t *const scaling = find(config, "rope_scaling");
    EM_RETURN_ERROR_IF(scaling != NULL && scaling->kind != EM_JSON_NULL, config->err,
                       EM_ERR_UNSUPPORTED, "%s: rope_scaling is not supported", config->path);
    const em_json_value_t *const tied = find(config, "tie_word_embeddings");
    model->tied = tied == NULL ? gpt2 : tied->kind == EM_JSON_BOOL && tied->value;
    return gpt2 ? read_gpt2(config, model) : read_llama(config, model);
}

em_status_t em_config_read(const char *path, em_model_t *model, em_error_t *err)
{
    em_mapped_t map;
    em_json_t json;
    EM_RETURN_IF_ERROR(em_mapped_open(&map, path, err));
    em_status_t status = em_json_parse(&json, (const char *)map.data, map.num_bytes, path, err);
    if (status == EM_OK) {
        const em_config_t config = {&json, path, err};
        status = read_model(&config, model);
        em_json_free(&json);
    }
    em_mapped_close(&map);
    return status;
}
