/* Phase 1, between its files: a header line, a body line. */
#ifndef EM_LINES_H
#define EM_LINES_H

#include "plan/em_cursor.h"
#include "plan/em_reader.h"

/* Kinds of header lines in the order in which they stand; PROGRAM counts as the one after map. */
typedef enum {
    EM_LINE_VERSION = 0,
    EM_LINE_BODY,
    EM_LINE_MODEL,
    EM_LINE_TRAIN,
    EM_LINE_PRECISION,
    EM_LINE_MESH,
    EM_LINE_STAGE,
    EM_LINE_PLACE,
    EM_LINE_CLOCK,
    EM_LINE_SERIAL,
    EM_LINE_LIMIT,
    EM_LINE_COUPLE,
    EM_LINE_BUDGET,
    EM_LINE_CHAN,
    EM_LINE_GROUP,
    EM_LINE_BUCKET,
    EM_LINE_TIE,
    EM_LINE_ARENA,
    EM_LINE_REGION,
    EM_LINE_POOL,
    EM_LINE_MADE,
    EM_LINE_COST,
    EM_LINE_PRED,
    EM_LINE_X,
    EM_LINE_MAP,
    EM_LINE_PROGRAM,
    EM_NUM_LINE_KINDS
} em_line_kind_t;

/* What a line came to; the first that applies is the verdict. */
typedef enum {
    EM_PARSE_OK = 0,
    EM_PARSE_GRAMMAR, /* text.line, or text.range or text.rep as the cursor says */
    EM_PARSE_NO_MEMORY
} em_parse_t;

/* Kind of a header line by its first word, or EM_NUM_LINE_KINDS. */
em_line_kind_t em_header_kind(const char *line, size_t num_bytes);
/* True if a line of this kind may stand after one of kind `last`. */
bool em_header_may_follow(em_line_kind_t last, em_line_kind_t kind);
/* Take a header line in full (`program` too). */
em_parse_t em_header_line(em_reader_t *reader, em_line_kind_t kind, em_cursor_t *cursor,
                          uint64_t line);

/* Words of the mesh axes, by em_axis_t. */
extern const char *const em_axis_words[EM_NUM_AXES];
/* The lines from `stage` to `program`, but for clock, serial, limit, budget and information. */
em_parse_t em_layout_line(em_reader_t *reader, em_line_kind_t kind, em_cursor_t *cursor,
                          uint64_t line);

/* Op of an instruction line by its first word, or EM_NUM_OPS. */
em_op_t em_body_op(const char *line, size_t num_bytes);
/* Take an instruction line in full and add it to the store. */
em_parse_t em_body_line(em_reader_t *reader, em_op_t op, em_cursor_t *cursor, uint64_t line,
                        uint64_t *num_instrs);

/* Names of queues of up to eight bytes, by these bytes, so that each is looked up once. */
enum { EM_QUICK_NAME_BITS = 10 };

typedef struct {
    uint64_t key;     /* 0: none */
    int32_t queue[2]; /* the channel of this name, the group */
} em_quick_name_t;

typedef struct {
    em_reader_t *reader;
    em_quick_name_t *names;
} em_quick_t;

/*
 * Take common instruction lines from `text` on, as many as stand there, and add them to the store
 * while it has room. Gives the place of the first line that was not taken; `line` is the number of
 * the last one that was. The byte before `end` is an LF.
 */
const char *em_body_quick(em_quick_t *quick, const char *text, const char *end, uint64_t *line,
                          uint64_t *num_instrs);

#endif
