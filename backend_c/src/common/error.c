/* Status names, families and error text. See exactmap/error.h. */
#include "exactmap/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *em_status_name(em_status_t status)
{
    switch (status) {
    case EM_OK:
        return "EM_OK";
    case EM_ERR_ARGUMENT:
        return "EM_ERR_ARGUMENT";
    case EM_ERR_SYNTAX:
        return "EM_ERR_SYNTAX";
    case EM_ERR_VERSION:
        return "EM_ERR_VERSION";
    case EM_ERR_FIELD:
        return "EM_ERR_FIELD";
    case EM_ERR_HASH:
        return "EM_ERR_HASH";
    case EM_ERR_DATA:
        return "EM_ERR_DATA";
    case EM_ERR_LIMIT:
        return "EM_ERR_LIMIT";
    case EM_ERR_OVERFLOW:
        return "EM_ERR_OVERFLOW";
    case EM_ERR_MEMORY:
        return "EM_ERR_MEMORY";
    case EM_ERR_BUDGET:
        return "EM_ERR_BUDGET";
    case EM_ERR_UNSUPPORTED:
        return "EM_ERR_UNSUPPORTED";
    case EM_ERR_CHECK:
        return "EM_ERR_CHECK";
    case EM_ERR_DEADLOCK:
        return "EM_ERR_DEADLOCK";
    case EM_ERR_EXEC:
        return "EM_ERR_EXEC";
    case EM_ERR_IO:
        return "EM_ERR_IO";
    case EM_ERR_SYSTEM:
        return "EM_ERR_SYSTEM";
    case EM_ERR_NOT_FINITE:
        return "EM_ERR_NOT_FINITE";
    case EM_ERR_HUNG:
        return "EM_ERR_HUNG";
    case EM_ERR_MISSING:
        return "EM_ERR_MISSING";
    }
    return "EM_ERR_?";
}

int em_status_exit_code(em_status_t status)
{
    return (int)status / 10;
}

em_status_t em_fail(em_error_t *err, em_status_t status, const char *file, int line,
                    const char *fmt, ...)
{
    if (err != NULL && err->status == EM_OK) {
        err->status = status;
        err->file = file;
        err->line = line;
        err->hint[0] = '\0';
        va_list args;
        va_start(args, fmt);
        (void)vsnprintf(err->text, sizeof err->text, fmt, args);
        va_end(args);
    }
    return status;
}

void em_hint(em_error_t *err, const char *fmt, ...)
{
    if (err != NULL && err->hint[0] == '\0') {
        va_list args;
        va_start(args, fmt);
        (void)vsnprintf(err->hint, sizeof err->hint, fmt, args);
        va_end(args);
    }
}

void em_error_clear(em_error_t *err)
{
    if (err != NULL) {
        memset(err, 0, sizeof *err);
    }
}
