/*
 * Phase 2: each rank's arena with its regions and pools, and the map of programs.
 *
 * Rulings 13 and 14 of the page's section 10.
 */
#include <inttypes.h>

#include "common/em_checked.h"
#include "plan/em_reader.h"

static const char *const REGIONS[EM_NUM_REGIONS] = {"params", "grads", "moments", "staging",
                                                    "workspace"};

static em_plan_rank_t *rank_at(em_reader_t *r, uint32_t pp)
{
    return &EM_AT(r->store->ranks, em_plan_rank_t, pp);
}

static bool check_arenas(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const uint64_t pp = plan->mesh.size[EM_AXIS_PP];
    for (uint64_t i = 0; i < r->raw_arenas.num; i++) {
        const em_raw_arena_t *const arena = &EM_AT(r->raw_arenas, em_raw_arena_t, i);
        if (arena->pp != i || i >= pp) {
            return em_refuse(r, EM_VERDICT_HEAD_ARENA, arena->line,
                             "arenas must stand once per rank, in order: got pp=%" PRIu32,
                             arena->pp);
        }
        if (plan->has_budget && arena->bytes > plan->budget_bytes) {
            (void)em_refuse(r, EM_VERDICT_ARENA_BUDGET, arena->line,
                            "the arena of rank %" PRIu32 " is over the budget: got %" PRIu64
                            " bytes, expected at most %" PRIu64,
                            arena->pp, arena->bytes, plan->budget_bytes);
            return em_advise(r, "fewer microbatches in flight, more pipeline ranks or "
                                "recomputation need less memory");
        }
        em_plan_rank_t *const rank = em_vec_push(&r->store->ranks, sizeof *rank);
        if (rank == NULL) {
            return em_no_memory(r);
        }
        rank->arena_bytes = arena->bytes;
        rank->arena_line = arena->line;
    }
    if (r->raw_arenas.num < pp) {
        return em_refuse(r, EM_VERDICT_HEAD_ARENA,
                         EM_AT(r->raw_arenas, em_raw_arena_t, r->raw_arenas.num - 1).line,
                         "rank %" PRIu64 " has no arena", r->raw_arenas.num);
    }
    return true;
}

/* Bytes at..end of a region or pool, its alignment, the arena's bounds, and the rank's regions. */
static bool check_extent(em_reader_t *r, const em_raw_block_t *block, const char *name)
{
    const em_plan_rank_t *const rank = rank_at(r, block->pp);
    const em_verdict_code_t code = EM_VERDICT_HEAD_ARENA;
    uint64_t end = 0;
    if (block->at % 64 != 0) {
        return em_refuse(r, code, block->line,
                         "%s of rank %" PRIu32 " is not aligned: got at=%" PRIu64
                         ", expected a multiple of 64",
                         name, block->pp, block->at);
    }
    if (!em_mul_u64(block->num, block->bytes, &end) || !em_add_u64(end, block->at, &end) ||
        end > rank->arena_bytes) {
        return em_refuse(r, code, block->line,
                         "%s of rank %" PRIu32 " ends outside the arena of %" PRIu64 " bytes", name,
                         block->pp, rank->arena_bytes);
    }
    for (int kind = 0; kind < EM_NUM_REGIONS && end > block->at; kind++) {
        const em_plan_region_t *const region = &rank->regions[kind];
        if (region->bytes > 0 && block->at < region->at + region->bytes && region->at < end) {
            return em_refuse(r, code, block->line,
                             "%s of rank %" PRIu32 " overlaps region %s: got %" PRIu64
                             " to %" PRIu64 ", expected nothing between %" PRIu64 " and %" PRIu64,
                             name, block->pp, REGIONS[kind], block->at, end, region->at,
                             region->at + region->bytes);
        }
    }
    return true;
}

/* Lines of regions or of pools ascend by (rank, kind), on ranks that are there. */
static bool check_order(em_reader_t *r, const em_vec_t *blocks, uint64_t i, const char *name)
{
    const em_raw_block_t *const block = &EM_AT(*blocks, em_raw_block_t, i);
    const em_raw_block_t *const before = i == 0 ? NULL : block - 1;
    if (block->pp >= r->store->ranks.num ||
        (before != NULL &&
         (block->pp < before->pp || (block->pp == before->pp && block->kind <= before->kind)))) {
        return em_refuse(r, EM_VERDICT_HEAD_ARENA, block->line,
                         "%s of rank %" PRIu32 " is out of order, repeated, or of no rank", name,
                         block->pp);
    }
    return true;
}

bool em_check_memory(em_reader_t *r)
{
    if (!check_arenas(r)) {
        return false;
    }
    for (uint64_t i = 0; i < r->raw_regions.num; i++) {
        const em_raw_block_t *const block = &EM_AT(r->raw_regions, em_raw_block_t, i);
        const char *const name = REGIONS[block->kind];
        if (!check_order(r, &r->raw_regions, i, name) || !check_extent(r, block, name)) {
            return false;
        }
        rank_at(r, block->pp)->regions[block->kind] =
            (em_plan_region_t){.bytes = block->bytes, .at = block->at, .line = block->line};
    }
    for (uint64_t i = 0; i < r->raw_pools.num; i++) {
        const em_raw_block_t *const block = &EM_AT(r->raw_pools, em_raw_block_t, i);
        const char name[] = {'p', 'o', 'o', 'l', ' ', "hawgkpqo"[block->kind], '\0'};
        if (!check_order(r, &r->raw_pools, i, name) ||
            (block->kind != EM_POOL_O && !check_extent(r, block, name))) {
            return false;
        }
        rank_at(r, block->pp)->pools[block->kind] = (em_plan_pool_t){
            .num = block->num, .bytes = block->bytes, .at = block->at, .line = block->line};
    }
    return true;
}

/* What is wrong with a map line for itself and after the lines before it. */
static const char *map_fault(const em_reader_t *r, const em_raw_map_t *map, uint64_t num_defaults,
                             const em_plan_override_t *before)
{
    const uint64_t pp = r->plan->mesh.size[EM_AXIS_PP];
    if (map->pp >= pp) {
        return "the rank is not on the mesh";
    }
    if (map->dp == EM_NONE) {
        if (before != NULL) {
            return "rank lines must stand before the overrides of replicas";
        }
        return map->pp != num_defaults ? "ranks must stand once each, in order" : NULL;
    }
    if ((uint64_t)map->dp >= r->plan->mesh.size[EM_AXIS_DP]) {
        return "the replica is not on the mesh";
    }
    if (num_defaults < pp) {
        return "a rank has no program before the first override";
    }
    if (before != NULL &&
        (map->pp < before->pp || (map->pp == before->pp && (uint32_t)map->dp <= before->dp))) {
        return "overrides must ascend by rank, then replica";
    }
    return NULL;
}

/* Number of a program by its name: as maps name them first; programs of the file must follow suit.
 */
typedef struct {
    em_map_t number_of_name;
    em_map_t rank_of_name;
    em_vec_t names; /* uint32_t */
    em_vec_t lines; /* uint32_t: of the map that names it first */
} em_mapped_t;

static bool take_map(em_reader_t *r, const em_raw_map_t *map, em_mapped_t *mapped,
                     uint64_t *num_defaults)
{
    em_vec_t *const overrides = &r->store->overrides;
    const em_plan_override_t *const before =
        overrides->num == 0 ? NULL : &EM_AT(*overrides, em_plan_override_t, overrides->num - 1);
    const char *wrong = map_fault(r, map, *num_defaults, before);
    bool added = false;
    const uint32_t *const rank = em_map_insert(&mapped->rank_of_name, map->name, map->pp, &added);
    if (rank == NULL) {
        return em_no_memory(r);
    }
    if (wrong == NULL && *rank != map->pp) {
        wrong = "the program is mapped to another rank already";
    }
    if (wrong != NULL) {
        return em_refuse(r, EM_VERDICT_HEAD_MAP, map->line, "map of rank %" PRIu32 ": %s", map->pp,
                         wrong);
    }
    if (added) {
        uint32_t *const name = em_vec_push(&mapped->names, sizeof *name);
        uint32_t *const line = em_vec_push(&mapped->lines, sizeof *line);
        if (name == NULL || line == NULL ||
            em_map_insert(&mapped->number_of_name, map->name, (uint32_t)mapped->names.num - 1,
                          NULL) == NULL) {
            return em_no_memory(r);
        }
        *name = map->name;
        *line = map->line;
    }
    const uint32_t program = *em_map_find(&mapped->number_of_name, map->name);
    if (map->dp == EM_NONE) {
        rank_at(r, map->pp)->program = program;
        (*num_defaults)++;
        return true;
    }
    em_plan_override_t *const override = em_vec_push(overrides, sizeof *override);
    if (override == NULL) {
        return em_no_memory(r);
    }
    *override = (em_plan_override_t){
        .pp = map->pp, .dp = (uint32_t)map->dp, .program = program, .line = map->line};
    return true;
}

static bool check_programs(em_reader_t *r, em_mapped_t *mapped)
{
    const em_plan_t *const plan = r->plan;
    for (uint64_t i = 0; i < mapped->names.num; i++) {
        const uint32_t name = EM_AT(mapped->names, uint32_t, i);
        if (em_map_find(&r->program_of_name, name) == NULL) {
            return em_refuse(r, EM_VERDICT_HEAD_MAP, EM_AT(mapped->lines, uint32_t, i),
                             "program %s is not in the file", em_name_text(plan, name));
        }
    }
    for (uint32_t i = 0; i < plan->num_programs; i++) {
        em_program_t *const program = &EM_AT(r->store->programs, em_program_t, i);
        const bool wanted = i < mapped->names.num;
        if (!wanted || EM_AT(mapped->names, uint32_t, i) != program->name) {
            return em_refuse(r, EM_VERDICT_HEAD_MAP, program->line,
                             "programs must stand in the order of their first map lines: got %s, "
                             "expected %s",
                             em_name_text(plan, program->name),
                             wanted ? em_name_text(plan, EM_AT(mapped->names, uint32_t, i))
                                    : "the end of the file");
        }
        program->pp = *em_map_find(&mapped->rank_of_name, program->name);
    }
    return true;
}

static bool check_maps(em_reader_t *r, em_mapped_t *mapped)
{
    uint64_t num_defaults = 0;
    for (uint64_t i = 0; i < r->raw_maps.num; i++) {
        if (!take_map(r, &EM_AT(r->raw_maps, em_raw_map_t, i), mapped, &num_defaults)) {
            return false;
        }
    }
    if (num_defaults < r->plan->mesh.size[EM_AXIS_PP]) {
        return em_refuse(r, EM_VERDICT_HEAD_MAP,
                         EM_AT(r->raw_maps, em_raw_map_t, r->raw_maps.num - 1).line,
                         "rank %" PRIu64 " has no program", num_defaults);
    }
    return check_programs(r, mapped);
}

bool em_check_maps(em_reader_t *r)
{
    em_mapped_t mapped = {.names = {.num = 0}};
    const bool good = check_maps(r, &mapped);
    em_map_free(&mapped.number_of_name);
    em_map_free(&mapped.rank_of_name);
    em_vec_free(&mapped.names);
    em_vec_free(&mapped.lines);
    return good;
}
