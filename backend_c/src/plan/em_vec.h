/*
 * Two containers of the plan reader: an array that grows, and a map from 64-bit keys to 32-bit
 * values.
 *
 * Both take their memory from the allocator hook and start out as all zeros.
 */
#ifndef EM_VEC_H
#define EM_VEC_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    void *items;
    uint64_t num;
    uint64_t capacity;
} em_vec_t;

/* Room for one more item of `item_bytes`, set to zero; NULL if there is no memory. */
void *em_vec_push(em_vec_t *vec, uint64_t item_bytes);
/* Room for `num` items in all; false if there is no memory. */
bool em_vec_reserve(em_vec_t *vec, uint64_t item_bytes, uint64_t num);
void em_vec_free(em_vec_t *vec);

/* Item `i` of a vector of `type`. */
#define EM_AT(vec, type, i) (((type *)(vec).items)[i])

typedef struct {
    uint64_t key;
    uint32_t value;
    uint32_t round; /* the slot is empty unless this is the map's */
} em_map_slot_t;

/* Open addressing, linear probing, never more than half full; emptied in constant time. */
typedef struct {
    em_map_slot_t *slots;
    uint64_t capacity; /* a power of two */
    uint64_t num;
    uint32_t round;
} em_map_t;

/* The value of a key, or NULL. Valid until the next insert. */
uint32_t *em_map_find(const em_map_t *map, uint64_t key);

/* The value of a key, which is set to `value` if the key is new (then *added); NULL: no memory. */
uint32_t *em_map_insert(em_map_t *map, uint64_t key, uint32_t value, bool *added);

/* Forget all keys, keep the memory. */
void em_map_clear(em_map_t *map);
void em_map_free(em_map_t *map);

#endif
