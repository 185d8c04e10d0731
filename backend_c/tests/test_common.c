/* Status codes, checked sizes, the counted allocator, the arena, the clock, the counter RNG. */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_checked.h"
#include "common/em_clock.h"
#include "common/em_rng.h"

/* The first failure is kept, with its place; hints do not overwrite each other. */
static void test_errors(void)
{
    em_error_t err;
    em_error_clear(&err);
    memset(&err, 0, sizeof err);
    assert(EM_FAIL(&err, EM_ERR_FIELD, "hidden: got %d", -1) == EM_ERR_FIELD);
    assert(EM_FAIL(&err, EM_ERR_IO, "later") == EM_ERR_IO);
    assert(err.status == EM_ERR_FIELD && strcmp(err.text, "hidden: got -1") == 0 && err.line > 0);
    em_hint(&err, "try %s", "this");
    em_hint(&err, "not that");
    assert(strcmp(err.hint, "try this") == 0);
    assert(EM_FAIL(NULL, EM_ERR_IO, "nobody listens") == EM_ERR_IO);
    em_hint(NULL, "nobody listens");
    char longer[2 * EM_ERROR_TEXT];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    em_error_clear(&err);
    assert(err.status == EM_OK && err.text[0] == '\0');
    (void)EM_FAIL(&err, EM_ERR_IO, "%s", longer);
    assert(strlen(err.text) == EM_ERROR_TEXT - 1);
}

/* Families are the exit codes of the program. */
static void test_families(void)
{
    assert(em_status_exit_code(EM_OK) == 0);
    assert(em_status_exit_code(EM_ERR_OVERFLOW) == 3);
    assert(em_status_exit_code(EM_ERR_BUDGET) == 4);
    assert(em_status_exit_code(EM_ERR_DEADLOCK) == 5);
    assert(em_status_exit_code(EM_ERR_NOT_FINITE) == 6);
    assert(em_status_exit_code(EM_ERR_HUNG) == 7);
    assert(em_status_exit_code(EM_ERR_MISSING) == 8);
    assert(strcmp(em_status_name(EM_ERR_DATA), "EM_ERR_DATA") == 0);
    assert(strcmp(em_status_name((em_status_t)99), "EM_ERR_?") == 0);
}

static void test_checked_sizes(void)
{
    uint64_t out = 7;
    assert(em_add_u64(UINT64_MAX - 1, 1, &out) && out == UINT64_MAX);
    assert(!em_add_u64(UINT64_MAX, 1, &out) && out == UINT64_MAX);
    assert(em_mul_u64((uint64_t)1 << 32, ((uint64_t)1 << 32) - 1, &out));
    assert(!em_mul_u64((uint64_t)1 << 32, (uint64_t)1 << 32, &out));
    assert(em_mul_u64(0, UINT64_MAX, &out) && out == 0);
    assert(em_round_up_u64(65, 64, &out) && out == 128);
    assert(em_round_up_u64(0, 64, &out) && out == 0);
    assert(!em_round_up_u64(UINT64_MAX - 62, 64, &out));
}

/* Every call counts, memory is aligned, and a fault can be placed. */
static void test_allocator(void)
{
    const uint64_t before = em_alloc_count();
    unsigned char *const memory = em_alloc_zeroed(3, 7);
    assert(memory != NULL && (uintptr_t)memory % EM_ALIGN == 0);
    for (int i = 0; i < 21; ++i) {
        assert(memory[i] == 0);
    }
    em_free(memory);
    assert(em_alloc(0) == NULL);
    assert(em_alloc_zeroed(UINT64_MAX, 2) == NULL);
    assert(em_alloc(UINT64_MAX) == NULL);
    assert(em_alloc_count() == before + 3);
    em_alloc_fail_after(1);
    void *const first = em_alloc(8);
    assert(first != NULL && em_alloc(8) == NULL);
    em_alloc_fail_after(UINT64_MAX);
    em_free(first);
}

static void test_arena(void)
{
    em_arena_t arena;
    em_error_t err;
    memset(&err, 0, sizeof err);
    assert(em_arena_create(&arena, 100, &err) == EM_OK && arena.size_bytes == 128);
    unsigned char *const a = em_arena_take(&arena, 1);
    unsigned char *const b = em_arena_take(&arena, 64);
    assert(a != NULL && b == a + 64 && (uintptr_t)a % EM_ALIGN == 0);
    assert(em_arena_take(&arena, 1) == NULL);
    assert(em_arena_take(&arena, UINT64_MAX) == NULL);
    assert(arena.used_bytes == 128);
    em_arena_destroy(&arena);
    assert(arena.base == NULL && em_arena_take(&arena, 1) == NULL);
    assert(em_arena_create(&arena, UINT64_MAX, &err) == EM_ERR_OVERFLOW);
    em_error_clear(&err);
    em_alloc_fail_after(0);
    assert(em_arena_create(&arena, 64, &err) == EM_ERR_MEMORY && arena.base == NULL);
    em_alloc_fail_after(UINT64_MAX);
}

static void test_clock(void)
{
    uint64_t last = em_clock_ns();
    for (int i = 0; i < 1000; ++i) {
        const uint64_t now = em_clock_ns();
        assert(now >= last);
        last = now;
    }
}

/* Streams are functions of (key, counter), uniform and normal as they say. */
static void test_rng(void)
{
    const uint64_t key = em_rng_key(1, "a");
    assert(key == em_rng_key(1, "a") && key != em_rng_key(2, "a") && key != em_rng_key(1, "b"));
    assert(em_rng_u64(key, 5) == em_rng_u64(key, 5) && em_rng_u64(key, 5) != em_rng_u64(key, 6));
    enum { NUM = 200000 };
    double sum = 0.0;
    double squares = 0.0;
    double fourth = 0.0;
    double uniform = 0.0;
    uint64_t counts[7] = {0};
    for (uint64_t i = 0; i < NUM; ++i) {
        const double x = em_rng_normal(key, i);
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
        const double u = em_rng_uniform(key, i);
        assert(u >= 0.0 && u < 1.0);
        uniform += u;
        const uint64_t below = em_rng_below(key, i, 7);
        assert(below < 7);
        counts[below] += 1;
    }
    assert(fabs(sum / NUM) < 0.01 && fabs(squares / NUM - 1.0) < 0.02);
    assert(fabs(fourth / NUM - 3.0) < 0.15 && fabs(uniform / NUM - 0.5) < 0.005);
    for (int i = 0; i < 7; ++i) {
        assert(fabs((double)counts[i] * 7 / NUM - 1.0) < 0.03);
    }
    assert(em_rng_below(key, 3, 1) == 0);
    assert(em_rng_below(key, 3, UINT64_MAX) < UINT64_MAX);
}

int main(void)
{
    test_errors();
    test_families();
    test_checked_sizes();
    test_allocator();
    test_arena();
    test_clock();
    test_rng();
    puts("common: ok");
    return 0;
}
