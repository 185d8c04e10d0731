/*
 * Status codes and error text of the exactmap C engine.
 *
 * A function that can fail returns an em_status_t and, where it takes one, fills an em_error_t.
 * Codes are numbered with gaps by family; the family (code / 10) is the exit code of a program
 * that stops because of it: 3 invalid input, 4 infeasible, 5 check failed, 6 execution failed,
 * 7 hung, 8 hardware or library missing. Numbers are stable once released.
 */
#ifndef EXACTMAP_ERROR_H
#define EXACTMAP_ERROR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define EM_API __attribute__((visibility("default")))
#define EM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define EM_API
#define EM_PRINTF(fmt, args)
#endif

typedef enum {
    EM_OK = 0,
    /* 3x: what the user gave is not valid */
    EM_ERR_ARGUMENT = 30, /* an argument or option */
    EM_ERR_SYNTAX = 31,   /* text that does not parse */
    EM_ERR_VERSION = 32,  /* a format version that this build does not read */
    EM_ERR_FIELD = 33,    /* a value out of range or of the wrong kind */
    EM_ERR_HASH = 34,     /* content and its recorded hash differ */
    EM_ERR_DATA = 35,     /* token or checkpoint data (token out of range, wrong shape) */
    EM_ERR_LIMIT = 36,    /* a size limit of the format */
    EM_ERR_OVERFLOW = 37, /* a size that does not fit 64 bits */
    /* 4x: valid, but impossible here */
    EM_ERR_MEMORY = 40,      /* the allocator gave nothing */
    EM_ERR_BUDGET = 41,      /* more bytes than the plan's arena */
    EM_ERR_UNSUPPORTED = 42, /* valid, not executable by this build */
    /* 5x: a check refused a well-formed input */
    EM_ERR_CHECK = 50,    /* a rule of the plan */
    EM_ERR_DEADLOCK = 51, /* a cycle in the strict graph */
    /* 6x: execution failed */
    EM_ERR_EXEC = 60,
    EM_ERR_IO = 61,     /* open, read, write, rename */
    EM_ERR_SYSTEM = 62, /* threads, clocks */
    EM_ERR_NOT_FINITE = 63 /* loss or gradients not finite */,
    /* 7x: no progress */
    EM_ERR_HUNG = 70,
    /* 8x: hardware or library missing */
    EM_ERR_MISSING = 80
} em_status_t;

enum { EM_ERROR_TEXT = 512, EM_ERROR_HINT = 256 };

/* What went wrong, and where in the source it was first seen. */
typedef struct {
    em_status_t status;
    int line;         /* line of the source file that failed */
    const char *file; /* static text, never freed */
    char text[EM_ERROR_TEXT];
    char hint[EM_ERROR_HINT];
} em_error_t;

/* Name of a status, e.g. "EM_ERR_FIELD"; "EM_ERR_?" for an unknown number. */
EM_API const char *em_status_name(em_status_t status);

/* Exit code of the family: 0 for EM_OK, otherwise 3 to 8. */
EM_API int em_status_exit_code(em_status_t status);

/* Fill `err` (NULL is allowed) and return `status`. The first failure is kept: an `err` that
 * already holds one is left as it is. */
EM_API em_status_t em_fail(em_error_t *err, em_status_t status, const char *file, int line,
                           const char *fmt, ...) EM_PRINTF(5, 6);

/* Set the hint of an error, if it has none yet. */
EM_API void em_hint(em_error_t *err, const char *fmt, ...) EM_PRINTF(2, 3);

/* Forget what `err` holds. */
EM_API void em_error_clear(em_error_t *err);

/* EM_FAIL(err, EM_ERR_FIELD, "hidden: got %u, expected > 0", h): report and give the status. */
#define EM_FAIL(err, status, ...) em_fail((err), (status), __FILE__, __LINE__, __VA_ARGS__)

/* Return from the calling function with an error if `cond` holds. */
#define EM_RETURN_ERROR_IF(cond, err, status, ...)                                                 \
    do {                                                                                           \
        if (cond) {                                                                                \
            return EM_FAIL((err), (status), __VA_ARGS__);                                          \
        }                                                                                          \
    } while (0)

/* Pass the failure of `expr` (an em_status_t) on to the caller. */
#define EM_RETURN_IF_ERROR(expr)                                                                   \
    do {                                                                                           \
        const em_status_t em_status_ = (expr);                                                     \
        if (em_status_ != EM_OK) {                                                                 \
            return em_status_;                                                                     \
        }                                                                                          \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
