/* Reading a plan from start to end, and asking it things. See exactmap/plan.h. */
#include "exactmap/plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_clock.h"
#include "plan/em_reader.h"

static void free_reader(em_reader_t *reader)
{
    em_map_free(&reader->name_of_text);
    em_map_free(&reader->channel_of_name);
    em_map_free(&reader->group_of_name);
    em_map_free(&reader->bucket_of_pair);
    em_map_free(&reader->part_of_pair);
    em_map_free(&reader->program_of_name);
    em_vec_free(&reader->raw_places);
    em_vec_free(&reader->raw_ties);
    em_vec_free(&reader->raw_arenas);
    em_vec_free(&reader->raw_regions);
    em_vec_free(&reader->raw_pools);
    em_vec_free(&reader->raw_maps);
    em_vec_free(&reader->extras);
    em_vec_free(&reader->rank_first);
    em_vec_free(&reader->rank_stages);
    em_vec_free(&reader->uses);
    em_vec_free(&reader->next_post);
}

void em_plan_free(em_plan_t *plan)
{
    if (plan == NULL) {
        return;
    }
    em_store_t *const store = (em_store_t *)plan;
    em_vec_free(&store->stages);
    em_vec_free(&store->parts);
    em_vec_free(&store->place_ranks);
    em_vec_free(&store->channels);
    em_vec_free(&store->groups);
    em_vec_free(&store->group_ranks);
    em_vec_free(&store->buckets);
    em_vec_free(&store->reduce_groups);
    em_vec_free(&store->ties);
    em_vec_free(&store->ranks);
    em_vec_free(&store->overrides);
    em_vec_free(&store->programs);
    em_vec_free(&store->instrs);
    em_vec_free(&store->members);
    em_vec_free(&store->names);
    em_free(store);
}

/* Programs point into the array of all instructions, which moves no more. */
static void point_programs(em_reader_t *reader)
{
    em_store_t *const store = reader->store;
    for (uint64_t i = 0; i < store->programs.num; i++) {
        const em_program_extra_t *const extra = &EM_AT(reader->extras, em_program_extra_t, i);
        EM_AT(store->programs, em_program_t, i).instrs =
            &EM_AT(store->instrs, em_instr_t, extra->first_instr);
    }
    em_store_publish(store);
}

/* One part of a reading, and its time. */
typedef bool part_t(em_reader_t *reader);

static bool timed(em_reader_t *reader, part_t *part, uint64_t *ns)
{
    const uint64_t start = em_clock_thread_ns();
    const bool good = part(reader);
    *ns = em_clock_thread_ns() - start;
    return good;
}

static bool read_all(em_reader_t *reader, em_plan_times_t *times)
{
    if (!timed(reader, em_read_text, &times->text) || !timed(reader, em_check_hash, &times->hash)) {
        return false;
    }
    point_programs(reader);
    return timed(reader, em_check_head, &times->head) &&
           timed(reader, em_check_programs, &times->programs) &&
           timed(reader, em_check_pairs, &times->pairs) &&
           timed(reader, em_check_progress, &times->progress);
}

em_status_t em_plan_read(const uint8_t *bytes, size_t num_bytes, em_plan_t **plan,
                         em_verdict_t *verdict)
{
    em_plan_times_t ignored;
    return em_plan_read_timed(bytes, num_bytes, plan, verdict, &ignored);
}

em_status_t em_plan_read_timed(const uint8_t *bytes, size_t num_bytes, em_plan_t **plan,
                               em_verdict_t *verdict, em_plan_times_t *times)
{
    return em_plan_read_by(bytes, num_bytes, plan, verdict, times, false);
}

em_status_t em_plan_read_by(const uint8_t *bytes, size_t num_bytes, em_plan_t **plan,
                            em_verdict_t *verdict, em_plan_times_t *times, bool plain)
{
    *plan = NULL;
    *times = (em_plan_times_t){.text = 0};
    *verdict = (em_verdict_t){.code = EM_VERDICT_OK};
    em_store_t *const store = em_alloc_zeroed(1, sizeof *store);
    if (store == NULL) {
        (void)snprintf(verdict->text, sizeof verdict->text, "no memory to read the plan");
        return EM_ERR_MEMORY;
    }
    em_reader_t reader = {.bytes = bytes,
                          .num_bytes = num_bytes,
                          .store = store,
                          .plan = &store->plan,
                          .verdict = verdict,
                          .plain = plain};
    const bool accepted = read_all(&reader, times);
    free_reader(&reader);
    if (accepted) {
        *plan = &store->plan;
        return EM_OK;
    }
    em_plan_free(&store->plan);
    if (reader.no_memory) {
        *verdict = (em_verdict_t){.code = EM_VERDICT_OK};
        (void)snprintf(verdict->text, sizeof verdict->text, "no memory to read the plan");
        return EM_ERR_MEMORY;
    }
    return em_verdict_status(verdict->code);
}

/* The whole file in memory of the allocator hook, never more than a plan may have and one byte. */
static em_status_t read_file(const char *path, uint8_t **bytes, size_t *num_bytes, em_error_t *err)
{
    FILE *const file = fopen(path, "rb");
    EM_RETURN_ERROR_IF(file == NULL, err, EM_ERR_IO, "%s: cannot open the plan: %s", path,
                       strerror(errno));
    /* One byte more than a file has at first: the last read finds its end. */
    const long size = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    (void)fseek(file, 0, SEEK_SET);
    size_t capacity = size < 0 || size > EM_MAX_FILE_BYTES ? 1 << 16 : (size_t)size + 1;
    uint8_t *buffer = em_alloc(capacity);
    size_t used = 0;
    while (buffer != NULL && used <= EM_MAX_FILE_BYTES) {
        const size_t got = fread(buffer + used, 1, capacity - used, file);
        used += got;
        if (got == 0) {
            break;
        }
        if (used == capacity) {
            uint8_t *const bigger = em_alloc(2 * (uint64_t)capacity);
            if (bigger != NULL) {
                memcpy(bigger, buffer, used);
                capacity *= 2;
            }
            em_free(buffer);
            buffer = bigger;
        }
    }
    const int failed = ferror(file) ? errno : 0;
    (void)fclose(file);
    EM_RETURN_ERROR_IF(buffer == NULL, err, EM_ERR_MEMORY, "%s: no memory to read the plan", path);
    if (failed != 0) {
        em_free(buffer);
        return EM_FAIL(err, EM_ERR_IO, "%s: cannot read the plan: %s", path, strerror(failed));
    }
    *bytes = buffer;
    *num_bytes = used;
    return EM_OK;
}

em_status_t em_plan_load(const char *path, em_plan_t **plan, em_verdict_t *verdict, em_error_t *err)
{
    *plan = NULL;
    *verdict = (em_verdict_t){.code = EM_VERDICT_OK};
    uint8_t *bytes = NULL;
    size_t num_bytes = 0;
    EM_RETURN_IF_ERROR(read_file(path, &bytes, &num_bytes, err));
    const em_status_t status = em_plan_read(bytes, num_bytes, plan, verdict);
    em_free(bytes);
    if (status == EM_ERR_MEMORY) {
        return EM_FAIL(err, status, "%s: %s", path, verdict->text);
    }
    if (status != EM_OK) {
        (void)EM_FAIL(err, status, "%s:%" PRIu64 ": %s: %s", path, verdict->line,
                      em_verdict_name(verdict->code), verdict->text);
        if (verdict->hint[0] != '\0') {
            em_hint(err, "%s", verdict->hint);
        }
        return status;
    }
    return EM_OK;
}

const em_program_t *em_plan_program(const em_plan_t *plan, uint32_t pp, uint64_t dp)
{
    uint32_t low = 0;
    uint32_t high = plan->num_overrides;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        const em_plan_override_t *const override = &plan->overrides[middle];
        if (override->pp == pp && override->dp == dp) {
            return &plan->programs[override->program];
        }
        if (override->pp < pp || (override->pp == pp && override->dp < dp)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return pp < plan->num_ranks ? &plan->programs[plan->ranks[pp].program] : NULL;
}

/* Binary search in ascending ranks. */
static bool has_rank(const uint32_t *ranks, uint32_t num, uint32_t pp)
{
    while (num > 0) {
        const uint32_t half = num / 2;
        if (ranks[half] == pp) {
            return true;
        }
        if (ranks[half] < pp) {
            ranks += half + 1;
            num -= half + 1;
        } else {
            num = half;
        }
    }
    return false;
}

bool em_plan_group_has(const em_plan_t *plan, uint32_t group, uint32_t pp)
{
    const em_plan_group_t *const g = &plan->groups[group];
    return !g->has_pp || has_rank(plan->group_ranks + g->first_pp, g->num_pp, pp);
}

bool em_plan_stage_on(const em_plan_t *plan, uint32_t stage, uint32_t pp)
{
    const em_plan_stage_t *const s = &plan->stages[stage];
    return has_rank(plan->place_ranks + s->first_rank, s->num_ranks, pp);
}
