/*
 * Strict reading of small JSON documents (RFC 8259): headers and state files, made by anyone.
 *
 * Values are records in one array, in the order of the text; strings stay where they are in the
 * text until asked for. Limits on bytes, values and depth come before memory.
 */
#ifndef EM_JSON_H
#define EM_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exactmap/error.h"

enum { EM_JSON_DEPTH = 32, EM_JSON_MAX_VALUES = 1 << 22 };

typedef enum {
    EM_JSON_NULL = 0,
    EM_JSON_BOOL,
    EM_JSON_NUMBER,
    EM_JSON_STRING,
    EM_JSON_ARRAY,
    EM_JSON_OBJECT
} em_json_kind_t;

typedef struct {
    uint8_t kind;    /* em_json_kind_t */
    bool value;      /* of a BOOL */
    uint32_t key_at; /* text of the key, inside its quotes, if the parent is an object */
    uint32_t key_bytes;
    uint32_t at; /* text of the value; of a string, inside its quotes */
    uint32_t num_bytes;
    uint32_t num_children;
    uint32_t next; /* index behind this value and all that is in it */
} em_json_value_t;

typedef struct {
    const char *text;
    em_json_value_t *values; /* values[0] is the document; children follow their parent */
    uint32_t num_values;
} em_json_t;

/* Parse `num_bytes` of text, which must outlive `json`. `name` is the file, for messages. */
em_status_t em_json_parse(em_json_t *json, const char *text, uint64_t num_bytes, const char *name,
                          em_error_t *err);
void em_json_free(em_json_t *json);

/* Member `key` of an object value; NULL if it has none (or `object` is NULL or no object). */
const em_json_value_t *em_json_get(const em_json_t *json, const em_json_value_t *object,
                                   const char *key);

/* First child and next sibling: for (c = first(v), i = 0; i < v->num_children; c = next(c)). */
const em_json_value_t *em_json_first(const em_json_t *json, const em_json_value_t *parent);
const em_json_value_t *em_json_next(const em_json_t *json, const em_json_value_t *value);

/* A number that is a plain decimal integer in [0, 2^63). */
bool em_json_u64(const em_json_t *json, const em_json_value_t *value, uint64_t *out);
bool em_json_double(const em_json_t *json, const em_json_value_t *value, double *out);
/* A string's text with escapes resolved, zero-terminated; false if no string, or too long. */
bool em_json_string(const em_json_t *json, const em_json_value_t *value, char *out, size_t size);
bool em_json_key(const em_json_t *json, const em_json_value_t *value, char *out, size_t size);

#endif
