/* Phase 1: the bytes of the file, line by line. Rules 1 to 7 of the page's section 10. */
#include <inttypes.h>
#include <string.h>

#include "common/em_arena.h"
#include "plan/em_lines.h"
#include "plan/em_sha256.h"

/* Where the walk through the lines stands. */
typedef struct {
    em_reader_t *reader;
    const char *text; /* the line, without its LF */
    size_t num_bytes;
    uint64_t line;
    bool last;           /* without LF */
    em_line_kind_t kind; /* of the header line before */
    bool in_body;        /* the first `program` was seen */
    bool in_program;     /* between `program` and END */
    bool in_rep;
    char variable;
    uint64_t rep_first; /* values of the variable */
    uint64_t rep_last;
    uint64_t rep_line;     /* of the line after REP */
    const char *rep_text;  /* its first byte */
    uint64_t rep_instrs;   /* in the REP so far, for one value */
    uint64_t rep_start[2]; /* instructions and members stored before it */
    uint64_t num_instrs;   /* in all programs, written out */
} em_lines_t;

static bool refuse(em_lines_t *w, em_verdict_code_t code, const char *what, const char *hint)
{
    char shown[161];
    const size_t kept = w->num_bytes < sizeof shown - 1 ? w->num_bytes : sizeof shown - 1;
    for (size_t i = 0; i < kept; i++) {
        const char c = w->text[i];
        shown[i] = c;
        if (c < 0x20 || c > 0x7e) {
            shown[i] = '?';
        }
    }
    shown[kept] = '\0';
    (void)em_refuse(w->reader, code, w->line, "%s: got \"%s%s\"", what, shown,
                    kept < w->num_bytes ? ".." : "");
    return hint == NULL ? false : em_advise(w->reader, "%s", hint);
}

static em_cursor_t cursor_of(const em_lines_t *w)
{
    return (em_cursor_t){.next = w->text,
                         .end = w->text + w->num_bytes,
                         .variable = w->in_rep ? w->variable : '\0',
                         .value = w->rep_first,
                         .first = w->rep_first,
                         .last = w->rep_last};
}

/* Grammar goes before ranges, ranges before REP. */
static bool judge(em_lines_t *w, em_parse_t parse, const em_cursor_t *cursor)
{
    if (parse == EM_PARSE_NO_MEMORY) {
        return em_no_memory(w->reader);
    }
    if (parse == EM_PARSE_GRAMMAR) {
        return refuse(w, EM_VERDICT_TEXT_LINE, "the line does not match its grammar",
                      "tokens are parted by one space, numbers have no sign and no leading zero, "
                      "fields stand in their order");
    }
    if (cursor->out_of_range) {
        return refuse(w, EM_VERDICT_TEXT_RANGE, "a number is out of range",
                      "index fields are at most 1048575, others at most 9223372036854775807; sizes "
                      "and counts are at least 1");
    }
    if (cursor->bad_rep) {
        return refuse(w, EM_VERDICT_TEXT_REP,
                      "a parenthesis that no REP around it gives a value from 0 to 1048575", NULL);
    }
    return true;
}

static bool check_bytes(em_lines_t *w)
{
    if (w->num_bytes > EM_MAX_LINE_BYTES) {
        return em_refuse(w->reader, EM_VERDICT_TEXT_SIZE, w->line,
                         "the line is too long: got %zu bytes, expected at most %d", w->num_bytes,
                         EM_MAX_LINE_BYTES);
    }
    for (size_t i = 0; i < w->num_bytes; i++) {
        const char c = w->text[i];
        if (c < 0x20 || c > 0x7e) {
            return em_refuse(w->reader, EM_VERDICT_TEXT_ASCII, w->line,
                             "column %zu: got byte 0x%02x, expected 0x20 to 0x7e", i + 1,
                             (unsigned)(unsigned char)c);
        }
    }
    if (w->last) {
        return em_refuse(w->reader, EM_VERDICT_TEXT_ASCII, w->line,
                         "the last line does not end in LF");
    }
    return true;
}

static bool read_version(em_lines_t *w)
{
    em_cursor_t cursor = cursor_of(w);
    if (!em_take(&cursor, "exactmap-plan 1.") ||
        !em_take_int(&cursor, 0, INT64_MAX, &w->reader->plan->minor) || !em_take_end(&cursor) ||
        cursor.out_of_range) {
        return refuse(w, EM_VERDICT_TEXT_VERSION, "no plan of format 1",
                      "the first line is `exactmap-plan 1.0`");
    }
    return true;
}

static bool read_header(em_lines_t *w, em_line_kind_t kind)
{
    if (!em_header_may_follow(w->kind, kind)) {
        return refuse(w, EM_VERDICT_TEXT_ORDER,
                      "a header line out of order, repeated, or one before it is missing", NULL);
    }
    em_cursor_t cursor = cursor_of(w);
    const em_parse_t parse = em_header_line(w->reader, kind, &cursor, w->line);
    if (!judge(w, parse, &cursor)) {
        return false;
    }
    w->kind = kind;
    w->in_body = kind == EM_LINE_PROGRAM;
    w->in_program = w->in_body;
    return true;
}

static bool count_instrs(em_lines_t *w, uint64_t more)
{
    w->num_instrs += more;
    if (w->num_instrs > EM_MAX_INSTRS) {
        return em_refuse(w->reader, EM_VERDICT_TEXT_REP, w->line,
                         "too many instructions: got %" PRIu64 " so far, expected at most %d",
                         w->num_instrs, EM_MAX_INSTRS);
    }
    return true;
}

/* REP letter=A..B { */
static bool open_rep(em_lines_t *w)
{
    em_cursor_t cursor = cursor_of(w);
    uint32_t first = 0;
    uint32_t last = 0;
    em_parse_t parse = EM_PARSE_GRAMMAR;
    char variable = '\0';
    if (em_take(&cursor, "REP ") && cursor.next < cursor.end) {
        variable = *cursor.next++;
        if (variable >= 'a' && variable <= 'z' && em_take(&cursor, "=") &&
            em_take_index(&cursor, &first) && em_take(&cursor, "..") &&
            em_take_index(&cursor, &last) && em_take(&cursor, " {") && em_take_end(&cursor)) {
            parse = EM_PARSE_OK;
        }
    }
    if (!judge(w, parse, &cursor)) {
        return false;
    }
    if (w->in_rep) {
        return refuse(w, EM_VERDICT_TEXT_REP, "a REP inside a REP", NULL);
    }
    if (first > last) {
        return refuse(w, EM_VERDICT_TEXT_REP, "a REP that counts down", NULL);
    }
    w->in_rep = true;
    w->variable = variable;
    w->rep_first = first;
    w->rep_last = last;
    w->rep_line = w->line + 1;
    w->rep_text = w->text + w->num_bytes + 1;
    w->rep_instrs = 0;
    w->rep_start[0] = w->reader->store->instrs.num;
    w->rep_start[1] = w->reader->store->members.num;
    return true;
}

/* } : the lines were taken for the first value; take them for the others. */
static bool close_rep(em_lines_t *w)
{
    if (w->num_bytes != 1) {
        return refuse(w, EM_VERDICT_TEXT_LINE, "the line does not match its grammar", NULL);
    }
    if (!w->in_rep || w->rep_instrs == 0) {
        return refuse(w, EM_VERDICT_TEXT_REP, w->in_rep ? "an empty REP" : "no REP to close", NULL);
    }
    if (!count_instrs(w, w->rep_instrs * (w->rep_last - w->rep_first + 1))) {
        return false;
    }
    for (uint64_t value = w->rep_first + 1; value <= w->rep_last; value++) {
        const char *text = w->rep_text;
        for (uint64_t line = w->rep_line; line < w->line; line++) {
            const char *const end = memchr(text, '\n', (size_t)(w->text - text));
            const size_t num_bytes = (size_t)(end - text);
            em_cursor_t cursor = {.next = text,
                                  .end = end,
                                  .variable = w->variable,
                                  .value = value,
                                  .first = w->rep_first,
                                  .last = w->rep_last};
            uint64_t ignored = 0;
            if (em_body_line(w->reader, em_body_op(text, num_bytes), &cursor, line, &ignored) !=
                EM_PARSE_OK) {
                return em_no_memory(w->reader);
            }
            text = end + 1;
        }
    }
    w->in_rep = false;
    return true;
}

static void end_program(em_lines_t *w)
{
    em_store_t *const store = w->reader->store;
    em_program_t *const program = &EM_AT(store->programs, em_program_t, store->programs.num - 1);
    const em_program_extra_t *const extra =
        &EM_AT(w->reader->extras, em_program_extra_t, store->programs.num - 1);
    program->end_line = (uint32_t)w->line;
    program->num_instrs = store->instrs.num - extra->first_instr;
    w->in_program = false;
}

static bool read_instr(em_lines_t *w, em_op_t op)
{
    em_cursor_t cursor = cursor_of(w);
    uint64_t added = 0;
    const em_parse_t parse = em_body_line(w->reader, op, &cursor, w->line, &added);
    if (!judge(w, parse, &cursor)) {
        return false;
    }
    if (w->in_rep && op == EM_OP_END) {
        return refuse(w, EM_VERDICT_TEXT_REP, "an END inside a REP", "close the REP with `}`");
    }
    if (w->in_rep) {
        w->rep_instrs += added;
        if (w->num_instrs + w->rep_instrs > EM_MAX_INSTRS) {
            /* Too many already, which the closing line will say: hold none of them till then. */
            w->reader->store->instrs.num = w->rep_start[0];
            w->reader->store->members.num = w->rep_start[1];
        }
        return true;
    }
    if (!count_instrs(w, added)) {
        return false;
    }
    if (op == EM_OP_END) {
        end_program(w);
    }
    return true;
}

static bool read_body(em_lines_t *w)
{
    const em_op_t op = em_body_op(w->text, w->num_bytes);
    const em_line_kind_t kind =
        op == EM_NUM_OPS ? em_header_kind(w->text, w->num_bytes) : EM_NUM_LINE_KINDS;
    const char *const space = memchr(w->text, ' ', w->num_bytes);
    const size_t word_bytes = space == NULL ? w->num_bytes : (size_t)(space - w->text);
    const bool rep = word_bytes == 3 && memcmp(w->text, "REP", 3) == 0;
    const bool brace = word_bytes == 1 && w->text[0] == '}';
    if (kind == EM_NUM_LINE_KINDS && op == EM_NUM_OPS && !rep && !brace) {
        return refuse(w, EM_VERDICT_TEXT_KEYWORD, "an unknown instruction", NULL);
    }
    if (kind == EM_LINE_PROGRAM && !w->in_program) {
        return read_header(w, kind);
    }
    if (kind != EM_NUM_LINE_KINDS || !w->in_program) {
        return refuse(w, EM_VERDICT_TEXT_ORDER,
                      w->in_program ? "a header line inside a program"
                                    : "expected `program` after the END of a program",
                      w->in_program ? "a program ends with END" : NULL);
    }
    if (rep) {
        return open_rep(w);
    }
    return brace ? close_rep(w) : read_instr(w, op);
}

static bool read_line(em_lines_t *w)
{
    if (!check_bytes(w)) {
        return false;
    }
    if (w->line == 1) {
        return read_version(w);
    }
    if (w->in_body) {
        return read_body(w);
    }
    const em_line_kind_t kind = em_header_kind(w->text, w->num_bytes);
    if (kind == EM_NUM_LINE_KINDS) {
        return refuse(w, EM_VERDICT_TEXT_KEYWORD, "an unknown header line", NULL);
    }
    return read_header(w, kind);
}

/* The body is all after the second line: hash it, and the whole file. */
bool em_check_hash(em_reader_t *reader)
{
    em_plan_t *const plan = reader->plan;
    const uint8_t *const first = memchr(reader->bytes, '\n', reader->num_bytes);
    const size_t head = (size_t)(first + 1 - reader->bytes);
    const uint8_t *const second = memchr(first + 1, '\n', reader->num_bytes - head);
    const size_t start = (size_t)(second + 1 - reader->bytes);
    char hex[65];
    em_sha256_hex(reader->bytes + start, reader->num_bytes - start, hex);
    em_sha256_hex(reader->bytes, reader->num_bytes, plan->file_sha256);
    if (strcmp(hex, plan->body_sha256) != 0) {
        (void)em_refuse(reader, EM_VERDICT_TEXT_HASH, 2,
                        "the body does not have its recorded sha256: got %s, expected %s", hex,
                        plan->body_sha256);
        return em_advise(reader, "the file was changed after it was written; plan again, or write "
                                 "the new sha256 into line 2 if the change was meant");
    }
    return true;
}

/* The lines one by one; common lines of programs are taken many at a time. */
static bool read_lines(em_lines_t *w, em_quick_t *quick)
{
    const char *const end = (const char *)w->reader->bytes + w->reader->num_bytes;
    const bool quickly = !w->reader->plain && end[-1] == '\n';
    for (const char *text = (const char *)w->reader->bytes; text < end;) {
        if (quickly && w->in_program && !w->in_rep) {
            text = em_body_quick(quick, text, end, &w->line, &w->num_instrs);
            if (text == end) {
                break;
            }
        }
        const char *const lf = memchr(text, '\n', (size_t)(end - text));
        w->text = text;
        w->num_bytes = (size_t)((lf == NULL ? end : lf) - text);
        w->last = lf == NULL;
        w->line++;
        if (!read_line(w)) {
            return false;
        }
        text += w->num_bytes + 1;
    }
    return true;
}

bool em_read_text(em_reader_t *reader)
{
    if (reader->num_bytes == 0 || reader->num_bytes > EM_MAX_FILE_BYTES) {
        return em_refuse(reader, EM_VERDICT_TEXT_SIZE, 1,
                         "the file has %zu bytes, expected 1 to %d", reader->num_bytes,
                         EM_MAX_FILE_BYTES);
    }
    em_lines_t walk = {.reader = reader, .kind = EM_LINE_VERSION};
    em_quick_t quick = {.reader = reader};
    quick.names = em_alloc_zeroed((uint64_t)1 << EM_QUICK_NAME_BITS, sizeof *quick.names);
    /* A line of a large plan has some 18 bytes. */
    const size_t guess = reader->num_bytes / 16;
    if (quick.names == NULL || !em_vec_reserve(&reader->store->instrs, sizeof(em_instr_t),
                                               guess < EM_MAX_INSTRS ? guess : EM_MAX_INSTRS)) {
        em_free(quick.names);
        return em_no_memory(reader);
    }
    const bool good = read_lines(&walk, &quick);
    em_free(quick.names);
    if (!good) {
        return false;
    }
    reader->plan->num_lines = walk.line;
    reader->plan->file_bytes = reader->num_bytes;
    if (!walk.in_body || walk.in_program) {
        return em_refuse(reader, EM_VERDICT_TEXT_ORDER, walk.line,
                         walk.in_body ? "the file ends before the END of its program"
                                      : "the file ends before its first program");
    }
    return true;
}
