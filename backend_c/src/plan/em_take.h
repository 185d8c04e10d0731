/*
 * Writing a line's grammar down: what does not fit ends the function with EM_PARSE_GRAMMAR. Texts
 * and numbers are taken from the function's cursor `c`.
 */
#ifndef EM_TAKE_H
#define EM_TAKE_H

#include "plan/em_lines.h"

/* A step of a grammar: what does not fit ends the line. */
#define TAKE(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            return EM_PARSE_GRAMMAR;                                                               \
        }                                                                                          \
    } while (0)

#define TAKE_INT(text, min, value)                                                                 \
    TAKE(em_take(c, text) && em_take_int(c, (min), INT64_MAX, (value)))
#define TAKE_SIZE(text, min, value)                                                                \
    TAKE(em_take(c, text) && em_take_int(c, (min), EM_MAX_INDEX, (value)))
#define TAKE_INDEX(text, value) TAKE(em_take(c, text) && em_take_index(c, (value)))
#define TAKE_NUM(text, value) TAKE(em_take(c, text) && em_take_num(c, (value)))

#endif
