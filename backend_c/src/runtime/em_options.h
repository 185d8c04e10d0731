/* Long options of a program: `--name VALUE`, `--name=VALUE`, `--flag`; one positional argument. */
#ifndef EM_OPTIONS_H
#define EM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum {
    EM_OPTION_FLAG,  /* bool */
    EM_OPTION_TEXT,  /* const char * */
    EM_OPTION_COUNT, /* uint64_t, decimal */
    EM_OPTION_REAL,  /* double */
    EM_OPTION_RANGE  /* uint64_t[2], "A..B" or "A" */
} em_option_kind_t;

typedef struct {
    const char *name; /* without the dashes */
    em_option_kind_t kind;
    void *value;
    bool *given; /* set if the option is there; may be NULL */
} em_option_t;

/* Read the arguments. False: `message` (of `size` bytes) says what is wrong. */
bool em_options_read(int argc, char **argv, const em_option_t *options, uint32_t num_options,
                     const char **positional, char *message, uint32_t size);

#endif
