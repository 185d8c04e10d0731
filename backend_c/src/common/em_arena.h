/*
 * Memory: one allocator hook, and a bump arena above it.
 *
 * All memory of the engine comes from em_alloc, which counts its calls: a test that reads
 * em_alloc_count before and after a step proves that the step took none.
 */
#ifndef EM_ARENA_H
#define EM_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "exactmap/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EM_ALIGN = 64 };

/* 64-byte aligned memory, uninitialised; NULL if there is none. `bytes` 0 gives NULL. */
EM_API void *em_alloc(uint64_t bytes);
/* As em_alloc, set to zero; NULL also if num * bytes overflows. */
EM_API void *em_alloc_zeroed(uint64_t num, uint64_t bytes);
EM_API void em_free(void *memory);

/* Calls of em_alloc and em_alloc_zeroed so far, by all threads. */
EM_API uint64_t em_alloc_count(void);

/* Tests: let the call after `num` more fail (once); UINT64_MAX, the default, never. */
EM_API void em_alloc_fail_after(uint64_t num);

/* A block of memory that is handed out from front to back and freed as a whole. */
typedef struct {
    unsigned char *base;
    uint64_t size_bytes;
    uint64_t used_bytes;
} em_arena_t;

/* Take `size_bytes` (rounded up to 64) from the allocator, set to zero. */
EM_API em_status_t em_arena_create(em_arena_t *arena, uint64_t size_bytes, em_error_t *err);
EM_API void em_arena_destroy(em_arena_t *arena);

/* The next `bytes` of the arena, 64-byte aligned; NULL if they do not fit. */
EM_API void *em_arena_take(em_arena_t *arena, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
