/*
 * Which slots of one rank live: a set of indices per pool that answers "the next one from here" in
 * constant time, and so "does any slot of that pool live in these bytes".
 */
#ifndef EM_SLOTS_H
#define EM_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "exactmap/plan.h"

enum { EM_SLOT_LEVELS = 4 };

/* A bit per slot, a bit per word of those that is not zero, and so on up to one word. */
typedef struct {
    uint64_t *level[EM_SLOT_LEVELS];
    uint32_t *line; /* where each was named */
    uint64_t capacity;
    uint64_t num; /* living */
} em_slot_set_t;

typedef struct {
    em_slot_set_t pools[EM_NUM_POOLS];
} em_slots_t;

/* Room for the largest pools of the plan, none of their slots living; false: no memory. */
bool em_slots_create(em_slots_t *slots, const em_plan_t *plan);
void em_slots_destroy(em_slots_t *slots);

/* The least living slot from `slot` on, or UINT64_MAX. */
uint64_t em_slots_next(const em_slots_t *slots, em_pool_t pool, uint64_t slot);

/*
 * Bring a slot to life. If it lives, or shares bytes with a living slot of another pool of the
 * arena, false, and that one is in *other and *other_slot.
 */
bool em_slots_begin(em_slots_t *slots, const em_plan_rank_t *rank, em_pool_t pool, int32_t slot,
                    uint32_t line, em_pool_t *other, uint64_t *other_slot);

/* End a slot's life; EM_NONE stands for none. */
void em_slots_end(em_slots_t *slots, em_pool_t pool, int32_t slot);

#endif
