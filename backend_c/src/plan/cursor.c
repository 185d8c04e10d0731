/* Tokens of a line. See em_cursor.h; the grammar is in docs/reference/plan-format.md, section 6. */
#include "plan/em_cursor.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "exactmap/plan.h"
#include "plan/em_reader.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static char peek(const em_cursor_t *cursor)
{
    return cursor->next < cursor->end ? *cursor->next : '\0';
}

bool em_take(em_cursor_t *cursor, const char *text)
{
    const size_t num_bytes = strlen(text);
    if ((size_t)(cursor->end - cursor->next) < num_bytes ||
        memcmp(cursor->next, text, num_bytes) != 0) {
        return false;
    }
    cursor->next += num_bytes;
    return true;
}

bool em_take_end(const em_cursor_t *cursor)
{
    return cursor->next == cursor->end;
}

bool em_take_int(em_cursor_t *cursor, uint64_t min, uint64_t max, uint64_t *value)
{
    if (!is_digit(peek(cursor))) {
        return false;
    }
    uint64_t number = 0;
    bool wrapped = false;
    if (peek(cursor) == '0') {
        cursor->next++;
    } else {
        while (is_digit(peek(cursor))) {
            const uint64_t digit = (uint64_t)(*cursor->next - '0');
            wrapped = wrapped || number > (UINT64_MAX - digit) / 10;
            number = wrapped ? UINT64_MAX : 10 * number + digit;
            cursor->next++;
        }
    }
    if (number < min || number > max) {
        cursor->out_of_range = true;
    }
    *value = number;
    return true;
}

bool em_take_index(em_cursor_t *cursor, uint32_t *value)
{
    uint64_t number = 0;
    if (!em_take_int(cursor, 0, EM_MAX_INDEX, &number)) {
        return false;
    }
    *value = number > EM_MAX_INDEX ? EM_MAX_INDEX : (uint32_t)number;
    return true;
}

/* [int] letter ["+"|"-" int] */
static bool take_sum(em_cursor_t *cursor, uint32_t *factor, char *letter, int64_t *offset)
{
    *factor = 1;
    if (is_digit(peek(cursor)) && !em_take_index(cursor, factor)) {
        return false;
    }
    *letter = peek(cursor);
    if (*letter < 'a' || *letter > 'z') {
        return false;
    }
    cursor->next++;
    *offset = 0;
    if (peek(cursor) == '+' || peek(cursor) == '-') {
        const bool minus = peek(cursor) == '-';
        cursor->next++;
        uint32_t number = 0;
        if (!em_take_index(cursor, &number)) {
            return false;
        }
        *offset = minus ? -(int64_t)number : (int64_t)number;
    }
    return true;
}

bool em_take_affine(em_cursor_t *cursor, int32_t *value)
{
    uint32_t number = 0;
    if (peek(cursor) != '(') {
        if (!em_take_index(cursor, &number)) {
            return false;
        }
        *value = (int32_t)number;
        return true;
    }
    const bool modulo = em_take(cursor, "((");
    uint32_t factor = 0;
    char letter = '\0';
    int64_t offset = 0;
    uint32_t modulus = 1;
    if ((!modulo && !em_take(cursor, "(")) || !take_sum(cursor, &factor, &letter, &offset) ||
        !em_take(cursor, ")")) {
        return false;
    }
    if (modulo) {
        if (!em_take(cursor, "%") || !em_take_index(cursor, &modulus) || !em_take(cursor, ")")) {
            return false;
        }
        cursor->out_of_range = cursor->out_of_range || modulus == 0;
    }
    *value = 0;
    if (cursor->variable == '\0' || letter != cursor->variable) {
        cursor->bad_rep = true;
        return true;
    }
    /* Factors are not negative: the ends of the range bound all values between. */
    const int64_t low = (int64_t)factor * (int64_t)cursor->first + offset;
    const int64_t high = (int64_t)factor * (int64_t)cursor->last + offset;
    if (low < 0 || high > EM_MAX_INDEX) {
        cursor->bad_rep = true;
        return true;
    }
    const int64_t now = (int64_t)factor * (int64_t)cursor->value + offset;
    *value = (int32_t)(modulo && modulus > 0 ? now % modulus : now);
    return true;
}

/* strtod reads the decimal point of the process's locale, the file has a dot: hand it the former.
 */
static double to_double(char *text, char *dot)
{
    char *end = NULL;
    double number = strtod(text, &end);
    if (*end != '\0' && dot != NULL) {
        const struct lconv *const locale = localeconv();
        *dot = locale->decimal_point[0];
        number = strtod(text, &end);
    }
    return number;
}

bool em_take_num(em_cursor_t *cursor, double *value)
{
    const char *const start = cursor->next;
    const char *dot = NULL;
    uint64_t ignored = 0;
    if (!em_take_int(cursor, 0, INT64_MAX, &ignored)) {
        return false;
    }
    if (peek(cursor) == '.') {
        dot = cursor->next;
        cursor->next++;
        if (!is_digit(peek(cursor))) {
            return false;
        }
        while (is_digit(peek(cursor))) {
            cursor->next++;
        }
    }
    if (peek(cursor) == 'e') {
        cursor->next++;
        if (peek(cursor) == '-') {
            cursor->next++;
        }
        if (!em_take_int(cursor, 0, INT64_MAX, &ignored)) {
            return false;
        }
    }
    char text[EM_MAX_LINE_BYTES + 1];
    const size_t num_bytes = (size_t)(cursor->next - start);
    memcpy(text, start, num_bytes);
    text[num_bytes] = '\0';
    *value = to_double(text, dot == NULL ? NULL : text + (dot - start));
    if (!isfinite(*value)) {
        cursor->out_of_range = true;
        *value = 0.0;
    }
    return true;
}

bool em_take_name(em_cursor_t *cursor, bool any_case, const char **text, size_t *num_bytes)
{
    *text = cursor->next;
    while (cursor->next < cursor->end) {
        const char c = *cursor->next;
        const bool letter = (c >= 'a' && c <= 'z') || (any_case && c >= 'A' && c <= 'Z');
        if (!letter && (cursor->next == *text || !(is_digit(c) || c == '_'))) {
            break;
        }
        cursor->next++;
    }
    *num_bytes = (size_t)(cursor->next - *text);
    return *num_bytes > 0 && *num_bytes < EM_NAME_BYTES;
}

bool em_take_word(em_cursor_t *cursor, const char *const *words, size_t num, uint32_t *index)
{
    const char *longest = NULL;
    for (size_t i = 0; i < num; i++) {
        em_cursor_t trial = *cursor;
        if (em_take(&trial, words[i]) && (longest == NULL || trial.next > longest)) {
            longest = trial.next;
            *index = (uint32_t)i;
        }
    }
    if (longest == NULL) {
        return false;
    }
    cursor->next = longest;
    return true;
}
