/*
 * Changed plans of the corpus through the fuzz target, with memory that fails now and then.
 *
 *     test_plan_fuzz [PLANS [SEED]]      20000 plans from seed 1 if left out
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../fuzz/fuzz_plan.c"
#include "common/em_arena.h"
#include "em_corpus.h"
#include "plan/em_reader.h"

/* A growing copy of a plan. */
typedef struct {
    uint8_t *bytes;
    size_t num;
} em_text_t;

static uint64_t random_state;

/* splitmix64: any seed, the same numbers everywhere. */
static uint64_t random_below(uint64_t bound)
{
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % (bound == 0 ? 1 : bound);
}

/* Bytes at `at`: `removed` go, `num` come. */
static void splice(em_text_t *text, size_t at, size_t removed, const uint8_t *added, size_t num)
{
    const size_t kept = text->num - at - removed;
    uint8_t *const bytes = malloc(at + num + kept + 1);
    require(bytes != NULL);
    memcpy(bytes, text->bytes, at);
    if (num > 0) {
        memcpy(bytes + at, added, num);
    }
    memcpy(bytes + at + num, text->bytes + at + removed, kept);
    free(text->bytes);
    text->bytes = bytes;
    text->num = at + num + kept;
}

/* Start and length, LF included, of the line around a random byte. */
static size_t random_line(const em_text_t *text, size_t *num_bytes)
{
    size_t start = (size_t)random_below(text->num);
    while (start > 0 && text->bytes[start - 1] != '\n') {
        start--;
    }
    size_t end = start;
    while (end < text->num && text->bytes[end] != '\n') {
        end++;
    }
    *num_bytes = (end < text->num ? end + 1 : end) - start;
    return start;
}

/* Move, double, drop or borrow a whole line. */
static void change_line(em_text_t *text, const em_text_t *other, uint64_t kind)
{
    size_t num_bytes = 0;
    const size_t start = random_line(kind == 3 ? other : text, &num_bytes);
    uint8_t line[8192];
    num_bytes = num_bytes < sizeof line ? num_bytes : sizeof line;
    memcpy(line, (kind == 3 ? other : text)->bytes + start, num_bytes);
    if (kind == 0 || kind == 2) {
        splice(text, start, num_bytes, NULL, 0);
    }
    if (kind != 2 && text->num > 0) {
        size_t ignored = 0;
        splice(text, random_line(text, &ignored), 0, line, num_bytes);
    }
}

/* Another number where one stands. */
static void change_number(em_text_t *text)
{
    static const char *const numbers[] = {"0",
                                          "1",
                                          "2",
                                          "3",
                                          "7",
                                          "64",
                                          "4096",
                                          "1048575",
                                          "1048576",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "00"};
    size_t at = (size_t)random_below(text->num);
    while (at < text->num && (text->bytes[at] < '0' || text->bytes[at] > '9')) {
        at++;
    }
    size_t end = at;
    while (end < text->num && text->bytes[end] >= '0' && text->bytes[end] <= '9') {
        end++;
    }
    const char *const number = numbers[random_below(sizeof numbers / sizeof *numbers)];
    splice(text, at, end - at, (const uint8_t *)number, strlen(number));
}

static void change(em_text_t *text, const em_text_t *other)
{
    static const char alphabet[] = "0123456789(){}@:./|%+-=,> hawgkpqoijFBIWSR\n\r";
    const uint64_t kind = random_below(10);
    if (text->num == 0) {
        return;
    }
    const size_t at = (size_t)random_below(text->num);
    if (kind < 4) {
        change_line(text, other, kind);
    } else if (kind < 7) {
        change_number(text);
    } else if (kind < 9) {
        const uint8_t byte = (uint8_t)alphabet[random_below(sizeof alphabet - 1)];
        splice(text, at, (size_t)random_below(2), &byte, 1);
    } else {
        text->bytes[at] = (uint8_t)random_below(256);
    }
}

/* Give the body the hash that it has, so that later phases are reached. */
static void reseal(em_text_t *text)
{
    static const char key[] = "body sha256=";
    uint8_t *const first = memchr(text->bytes, '\n', text->num);
    const size_t at = first == NULL ? text->num : (size_t)(first + 1 - text->bytes);
    const size_t body = at + sizeof key - 1 + 64 + 1;
    if (body <= text->num && memcmp(text->bytes + at, key, sizeof key - 1) == 0) {
        char hex[65];
        em_sha256_hex(text->bytes + body, text->num - body, hex);
        memcpy(text->bytes + at + sizeof key - 1, hex, 64);
    }
}

/* Common lines taken many at a time get the verdict that the whole grammar gives. */
static void compare_ways(const em_text_t *text)
{
    static em_verdict_t verdicts[2];
    for (int plain = 0; plain < 2; plain++) {
        em_plan_times_t times;
        em_plan_t *plan = NULL;
        (void)em_plan_read_by(text->bytes, text->num, &plan, &verdicts[plain], &times, plain != 0);
        em_plan_free(plan);
    }
    require(verdicts[0].code == verdicts[1].code && verdicts[0].line == verdicts[1].line);
    require(strcmp(verdicts[0].text, verdicts[1].text) == 0);
}

/* A plan of the corpus with one to three changes. */
static void try_one(const em_corpus_t *corpus)
{
    const em_case_t *const one = &corpus->cases[random_below(corpus->num)];
    const em_case_t *const two = &corpus->cases[random_below(corpus->num)];
    const em_text_t other = {two->bytes, two->num_bytes};
    em_text_t text = {malloc(one->num_bytes + 1), one->num_bytes};
    require(text.bytes != NULL);
    memcpy(text.bytes, one->bytes, one->num_bytes);
    for (uint64_t num = 1 + random_below(3); num > 0; num--) {
        change(&text, &other);
    }
    if (random_below(20) != 0) {
        reseal(&text);
    }
    compare_ways(&text);
    if (random_below(8) == 0) {
        em_alloc_fail_after(random_below(60));
    }
    /* A copy of exactly this size: a sanitizer sees each byte read behind it. */
    uint8_t *const exact = malloc(text.num > 0 ? text.num : 1);
    require(exact != NULL);
    memcpy(exact, text.bytes, text.num);
    (void)LLVMFuzzerTestOneInput(exact, text.num);
    em_alloc_fail_after(UINT64_MAX);
    free(exact);
    free(text.bytes);
}

int main(int argc, char **argv)
{
    const unsigned long long num = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
    random_state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    em_corpus_t corpus = em_corpus_read();
    for (unsigned long long i = 0; i < num; i++) {
        try_one(&corpus);
    }
    em_corpus_free(&corpus);
    printf("test_plan_fuzz: %llu plans\n", num);
    return 0;
}
