/* Phase 1: instruction lines. A line inside a REP is taken once per value of its variable. */
#include <string.h>

#include "plan/em_take.h"

static const char *const OPS[EM_NUM_OPS] = {
    [EM_OP_F] = "F",       [EM_OP_I] = "I",         [EM_OP_W] = "W",         [EM_OP_B] = "B",
    [EM_OP_RC] = "RC",     [EM_OP_FB] = "FB",       [EM_OP_ZERO] = "ZERO",   [EM_OP_OPT] = "OPT",
    [EM_OP_PV] = "PV",     [EM_OP_UNDO] = "UNDO",   [EM_OP_SF] = "SF",       [EM_OP_SB] = "SB",
    [EM_OP_RF] = "RF",     [EM_OP_RB] = "RB",       [EM_OP_AG] = "AG",       [EM_OP_RS] = "RS",
    [EM_OP_AR] = "AR",     [EM_OP_A2A_D] = "A2A_D", [EM_OP_A2A_C] = "A2A_C", [EM_OP_KV] = "KV",
    [EM_OP_NORM] = "NORM", [EM_OP_CHK] = "CHK",     [EM_OP_OFF] = "OFF",     [EM_OP_LD] = "LD",
    [EM_OP_WS] = "WS",     [EM_OP_WR] = "WR",       [EM_OP_WC] = "WC",       [EM_OP_WOFF] = "WOFF",
    [EM_OP_WLD] = "WLD",   [EM_OP_LF] = "LF",       [EM_OP_LB] = "LB",       [EM_OP_FREE] = "FREE",
    [EM_OP_MARK] = "MARK", [EM_OP_END] = "END",
};

const char *em_op_name(em_op_t op)
{
    return (unsigned)op < EM_NUM_OPS ? OPS[op] : "?";
}

em_op_t em_body_op(const char *line, size_t num_bytes)
{
    if (num_bytes >= 3 && memcmp(line, "FB{", 3) == 0) {
        return EM_OP_FB;
    }
    const char *const space = memchr(line, ' ', num_bytes);
    const size_t word_bytes = space == NULL ? num_bytes : (size_t)(space - line);
    for (int op = 0; op < EM_NUM_OPS; op++) {
        if (op != EM_OP_FB && strlen(OPS[op]) == word_bytes &&
            memcmp(line, OPS[op], word_bytes) == 0) {
            return (em_op_t)op;
        }
    }
    return EM_NUM_OPS;
}

/* S.B[.slice][:part] */
static bool take_item(const em_reader_t *r, em_cursor_t *c, em_instr_t *instr)
{
    uint32_t stage = 0;
    uint32_t slice = 0;
    if (!em_take_index(c, &stage) || !em_take(c, ".") || !em_take_affine(c, &instr->microbatch)) {
        return false;
    }
    instr->stage = (int32_t)stage;
    if (em_take(c, ".")) {
        if (!em_take_index(c, &slice)) {
            return false;
        }
        instr->slice = (int32_t)slice;
    }
    if (em_take(c, ":")) {
        const char *text = NULL;
        size_t num_bytes = 0;
        if (!em_take_name(c, false, &text, &num_bytes)) {
            return false;
        }
        const int32_t name = em_find_name(r, text, num_bytes);
        const uint64_t key = (uint64_t)stage << 32 | (uint32_t)name;
        const uint32_t *const part = name < 0 ? NULL : em_map_find(&r->part_of_pair, key);
        instr->part = part == NULL ? EM_UNKNOWN : (int32_t)*part;
    }
    return true;
}

/* S/K */
static bool take_bucket(const em_reader_t *r, em_cursor_t *c, em_instr_t *instr)
{
    uint32_t stage = 0;
    uint32_t index = 0;
    if (!em_take_index(c, &stage) || !em_take(c, "/") || !em_take_index(c, &index)) {
        return false;
    }
    const uint64_t key = (uint64_t)stage << 20 | index;
    const uint32_t *const bucket = em_map_find(&r->bucket_of_pair, key);
    instr->stage = (int32_t)stage;
    instr->bucket = bucket == NULL ? EM_UNKNOWN : (int32_t)*bucket;
    return true;
}

/* @name of a channel or a group */
static bool take_queue(const em_reader_t *r, em_cursor_t *c, const em_map_t *queues,
                       em_instr_t *instr)
{
    const char *text = NULL;
    size_t num_bytes = 0;
    if (!em_take(c, "@") || !em_take_name(c, false, &text, &num_bytes)) {
        return false;
    }
    const int32_t name = em_find_name(r, text, num_bytes);
    const uint32_t *const queue = name < 0 ? NULL : em_map_find(queues, (uint64_t)name);
    instr->queue = queue == NULL ? EM_UNKNOWN : (int32_t)*queue;
    return true;
}

static bool take_slot(em_cursor_t *c, em_pool_t pool, em_instr_t *instr)
{
    const char text[3] = {' ', "hawgkpqo"[pool], '\0'};
    const size_t place = pool < EM_POOL_K ? (size_t)pool : EM_INSTR_SLOTS - 1;
    if (!em_take(c, text) || !em_take_affine(c, &instr->slot[place])) {
        return false;
    }
    if (place == EM_INSTR_SLOTS - 1) {
        instr->extra = (uint8_t)pool;
    }
    return true;
}

/* Any of h a w g k, in this order. */
static bool take_slots(em_cursor_t *c, em_instr_t *instr)
{
    for (em_pool_t pool = EM_POOL_H; pool <= EM_POOL_K; pool++) {
        const char letter = "hawgk"[pool];
        if (c->end - c->next >= 2 && c->next[0] == ' ' && c->next[1] == letter &&
            !take_slot(c, pool, instr)) {
            return false;
        }
    }
    return true;
}

/* F, I or B, and a space */
static bool take_phase(em_cursor_t *c, em_instr_t *instr)
{
    static const char *const phases[] = {"F ", "I ", "B "};
    uint32_t phase = 0;
    if (!em_take_word(c, phases, 3, &phase)) {
        return false;
    }
    instr->phase = (uint8_t)(EM_PHASE_F + phase);
    return true;
}

static void clear(em_instr_t *instr, em_op_t op, uint64_t line)
{
    *instr = (em_instr_t){.op = (uint8_t)op,
                          .line = (uint32_t)line,
                          .stage = EM_NONE,
                          .microbatch = EM_NONE,
                          .slice = EM_NONE,
                          .part = EM_NONE,
                          .bucket = EM_NONE,
                          .queue = EM_NONE,
                          .slot = {EM_NONE, EM_NONE, EM_NONE, EM_NONE, EM_NONE},
                          .match = EM_NONE};
}

/* {work|work..} of a braid */
static em_parse_t take_members(em_reader_t *r, em_cursor_t *c, em_instr_t *instr, uint64_t line)
{
    static const char *const words[] = {"F ", "RC ", "I ", "B ", "W "};
    static const em_op_t ops[] = {EM_OP_F, EM_OP_RC, EM_OP_I, EM_OP_B, EM_OP_W};
    instr->queue = (int32_t)r->store->members.num;
    instr->bucket = 0;
    TAKE(em_take(c, "{"));
    do {
        uint32_t word = 0;
        TAKE(em_take_word(c, words, 5, &word));
        em_instr_t *const member = em_vec_push(&r->store->members, sizeof *member);
        if (member == NULL) {
            return EM_PARSE_NO_MEMORY;
        }
        clear(member, ops[word], line);
        TAKE(take_item(r, c, member) && take_slots(c, member));
        instr->bucket++;
    } while (em_take(c, "|"));
    TAKE(em_take(c, "}"));
    return EM_PARSE_OK;
}

static em_parse_t take_mark(em_reader_t *r, em_cursor_t *c, em_instr_t *instr)
{
    const char *text = NULL;
    size_t num_bytes = 0;
    TAKE(em_take(c, " ") && em_take_name(c, false, &text, &num_bytes));
    instr->queue = em_intern(r, text, num_bytes);
    return instr->queue < 0 ? EM_PARSE_NO_MEMORY : EM_PARSE_OK;
}

/* Operands of an op whose word was taken. */
static em_parse_t take_operands(em_reader_t *r, em_cursor_t *c, em_instr_t *instr)
{
    switch ((em_op_t)instr->op) {
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
    case EM_OP_RC:
        TAKE(em_take(c, " ") && take_item(r, c, instr) && take_slots(c, instr));
        return EM_PARSE_OK;
    case EM_OP_FB:
        return take_members(r, c, instr, instr->line);
    case EM_OP_ZERO:
        TAKE(em_take(c, " ") && take_bucket(r, c, instr));
        TAKE(em_take_end(c) || take_slot(c, EM_POOL_Q, instr));
        return EM_PARSE_OK;
    case EM_OP_OPT:
    case EM_OP_PV:
    case EM_OP_UNDO:
    case EM_OP_FREE:
        TAKE(em_take(c, " ") && take_bucket(r, c, instr));
        return EM_PARSE_OK;
    case EM_OP_SF:
    case EM_OP_SB:
    case EM_OP_WS:
    case EM_OP_WR:
        TAKE(em_take(c, " ") && take_item(r, c, instr));
        TAKE(take_queue(r, c, &r->channel_of_name, instr));
        return EM_PARSE_OK;
    case EM_OP_RF:
    case EM_OP_RB:
        TAKE(em_take(c, " ") && take_item(r, c, instr));
        TAKE(take_queue(r, c, &r->channel_of_name, instr) && take_slot(c, EM_POOL_H, instr));
        return EM_PARSE_OK;
    case EM_OP_RS:
    case EM_OP_AR:
        TAKE(em_take(c, " ") && take_bucket(r, c, instr));
        TAKE(take_queue(r, c, &r->group_of_name, instr));
        return EM_PARSE_OK;
    case EM_OP_AG:
        TAKE(em_take(c, " ") && take_bucket(r, c, instr));
        TAKE(take_queue(r, c, &r->group_of_name, instr) && take_slot(c, EM_POOL_P, instr));
        return EM_PARSE_OK;
    case EM_OP_A2A_D:
    case EM_OP_A2A_C:
    case EM_OP_KV:
        TAKE(em_take(c, " ") && take_phase(c, instr) && take_item(r, c, instr));
        TAKE(take_queue(r, c, &r->group_of_name, instr));
        return EM_PARSE_OK;
    case EM_OP_NORM:
    case EM_OP_CHK:
        TAKE(em_take(c, " ") && take_queue(r, c, &r->group_of_name, instr));
        return EM_PARSE_OK;
    case EM_OP_WC:
        TAKE(em_take(c, " "));
        if (c->next < c->end && *c->next != '@') {
            TAKE(take_phase(c, instr) ? take_item(r, c, instr) : take_bucket(r, c, instr));
        }
        TAKE(take_queue(r, c, &r->group_of_name, instr));
        return EM_PARSE_OK;
    case EM_OP_OFF:
        TAKE(em_take(c, " ") && take_item(r, c, instr) && take_slot(c, EM_POOL_O, instr));
        return EM_PARSE_OK;
    case EM_OP_LD:
        TAKE(em_take(c, " ") && take_item(r, c, instr) && take_slot(c, EM_POOL_A, instr) &&
             take_slot(c, EM_POOL_W, instr));
        return EM_PARSE_OK;
    case EM_OP_WOFF:
    case EM_OP_WLD:
    case EM_OP_LF:
    case EM_OP_LB:
        TAKE(em_take(c, " ") && take_item(r, c, instr));
        return EM_PARSE_OK;
    case EM_OP_MARK:
        return take_mark(r, c, instr);
    case EM_OP_END:
        return EM_PARSE_OK;
    case EM_NUM_OPS:
        break;
    }
    return EM_PARSE_GRAMMAR;
}

em_parse_t em_body_line(em_reader_t *reader, em_op_t op, em_cursor_t *cursor, uint64_t line,
                        uint64_t *num_instrs)
{
    em_instr_t instr;
    clear(&instr, op, line);
    TAKE(em_take(cursor, OPS[op]));
    const em_parse_t parse = take_operands(reader, cursor, &instr);
    if (parse != EM_PARSE_OK) {
        return parse;
    }
    TAKE(em_take_end(cursor));
    em_instr_t *const stored = em_vec_push(&reader->store->instrs, sizeof *stored);
    if (stored == NULL) {
        return EM_PARSE_NO_MEMORY;
    }
    *stored = instr;
    *num_instrs += op == EM_OP_FB ? (uint64_t)instr.bucket : 1;
    return EM_PARSE_OK;
}
