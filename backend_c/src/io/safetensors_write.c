/* Writing safetensors. See em_safetensors.h. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_checked.h"
#include "io/em_safetensors.h"

/* Bytes of one entry of the header, at most: name, two dims, two offsets, and the words. */
enum { EM_ENTRY_BYTES = EM_TENSOR_NAME + 160 };

static em_status_t make_header(const em_tensor_out_t *tensors, uint32_t num_tensors,
                               const char *const (*metadata)[2], uint32_t num_metadata, char *text,
                               size_t size, size_t *used, em_error_t *err)
{
    size_t at = (size_t)snprintf(text, size, "{\"__metadata__\":{");
    for (uint32_t i = 0; i < num_metadata; i++) {
        at += (size_t)snprintf(text + at, size - at, "%s\"%s\":\"%s\"", i == 0 ? "" : ",",
                               metadata[i][0], metadata[i][1]);
    }
    at += (size_t)snprintf(text + at, size - at, "}");
    uint64_t begin = 0;
    for (uint32_t i = 0; i < num_tensors; i++) {
        const em_tensor_out_t *const tensor = &tensors[i];
        uint64_t bytes = 0, end = 0;
        EM_RETURN_ERROR_IF(!em_mul_u64(tensor->num_elements, sizeof(float), &bytes) ||
                               !em_add_u64(begin, bytes, &end),
                           err, EM_ERR_OVERFLOW, "tensor %s: its bytes overflow", tensor->name);
        at += (size_t)snprintf(text + at, size - at, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[",
                               tensor->name);
        for (uint32_t d = 0; d < tensor->num_dims; d++) {
            at += (size_t)snprintf(text + at, size - at, "%s%" PRIu64, d == 0 ? "" : ",",
                                   tensor->shape[d]);
        }
        at += (size_t)snprintf(text + at, size - at,
                               "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, end);
        begin = end;
    }
    at += (size_t)snprintf(text + at, size - at, "}");
    while (at % 8 != 0) { /* the data starts aligned */
        text[at++] = ' ';
    }
    *used = at;
    return EM_OK;
}

em_status_t em_safetensors_write(const char *path, const em_tensor_out_t *tensors,
                                 uint32_t num_tensors, const char *const (*metadata)[2],
                                 uint32_t num_metadata, em_error_t *err)
{
    size_t size = 64 + (size_t)num_tensors * EM_ENTRY_BYTES;
    for (uint32_t i = 0; i < num_metadata; i++) {
        size += strlen(metadata[i][0]) + strlen(metadata[i][1]) + 8;
    }
    char *const text = em_alloc(size);
    EM_RETURN_ERROR_IF(text == NULL, err, EM_ERR_MEMORY, "%s: no memory for its header", path);
    size_t used = 0;
    em_status_t status =
        make_header(tensors, num_tensors, metadata, num_metadata, text, size, &used, err);
    FILE *const stream = status == EM_OK ? fopen(path, "wb") : NULL;
    if (status == EM_OK && stream == NULL) {
        status = EM_FAIL(err, EM_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    }
    if (status == EM_OK) {
        uint8_t length[8];
        for (int i = 0; i < 8; i++) {
            length[i] = (uint8_t)((uint64_t)used >> (8 * i));
        }
        /* A short write is seen by em_file_finish. */
        (void)fwrite(length, 1, sizeof length, stream);
        (void)fwrite(text, 1, used, stream);
        for (uint32_t i = 0; i < num_tensors; i++) {
            (void)fwrite(tensors[i].data, sizeof(float), (size_t)tensors[i].num_elements, stream);
        }
        status = em_file_finish(stream, path, err);
    }
    em_free(text);
    return status;
}
