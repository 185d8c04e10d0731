/* Living slots. See em_slots.h. */
#include "plan/em_slots.h"

#include <string.h>

#include "common/em_arena.h"

bool em_slots_create(em_slots_t *slots, const em_plan_t *plan)
{
    memset(slots, 0, sizeof *slots);
    for (int pool = 0; pool < EM_NUM_POOLS; pool++) {
        em_slot_set_t *const set = &slots->pools[pool];
        for (uint32_t r = 0; r < plan->num_ranks; r++) {
            const uint64_t num = plan->ranks[r].pools[pool].num;
            set->capacity = num > set->capacity ? num : set->capacity;
        }
        if (set->capacity == 0) {
            continue;
        }
        uint64_t words = set->capacity;
        for (int level = 0; level < EM_SLOT_LEVELS; level++) {
            words = words / 64 + 1;
            set->level[level] = em_alloc_zeroed(words, sizeof(uint64_t));
            if (set->level[level] == NULL) {
                return false;
            }
        }
        set->line = em_alloc(set->capacity * sizeof(uint32_t));
        if (set->line == NULL) {
            return false;
        }
    }
    return true;
}

void em_slots_destroy(em_slots_t *slots)
{
    for (int pool = 0; pool < EM_NUM_POOLS; pool++) {
        for (int level = 0; level < EM_SLOT_LEVELS; level++) {
            em_free(slots->pools[pool].level[level]);
        }
        em_free(slots->pools[pool].line);
    }
    memset(slots, 0, sizeof *slots);
}

static bool is_living(const em_slot_set_t *set, uint64_t slot)
{
    return (set->level[0][slot / 64] >> slot % 64 & 1) != 0;
}

static uint64_t lowest_bit(uint64_t word)
{
    uint64_t bit = 0;
    for (uint64_t half = 32; half > 0; half /= 2) {
        if ((word & ((UINT64_C(1) << half) - 1)) == 0) {
            word >>= half;
            bit += half;
        }
    }
    return bit;
}

uint64_t em_slots_next(const em_slots_t *slots, em_pool_t pool, uint64_t slot)
{
    const em_slot_set_t *const set = &slots->pools[pool];
    if (slot >= set->capacity) {
        return UINT64_MAX;
    }
    /* Up until a word has a bit at or after the place, then down to the lowest bit each time. */
    uint64_t place = slot;
    for (int level = 0; level < EM_SLOT_LEVELS; level++) {
        const uint64_t word = set->level[level][place / 64] >> place % 64;
        if (word != 0) {
            place += lowest_bit(word);
            for (int down = level - 1; down >= 0; down--) {
                place = 64 * place + lowest_bit(set->level[down][place]);
            }
            return place;
        }
        place = place / 64 + 1;
        if (level + 1 < EM_SLOT_LEVELS && place > set->capacity >> (6 * (level + 1))) {
            return UINT64_MAX; /* behind the last word of the level below */
        }
    }
    return UINT64_MAX;
}

/* First living slot of `other` that shares a byte with start..end (not empty), or UINT64_MAX. */
static uint64_t find_clash(const em_slots_t *slots, const em_plan_pool_t *other, em_pool_t pool,
                           uint64_t start, uint64_t end)
{
    if (other->bytes == 0 || end <= other->at) {
        return UINT64_MAX;
    }
    const uint64_t first = start <= other->at ? 0 : (start - other->at) / other->bytes;
    const uint64_t found = em_slots_next(slots, pool, first);
    return found != UINT64_MAX && other->at + found * other->bytes < end ? found : UINT64_MAX;
}

bool em_slots_begin(em_slots_t *slots, const em_plan_rank_t *rank, em_pool_t pool, int32_t slot,
                    uint32_t line, em_pool_t *other, uint64_t *other_slot)
{
    em_slot_set_t *const set = &slots->pools[pool];
    uint64_t place = (uint64_t)slot;
    if (is_living(set, place)) {
        *other = pool;
        *other_slot = place;
        return false;
    }
    const em_plan_pool_t *const own = &rank->pools[pool];
    const uint64_t start = own->at + place * own->bytes;
    for (int p = 0; p < EM_POOL_O && pool != EM_POOL_O && own->bytes > 0; p++) {
        if (p == (int)pool || slots->pools[p].num == 0) {
            continue;
        }
        *other = (em_pool_t)p;
        *other_slot = find_clash(slots, &rank->pools[p], *other, start, start + own->bytes);
        if (*other_slot != UINT64_MAX) {
            return false;
        }
    }
    set->line[place] = line;
    set->num++;
    for (int level = 0; level < EM_SLOT_LEVELS; level++) {
        set->level[level][place / 64] |= UINT64_C(1) << place % 64;
        place /= 64;
    }
    return true;
}

void em_slots_end(em_slots_t *slots, em_pool_t pool, int32_t slot)
{
    if (slot == EM_NONE) {
        return;
    }
    em_slot_set_t *const set = &slots->pools[pool];
    uint64_t place = (uint64_t)slot;
    set->num--;
    for (int level = 0; level < EM_SLOT_LEVELS; level++) {
        set->level[level][place / 64] &= ~(UINT64_C(1) << place % 64);
        if (set->level[level][place / 64] != 0) {
            return;
        }
        place /= 64;
    }
}
