/* The allocator hook and the bump arena. See em_arena.h. */
#include "common/em_arena.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_checked.h"

/* The only state of the library: how often memory was asked for, and a fault for the tests. */
static _Atomic uint64_t alloc_count;
static _Atomic uint64_t alloc_fail_at = UINT64_MAX;

void *em_alloc(uint64_t bytes)
{
    const uint64_t call = atomic_fetch_add(&alloc_count, 1);
    uint64_t rounded = 0;
    if (call == atomic_load(&alloc_fail_at) || bytes == 0 ||
        !em_round_up_u64(bytes, EM_ALIGN, &rounded) || rounded > SIZE_MAX) {
        return NULL;
    }
    return aligned_alloc(EM_ALIGN, (size_t)rounded);
}

void *em_alloc_zeroed(uint64_t num, uint64_t bytes)
{
    uint64_t total = 0;
    if (!em_mul_u64(num, bytes, &total)) {
        return NULL;
    }
    void *const memory = em_alloc(total);
    if (memory != NULL) {
        memset(memory, 0, (size_t)total);
    }
    return memory;
}

void em_free(void *memory)
{
    free(memory);
}

uint64_t em_alloc_count(void)
{
    return atomic_load(&alloc_count);
}

void em_alloc_fail_after(uint64_t num)
{
    atomic_store(&alloc_fail_at, num == UINT64_MAX ? UINT64_MAX : atomic_load(&alloc_count) + num);
}

em_status_t em_arena_create(em_arena_t *arena, uint64_t size_bytes, em_error_t *err)
{
    memset(arena, 0, sizeof *arena);
    if (size_bytes == 0) {
        return EM_OK;
    }
    uint64_t rounded = 0;
    EM_RETURN_ERROR_IF(!em_round_up_u64(size_bytes, EM_ALIGN, &rounded), err, EM_ERR_OVERFLOW,
                       "arena of %" PRIu64 " bytes does not fit 64 bits", size_bytes);
    arena->base = em_alloc_zeroed(1, rounded);
    EM_RETURN_ERROR_IF(arena->base == NULL, err, EM_ERR_MEMORY,
                       "no memory for an arena of %" PRIu64 " bytes", rounded);
    arena->size_bytes = rounded;
    return EM_OK;
}

void em_arena_destroy(em_arena_t *arena)
{
    em_free(arena->base);
    memset(arena, 0, sizeof *arena);
}

void *em_arena_take(em_arena_t *arena, uint64_t bytes)
{
    uint64_t rounded = 0;
    if (!em_round_up_u64(bytes, EM_ALIGN, &rounded) ||
        rounded > arena->size_bytes - arena->used_bytes) {
        return NULL;
    }
    void *const memory = arena->base + arena->used_bytes;
    arena->used_bytes += rounded;
    return memory;
}
