/* Phase 1: header lines, in the order of the grammar of docs/reference/plan-format.md, section 6.
 */
#include <string.h>

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

/* A new item of a vector; leaves the function if there is no memory. */
#define PUSH(item, vec)                                                                            \
    do {                                                                                           \
        (item) = em_vec_push((vec), sizeof *(item));                                               \
        if ((item) == NULL) {                                                                      \
            return EM_PARSE_NO_MEMORY;                                                             \
        }                                                                                          \
    } while (0)

static const char *const AXES[EM_NUM_AXES] = {"tp", "cp", "ep", "pp", "dp"};
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
        TAKE(em_take_word(c, AXES, EM_NUM_AXES, &axis));
        if (mesh->num_order < EM_NUM_AXES) {
            mesh->order[mesh->num_order] = (em_axis_t)axis;
        }
        mesh->num_order++;
    } while (em_take(c, ","));
    return EM_PARSE_OK;
}

static em_parse_t take_stage(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_plan_stage_t *stage = NULL;
    PUSH(stage, &r->store->stages);
    stage->line = (uint32_t)line;
    stage->first_part = (uint32_t)r->store->parts.num;
    const uint64_t self = r->store->stages.num - 1;
    uint32_t index = 0;
    TAKE_INDEX("stage ", &index);
    stage->number = index;
    if (em_take(c, " layers=")) {
        uint32_t first = 0;
        uint32_t last = 0;
        TAKE(em_take_index(c, &first));
        TAKE_INDEX("..", &last);
        stage->has_layers = true;
        stage->first_layer = first;
        stage->last_layer = last;
    }
    stage->embedding = em_take(c, " embedding");
    stage->head = em_take(c, " head");
    if (!em_take(c, " parts=")) {
        return EM_PARSE_OK;
    }
    do {
        const char *text = NULL;
        size_t num_bytes = 0;
        uint32_t *part = NULL;
        TAKE(em_take_name(c, false, &text, &num_bytes));
        const int32_t name = em_intern(r, text, num_bytes);
        if (name < 0) {
            return EM_PARSE_NO_MEMORY;
        }
        PUSH(part, &r->store->parts);
        *part = (uint32_t)name;
        const uint64_t key = self << 32 | (uint64_t)name;
        if (em_map_insert(&r->part_of_pair, key, stage->num_parts, NULL) == NULL) {
            return EM_PARSE_NO_MEMORY;
        }
        stage->num_parts++;
    } while (em_take(c, ","));
    return EM_PARSE_OK;
}

/* R[,R..] onto the end of a vector of uint32_t. */
static em_parse_t take_ranks(em_cursor_t *c, em_vec_t *ranks, uint32_t *num)
{
    do {
        uint32_t *rank = NULL;
        PUSH(rank, ranks);
        TAKE(em_take_index(c, rank));
        (*num)++;
    } while (em_take(c, ","));
    return EM_PARSE_OK;
}

static em_parse_t take_place(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    TAKE(em_take(c, "place"));
    r->place_line = line;
    do {
        em_raw_place_t *place = NULL;
        PUSH(place, &r->raw_places);
        place->first_rank = (uint32_t)r->store->place_ranks.num;
        TAKE_INDEX(" ", &place->stage);
        TAKE(em_take(c, "="));
        const em_parse_t parse = take_ranks(c, &r->store->place_ranks, &place->num_ranks);
        if (parse != EM_PARSE_OK) {
            return parse;
        }
    } while (!em_take_end(c));
    return EM_PARSE_OK;
}

static em_parse_t take_couple(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    static const char *const kinds[EM_NUM_COUPLED] = {"F", "I", "W", "B", "RC"};
    TAKE(em_take(c, "couple"));
    r->couple_line = line;
    int64_t last_kind = -1;
    do {
        uint32_t kind = 0;
        TAKE(em_take(c, " ") && em_take_word(c, kinds, EM_NUM_COUPLED, &kind) && em_take(c, "="));
        r->couple_bad = r->couple_bad || (int64_t)kind <= last_kind;
        last_kind = kind;
        int64_t last_axis = -1;
        do {
            uint32_t axis = 0;
            TAKE(em_take_word(c, AXES, EM_NUM_AXES, &axis));
            r->couple_bad = r->couple_bad || (int64_t)axis <= last_axis || axis >= EM_AXIS_PP;
            last_axis = axis;
            r->plan->couple[kind] |= 1u << axis;
        } while (em_take(c, ","));
    } while (!em_take_end(c));
    return EM_PARSE_OK;
}

/* A name of the file, interned. */
static em_parse_t take_name(em_reader_t *r, em_cursor_t *c, bool any_case, uint32_t *name)
{
    const char *text = NULL;
    size_t num_bytes = 0;
    TAKE(em_take_name(c, any_case, &text, &num_bytes));
    const int32_t number = em_intern(r, text, num_bytes);
    if (number < 0) {
        return EM_PARSE_NO_MEMORY;
    }
    *name = (uint32_t)number;
    return EM_PARSE_OK;
}

static em_parse_t take_channel(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_plan_channel_t *channel = NULL;
    PUSH(channel, &r->store->channels);
    channel->line = (uint32_t)line;
    TAKE(em_take(c, "chan "));
    const em_parse_t parse = take_name(r, c, false, &channel->name);
    if (parse != EM_PARSE_OK) {
        return parse;
    }
    static const char *const classes[] = {" F", " B"};
    uint32_t class = 0;
    TAKE_INDEX(" ", &channel->src);
    TAKE_INDEX(">", &channel->dst);
    TAKE(em_take_word(c, classes, 2, &class));
    channel->backward = class == 1;
    TAKE_SIZE(" depth=", 0, &channel->depth);
    TAKE_INT(" bytes=", 0, &channel->bytes);
    const uint32_t self = (uint32_t)(r->store->channels.num - 1);
    return em_map_insert(&r->channel_of_name, channel->name, self, NULL) == NULL
               ? EM_PARSE_NO_MEMORY
               : EM_PARSE_OK;
}

static em_parse_t take_group(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_plan_group_t *group = NULL;
    PUSH(group, &r->store->groups);
    group->line = (uint32_t)line;
    TAKE(em_take(c, "group "));
    em_parse_t parse = take_name(r, c, false, &group->name);
    if (parse != EM_PARSE_OK) {
        return parse;
    }
    TAKE(em_take(c, " axes="));
    do {
        uint32_t axis = 0;
        TAKE(em_take_word(c, AXES, EM_NUM_AXES, &axis));
        group->axis_twice = group->axis_twice || (group->axes & 1u << axis) != 0;
        group->axes |= 1u << axis;
    } while (em_take(c, ","));
    group->first_pp = (uint32_t)r->store->group_ranks.num;
    if (em_take(c, " pp=")) {
        group->has_pp = true;
        parse = take_ranks(c, &r->store->group_ranks, &group->num_pp);
        if (parse != EM_PARSE_OK) {
            return parse;
        }
    }
    if (em_take(c, " scan=")) {
        static const char *const scans[] = {"up", "down"};
        uint32_t scan = 0;
        TAKE(em_take_word(c, scans, 2, &scan));
        group->scan = scan == 0 ? EM_SCAN_UP : EM_SCAN_DOWN;
    }
    const uint32_t self = (uint32_t)(r->store->groups.num - 1);
    return em_map_insert(&r->group_of_name, group->name, self, NULL) == NULL ? EM_PARSE_NO_MEMORY
                                                                             : EM_PARSE_OK;
}

/* A group by its name: EM_UNKNOWN if no such group was declared. */
static em_parse_t take_group_name(em_reader_t *r, em_cursor_t *c, int32_t *group)
{
    const char *text = NULL;
    size_t num_bytes = 0;
    TAKE(em_take_name(c, false, &text, &num_bytes));
    const int32_t name = em_find_name(r, text, num_bytes);
    const uint32_t *const found = name < 0 ? NULL : em_map_find(&r->group_of_name, (uint64_t)name);
    *group = found == NULL ? EM_UNKNOWN : (int32_t)*found;
    return EM_PARSE_OK;
}

static em_parse_t take_bucket(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    static const char *const parts[] = {"wte", "wpe", "layers", "norm", "head"};
    em_plan_bucket_t *bucket = NULL;
    PUSH(bucket, &r->store->buckets);
    bucket->line = (uint32_t)line;
    bucket->shard = EM_NONE;
    TAKE_INDEX("bucket ", &bucket->stage);
    TAKE_INDEX("/", &bucket->index);
    TAKE(em_take(c, " holds="));
    int64_t last_part = -1;
    do {
        uint32_t part = 0;
        TAKE(em_take_word(c, parts, 5, &part));
        bucket->holds_twice = bucket->holds_twice || (int64_t)part <= last_part;
        last_part = part;
        bucket->holds |= 1u << part;
    } while (em_take(c, ","));
    TAKE_INT(" elements=", 0, &bucket->elements);
    em_parse_t parse = EM_PARSE_OK;
    if (em_take(c, " shard=")) {
        parse = take_group_name(r, c, &bucket->shard);
    }
    bucket->first_reduce = (uint32_t)r->store->reduce_groups.num;
    if (parse == EM_PARSE_OK && em_take(c, " reduce=")) {
        do {
            int32_t *group = NULL;
            PUSH(group, &r->store->reduce_groups);
            parse = take_group_name(r, c, group);
            bucket->num_reduce++;
        } while (parse == EM_PARSE_OK && em_take(c, ","));
    }
    if (parse != EM_PARSE_OK) {
        return parse;
    }
    const uint64_t key = (uint64_t)bucket->stage << 20 | bucket->index;
    const uint32_t self = (uint32_t)(r->store->buckets.num - 1);
    return em_map_insert(&r->bucket_of_pair, key, self, NULL) == NULL ? EM_PARSE_NO_MEMORY
                                                                      : EM_PARSE_OK;
}

static em_parse_t take_tie(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_raw_tie_t *tie = NULL;
    PUSH(tie, &r->raw_ties);
    tie->line = (uint32_t)line;
    TAKE_INDEX("tie ", &tie->stage[0]);
    TAKE_INDEX("/", &tie->index[0]);
    TAKE_INDEX(" ", &tie->stage[1]);
    TAKE_INDEX("/", &tie->index[1]);
    return EM_PARSE_OK;
}

static em_parse_t take_arena(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_raw_arena_t *arena = NULL;
    PUSH(arena, &r->raw_arenas);
    arena->line = (uint32_t)line;
    TAKE_INDEX("arena pp=", &arena->pp);
    TAKE_INT(" bytes=", 0, &arena->bytes);
    return EM_PARSE_OK;
}

static em_parse_t take_region(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    static const char *const kinds[EM_NUM_REGIONS] = {"params", "grads", "moments", "staging",
                                                      "workspace"};
    em_raw_block_t *region = NULL;
    PUSH(region, &r->raw_regions);
    region->line = (uint32_t)line;
    region->num = 1;
    TAKE_INDEX("region pp=", &region->pp);
    TAKE(em_take(c, " ") && em_take_word(c, kinds, EM_NUM_REGIONS, &region->kind));
    TAKE_INT(" bytes=", 0, &region->bytes);
    TAKE_INT(" at=", 0, &region->at);
    return EM_PARSE_OK;
}

static em_parse_t take_pool(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    static const char *const letters[EM_NUM_POOLS] = {"h", "a", "w", "g", "k", "p", "q", "o"};
    em_raw_block_t *pool = NULL;
    PUSH(pool, &r->raw_pools);
    pool->line = (uint32_t)line;
    TAKE_INDEX("pool pp=", &pool->pp);
    TAKE(em_take(c, " ") && em_take_word(c, letters, EM_NUM_POOLS, &pool->kind));
    TAKE_SIZE(" n=", 1, &pool->num);
    TAKE_INT(" bytes=", 0, &pool->bytes);
    TAKE_INT(" at=", 0, &pool->at);
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

static em_parse_t take_map(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_raw_map_t *map = NULL;
    PUSH(map, &r->raw_maps);
    map->line = (uint32_t)line;
    map->dp = EM_NONE;
    TAKE_INDEX("map pp=", &map->pp);
    if (em_take(c, ",dp=")) {
        uint32_t dp = 0;
        TAKE(em_take_index(c, &dp));
        map->dp = (int32_t)dp;
    }
    TAKE(em_take(c, " "));
    return take_name(r, c, true, &map->name);
}

static em_parse_t take_program(em_reader_t *r, em_cursor_t *c, uint64_t line)
{
    em_program_t *program = NULL;
    em_program_extra_t *extra = NULL;
    PUSH(program, &r->store->programs);
    PUSH(extra, &r->extras);
    program->line = (uint32_t)line;
    extra->first_instr = r->store->instrs.num;
    TAKE(em_take(c, "program "));
    const em_parse_t parse = take_name(r, c, true, &program->name);
    if (parse != EM_PARSE_OK) {
        return parse;
    }
    const uint32_t self = (uint32_t)(r->store->programs.num - 1);
    return em_map_insert(&r->program_of_name, program->name, self, NULL) == NULL
               ? EM_PARSE_NO_MEMORY
               : EM_PARSE_OK;
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
    case EM_LINE_STAGE:
        return take_stage(r, c, line);
    case EM_LINE_PLACE:
        return take_place(r, c, line);
    case EM_LINE_CLOCK:
        return take_choice(c, "clock=", "barrier", "free", &r->plan->clock_free);
    case EM_LINE_SERIAL:
        return take_choice(c, "serial=", "no", "yes", &r->plan->serial);
    case EM_LINE_LIMIT:
        TAKE_INT("limit=", 0, &r->plan->limit);
        return EM_PARSE_OK;
    case EM_LINE_COUPLE:
        return take_couple(r, c, line);
    case EM_LINE_BUDGET:
        r->plan->has_budget = true;
        TAKE_INT("budget bytes=", 0, &r->plan->budget_bytes);
        return EM_PARSE_OK;
    case EM_LINE_CHAN:
        return take_channel(r, c, line);
    case EM_LINE_GROUP:
        return take_group(r, c, line);
    case EM_LINE_BUCKET:
        return take_bucket(r, c, line);
    case EM_LINE_TIE:
        return take_tie(r, c, line);
    case EM_LINE_ARENA:
        return take_arena(r, c, line);
    case EM_LINE_REGION:
        return take_region(r, c, line);
    case EM_LINE_POOL:
        return take_pool(r, c, line);
    case EM_LINE_MADE:
        return take_information(c, "made", false);
    case EM_LINE_COST:
        return take_information(c, "cost", true);
    case EM_LINE_PRED:
        return take_information(c, "pred", false);
    case EM_LINE_X:
        return take_extra(c);
    case EM_LINE_MAP:
        return take_map(r, c, line);
    case EM_LINE_PROGRAM:
        return take_program(r, c, line);
    case EM_LINE_VERSION:
    case EM_NUM_LINE_KINDS:
        break;
    }
    return EM_PARSE_GRAMMAR;
}

em_parse_t em_header_line(em_reader_t *reader, em_line_kind_t kind, em_cursor_t *cursor,
                          uint64_t line)
{
    const em_parse_t parse = take_line(reader, kind, cursor, line);
    return parse == EM_PARSE_OK && !em_take_end(cursor) ? EM_PARSE_GRAMMAR : parse;
}
