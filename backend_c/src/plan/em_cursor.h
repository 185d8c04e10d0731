/*
 * Taking tokens off one line, strictly. Each em_take_* moves past what it took, or gives false and
 * says nothing of where it stands: a line that fails is refused whole.
 */
#ifndef EM_CURSOR_H
#define EM_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *next;
    const char *end;
    bool out_of_range; /* a number was beyond its bounds: the grammar goes first */
    bool bad_rep;      /* a parenthesis that means nothing here, or gives a value out of range */
    char variable;     /* of the REP that the line stands in, or 0 */
    uint64_t value;    /* that it has now */
    uint64_t first;    /* values that it takes, for the checks */
    uint64_t last;
} em_cursor_t;

/* Exactly this text. */
bool em_take(em_cursor_t *cursor, const char *text);
/* The end of the line. */
bool em_take_end(const em_cursor_t *cursor);
/* An int; beyond `min`..`max` sets out_of_range. */
bool em_take_int(em_cursor_t *cursor, uint64_t min, uint64_t max, uint64_t *value);
/* An int that is an index field. */
bool em_take_index(em_cursor_t *cursor, uint32_t *value);
/* An index, or an affine expression of a REP in parentheses. */
bool em_take_affine(em_cursor_t *cursor, int32_t *value);
/* A num. */
bool em_take_num(em_cursor_t *cursor, double *value);
/* A name of lower-case letters, digits, underscores (upper case too if `any_case`), <= 32 bytes. */
bool em_take_name(em_cursor_t *cursor, bool any_case, const char **text, size_t *num_bytes);
/* One of `num` words: the longest that fits. */
bool em_take_word(em_cursor_t *cursor, const char *const *words, size_t num, uint32_t *index);

#endif
