/*
 * Safetensors files: named tensors behind a JSON header (github.com/huggingface/safetensors).
 *
 *     8 bytes    N, the size of the header, little-endian
 *     N bytes    {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..,
 *                 "__metadata__": {"key": "text", ..}}, filled up with spaces
 *     the rest   the tensors' bytes; offsets count from here and leave no hole
 *
 * The reader trusts nothing: header at most 100 MB, names once each, known dtypes, bytes that fit
 * shape and dtype, ranges inside the file that neither overlap nor leave holes.
 */
#ifndef EM_SAFETENSORS_H
#define EM_SAFETENSORS_H

#include <stdbool.h>
#include <stdint.h>

#include "exactmap/error.h"
#include "io/em_file.h"
#include "io/em_json.h"

enum { EM_TENSOR_NAME = 256, EM_TENSOR_DIMS = 8, EM_TENSOR_HEADER_LIMIT = 100 * 1000 * 1000 };

typedef struct {
    char name[EM_TENSOR_NAME];
    char dtype[8]; /* as written: "F32", "BF16", .. */
    uint32_t num_dims;
    uint64_t shape[EM_TENSOR_DIMS];
    uint64_t num_elements;
    uint64_t begin; /* from the start of the data */
    uint64_t end;
    const uint8_t *data; /* may be unaligned: copy, do not cast */
} em_tensor_t;

typedef struct {
    em_mapped_t map;
    em_json_t header;
    uint32_t num_tensors;
    em_tensor_t *tensors; /* by name, ascending */
    char name[EM_PATH_BYTES];
} em_safetensors_t;

em_status_t em_safetensors_open(em_safetensors_t *file, const char *path, em_error_t *err);
/* As open, from `num_bytes` in memory (which must outlive `file`): for tests and fuzzing. */
em_status_t em_safetensors_parse(em_safetensors_t *file, const uint8_t *bytes, uint64_t num_bytes,
                                 const char *name, em_error_t *err);
void em_safetensors_close(em_safetensors_t *file);

/* The tensor of that name, or NULL. */
const em_tensor_t *em_safetensors_find(const em_safetensors_t *file, const char *name);

/* Text of a metadata key; false if it is not there or longer than `size`. */
bool em_safetensors_metadata(const em_safetensors_t *file, const char *key, char *out, size_t size);

/* Copy the elements of a tensor of `num_dims` dims `shape` as float32; F32, BF16 and F16 only.
 * Any other shape or dtype is EM_ERR_DATA. */
em_status_t em_tensor_read(const em_safetensors_t *file, const em_tensor_t *tensor,
                           uint32_t num_dims, const uint64_t *shape, float *out, em_error_t *err);

/* ---- writing ----------------------------------------------------------------------------- */

/* A float32 tensor to be written. */
typedef struct {
    char name[EM_TENSOR_NAME];
    uint32_t num_dims;
    uint64_t shape[2];
    uint64_t num_elements;
    const float *data;
} em_tensor_out_t;

/* Write a whole file (not atomic: inside a folder that is). Tensors stand in the order given;
 * `metadata` holds num_metadata pairs of key and text of printable ASCII without '"' and '\'. */
em_status_t em_safetensors_write(const char *path, const em_tensor_out_t *tensors,
                                 uint32_t num_tensors, const char *const (*metadata)[2],
                                 uint32_t num_metadata, em_error_t *err);

#endif
