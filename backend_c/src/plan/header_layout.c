/*
 * Phase 1: the header lines that lay a model out: stages, placement, channels, groups, buckets,
 * memory, programs. Raw facts: phase 2 looks at what they mean.
 */
#include "plan/em_take.h"

/* A new item of a vector; leaves the function if there is no memory. */
#define PUSH(item, vec)                                                                            \
    do {                                                                                           \
        (item) = em_vec_push((vec), sizeof *(item));                                               \
        if ((item) == NULL) {                                                                      \
            return EM_PARSE_NO_MEMORY;                                                             \
        }                                                                                          \
    } while (0)

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
            TAKE(em_take_word(c, em_axis_words, EM_NUM_AXES, &axis));
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
        TAKE(em_take_word(c, em_axis_words, EM_NUM_AXES, &axis));
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

em_parse_t em_layout_line(em_reader_t *r, em_line_kind_t kind, em_cursor_t *c, uint64_t line)
{
    switch (kind) {
    case EM_LINE_STAGE:
        return take_stage(r, c, line);
    case EM_LINE_PLACE:
        return take_place(r, c, line);
    case EM_LINE_COUPLE:
        return take_couple(r, c, line);
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
    case EM_LINE_MAP:
        return take_map(r, c, line);
    case EM_LINE_PROGRAM:
        return take_program(r, c, line);
    default:
        return EM_PARSE_GRAMMAR;
    }
}
