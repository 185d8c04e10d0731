/* Reading safetensors. See em_safetensors.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_checked.h"
#include "io/em_safetensors.h"

static const struct {
    const char *name;
    uint64_t bytes;
} dtypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
              {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
              {"F32", 4},  {"I64", 8}, {"U64", 8}, {"F64", 8},     {"C64", 8}};

static const char metadata_key[] = "__metadata__";

static uint64_t dtype_bytes(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            return dtypes[i].bytes;
        }
    }
    return 0;
}

static em_status_t read_shape(const em_safetensors_t *file, const em_json_value_t *shape,
                              em_tensor_t *tensor, em_error_t *err)
{
    EM_RETURN_ERROR_IF(shape == NULL || shape->kind != EM_JSON_ARRAY ||
                           shape->num_children > EM_TENSOR_DIMS,
                       err, EM_ERR_FIELD, "%s: tensor %s: shape: expected a list of at most %d",
                       file->name, tensor->name, EM_TENSOR_DIMS);
    tensor->num_dims = shape->num_children;
    tensor->num_elements = 1;
    const em_json_value_t *dim = em_json_first(&file->header, shape);
    for (uint32_t i = 0; i < tensor->num_dims; i++) {
        EM_RETURN_ERROR_IF(!em_json_u64(&file->header, dim, &tensor->shape[i]), err, EM_ERR_FIELD,
                           "%s: tensor %s: shape: expected whole numbers", file->name,
                           tensor->name);
        EM_RETURN_ERROR_IF(
            !em_mul_u64(tensor->num_elements, tensor->shape[i], &tensor->num_elements), err,
            EM_ERR_OVERFLOW, "%s: tensor %s: its shape overflows", file->name, tensor->name);
        dim = em_json_next(&file->header, dim);
    }
    return EM_OK;
}

static em_status_t read_tensor(const em_safetensors_t *file, const em_json_value_t *entry,
                               uint64_t data_bytes, em_tensor_t *tensor, em_error_t *err)
{
    const em_json_t *const header = &file->header;
    EM_RETURN_ERROR_IF(!em_json_key(header, entry, tensor->name, sizeof tensor->name), err,
                       EM_ERR_LIMIT, "%s: a tensor's name is longer than %d bytes", file->name,
                       EM_TENSOR_NAME - 1);
    EM_RETURN_ERROR_IF(entry->kind != EM_JSON_OBJECT || entry->num_children != 3, err, EM_ERR_FIELD,
                       "%s: tensor %s: expected dtype, shape and data_offsets", file->name,
                       tensor->name);
    const bool known = em_json_string(header, em_json_get(header, entry, "dtype"), tensor->dtype,
                                      sizeof tensor->dtype);
    const uint64_t element_bytes = known ? dtype_bytes(tensor->dtype) : 0;
    EM_RETURN_ERROR_IF(element_bytes == 0, err, EM_ERR_FIELD, "%s: tensor %s: unknown dtype",
                       file->name, tensor->name);
    EM_RETURN_IF_ERROR(read_shape(file, em_json_get(header, entry, "shape"), tensor, err));
    const em_json_value_t *const offsets = em_json_get(header, entry, "data_offsets");
    EM_RETURN_ERROR_IF(
        offsets == NULL || offsets->kind != EM_JSON_ARRAY || offsets->num_children != 2 ||
            !em_json_u64(header, em_json_first(header, offsets), &tensor->begin) ||
            !em_json_u64(header, em_json_next(header, em_json_first(header, offsets)),
                         &tensor->end),
        err, EM_ERR_FIELD, "%s: tensor %s: data_offsets: expected two whole numbers", file->name,
        tensor->name);
    EM_RETURN_ERROR_IF(tensor->begin > tensor->end || tensor->end > data_bytes, err, EM_ERR_FIELD,
                       "%s: tensor %s: data_offsets: got [%" PRIu64 ", %" PRIu64
                       "], the file holds %" PRIu64 " bytes of data",
                       file->name, tensor->name, tensor->begin, tensor->end, data_bytes);
    uint64_t bytes = 0;
    EM_RETURN_ERROR_IF(!em_mul_u64(tensor->num_elements, element_bytes, &bytes) ||
                           bytes != tensor->end - tensor->begin,
                       err, EM_ERR_FIELD,
                       "%s: tensor %s: %" PRIu64 " bytes do not fit its shape and dtype %s",
                       file->name, tensor->name, tensor->end - tensor->begin, tensor->dtype);
    return EM_OK;
}

static int by_offset(const void *left, const void *right)
{
    const em_tensor_t *const a = left;
    const em_tensor_t *const b = right;
    if (a->begin != b->begin) {
        return a->begin < b->begin ? -1 : 1;
    }
    return a->end < b->end ? -1 : a->end > b->end;
}

static int by_name(const void *left, const void *right)
{
    return strcmp(((const em_tensor_t *)left)->name, ((const em_tensor_t *)right)->name);
}

/* Ranges follow each other without holes to the end of the file; names stand once. */
static em_status_t check_together(em_safetensors_t *file, uint64_t data_bytes, em_error_t *err)
{
    uint64_t at = 0;
    if (file->num_tensors > 0) {
        qsort(file->tensors, file->num_tensors, sizeof *file->tensors, by_offset);
    }
    for (uint32_t i = 0; i < file->num_tensors; i++) {
        EM_RETURN_ERROR_IF(file->tensors[i].begin != at, err, EM_ERR_FIELD,
                           "%s: tensor %s: starts at byte %" PRIu64 ", expected %" PRIu64
                           " (tensors overlap or leave a hole)",
                           file->name, file->tensors[i].name, file->tensors[i].begin, at);
        at = file->tensors[i].end;
    }
    EM_RETURN_ERROR_IF(at != data_bytes, err, EM_ERR_FIELD,
                       "%s: %" PRIu64 " bytes of data, the tensors take %" PRIu64, file->name,
                       data_bytes, at);
    if (file->num_tensors > 0) {
        qsort(file->tensors, file->num_tensors, sizeof *file->tensors, by_name);
    }
    for (uint32_t i = 1; i < file->num_tensors; i++) {
        EM_RETURN_ERROR_IF(strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0, err,
                           EM_ERR_FIELD, "%s: tensor %s stands twice", file->name,
                           file->tensors[i].name);
    }
    return EM_OK;
}

static em_status_t check_metadata(const em_safetensors_t *file, const em_json_value_t *metadata,
                                  em_error_t *err)
{
    EM_RETURN_ERROR_IF(metadata->kind != EM_JSON_OBJECT, err, EM_ERR_FIELD,
                       "%s: __metadata__: expected an object", file->name);
    const em_json_value_t *entry = em_json_first(&file->header, metadata);
    for (uint32_t i = 0; i < metadata->num_children; i++) {
        EM_RETURN_ERROR_IF(entry->kind != EM_JSON_STRING, err, EM_ERR_FIELD,
                           "%s: __metadata__: expected texts", file->name);
        entry = em_json_next(&file->header, entry);
    }
    return EM_OK;
}

static em_status_t read_header(em_safetensors_t *file, const uint8_t *bytes, uint64_t num_bytes,
                               em_error_t *err)
{
    EM_RETURN_ERROR_IF(num_bytes < 8, err, EM_ERR_FIELD,
                       "%s: not a safetensors file: %" PRIu64 " bytes", file->name, num_bytes);
    uint64_t header_bytes = 0;
    for (int i = 7; i >= 0; i--) {
        header_bytes = header_bytes << 8 | bytes[i];
    }
    EM_RETURN_ERROR_IF(
        header_bytes > EM_TENSOR_HEADER_LIMIT || header_bytes > num_bytes - 8, err, EM_ERR_LIMIT,
        "%s: header of %" PRIu64 " bytes in a file of %" PRIu64 " (at most %d bytes are read)",
        file->name, header_bytes, num_bytes, EM_TENSOR_HEADER_LIMIT);
    EM_RETURN_ERROR_IF(header_bytes == 0 || bytes[8] != '{', err, EM_ERR_SYNTAX,
                       "%s: the header does not start with '{'", file->name);
    EM_RETURN_IF_ERROR(
        em_json_parse(&file->header, (const char *)bytes + 8, header_bytes, file->name, err));
    const em_json_value_t *const root = &file->header.values[0];
    const uint64_t data_bytes = num_bytes - 8 - header_bytes;
    if (root->num_children > 0) {
        file->tensors = em_alloc_zeroed(root->num_children, sizeof *file->tensors);
        EM_RETURN_ERROR_IF(file->tensors == NULL, err, EM_ERR_MEMORY,
                           "%s: no memory for %u tensors", file->name, root->num_children);
    }
    bool metadata_seen = false;
    const em_json_value_t *entry = em_json_first(&file->header, root);
    for (uint32_t i = 0; i < root->num_children; i++) {
        char key[sizeof metadata_key + 1];
        if (em_json_key(&file->header, entry, key, sizeof key) && strcmp(key, metadata_key) == 0) {
            EM_RETURN_ERROR_IF(metadata_seen, err, EM_ERR_FIELD, "%s: __metadata__ stands twice",
                               file->name);
            metadata_seen = true;
            EM_RETURN_IF_ERROR(check_metadata(file, entry, err));
        } else {
            em_tensor_t *const tensor = &file->tensors[file->num_tensors++];
            EM_RETURN_IF_ERROR(read_tensor(file, entry, data_bytes, tensor, err));
            tensor->data = bytes + 8 + header_bytes + tensor->begin;
        }
        entry = em_json_next(&file->header, entry);
    }
    return check_together(file, data_bytes, err);
}

em_status_t em_safetensors_parse(em_safetensors_t *file, const uint8_t *bytes, uint64_t num_bytes,
                                 const char *name, em_error_t *err)
{
    memset(file, 0, sizeof *file);
    (void)snprintf(file->name, sizeof file->name, "%s", name);
    const em_status_t status = read_header(file, bytes, num_bytes, err);
    if (status != EM_OK) {
        em_safetensors_close(file);
    }
    return status;
}

em_status_t em_safetensors_open(em_safetensors_t *file, const char *path, em_error_t *err)
{
    em_mapped_t map;
    memset(file, 0, sizeof *file);
    EM_RETURN_IF_ERROR(em_mapped_open(&map, path, err));
    const em_status_t status = em_safetensors_parse(file, map.data, map.num_bytes, path, err);
    if (status != EM_OK) {
        em_mapped_close(&map);
        return status;
    }
    file->map = map;
    return EM_OK;
}

void em_safetensors_close(em_safetensors_t *file)
{
    em_json_free(&file->header);
    em_free(file->tensors);
    em_mapped_close(&file->map);
    file->tensors = NULL;
    file->num_tensors = 0;
}

const em_tensor_t *em_safetensors_find(const em_safetensors_t *file, const char *name)
{
    uint32_t low = 0, high = file->num_tensors;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const int order = strcmp(file->tensors[middle].name, name);
        if (order == 0) {
            return &file->tensors[middle];
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

bool em_safetensors_metadata(const em_safetensors_t *file, const char *key, char *out, size_t size)
{
    const em_json_value_t *const metadata =
        em_json_get(&file->header, &file->header.values[0], metadata_key);
    return em_json_string(&file->header, em_json_get(&file->header, metadata, key), out, size);
}

/* ---- values -------------------------------------------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* IEEE binary16, exactly. */
static float from_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half >> 15) << 31;
    const uint32_t exponent = half >> 10 & 0x1Fu;
    const uint32_t fraction = half & 0x3FFu;
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24 */
        const float magnitude = (float)fraction * 0x1.0p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
    return from_bits(sign | wide << 23 | fraction << 13);
}

em_status_t em_tensor_read(const em_safetensors_t *file, const em_tensor_t *tensor,
                           uint32_t num_dims, const uint64_t *shape, float *out, em_error_t *err)
{
    char got[128] = "", wanted[128] = "";
    size_t got_at = 0, wanted_at = 0;
    for (uint32_t i = 0; i < tensor->num_dims && got_at < 100; i++) {
        got_at += (size_t)snprintf(got + got_at, sizeof got - got_at, "%s%" PRIu64,
                                   i == 0 ? "" : ", ", tensor->shape[i]);
    }
    for (uint32_t i = 0; i < num_dims && wanted_at < 100; i++) {
        wanted_at += (size_t)snprintf(wanted + wanted_at, sizeof wanted - wanted_at, "%s%" PRIu64,
                                      i == 0 ? "" : ", ", shape[i]);
    }
    EM_RETURN_ERROR_IF(tensor->num_dims != num_dims ||
                           memcmp(tensor->shape, shape, num_dims * sizeof *shape) != 0,
                       err, EM_ERR_DATA, "%s: tensor %s: got shape [%s], expected [%s]", file->name,
                       tensor->name, got, wanted);
    if (strcmp(tensor->dtype, "F32") == 0) {
        memcpy(out, tensor->data, (size_t)tensor->num_elements * sizeof *out);
        return EM_OK;
    }
    const bool bf16 = strcmp(tensor->dtype, "BF16") == 0;
    EM_RETURN_ERROR_IF(!bf16 && strcmp(tensor->dtype, "F16") != 0, err, EM_ERR_DATA,
                       "%s: tensor %s: got dtype %s, expected F32, BF16 or F16", file->name,
                       tensor->name, tensor->dtype);
    for (uint64_t i = 0; i < tensor->num_elements; i++) {
        const uint16_t bits =
            (uint16_t)(tensor->data[2 * i] | (uint16_t)(tensor->data[2 * i + 1] << 8));
        out[i] = bf16 ? from_bits((uint32_t)bits << 16) : from_f16(bits);
    }
    return EM_OK;
}
