/*
 * Phase 1: the common instruction lines as a writer writes them, in one pass over their bytes.
 *
 * A line that is anything else (a part, an affine number, a number beyond its bounds, an error) is
 * left to em_body_line, which knows the whole grammar and has the word: every line that is taken
 * here, that would take too, as the same record. All bytes of a line are compared, so that it needs
 * no other look; none is read behind the LF that ends the text.
 */
#include <string.h>

#include "plan/em_lines.h"

/* No index: numbers are at most EM_MAX_INDEX. */
#define NO_INDEX UINT32_MAX

/* The index at *at, which moves behind it. */
static inline uint32_t take_index(const char **at)
{
    const char *next = *at;
    uint32_t number = (uint32_t)(unsigned char)*next - '0';
    if (number > 9) {
        return NO_INDEX;
    }
    next++;
    uint32_t digit = (uint32_t)(unsigned char)*next - '0';
    if (number == 0 && digit <= 9) {
        return NO_INDEX;
    }
    while (digit <= 9) {
        number = 10 * number + digit;
        if (number > EM_MAX_INDEX) {
            return NO_INDEX;
        }
        next++;
        digit = (uint32_t)(unsigned char)*next - '0';
    }
    *at = next;
    return number;
}

static inline bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* S.B[.slice] */
static inline bool take_item(const char **at, em_instr_t *instr)
{
    const uint32_t stage = take_index(at);
    if (stage == NO_INDEX || **at != '.') {
        return false;
    }
    ++*at;
    const uint32_t microbatch = take_index(at);
    if (microbatch == NO_INDEX) {
        return false;
    }
    instr->stage = (int32_t)stage;
    instr->microbatch = (int32_t)microbatch;
    if (**at == '.') {
        ++*at;
        const uint32_t slice = take_index(at);
        instr->slice = (int32_t)slice;
        return slice != NO_INDEX;
    }
    return true;
}

/* S/K */
static bool take_bucket(const em_reader_t *reader, const char **at, em_instr_t *instr)
{
    const uint32_t stage = take_index(at);
    if (stage == NO_INDEX || **at != '/') {
        return false;
    }
    ++*at;
    const uint32_t index = take_index(at);
    if (index == NO_INDEX) {
        return false;
    }
    const uint32_t *const bucket =
        em_map_find(&reader->bucket_of_pair, (uint64_t)stage << 20 | index);
    instr->stage = (int32_t)stage;
    instr->bucket = bucket == NULL ? EM_UNKNOWN : (int32_t)*bucket;
    return true;
}

/* The channel and the group of a name that the cache does not hold. */
static em_quick_name_t look_up(const em_reader_t *reader, const char *text, size_t num_bytes)
{
    em_quick_name_t found = {.queue = {EM_UNKNOWN, EM_UNKNOWN}};
    const int32_t name = em_find_name(reader, text, num_bytes);
    if (name >= 0) {
        const uint32_t *const channel = em_map_find(&reader->channel_of_name, (uint64_t)name);
        const uint32_t *const group = em_map_find(&reader->group_of_name, (uint64_t)name);
        found.queue[0] = channel == NULL ? EM_UNKNOWN : (int32_t)*channel;
        found.queue[1] = group == NULL ? EM_UNKNOWN : (int32_t)*group;
    }
    return found;
}

/* @name of a channel, or of a group */
static inline bool take_queue(const em_quick_t *quick, const char **at, bool group,
                              em_instr_t *instr)
{
    const char *const name = *at + 1;
    if (**at != '@' || *name < 'a' || *name > 'z') {
        return false;
    }
    const char *end = name + 1;
    uint64_t key = (uint64_t)(unsigned char)*name;
    while (is_name_char(*end)) {
        key = key << 8 | (uint64_t)(unsigned char)*end;
        end++;
    }
    const size_t num_bytes = (size_t)(end - name);
    if (num_bytes >= EM_NAME_BYTES) {
        return false;
    }
    *at = end;
    if (num_bytes > sizeof key) {
        instr->queue = look_up(quick->reader, name, num_bytes).queue[group];
        return true;
    }
    /* Up to eight bytes are their own key. */
    em_quick_name_t *const cached =
        &quick->names[(key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - EM_QUICK_NAME_BITS)];
    if (cached->key != key) {
        *cached = look_up(quick->reader, name, num_bytes);
        cached->key = key;
    }
    instr->queue = cached->queue[group];
    return true;
}

/* One slot of a pool that must be named. */
static inline bool take_slot(const char **at, em_pool_t pool, em_instr_t *instr)
{
    if ((*at)[0] != ' ' || (*at)[1] != "hawgkpqo"[pool]) {
        return false;
    }
    *at += 2;
    const uint32_t slot = take_index(at);
    const size_t place = pool < EM_POOL_K ? (size_t)pool : EM_INSTR_SLOTS - 1;
    instr->slot[place] = (int32_t)slot;
    if (place == EM_INSTR_SLOTS - 1) {
        instr->extra = (uint8_t)pool;
    }
    return slot != NO_INDEX;
}

/* Any of h a w g k, in this order. */
static inline bool take_slots(const char **at, em_instr_t *instr)
{
    for (em_pool_t pool = EM_POOL_H; **at == ' ' && pool <= EM_POOL_K; pool++) {
        if ((*at)[1] == "hawgk"[pool] && !take_slot(at, pool, instr)) {
            return false;
        }
    }
    return true;
}

static inline void clear(em_instr_t *instr, em_op_t op, uint64_t line)
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

/* The word of a pass and its space. */
static inline em_op_t take_pass_word(const char **at)
{
    em_op_t op = EM_NUM_OPS;
    switch ((*at)[0]) {
    case 'F':
        op = EM_OP_F;
        break;
    case 'B':
        op = EM_OP_B;
        break;
    case 'I':
        op = EM_OP_I;
        break;
    case 'W':
        op = EM_OP_W;
        break;
    case 'R':
        if ((*at)[1] != 'C') {
            return EM_NUM_OPS;
        }
        op = EM_OP_RC;
        ++*at;
        break;
    default:
        return EM_NUM_OPS;
    }
    if ((*at)[1] != ' ') {
        return EM_NUM_OPS;
    }
    *at += 2;
    return op;
}

/* FB{work|work..}: its members go behind those of the store, as far as there is room for them. */
static bool take_braid(em_quick_t *quick, const char **at, em_instr_t *instr)
{
    em_vec_t *const members = &quick->reader->store->members;
    const uint64_t first = members->num;
    uint64_t num = 0;
    *at += 3;
    for (;;) {
        const em_op_t op = take_pass_word(at);
        if (op == EM_NUM_OPS || first + num == members->capacity) {
            return false;
        }
        em_instr_t *const member = &EM_AT(*members, em_instr_t, first + num);
        clear(member, op, instr->line);
        if (!take_item(at, member) || !take_slots(at, member)) {
            return false;
        }
        num++;
        if (**at != '|') {
            break;
        }
        ++*at;
    }
    if (**at != '}') {
        return false;
    }
    ++*at;
    instr->queue = (int32_t)first;
    instr->bucket = (int32_t)num;
    return true;
}

/* Two letters of a word and the byte behind it, as one number. */
#define WORD(a, b, c) ((uint32_t)(a) << 16 | (uint32_t)(b) << 8 | (uint32_t)(c))

static inline uint32_t word_at(const char *text)
{
    return WORD((unsigned char)text[0], (unsigned char)text[1], (unsigned char)text[2]);
}

/* SF SB WS WR, and with a slot RF RB */
static inline bool take_message(const em_quick_t *quick, const char **at, em_op_t op,
                                em_instr_t *instr)
{
    *at += 3;
    instr->op = (uint8_t)op;
    return take_item(at, instr) && take_queue(quick, at, false, instr) &&
           ((op != EM_OP_RF && op != EM_OP_RB) || take_slot(at, EM_POOL_H, instr));
}

/* LF LB, and with slots LD */
static inline bool take_note(const char **at, em_op_t op, em_instr_t *instr)
{
    *at += 3;
    instr->op = (uint8_t)op;
    return take_item(at, instr) &&
           (op != EM_OP_LD || (take_slot(at, EM_POOL_A, instr) && take_slot(at, EM_POOL_W, instr)));
}

/* AR RS WC, and with a slot AG */
static inline bool take_collective(const em_quick_t *quick, const char **at, em_op_t op,
                                   em_instr_t *instr)
{
    *at += 3;
    instr->op = (uint8_t)op;
    return take_bucket(quick->reader, at, instr) && take_queue(quick, at, true, instr) &&
           (op != EM_OP_AG || take_slot(at, EM_POOL_P, instr));
}

/* A word of the line; the first byte that differs, the LF at the latest, ends the comparison. */
static bool take_word(const char **at, const char *word)
{
    const char *next = *at;
    while (*word != '\0' && *next == *word) {
        next++;
        word++;
    }
    if (*word != '\0') {
        return false;
    }
    *at = next;
    return true;
}

/* OFF WLD WOFF */
static bool take_copy(const char **at, em_instr_t *instr)
{
    static const struct {
        const char *word;
        em_op_t op;
    } words[] = {{"OFF ", EM_OP_OFF}, {"WLD ", EM_OP_WLD}, {"WOFF ", EM_OP_WOFF}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (take_word(at, words[i].word)) {
            instr->op = (uint8_t)words[i].op;
            return take_item(at, instr) &&
                   (words[i].op != EM_OP_OFF || take_slot(at, EM_POOL_O, instr));
        }
    }
    return false;
}

/* All of a line but its LF. */
static inline bool take_line(em_quick_t *quick, const char **at, em_instr_t *instr)
{
    const char *const text = *at;
    if (text[0] == '\n' || text[1] == '\n') {
        return false;
    }
    switch (word_at(text)) {
    case WORD('S', 'F', ' '):
        return take_message(quick, at, EM_OP_SF, instr);
    case WORD('S', 'B', ' '):
        return take_message(quick, at, EM_OP_SB, instr);
    case WORD('R', 'F', ' '):
        return take_message(quick, at, EM_OP_RF, instr);
    case WORD('R', 'B', ' '):
        return take_message(quick, at, EM_OP_RB, instr);
    case WORD('W', 'S', ' '):
        return take_message(quick, at, EM_OP_WS, instr);
    case WORD('W', 'R', ' '):
        return take_message(quick, at, EM_OP_WR, instr);
    case WORD('L', 'F', ' '):
        return take_note(at, EM_OP_LF, instr);
    case WORD('L', 'B', ' '):
        return take_note(at, EM_OP_LB, instr);
    case WORD('L', 'D', ' '):
        return take_note(at, EM_OP_LD, instr);
    case WORD('A', 'R', ' '):
        return take_collective(quick, at, EM_OP_AR, instr);
    case WORD('R', 'S', ' '):
        return take_collective(quick, at, EM_OP_RS, instr);
    case WORD('A', 'G', ' '):
        return take_collective(quick, at, EM_OP_AG, instr);
    case WORD('W', 'C', ' '):
        return take_collective(quick, at, EM_OP_WC, instr);
    case WORD('F', 'B', '{'):
        instr->op = EM_OP_FB;
        return take_braid(quick, at, instr);
    case WORD('O', 'F', 'F'):
    case WORD('W', 'L', 'D'):
    case WORD('W', 'O', 'F'):
        return take_copy(at, instr);
    default:
        break;
    }
    const em_op_t op = take_pass_word(at);
    instr->op = (uint8_t)op;
    return op != EM_NUM_OPS && take_item(at, instr) && take_slots(at, instr);
}

const char *em_body_quick(em_quick_t *quick, const char *text, const char *end, uint64_t *line,
                          uint64_t *num_instrs)
{
    em_vec_t *const instrs = &quick->reader->store->instrs;
    em_vec_t *const members = &quick->reader->store->members;
    while (text < end && instrs->num < instrs->capacity && *num_instrs < EM_MAX_INSTRS) {
        em_instr_t *const instr = &EM_AT(*instrs, em_instr_t, instrs->num);
        const char *at = text;
        clear(instr, EM_OP_END, *line + 1);
        if (!take_line(quick, &at, instr) || *at != '\n') {
            break;
        }
        if (instr->op == EM_OP_FB) {
            const uint64_t num = (uint64_t)instr->bucket;
            if (*num_instrs + num > EM_MAX_INSTRS || at - text > EM_MAX_LINE_BYTES) {
                break;
            }
            members->num += num;
            *num_instrs += num;
        } else {
            ++*num_instrs;
        }
        instrs->num++;
        ++*line;
        text = at + 1;
    }
    return text;
}
