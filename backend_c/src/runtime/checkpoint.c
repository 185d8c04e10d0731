/* Writing and reading checkpoints. See em_checkpoint.h. */
#include "runtime/em_checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char model_file[] = "model.safetensors";
static const char optimizer_file[] = "optimizer.safetensors";
static const char state_file[] = "state.json";
static const char config_file[] = "config.json";

/* A parameter's name; a moment's with the ending that PyTorch's AdamW gives it. */
static void name_state(char name[EM_TENSOR_NAME], const em_param_t *param, em_state_kind_t kind)
{
    static const char *const endings[EM_NUM_STATES] = {"", ".exp_avg", ".exp_avg_sq"};
    (void)snprintf(name, EM_TENSOR_NAME, "%s%s", param->name, endings[kind]);
}

/* ---- writing ----------------------------------------------------------------------------- */

static int by_name(const void *left, const void *right)
{
    return strcmp(((const em_tensor_out_t *)left)->name, ((const em_tensor_out_t *)right)->name);
}

/* A tied parameter on two ranks is one tensor. */
static uint32_t drop_copies(em_tensor_out_t *tensors, uint32_t num)
{
    qsort(tensors, num, sizeof *tensors, by_name);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < num; i++) {
        if (kept == 0 || strcmp(tensors[kept - 1].name, tensors[i].name) != 0) {
            tensors[kept++] = tensors[i];
        }
    }
    return kept;
}

/* The tensors that a rank writes: those of replica 0, of a stage on two ranks the first one's. */
static bool writes(const em_rank_t *rank, const em_rank_bucket_t *bucket)
{
    return rank->dp == 0 && bucket->is_first;
}

/* Sharded buckets made whole, one after another, until a file is written. */
typedef struct {
    float *floats;
    uint64_t num_used;
} em_whole_t;

static const float *whole_of(const em_rank_t *rank, const em_rank_bucket_t *bucket,
                             em_state_kind_t kind, em_whole_t *whole)
{
    if (!bucket->sharded) {
        return em_bucket_state(bucket, kind);
    }
    float *const base = whole->floats + whole->num_used;
    whole->num_used += bucket->num_floats;
    em_rank_gather(rank, bucket, kind, base);
    return base;
}

/* All tensors of one kind that are to be written, appended at *num. */
static void collect(const em_rank_t *ranks, uint32_t num_ranks, em_state_kind_t kind,
                    em_whole_t *whole, em_tensor_out_t *tensors, uint32_t *num)
{
    for (uint32_t r = 0; r < num_ranks; r++) {
        const em_rank_t *const rank = &ranks[r];
        for (uint32_t b = 0; b < rank->num_buckets; b++) {
            const em_rank_bucket_t *const bucket = &rank->buckets[b];
            if (!writes(rank, bucket)) {
                continue;
            }
            const float *const base = whole_of(rank, bucket, kind, whole);
            for (uint32_t i = 0; i < bucket->num_params; i++) {
                const em_param_t *const param = &bucket->table[i];
                em_tensor_out_t *const out = &tensors[(*num)++];
                name_state(out->name, param, kind);
                out->num_dims = param->ndim;
                out->shape[0] = param->shape[0];
                out->shape[1] = param->shape[1];
                out->num_elements = param->num_elements;
                out->data = base + param->offset;
            }
        }
    }
}

static em_status_t hash_file(const char *path, char hex[65], em_error_t *err)
{
    em_mapped_t map;
    EM_RETURN_IF_ERROR(em_mapped_open(&map, path, err));
    em_sha256_hex(map.data, (size_t)map.num_bytes, hex);
    em_mapped_close(&map);
    return EM_OK;
}

static em_status_t write_state(const char *folder, const em_checkpoint_state_t *state,
                               em_error_t *err)
{
    char path[EM_PATH_BYTES], model_hash[65], optimizer_hash[65];
    EM_RETURN_IF_ERROR(em_path_join(path, folder, model_file, err));
    EM_RETURN_IF_ERROR(hash_file(path, model_hash, err));
    EM_RETURN_IF_ERROR(em_path_join(path, folder, optimizer_file, err));
    EM_RETURN_IF_ERROR(hash_file(path, optimizer_hash, err));
    EM_RETURN_IF_ERROR(em_path_join(path, folder, state_file, err));
    FILE *const out = fopen(path, "w");
    EM_RETURN_ERROR_IF(out == NULL, err, EM_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    (void)fprintf(out,
                  "{\n  \"format\": \"exactmap-checkpoint\",\n  \"schema_version\": 1,\n"
                  "  \"step\": %" PRIu64 ",\n  \"updates\": %" PRIu64 ",\n  \"samples\": %" PRIu64
                  ",\n  \"seed\": %" PRIu64 ",\n  \"plan_sha256\": \"%s\",\n"
                  "  \"data_sha256\": \"%s\",\n  \"model_sha256\": \"%s\",\n"
                  "  \"optimizer_sha256\": \"%s\"\n}\n",
                  state->step, state->updates, state->samples, state->seed, state->plan_sha256,
                  state->data_sha256, model_hash, optimizer_hash);
    return em_file_finish(out, path, err);
}

/* Write the kinds `first` to `last` to one file. */
static em_status_t write_kinds(const char *path, const em_rank_t *ranks, uint32_t num_ranks,
                               em_state_kind_t first, em_state_kind_t last,
                               const char *const metadata[][2], em_error_t *err)
{
    uint64_t num_tensors = 0, num_floats = 0;
    for (uint32_t r = 0; r < num_ranks; r++) {
        for (uint32_t b = 0; b < ranks[r].num_buckets; b++) {
            const em_rank_bucket_t *const bucket = &ranks[r].buckets[b];
            if (writes(&ranks[r], bucket)) {
                num_tensors += bucket->num_params;
                num_floats += bucket->sharded ? bucket->num_floats : 0;
            }
        }
    }
    const uint64_t num_kinds = (uint64_t)(last - first) + 1;
    em_tensor_out_t *const tensors = em_alloc_zeroed(num_kinds * num_tensors, sizeof *tensors);
    em_whole_t whole = {.floats = NULL};
    if (num_floats > 0) {
        whole.floats = em_alloc_zeroed(num_kinds * num_floats, sizeof *whole.floats);
    }
    em_status_t status = EM_OK;
    if (tensors == NULL || (num_floats > 0 && whole.floats == NULL)) {
        status = EM_FAIL(err, EM_ERR_MEMORY, "%s: no memory to write it", path);
    } else {
        uint32_t num = 0;
        for (int kind = (int)first; kind <= (int)last; kind++) {
            collect(ranks, num_ranks, (em_state_kind_t)kind, &whole, tensors, &num);
        }
        status = em_safetensors_write(path, tensors, drop_copies(tensors, num), metadata, 1, err);
    }
    em_free(tensors);
    em_free(whole.floats);
    return status;
}

static em_status_t write_tensors(const char *folder, const em_rank_t *ranks, uint32_t num_ranks,
                                 em_error_t *err)
{
    static const char *const model_metadata[][2] = {{"format", "pt"}};
    static const char *const optimizer_metadata[][2] = {{"format", "exactmap-adamw"}};
    char path[EM_PATH_BYTES];
    EM_RETURN_IF_ERROR(em_path_join(path, folder, model_file, err));
    EM_RETURN_IF_ERROR(
        write_kinds(path, ranks, num_ranks, EM_STATE_PARAM, EM_STATE_PARAM, model_metadata, err));
    EM_RETURN_IF_ERROR(em_path_join(path, folder, optimizer_file, err));
    return write_kinds(path, ranks, num_ranks, EM_STATE_M, EM_STATE_V, optimizer_metadata, err);
}

static em_status_t write_all(const char *folder, const em_rank_t *ranks, uint32_t num_ranks,
                             const em_checkpoint_state_t *state, em_error_t *err)
{
    char path[EM_PATH_BYTES];
    EM_RETURN_IF_ERROR(write_tensors(folder, ranks, num_ranks, err));
    EM_RETURN_IF_ERROR(em_path_join(path, folder, config_file, err));
    EM_RETURN_IF_ERROR(em_config_write(path, &ranks[0].stages[0].stage.model, err));
    return write_state(folder, state, err);
}

em_status_t em_checkpoint_check_folder(const char *folder, em_error_t *err)
{
    const char *const names[] = {model_file, optimizer_file, state_file, config_file};
    return em_folder_check(folder, names, sizeof names / sizeof *names, err);
}

em_status_t em_checkpoint_write(const char *folder, const em_rank_t *ranks, uint32_t num_ranks,
                                const em_checkpoint_state_t *state, em_error_t *err)
{
    char temporary[EM_PATH_BYTES];
    EM_RETURN_IF_ERROR(em_folder_begin(folder, temporary, err));
    em_status_t status = write_all(temporary, ranks, num_ranks, state, err);
    if (status == EM_OK) {
        status = em_folder_commit(temporary, folder, err);
    }
    if (status != EM_OK) {
        em_folder_discard(temporary);
    }
    return status;
}

/* ---- reading ----------------------------------------------------------------------------- */

const em_tensor_t *em_find_parameter(const em_safetensors_t *file, const char *name)
{
    static const char *const prefixes[] = {"transformer.", "model."};
    const em_tensor_t *found = em_safetensors_find(file, name);
    for (size_t i = 0; found == NULL && i < sizeof prefixes / sizeof *prefixes; i++) {
        char other[EM_TENSOR_NAME];
        const size_t num = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], num) == 0) {
            found = em_safetensors_find(file, name + num);
        } else {
            (void)snprintf(other, sizeof other, "%s%s", prefixes[i], name);
            found = em_safetensors_find(file, other);
        }
    }
    return found;
}

/* One state of one bucket into `base`, which holds all of it. */
static em_status_t read_bucket(const em_safetensors_t *file, const em_rank_bucket_t *bucket,
                               em_state_kind_t kind, float *base, em_error_t *err)
{
    for (uint32_t i = 0; i < bucket->num_params; i++) {
        const em_param_t *const param = &bucket->table[i];
        char name[EM_TENSOR_NAME];
        name_state(name, param, kind);
        const em_tensor_t *const tensor = em_find_parameter(file, name);
        EM_RETURN_ERROR_IF(tensor == NULL, err, EM_ERR_DATA,
                           "%s: tensor %s is missing, the plan's model needs it", file->name, name);
        EM_RETURN_IF_ERROR(
            em_tensor_read(file, tensor, param->ndim, param->shape, base + param->offset, err));
    }
    return EM_OK;
}

/* A shard is cut out of the whole. */
static em_status_t read_shard(const em_safetensors_t *file, const em_rank_bucket_t *bucket,
                              em_state_kind_t kind, em_error_t *err)
{
    float *const whole = em_alloc_zeroed(bucket->num_floats, sizeof *whole);
    EM_RETURN_ERROR_IF(whole == NULL, err, EM_ERR_MEMORY, "%s: no memory to read it", file->name);
    const em_status_t status = read_bucket(file, bucket, kind, whole, err);
    memcpy(em_bucket_state(bucket, kind), whole + bucket->begin,
           (size_t)(bucket->end - bucket->begin) * sizeof *whole);
    em_free(whole);
    return status;
}

/* Read one state of every rank. */
static em_status_t read_tensors(const em_safetensors_t *file, em_rank_t *ranks, uint32_t num_ranks,
                                em_state_kind_t kind, em_error_t *err)
{
    for (uint32_t r = 0; r < num_ranks; r++) {
        for (uint32_t b = 0; b < ranks[r].num_buckets; b++) {
            const em_rank_bucket_t *const bucket = &ranks[r].buckets[b];
            EM_RETURN_IF_ERROR(bucket->sharded ? read_shard(file, bucket, kind, err)
                                               : read_bucket(file, bucket, kind,
                                                             em_bucket_state(bucket, kind), err));
        }
    }
    return EM_OK;
}

em_status_t em_weights_read(const char *path, em_rank_t *ranks, uint32_t num_ranks, em_error_t *err)
{
    static const char suffix[] = ".safetensors";
    char inside[EM_PATH_BYTES];
    const size_t num = strlen(path);
    const bool is_file =
        num >= sizeof suffix - 1 && strcmp(path + num - (sizeof suffix - 1), suffix) == 0;
    EM_RETURN_IF_ERROR(em_path_join(inside, path, model_file, err));
    em_safetensors_t file;
    EM_RETURN_IF_ERROR(em_safetensors_open(&file, is_file ? path : inside, err));
    const em_status_t status = read_tensors(&file, ranks, num_ranks, EM_STATE_PARAM, err);
    em_safetensors_close(&file);
    return status;
}

static em_status_t read_state(const char *folder, em_checkpoint_state_t *state, char model_hash[65],
                              char optimizer_hash[65], em_error_t *err)
{
    char path[EM_PATH_BYTES], format[64];
    EM_RETURN_IF_ERROR(em_path_join(path, folder, state_file, err));
    em_mapped_t map;
    EM_RETURN_IF_ERROR(em_mapped_open(&map, path, err));
    em_json_t json;
    em_status_t status = em_json_parse(&json, (const char *)map.data, map.num_bytes, path, err);
    if (status == EM_OK) {
        const em_json_value_t *const root = &json.values[0];
        uint64_t version = 0;
        const bool known =
            em_json_string(&json, em_json_get(&json, root, "format"), format, sizeof format) &&
            strcmp(format, "exactmap-checkpoint") == 0 &&
            em_json_u64(&json, em_json_get(&json, root, "schema_version"), &version);
        const bool whole =
            em_json_u64(&json, em_json_get(&json, root, "step"), &state->step) &&
            em_json_u64(&json, em_json_get(&json, root, "updates"), &state->updates) &&
            em_json_u64(&json, em_json_get(&json, root, "samples"), &state->samples) &&
            em_json_u64(&json, em_json_get(&json, root, "seed"), &state->seed) &&
            em_json_string(&json, em_json_get(&json, root, "plan_sha256"), state->plan_sha256,
                           sizeof state->plan_sha256) &&
            em_json_string(&json, em_json_get(&json, root, "data_sha256"), state->data_sha256,
                           sizeof state->data_sha256) &&
            em_json_string(&json, em_json_get(&json, root, "model_sha256"), model_hash, 65) &&
            em_json_string(&json, em_json_get(&json, root, "optimizer_sha256"), optimizer_hash, 65);
        if (!known) {
            status = EM_FAIL(err, EM_ERR_DATA, "%s: not the state of a checkpoint", path);
        } else if (version != 1) {
            status =
                EM_FAIL(err, EM_ERR_VERSION,
                        "%s: checkpoint version %" PRIu64 ", this build reads 1", path, version);
        } else if (!whole) {
            status = EM_FAIL(err, EM_ERR_DATA,
                             "%s: expected step, updates, samples, seed and the sha256 of plan, "
                             "data, model and optimizer",
                             path);
        }
        em_json_free(&json);
    }
    em_mapped_close(&map);
    return status;
}

/* Open one of the two tensor files and hold it against the hash in the state. */
static em_status_t open_checked(em_safetensors_t *file, const char *folder, const char *name,
                                const char *hash, em_error_t *err)
{
    char path[EM_PATH_BYTES], found[65];
    EM_RETURN_IF_ERROR(em_path_join(path, folder, name, err));
    EM_RETURN_IF_ERROR(hash_file(path, found, err));
    EM_RETURN_ERROR_IF(strcmp(found, hash) != 0, err, EM_ERR_HASH,
                       "%s: the checkpoint is damaged: sha256 %.16s.., expected %.16s..", path,
                       found, hash);
    return em_safetensors_open(file, path, err);
}

em_status_t em_checkpoint_read(const char *folder, em_rank_t *ranks, uint32_t num_ranks,
                               em_checkpoint_state_t *state, em_error_t *err)
{
    char model_hash[65], optimizer_hash[65];
    memset(state, 0, sizeof *state);
    EM_RETURN_IF_ERROR(read_state(folder, state, model_hash, optimizer_hash, err));
    em_safetensors_t file;
    EM_RETURN_IF_ERROR(open_checked(&file, folder, model_file, model_hash, err));
    em_status_t status = read_tensors(&file, ranks, num_ranks, EM_STATE_PARAM, err);
    em_safetensors_close(&file);
    EM_RETURN_IF_ERROR(status);
    EM_RETURN_IF_ERROR(open_checked(&file, folder, optimizer_file, optimizer_hash, err));
    status = read_tensors(&file, ranks, num_ranks, EM_STATE_M, err);
    if (status == EM_OK) {
        status = read_tensors(&file, ranks, num_ranks, EM_STATE_V, err);
    }
    em_safetensors_close(&file);
    return status;
}
