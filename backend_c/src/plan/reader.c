/* What the phases share: verdicts, names, and the arrays of a plan. See em_reader.h. */
#include "plan/em_reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/em_arena.h"

static const struct {
    em_verdict_code_t code;
    em_status_t status;
    const char *name;
} VERDICTS[] = {
    {EM_VERDICT_OK, EM_OK, "ok"},
    {EM_VERDICT_TEXT_SIZE, EM_ERR_LIMIT, "text.size"},
    {EM_VERDICT_TEXT_ASCII, EM_ERR_SYNTAX, "text.ascii"},
    {EM_VERDICT_TEXT_VERSION, EM_ERR_VERSION, "text.version"},
    {EM_VERDICT_TEXT_KEYWORD, EM_ERR_SYNTAX, "text.keyword"},
    {EM_VERDICT_TEXT_ORDER, EM_ERR_SYNTAX, "text.order"},
    {EM_VERDICT_TEXT_LINE, EM_ERR_SYNTAX, "text.line"},
    {EM_VERDICT_TEXT_RANGE, EM_ERR_FIELD, "text.range"},
    {EM_VERDICT_TEXT_REP, EM_ERR_SYNTAX, "text.rep"},
    {EM_VERDICT_TEXT_HASH, EM_ERR_HASH, "text.hash"},
    {EM_VERDICT_HEAD_MODEL, EM_ERR_FIELD, "head.model"},
    {EM_VERDICT_HEAD_TRAIN, EM_ERR_FIELD, "head.train"},
    {EM_VERDICT_HEAD_MESH, EM_ERR_FIELD, "head.mesh"},
    {EM_VERDICT_HEAD_STAGE, EM_ERR_FIELD, "head.stage"},
    {EM_VERDICT_HEAD_PLACE, EM_ERR_FIELD, "head.place"},
    {EM_VERDICT_HEAD_COUPLE, EM_ERR_FIELD, "head.couple"},
    {EM_VERDICT_HEAD_CHANNEL, EM_ERR_FIELD, "head.channel"},
    {EM_VERDICT_HEAD_GROUP, EM_ERR_FIELD, "head.group"},
    {EM_VERDICT_HEAD_BUCKET, EM_ERR_FIELD, "head.bucket"},
    {EM_VERDICT_HEAD_TIE, EM_ERR_FIELD, "head.tie"},
    {EM_VERDICT_HEAD_ARENA, EM_ERR_FIELD, "head.arena"},
    {EM_VERDICT_ARENA_BUDGET, EM_ERR_FIELD, "arena.budget"},
    {EM_VERDICT_HEAD_MAP, EM_ERR_FIELD, "head.map"},
    {EM_VERDICT_PROG_REF, EM_ERR_FIELD, "prog.ref"},
    {EM_VERDICT_PROG_WAIT, EM_ERR_FIELD, "prog.wait"},
    {EM_VERDICT_PROG_WORK, EM_ERR_FIELD, "prog.work"},
    {EM_VERDICT_PROG_ORDER, EM_ERR_FIELD, "prog.order"},
    {EM_VERDICT_PROG_DATA, EM_ERR_FIELD, "prog.data"},
    {EM_VERDICT_PROG_BUCKET, EM_ERR_FIELD, "prog.bucket"},
    {EM_VERDICT_PROG_NORM, EM_ERR_FIELD, "prog.norm"},
    {EM_VERDICT_PROG_SLOT, EM_ERR_FIELD, "prog.slot"},
    {EM_VERDICT_PROG_LIMIT, EM_ERR_FIELD, "prog.limit"},
    {EM_VERDICT_PAIR_WORK, EM_ERR_FIELD, "pair.work"},
    {EM_VERDICT_PAIR_MESSAGE, EM_ERR_FIELD, "pair.message"},
    {EM_VERDICT_PAIR_BYTES, EM_ERR_FIELD, "pair.bytes"},
    {EM_VERDICT_PAIR_GROUP, EM_ERR_FIELD, "pair.group"},
    {EM_VERDICT_GRAPH_DEADLOCK, EM_ERR_FIELD, "graph.deadlock"},
    {EM_VERDICT_GRAPH_SERIAL, EM_ERR_FIELD, "graph.serial"},
};

const char *em_verdict_name(em_verdict_code_t code)
{
    for (size_t i = 0; i < sizeof VERDICTS / sizeof *VERDICTS; i++) {
        if (VERDICTS[i].code == code) {
            return VERDICTS[i].name;
        }
    }
    return "?";
}

em_status_t em_verdict_status(em_verdict_code_t code)
{
    for (size_t i = 0; i < sizeof VERDICTS / sizeof *VERDICTS; i++) {
        if (VERDICTS[i].code == code) {
            return VERDICTS[i].status;
        }
    }
    return EM_ERR_FIELD;
}

bool em_refuse(em_reader_t *reader, em_verdict_code_t code, uint64_t line, const char *fmt, ...)
{
    em_verdict_t *const verdict = reader->verdict;
    verdict->code = code;
    verdict->line = line;
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(verdict->text, sizeof verdict->text, fmt, args);
    va_end(args);
    verdict->hint[0] = '\0';
    return false;
}

bool em_advise(em_reader_t *reader, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(reader->verdict->hint, sizeof reader->verdict->hint, fmt, args);
    va_end(args);
    return false;
}

bool em_no_memory(em_reader_t *reader)
{
    reader->no_memory = true;
    return false;
}

void em_line_text(const em_reader_t *reader, uint64_t line, char *text, size_t size)
{
    const char *start = (const char *)reader->bytes;
    const char *const end = start + reader->num_bytes;
    for (uint64_t at = 1; at < line && start < end; at++) {
        const char *const lf = memchr(start, '\n', (size_t)(end - start));
        start = lf == NULL ? end : lf + 1;
    }
    const char *const lf = memchr(start, '\n', (size_t)(end - start));
    const size_t num_bytes = (size_t)((lf == NULL ? end : lf) - start);
    const size_t kept = num_bytes < size - 1 ? num_bytes : size - 1;
    memcpy(text, start, kept);
    text[kept] = '\0';
}

/* Key of a text: FNV-1a; two texts of one hash take neighbouring keys. */
static uint64_t hash_text(const char *text, size_t num_bytes)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < num_bytes; i++) {
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static const char *name_at(const em_vec_t *names, uint32_t name)
{
    return (const char *)names->items + (size_t)name * EM_NAME_BYTES;
}

static bool is_text(const char *name, const char *text, size_t num_bytes)
{
    return strlen(name) == num_bytes && memcmp(name, text, num_bytes) == 0;
}

int32_t em_find_name(const em_reader_t *reader, const char *text, size_t num_bytes)
{
    for (uint64_t key = hash_text(text, num_bytes);; key++) {
        const uint32_t *const found = em_map_find(&reader->name_of_text, key);
        if (found == NULL) {
            return EM_UNKNOWN;
        }
        const char *const name = name_at(&reader->store->names, *found);
        if (is_text(name, text, num_bytes)) {
            return (int32_t)*found;
        }
    }
}

int32_t em_intern(em_reader_t *reader, const char *text, size_t num_bytes)
{
    em_vec_t *const names = &reader->store->names;
    for (uint64_t key = hash_text(text, num_bytes);; key++) {
        bool added = false;
        const uint32_t *const found =
            em_map_insert(&reader->name_of_text, key, (uint32_t)names->num, &added);
        if (found == NULL) {
            return EM_NONE;
        }
        if (added) {
            char *const name = em_vec_push(names, EM_NAME_BYTES);
            if (name == NULL) {
                return EM_NONE;
            }
            memcpy(name, text, num_bytes < EM_NAME_BYTES ? num_bytes : EM_NAME_BYTES - 1);
            return (int32_t)(names->num - 1);
        }
        if (is_text(name_at(names, *found), text, num_bytes)) {
            return (int32_t)*found;
        }
    }
}

const char *em_name_text(const em_plan_t *plan, int64_t name)
{
    return name < 0 || name >= (int64_t)plan->num_names ? "" : plan->names[name];
}

void em_store_publish(em_store_t *store)
{
    em_plan_t *const plan = &store->plan;
    plan->num_stages = (uint32_t)store->stages.num;
    plan->num_channels = (uint32_t)store->channels.num;
    plan->num_groups = (uint32_t)store->groups.num;
    plan->num_buckets = (uint32_t)store->buckets.num;
    plan->num_ties = (uint32_t)store->ties.num;
    plan->num_ranks = (uint32_t)store->ranks.num;
    plan->num_overrides = (uint32_t)store->overrides.num;
    plan->num_programs = (uint32_t)store->programs.num;
    plan->num_members = store->members.num;
    plan->num_names = (uint32_t)store->names.num;
    plan->stages = store->stages.items;
    plan->channels = store->channels.items;
    plan->groups = store->groups.items;
    plan->buckets = store->buckets.items;
    plan->ties = store->ties.items;
    plan->ranks = store->ranks.items;
    plan->overrides = store->overrides.items;
    plan->programs = store->programs.items;
    plan->members = store->members.items;
    plan->names = (const char (*)[EM_NAME_BYTES])store->names.items;
    plan->parts = store->parts.items;
    plan->place_ranks = store->place_ranks.items;
    plan->group_ranks = store->group_ranks.items;
    plan->reduce_groups = store->reduce_groups.items;
}
