/* Reading long options. See em_options.h. */
#include "runtime/em_options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_count(const char *text, uint64_t *out, const char **end)
{
    char *stop = NULL;
    errno = 0;
    if (*text < '0' || *text > '9') { /* strtoull would take a sign */
        return false;
    }
    *out = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0 && *out <= INT64_MAX;
}

static bool read_value(const em_option_t *option, const char *text)
{
    const char *end = text;
    char *stop = NULL;
    uint64_t *const numbers = option->value;
    switch (option->kind) {
    case EM_OPTION_TEXT:
        *(const char **)option->value = text;
        return *text != '\0' || strcmp(option->name, "prompt") == 0;
    case EM_OPTION_COUNT:
        return read_count(text, numbers, &end) && *end == '\0';
    case EM_OPTION_REAL:
        *(double *)option->value = strtod(text, &stop);
        return stop != text && *stop == '\0' && isfinite(*(const double *)option->value);
    case EM_OPTION_RANGE:
        if (!read_count(text, &numbers[0], &end)) {
            return false;
        }
        numbers[1] = numbers[0];
        return *end == '\0' ||
               (strncmp(end, "..", 2) == 0 && read_count(end + 2, &numbers[1], &end) &&
                *end == '\0' && numbers[0] <= numbers[1]);
    default:
        return false;
    }
}

static const em_option_t *find(const em_option_t *options, uint32_t num, const char *name,
                               size_t num_bytes)
{
    for (uint32_t i = 0; i < num; i++) {
        if (strlen(options[i].name) == num_bytes && memcmp(options[i].name, name, num_bytes) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

bool em_options_read(int argc, char **argv, const em_option_t *options, uint32_t num_options,
                     const char **positional, char *message, uint32_t size)
{
    static const char *const expected[] = {"", "a text", "a whole number", "a number",
                                           "a range A..B"};
    for (int i = 1; i < argc; i++) {
        const char *const argument = argv[i];
        if (strncmp(argument, "--", 2) != 0) {
            if (*positional != NULL || argument[0] == '-') {
                (void)snprintf(message, size, "unexpected argument %s", argument);
                return false;
            }
            *positional = argument;
            continue;
        }
        const char *const name = argument + 2;
        const char *const equals = strchr(name, '=');
        const size_t num_bytes = equals == NULL ? strlen(name) : (size_t)(equals - name);
        const em_option_t *const option = find(options, num_options, name, num_bytes);
        if (option == NULL || (option->kind == EM_OPTION_FLAG && equals != NULL)) {
            (void)snprintf(message, size, "unknown option %s", argument);
            return false;
        }
        if (option->given != NULL) {
            *option->given = true;
        }
        if (option->kind == EM_OPTION_FLAG) {
            *(bool *)option->value = true;
            continue;
        }
        if (equals == NULL && i + 1 == argc) {
            (void)snprintf(message, size, "%s needs %s", argument, expected[option->kind]);
            return false;
        }
        const char *const value = equals != NULL ? equals + 1 : argv[++i];
        if (!read_value(option, value)) {
            (void)snprintf(message, size, "--%s: got '%s', expected %s", option->name, value,
                           expected[option->kind]);
            return false;
        }
    }
    return true;
}
