/* Phase 1: header lines, in the order of the grammar of docs/reference/plan-format.md, section 6.
 */
#include <string.h>

#include "plan/em_take.h"

const char *const em_axis_words[EM_NUM_AXES] = {"tp", "cp", "ep", "pp", "dp"};
static const char *const YES_NO[2] = {"no", "yes"};

/* First word, mandatory, may stand more than once. Words with "=" or "-" are beginnings. */
static const struct {
    const char *word;
    bool mandatory;
    bool many;
} KINDS[EM_NUM_LINE_KINDS] = {
    [EM_LINE_VERSION] = {"exactmap-plan", true, false},
    [EM_LINE_BODY] = {"body", true, false},
    [EM_LINE_MODEL] = {"model", true, false},
    [EM_LINE_TRAIN] = {"train", true, false},
    [EM_LINE_PRECISION] = {"precision", true, false},
    [EM_LINE_MESH] = {"mesh", true, false},
    [EM_LINE_STAGE] = {"stage", true, true},
    [EM_LINE_PLACE] = {"place", true, false},
    [EM_LINE_CLOCK] = {"clock=", true, false},
    [EM_LINE_SERIAL] = {"serial=", true, false},
    [EM_LINE_LIMIT] = {"limit=", true, false},
    [EM_LINE_COUPLE] = {"couple", false, false},
    [EM_LINE_BUDGET] = {"budget", false, false},
    [EM_LINE_CHAN] = {"chan", false, true},
    [EM_LINE_GROUP] = {"group", false, true},
    [EM_LINE_BUCKET] = {"bucket", true, true},
    [EM_LINE_TIE] = {"tie", false, true},
    [EM_LINE_ARENA] = {"arena", true, true},
    [EM_LINE_REGION] = {"region", false, true},
    [EM_LINE_POOL] = {"pool", false, true},
    [EM_LINE_MADE] = {"made", false, false},
    [EM_LINE_COST] = {"cost", false, true},
    [EM_LINE_PRED] = {"pred", false, true},
    [EM_LINE_X] = {"x-", false, true},
    [EM_LINE_MAP] = {"map", true, true},
    [EM_LINE_PROGRAM] = {"program", true, true},
};

em_line_kind_t em_header_kind(const char *line, size_t num_bytes)
{
    const char *const space = memchr(line, ' ', num_bytes);
    const size_t word_bytes = space == NULL ? num_bytes : (size_t)(space - line);
    for (int kind = 0; kind < EM_NUM_LINE_KINDS; kind++) {
        const char *const word = KINDS[kind].word;
        const size_t known_bytes = strlen(word);
        const bool begins = word[known_bytes - 1] == '=' || word[known_bytes - 1] == '-';
        if ((begins ? word_bytes >= known_bytes : word_bytes == known_bytes) &&
            memcmp(line, word, known_bytes) == 0) {
            return (em_line_kind_t)kind;
        }
    }
    return EM_NUM_LINE_KINDS;
}

bool em_header_may_follow(em_line_kind_t last, em_line_kind_t kind)
{
    if (kind == last) {
        return KINDS[kind].many;
    }
    for (int between = (int)last + 1; between < (int)kind; between++) {
        if (KINDS[between].mandatory) {
            return false;
        }
    }
    return kind > last;
}

static em_parse_t take_body(em_reader_t *r, em_cursor_t *c)
{
    TAKE(em_take(c, "body sha256="));
    char *const hex = r->plan->body_sha256;
    for (size_t i = 0; i < 64; i++) {
        TAKE(c->next < c->end && memchr("0123456789abcdef", *c->next, 16) != NULL);
        hex[i] = *c->next++;
    }
    return EM_PARSE_OK;
}

static em_parse_t take_model(em_reader_t *r, em_cursor_t *c)
{
    static const char *const kinds[] = {"gpt", "llama"};
    em_plan_model_t *const model = &r->plan->model;
    uint32_t kind = 0;
    uint32_t tied = 0;
    TAKE(em_take(c, "model kind=") && em_take_word(c, kinds, 2, &kind));
    TAKE_SIZE(" layers=", 1, &model->layers);
    TAKE_INT(" hidden=", 1, &model->hidden);
    TAKE_INT(" heads=", 1, &model->heads);
    TAKE_INT(" kv_heads=", 1, &model->kv_heads);
    TAKE_INT(" head_dim=", 1, &model->head_dim);
    TAKE_INT(" ffn=", 1, &model->ffn);
    TAKE_INT(" vocab=", 1, &model->vocab);
    TAKE_INT(" positions=", 0, &model->positions);
    TAKE(em_take(c, " tied=") && em_take_word(c, YES_NO, 2, &tied));
    TAKE_NUM(" eps=", &model->eps);
    TAKE_NUM(" theta=", &model->theta);
    model->llama = kind == 1;
    model->tied = tied == 1;
    return EM_PARSE_OK;
}

static em_parse_t take_train(em_reader_t *r, em_cursor_t *c)
{
    em_plan_train_t *const train = &r->plan->train;
    TAKE_INT("train microbatch=", 1, &train->microbatch);
    TAKE_SIZE(" m=", 1, &train->m);
    TAKE_INT(" seq=", 1, &train->seq);
    TAKE_SIZE(" slices=", 1, &train->slices);
    TAKE(em_take(c, " optimizer=adamw"));
    TAKE_NUM(" lr=", &train->lr);
    TAKE_NUM(" lr_min=", &train->lr_min);
    TAKE_INT(" warmup=", 0, &train->warmup);
    TAKE_INT(" steps=", 1, &train->steps);
    TAKE_NUM(" beta1=", &train->beta1);
    TAKE_NUM(" beta2=", &train->beta2);
    TAKE_NUM(" eps=", &train->eps);
    TAKE_NUM(" decay=", &train->decay);
    TAKE_NUM(" clip=", &train->clip);
    TAKE_INT(" seed=", 0, &train->seed);
    return EM_PARSE_OK;
}

static em_parse_t take_precision(em_reader_t *r, em_cursor_t *c)
{
    static const char *const fields[] = {
        "precision param=", " grad=", " act=", " comm=", " moment="};
    static const char *const dtypes[] = {"f32", "bf16", "f16", "f8", "f4"};
    em_plan_precision_t *const precision = &r->plan->precision;
    em_dtype_t *const values[] = {&precision->param, &precision->grad, &precision->act,
                                  &precision->comm, &precision->moment};
    for (size_t i = 0; i < 5; i++) {
        uint32_t dtype = 0;
        TAKE(em_take(c, fields[i]) && em_take_word(c, dtypes, 5, &dtype));
        *values[i] = (em_dtype_t)dtype;
    }
    return EM_PARSE_OK;
}

static em_parse_t take_mesh(em_reader_t *r, em_cursor_t *c)
{
    static const char *const fields[] = {"mesh tp=", " cp=", " ep=", " pp=", " dp="};
    em_plan_mesh_t *const mesh = &r->plan->mesh;
    for (size_t i = 0; i < EM_NUM_AXES; i++) {
        TAKE_SIZE(fields[i], 1, &mesh->size[i]);
    }
    TAKE(em_take(c, " order="));
    mesh->num_order = 0;
    do {
        uint32_t axis = 0;
        TAKE(em_take_word(c, em_axis_words, EM_NUM_AXES, &axis));
        if (mesh->num_order < EM_NUM_AXES) {
            mesh->order[mesh->num_order] = (em_axis_t)axis;
        }
        mesh->num_order++;
    } while (em_take(c, ","));
    return EM_PARSE_OK;
}

/* KEY = [A-Za-z][A-Za-z0-9_.]* */
static bool take_key(em_cursor_t *c)
{
    const char *const start = c->next;
    while (c->next < c->end) {
        const char k = *c->next;
        const bool letter = (k >= 'a' && k <= 'z') || (k >= 'A' && k <= 'Z');
        const bool later = (k >= '0' && k <= '9') || k == '_' || k == '.';
        if (!letter && (c->next == start || !later)) {
            break;
        }
        c->next++;
    }
    return c->next > start;
}

/* WORD KEY=VALUE .., checked and left alone: it informs people, not engines. */
static em_parse_t take_information(em_cursor_t *c, const char *word, bool ints)
{
    TAKE(em_take(c, word));
    do {
        TAKE(em_take(c, " ") && take_key(c) && em_take(c, "="));
        if (ints) {
            uint64_t ignored = 0;
            TAKE(em_take_int(c, 0, INT64_MAX, &ignored));
        } else {
            const char *const start = c->next;
            while (c->next < c->end && *c->next != ' ') {
                c->next++;
            }
            TAKE(c->next > start);
        }
    } while (!em_take_end(c));
    return EM_PARSE_OK;
}

static em_parse_t take_extra(em_cursor_t *c)
{
    const char *text = NULL;
    size_t num_bytes = 0;
    TAKE(em_take(c, "x-") && em_take_name(c, false, &text, &num_bytes) && em_take(c, " "));
    TAKE(c->next < c->end && *c->next != ' ' && c->end[-1] != ' ');
    c->next = c->end;
    return EM_PARSE_OK;
}

static em_parse_t take_choice(em_cursor_t *c, const char *key, const char *no, const char *yes,
                              bool *value)
{
    TAKE(em_take(c, key));
    *value = em_take(c, yes);
    TAKE(*value || em_take(c, no));
    return EM_PARSE_OK;
}

static em_parse_t take_line(em_reader_t *r, em_line_kind_t kind, em_cursor_t *c, uint64_t line)
{
    switch (kind) {
    case EM_LINE_BODY:
        return take_body(r, c);
    case EM_LINE_MODEL:
        return take_model(r, c);
    case EM_LINE_TRAIN:
        return take_train(r, c);
    case EM_LINE_PRECISION:
        return take_precision(r, c);
    case EM_LINE_MESH:
        return take_mesh(r, c);
    case EM_LINE_CLOCK:
        return take_choice(c, "clock=", "barrier", "free", &r->plan->clock_free);
    case EM_LINE_SERIAL:
        return take_choice(c, "serial=", "no", "yes", &r->plan->serial);
    case EM_LINE_LIMIT:
        TAKE_INT("limit=", 0, &r->plan->limit);
        return EM_PARSE_OK;
    case EM_LINE_BUDGET:
        r->plan->has_budget = true;
        TAKE_INT("budget bytes=", 0, &r->plan->budget_bytes);
        return EM_PARSE_OK;
    case EM_LINE_MADE:
        return take_information(c, "made", false);
    case EM_LINE_COST:
        return take_information(c, "cost", true);
    case EM_LINE_PRED:
        return take_information(c, "pred", false);
    case EM_LINE_X:
        return take_extra(c);
    default:
        return em_layout_line(r, kind, c, line);
    }
}

em_parse_t em_header_line(em_reader_t *reader, em_line_kind_t kind, em_cursor_t *cursor,
                          uint64_t line)
{
    const em_parse_t parse = take_line(reader, kind, cursor, line);
    return parse == EM_PARSE_OK && !em_take_end(cursor) ? EM_PARSE_GRAMMAR : parse;
}
