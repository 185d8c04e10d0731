/* A strict JSON parser without recursion. See em_json.h. */
#include "io/em_json.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_arena.h"

typedef struct {
    const char *text;
    uint32_t at;
    uint32_t end;
    const char *name;
    em_error_t *err;
} em_cursor_t;

static em_status_t syntax(const em_cursor_t *cursor, const char *expected)
{
    return EM_FAIL(cursor->err, EM_ERR_SYNTAX, "%s: not JSON: byte %" PRIu32 ": expected %s",
                   cursor->name, cursor->at, expected);
}

static void skip_space(em_cursor_t *cursor)
{
    while (cursor->at < cursor->end && strchr(" \t\n\r", cursor->text[cursor->at]) != NULL &&
           cursor->text[cursor->at] != '\0') {
        cursor->at++;
    }
}

static bool take(em_cursor_t *cursor, char c)
{
    if (cursor->at < cursor->end && cursor->text[cursor->at] == c) {
        cursor->at++;
        return true;
    }
    return false;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Bytes of the UTF-8 character at `at` (not ASCII), 0 if it is none (RFC 3629). */
static uint32_t utf8_bytes(const em_cursor_t *cursor)
{
    const unsigned char *const s = (const unsigned char *)cursor->text + cursor->at;
    const uint32_t left = cursor->end - cursor->at;
    uint32_t num = 0;
    uint32_t code = 0, least = 0;
    if (s[0] >= 0xC2 && s[0] < 0xE0) {
        num = 2, code = s[0] & 0x1Fu, least = 0x80;
    } else if (s[0] >= 0xE0 && s[0] < 0xF0) {
        num = 3, code = s[0] & 0x0Fu, least = 0x800;
    } else if (s[0] >= 0xF0 && s[0] < 0xF5) {
        num = 4, code = s[0] & 0x07u, least = 0x10000;
    }
    if (num == 0 || num > left) {
        return 0;
    }
    for (uint32_t i = 1; i < num; i++) {
        if ((s[i] & 0xC0u) != 0x80u) {
            return 0;
        }
        code = code << 6 | (s[i] & 0x3Fu);
    }
    return code < least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000) ? 0 : num;
}

/* A string from its opening quote on; its inside is [*at, *at + *num_bytes). */
static em_status_t parse_string(em_cursor_t *cursor, uint32_t *at, uint32_t *num_bytes)
{
    if (!take(cursor, '"')) {
        return syntax(cursor, "a string");
    }
    *at = cursor->at;
    while (cursor->at < cursor->end && cursor->text[cursor->at] != '"') {
        const unsigned char c = (unsigned char)cursor->text[cursor->at];
        if (c < 0x20) {
            return syntax(cursor, "no control character in a string");
        }
        if (c == '\\') {
            cursor->at++;
            if (cursor->at >= cursor->end) {
                break;
            }
            if (cursor->text[cursor->at] == 'u') {
                for (int i = 0; i < 4; i++) {
                    cursor->at++;
                    if (cursor->at >= cursor->end || !is_hex(cursor->text[cursor->at])) {
                        return syntax(cursor, "four hex digits");
                    }
                }
            } else if (cursor->text[cursor->at] == '\0' ||
                       strchr("\"\\/bfnrt", cursor->text[cursor->at]) == NULL) {
                return syntax(cursor, "an escape");
            }
            cursor->at++;
        } else if (c < 0x80) {
            cursor->at++;
        } else {
            const uint32_t num = utf8_bytes(cursor);
            if (num == 0) {
                return syntax(cursor, "UTF-8");
            }
            cursor->at += num;
        }
    }
    *num_bytes = cursor->at - *at;
    return take(cursor, '"') ? EM_OK : syntax(cursor, "the end of the string");
}

static bool parse_digits(em_cursor_t *cursor)
{
    const uint32_t start = cursor->at;
    while (cursor->at < cursor->end && is_digit(cursor->text[cursor->at])) {
        cursor->at++;
    }
    return cursor->at > start;
}

static em_status_t parse_number(em_cursor_t *cursor)
{
    (void)take(cursor, '-');
    if (!take(cursor, '0') && !parse_digits(cursor)) {
        return syntax(cursor, "a value");
    }
    if (take(cursor, '.') && !parse_digits(cursor)) {
        return syntax(cursor, "a digit");
    }
    if (take(cursor, 'e') || take(cursor, 'E')) {
        if (!take(cursor, '-')) {
            (void)take(cursor, '+');
        }
        if (!parse_digits(cursor)) {
            return syntax(cursor, "a digit");
        }
    }
    return EM_OK;
}

static bool take_word(em_cursor_t *cursor, const char *word)
{
    const uint32_t num = (uint32_t)strlen(word);
    if (cursor->end - cursor->at < num || memcmp(cursor->text + cursor->at, word, num) != 0) {
        return false;
    }
    cursor->at += num;
    return true;
}

/* A value that holds no others. */
static em_status_t parse_scalar(em_cursor_t *cursor, em_json_value_t *value)
{
    value->at = cursor->at;
    if (cursor->at < cursor->end && cursor->text[cursor->at] == '"') {
        value->kind = EM_JSON_STRING;
        return parse_string(cursor, &value->at, &value->num_bytes);
    }
    if (take_word(cursor, "true") || take_word(cursor, "false")) {
        value->kind = EM_JSON_BOOL;
        value->value = cursor->text[value->at] == 't';
    } else if (take_word(cursor, "null")) {
        value->kind = EM_JSON_NULL;
    } else {
        value->kind = EM_JSON_NUMBER;
        EM_RETURN_IF_ERROR(parse_number(cursor));
    }
    value->num_bytes = cursor->at - value->at;
    return EM_OK;
}

/* More values than this text can hold: one, and one after each comma, bracket or brace. */
static uint64_t most_values(const char *text, uint64_t num_bytes)
{
    uint64_t num = 1;
    for (uint64_t i = 0; i < num_bytes; i++) {
        num += text[i] == ',' || text[i] == '[' || text[i] == '{';
    }
    return num;
}

static em_status_t parse_values(em_json_t *json, em_cursor_t *cursor)
{
    uint32_t open[EM_JSON_DEPTH]; /* the arrays and objects that we are in */
    uint32_t depth = 0;
    for (;;) {
        em_json_value_t *const value = &json->values[json->num_values];
        skip_space(cursor);
        if (depth > 0) {
            em_json_value_t *const parent = &json->values[open[depth - 1]];
            if (parent->kind == EM_JSON_OBJECT) {
                EM_RETURN_IF_ERROR(parse_string(cursor, &value->key_at, &value->key_bytes));
                skip_space(cursor);
                if (!take(cursor, ':')) {
                    return syntax(cursor, "':'");
                }
                skip_space(cursor);
            }
            parent->num_children++;
        }
        const uint32_t index = json->num_values++;
        if (take(cursor, '{') || take(cursor, '[')) {
            value->kind = cursor->text[cursor->at - 1] == '{' ? EM_JSON_OBJECT : EM_JSON_ARRAY;
            value->at = cursor->at - 1;
            EM_RETURN_ERROR_IF(depth == EM_JSON_DEPTH, cursor->err, EM_ERR_LIMIT,
                               "%s: not readable: nested deeper than %d", cursor->name,
                               EM_JSON_DEPTH);
            open[depth++] = index;
            skip_space(cursor);
            if (cursor->at >= cursor->end ||
                cursor->text[cursor->at] != (value->kind == EM_JSON_OBJECT ? '}' : ']')) {
                continue; /* to its first child */
            }
        } else {
            EM_RETURN_IF_ERROR(parse_scalar(cursor, value));
            value->next = json->num_values;
        }
        for (;;) { /* behind a value: close what ends here, or go to the next sibling */
            skip_space(cursor);
            if (depth == 0) {
                return cursor->at == cursor->end ? EM_OK : syntax(cursor, "the end");
            }
            em_json_value_t *const parent = &json->values[open[depth - 1]];
            if (take(cursor, parent->kind == EM_JSON_OBJECT ? '}' : ']')) {
                parent->next = json->num_values;
                parent->num_bytes = cursor->at - parent->at;
                depth--;
            } else if (parent->num_children > 0 && take(cursor, ',')) {
                break;
            } else {
                return syntax(cursor, "',' or a closing bracket");
            }
        }
    }
}

em_status_t em_json_parse(em_json_t *json, const char *text, uint64_t num_bytes, const char *name,
                          em_error_t *err)
{
    json->text = text;
    json->values = NULL;
    json->num_values = 0;
    EM_RETURN_ERROR_IF(num_bytes > UINT32_MAX - 8, err, EM_ERR_LIMIT,
                       "%s: %" PRIu64 " bytes of JSON are too many", name, num_bytes);
    const uint64_t most = most_values(text, num_bytes);
    EM_RETURN_ERROR_IF(most > EM_JSON_MAX_VALUES, err, EM_ERR_LIMIT, "%s: more than %d JSON values",
                       name, EM_JSON_MAX_VALUES);
    json->values = em_alloc_zeroed(most, sizeof *json->values);
    EM_RETURN_ERROR_IF(json->values == NULL, err, EM_ERR_MEMORY,
                       "%s: no memory for %" PRIu64 " JSON values", name, most);
    em_cursor_t cursor = {text, 0, (uint32_t)num_bytes, name, err};
    const em_status_t status = parse_values(json, &cursor);
    if (status != EM_OK) {
        em_json_free(json);
    }
    return status;
}

void em_json_free(em_json_t *json)
{
    em_free(json->values);
    json->values = NULL;
    json->num_values = 0;
}

/* ---- asking ------------------------------------------------------------------------------ */

const em_json_value_t *em_json_first(const em_json_t *json, const em_json_value_t *parent)
{
    (void)json;
    return parent + 1;
}

const em_json_value_t *em_json_next(const em_json_t *json, const em_json_value_t *value)
{
    return json->values + value->next;
}

static uint32_t hex4(const char *text)
{
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
        const char c = text[i];
        const uint32_t digit = is_digit(c) ? (uint32_t)(c - '0') : ((uint32_t)c | 0x20u) - 'a' + 10;
        code = code << 4 | digit;
    }
    return code;
}

static size_t put_utf8(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

/* The escape behind a backslash at s; returns the bytes that it takes, its text in out. A lone
 * surrogate, and the zero character (which would end a C string), become U+FFFD. */
static size_t unescape(const char *s, size_t left, char out[4], size_t *num)
{
    static const char from[] = "bfnrt";
    static const char to[] = "\b\f\n\r\t";
    const char *const found = strchr(from, *s);
    if (*s != 'u') {
        out[0] = found != NULL ? to[found - from] : *s;
        *num = 1;
        return 1;
    }
    uint32_t code = hex4(s + 1);
    size_t taken = 5;
    if (code >= 0xD800 && code < 0xDC00 && left >= 11 && s[5] == '\\' && s[6] == 'u') {
        const uint32_t low = hex4(s + 7);
        if (low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            taken = 11;
        }
    }
    if (code == 0 || (code >= 0xD800 && code < 0xE000)) {
        code = 0xFFFD;
    }
    *num = put_utf8(code, out);
    return taken;
}

static bool copy_text(const char *text, size_t num_bytes, char *out, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < num_bytes;) {
        char piece[4] = {text[i]};
        size_t num = 1;
        i += text[i] == '\\' ? 1 + unescape(text + i + 1, num_bytes - i - 1, piece, &num) : 1;
        if (used + num >= size) {
            return false;
        }
        memcpy(out + used, piece, num);
        used += num;
    }
    out[used] = '\0';
    return true;
}

bool em_json_string(const em_json_t *json, const em_json_value_t *value, char *out, size_t size)
{
    return value != NULL && value->kind == EM_JSON_STRING &&
           copy_text(json->text + value->at, value->num_bytes, out, size);
}

bool em_json_key(const em_json_t *json, const em_json_value_t *value, char *out, size_t size)
{
    return copy_text(json->text + value->key_at, value->key_bytes, out, size);
}

const em_json_value_t *em_json_get(const em_json_t *json, const em_json_value_t *object,
                                   const char *key)
{
    if (object == NULL || object->kind != EM_JSON_OBJECT) {
        return NULL;
    }
    const em_json_value_t *child = em_json_first(json, object);
    for (uint32_t i = 0; i < object->num_children; i++) {
        char name[128];
        if (em_json_key(json, child, name, sizeof name) && strcmp(name, key) == 0) {
            return child;
        }
        child = em_json_next(json, child);
    }
    return NULL;
}

bool em_json_u64(const em_json_t *json, const em_json_value_t *value, uint64_t *out)
{
    if (value == NULL || value->kind != EM_JSON_NUMBER || value->num_bytes > 19) {
        return false;
    }
    uint64_t number = 0;
    for (uint32_t i = 0; i < value->num_bytes; i++) {
        const char c = json->text[value->at + i];
        if (!is_digit(c)) {
            return false;
        }
        number = number * 10 + (uint64_t)(c - '0');
    }
    if (number > INT64_MAX) {
        return false;
    }
    *out = number;
    return true;
}

bool em_json_double(const em_json_t *json, const em_json_value_t *value, double *out)
{
    char text[64];
    if (value == NULL || value->kind != EM_JSON_NUMBER || value->num_bytes >= sizeof text) {
        return false;
    }
    memcpy(text, json->text + value->at, value->num_bytes);
    text[value->num_bytes] = '\0';
    *out = strtod(text, NULL);
    return true;
}
