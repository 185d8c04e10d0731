/* A growing array and a hash map. See em_vec.h. */
#include "plan/em_vec.h"

#include <stddef.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_checked.h"

/* Move the items to room for `capacity` of them; false if there is no memory. */
static bool move(em_vec_t *vec, uint64_t item_bytes, uint64_t capacity)
{
    uint64_t bytes = 0;
    if (!em_mul_u64(capacity, item_bytes, &bytes)) {
        return false;
    }
    void *const items = em_alloc(bytes);
    if (items == NULL) {
        return false;
    }
    if (vec->num > 0) {
        memcpy(items, vec->items, (size_t)(vec->num * item_bytes));
    }
    em_free(vec->items);
    vec->items = items;
    vec->capacity = capacity;
    return true;
}

void *em_vec_push(em_vec_t *vec, uint64_t item_bytes)
{
    if (vec->num == vec->capacity) {
        uint64_t capacity = vec->capacity == 0 ? 16 : vec->capacity;
        if (!em_mul_u64(capacity, vec->capacity == 0 ? 1 : 2, &capacity) ||
            !move(vec, item_bytes, capacity)) {
            return NULL;
        }
    }
    void *const item = (unsigned char *)vec->items + vec->num * item_bytes;
    memset(item, 0, (size_t)item_bytes);
    vec->num++;
    return item;
}

bool em_vec_reserve(em_vec_t *vec, uint64_t item_bytes, uint64_t num)
{
    return num <= vec->capacity || move(vec, item_bytes, num);
}

void em_vec_free(em_vec_t *vec)
{
    em_free(vec->items);
    memset(vec, 0, sizeof *vec);
}

/* The finaliser of splitmix64: every bit of the key reaches every bit of the slot. */
static uint64_t mix(uint64_t key)
{
    key = (key ^ (key >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    key = (key ^ (key >> 27)) * UINT64_C(0x94d049bb133111eb);
    return key ^ (key >> 31);
}

/* The slot that holds the key, or the empty one where it belongs. */
static em_map_slot_t *probe(const em_map_t *map, uint64_t key)
{
    uint64_t i = mix(key) & (map->capacity - 1);
    while (map->slots[i].round == map->round && map->slots[i].key != key) {
        i = (i + 1) & (map->capacity - 1);
    }
    return &map->slots[i];
}

uint32_t *em_map_find(const em_map_t *map, uint64_t key)
{
    if (map->capacity == 0) {
        return NULL;
    }
    em_map_slot_t *const slot = probe(map, key);
    return slot->round == map->round ? &slot->value : NULL;
}

static bool grow(em_map_t *map)
{
    em_map_t bigger = {.capacity = map->capacity == 0 ? 64 : 2 * map->capacity, .round = 1};
    bigger.slots = em_alloc_zeroed(bigger.capacity, sizeof *bigger.slots);
    if (bigger.slots == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < map->capacity; i++) {
        if (map->slots[i].round == map->round) {
            em_map_slot_t *const slot = probe(&bigger, map->slots[i].key);
            *slot = map->slots[i];
            slot->round = bigger.round;
        }
    }
    bigger.num = map->num;
    em_free(map->slots);
    *map = bigger;
    return true;
}

uint32_t *em_map_insert(em_map_t *map, uint64_t key, uint32_t value, bool *added)
{
    if (2 * map->num >= map->capacity && !grow(map)) {
        return NULL;
    }
    em_map_slot_t *const slot = probe(map, key);
    const bool is_new = slot->round != map->round;
    if (is_new) {
        *slot = (em_map_slot_t){.key = key, .value = value, .round = map->round};
        map->num++;
    }
    if (added != NULL) {
        *added = is_new;
    }
    return &slot->value;
}

void em_map_clear(em_map_t *map)
{
    if (map->round == UINT32_MAX) {
        memset(map->slots, 0, (size_t)(map->capacity * sizeof *map->slots));
        map->round = 0;
    }
    map->round++;
    map->num = 0;
}

void em_map_free(em_map_t *map)
{
    em_free(map->slots);
    memset(map, 0, sizeof *map);
}
