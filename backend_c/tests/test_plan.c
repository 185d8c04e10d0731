/* The plan reader: hashes, the corpus and its verdicts, the text of instructions, scarce memory. */
#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_arena.h"
#include "em_corpus.h"
#include "exactmap/plan.h"
#include "plan/em_reader.h"
#include "plan/em_sha256.h"

static em_verdict_t verdict;

/* SHA-256 of the examples that NIST publishes for FIPS 180-4, and of a million letters a. */
static void test_sha256(void)
{
    static const struct {
        const char *text;
        const char *hex;
    } vectors[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqr"
         "lmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    char hex[65];
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        em_sha256_hex((const uint8_t *)vectors[i].text, strlen(vectors[i].text), hex);
        assert(strcmp(hex, vectors[i].hex) == 0);
    }
    em_sha256_t hash;
    em_sha256_begin(&hash);
    uint8_t letters[1000];
    memset(letters, 'a', sizeof letters);
    for (size_t fed = 0; fed < 1000000;) {
        const size_t piece = fed % 997 < 1000000 - fed ? fed % 997 + 1 : 1000000 - fed;
        em_sha256_add(&hash, letters, piece < 1000000 - fed ? piece : 1000000 - fed);
        fed += piece < 1000000 - fed ? piece : 1000000 - fed;
    }
    em_sha256_end(&hash, hex);
    assert(strcmp(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0);
}

/* The processor's own instructions and the plain rounds give one digest, for pieces of any length.
 */
static void test_sha256_without_extension(void)
{
    uint8_t bytes[700];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * i + i / 7);
    }
    for (size_t num = 0; num <= sizeof bytes; num++) {
        char hex[2][65];
        for (size_t plain = 0; plain < 2; plain++) {
            em_sha256_t hash;
            em_sha256_begin(&hash);
            hash.extended = hash.extended && plain == 0;
            em_sha256_add(&hash, bytes, num / 3);
            em_sha256_add(&hash, bytes + num / 3, num - num / 3);
            em_sha256_end(&hash, hex[plain]);
        }
        assert(strcmp(hex[0], hex[1]) == 0);
    }
}

static void test_names(void)
{
    assert(strcmp(em_verdict_name(EM_VERDICT_OK), "ok") == 0);
    assert(strcmp(em_verdict_name(EM_VERDICT_GRAPH_DEADLOCK), "graph.deadlock") == 0);
    assert(strcmp(em_verdict_name((em_verdict_code_t)7), "?") == 0);
    assert(em_status_exit_code(em_verdict_status(EM_VERDICT_PROG_SLOT)) == 3);
    assert(em_verdict_status(EM_VERDICT_TEXT_HASH) == EM_ERR_HASH);
    assert(strcmp(em_op_name(EM_OP_A2A_D), "A2A_D") == 0);
    assert(strcmp(em_op_name(EM_NUM_OPS), "?") == 0);
}

/* Every file of the corpus gets its verdict. */
static void test_verdicts(const em_corpus_t *corpus)
{
    assert(corpus->num >= 100);
    for (size_t i = 0; i < corpus->num; i++) {
        const em_case_t *const one = &corpus->cases[i];
        em_plan_t *plan = NULL;
        (void)em_plan_read(one->bytes, one->num_bytes, &plan, &verdict);
        if (strcmp(em_verdict_name(verdict.code), one->code) != 0 || verdict.line != one->line) {
            fprintf(stderr, "%s: got %s at line %lu, expected %s at line %lu\n%s\n", one->name,
                    em_verdict_name(verdict.code), (unsigned long)verdict.line, one->code,
                    (unsigned long)one->line, verdict.text);
            assert(false);
        }
        em_plan_free(plan);
    }
}

/* The line of a file, with its LF. */
static const char *line_at(const em_case_t *one, uint64_t line, size_t *num_bytes)
{
    const char *text = (const char *)one->bytes;
    const char *const end = text + one->num_bytes;
    for (uint64_t at = 1; at < line; at++) {
        text = (const char *)memchr(text, '\n', (size_t)(end - text)) + 1;
    }
    *num_bytes = (size_t)((const char *)memchr(text, '\n', (size_t)(end - text)) - text);
    return text;
}

/* An instruction's text is its line in the file, unless that line stands in a REP. */
static void test_texts(const em_corpus_t *corpus)
{
    size_t num_compared = 0;
    for (size_t i = 0; i < corpus->num; i++) {
        const em_case_t *const one = &corpus->cases[i];
        em_plan_t *plan = NULL;
        if (em_plan_read(one->bytes, one->num_bytes, &plan, &verdict) != EM_OK) {
            continue;
        }
        for (uint32_t p = 0; p < plan->num_programs; p++) {
            for (uint64_t k = 0; k < plan->programs[p].num_instrs; k++) {
                const em_instr_t *const instr = &plan->programs[p].instrs[k];
                char text[4097];
                size_t num_bytes = 0;
                const char *const line = line_at(one, instr->line, &num_bytes);
                if (memchr(line, '(', num_bytes) == NULL) {
                    assert(em_instr_text(plan, instr, text, sizeof text) == num_bytes);
                    assert(memcmp(text, line, num_bytes) == 0);
                    num_compared++;
                }
            }
        }
        em_plan_free(plan);
    }
    assert(num_compared > 500);
}

static const em_case_t *find_case(const em_corpus_t *corpus, const char *name)
{
    for (size_t i = 0; i < corpus->num; i++) {
        if (strcmp(corpus->cases[i].name, name) == 0) {
            return &corpus->cases[i];
        }
    }
    fprintf(stderr, "corpus: no %s\n", name);
    exit(1);
}

/* What the page's worked example declares, as the runtime sees it. */
static void test_worked_example(const em_corpus_t *corpus)
{
    const em_case_t *const one = find_case(corpus, "valid/worked-example.plan");
    em_plan_t *plan = NULL;
    assert(em_plan_read(one->bytes, one->num_bytes, &plan, &verdict) == EM_OK);
    char hex[65];
    em_sha256_hex(one->bytes, one->num_bytes, hex);
    assert(strcmp(hex, plan->file_sha256) == 0);
    assert(plan->num_stages == 2 && plan->num_ranks == 2 && plan->num_programs == 2);
    assert(plan->num_channels == 2 && !plan->channels[0].backward && plan->channels[1].backward);
    assert(plan->train.m == 2 && plan->train.slices == 1 && !plan->clock_free);
    assert(plan->ranks[0].pools[EM_POOL_H].num == 3 && plan->ranks[1].pools[EM_POOL_A].num == 1);
    const em_program_t *const program = em_plan_program(plan, 1, 0);
    assert(program->pp == 1 && strcmp(plan->names[program->name], "P1") == 0);
    const em_instr_t *const receive = &program->instrs[1];
    assert(receive->op == EM_OP_RF && receive->stage == 1 && receive->microbatch == 0);
    assert(receive->queue == 0 && em_instr_slot(receive, EM_POOL_H) == 0);
    assert(receive->match == 2 && program->instrs[2].op == EM_OP_WR);
    assert(em_plan_stage_on(plan, 0, 0) && !em_plan_stage_on(plan, 0, 1));
    em_plan_free(plan);
}

/* A replica with a program of its own gets it; the others get the rank's. */
static void test_overrides(const em_corpus_t *corpus)
{
    size_t num_overridden = 0;
    for (size_t i = 0; i < corpus->num; i++) {
        em_plan_t *plan = NULL;
        if (em_plan_read(corpus->cases[i].bytes, corpus->cases[i].num_bytes, &plan, &verdict) !=
            EM_OK) {
            continue;
        }
        for (uint32_t k = 0; k < plan->num_overrides; k++) {
            const em_plan_override_t *const override = &plan->overrides[k];
            const em_program_t *const program = em_plan_program(plan, override->pp, override->dp);
            assert(program == &plan->programs[override->program]);
            assert(em_plan_program(plan, override->pp, UINT64_MAX) ==
                   &plan->programs[plan->ranks[override->pp].program]);
            num_overridden++;
        }
        em_plan_free(plan);
    }
    assert(num_overridden > 0);
}

/* Read both ways; the records of all instructions must be the same bytes. */
static void compare_ways(const uint8_t *bytes, size_t num_bytes, bool must_pass)
{
    em_plan_times_t times;
    em_plan_t *quick = NULL;
    em_plan_t *plain = NULL;
    const em_status_t status = em_plan_read_by(bytes, num_bytes, &quick, &verdict, &times, false);
    const em_verdict_code_t code = verdict.code;
    const uint64_t line = verdict.line;
    assert(em_plan_read_by(bytes, num_bytes, &plain, &verdict, &times, true) == status);
    assert(verdict.code == code && verdict.line == line);
    assert(status == EM_OK || !must_pass);
    if (status != EM_OK) {
        return;
    }
    assert(quick->num_programs == plain->num_programs && quick->num_lines == plain->num_lines);
    for (uint32_t i = 0; i < quick->num_programs; i++) {
        const em_program_t *const one = &quick->programs[i];
        const em_program_t *const two = &plain->programs[i];
        assert(one->num_instrs == two->num_instrs && one->end_line == two->end_line);
        assert(memcmp(one->instrs, two->instrs, one->num_instrs * sizeof *one->instrs) == 0);
    }
    assert(quick->num_members == plain->num_members);
    assert(quick->num_members == 0 || memcmp(quick->members, plain->members,
                                             quick->num_members * sizeof *quick->members) == 0);
    em_plan_free(quick);
    em_plan_free(plain);
}

/* Common lines taken many at a time are the records that the whole grammar gives. */
static void test_quick_lines(const em_corpus_t *corpus)
{
    for (size_t i = 0; i < corpus->num; i++) {
        const em_case_t *const one = &corpus->cases[i];
        compare_ways(one->bytes, one->num_bytes, strcmp(one->code, "ok") == 0);
    }
}

/* The whole of a valid plan, cut off after each byte of it. */
static void test_cut_off(const em_corpus_t *corpus)
{
    static const char *const names[] = {"valid/braid.plan", "valid/offload.plan",
                                        "valid/sharded.plan"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const em_case_t *const one = find_case(corpus, names[i]);
        for (size_t num = 0; num < one->num_bytes; num++) {
            /* A copy of exactly this size: a sanitizer sees each byte read behind it. */
            uint8_t *const exact = malloc(num + 1);
            assert(exact != NULL);
            memcpy(exact, one->bytes, num);
            compare_ways(exact, num, false);
            exact[num] = '\n';
            compare_ways(exact, num + 1, false);
            free(exact);
        }
    }
}

/* Whichever allocation fails, the reader says so, and gives back what it took (sanitizers look). */
static void test_scarce_memory(const em_corpus_t *corpus)
{
    static const char *const names[] = {"valid/worked-example.plan",
                                        "invalid/graph-deadlock-scan.plan",
                                        "invalid/head-stage-part-twice.plan"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const em_case_t *const one = find_case(corpus, names[i]);
        const uint64_t before = em_alloc_count();
        em_plan_t *plan = NULL;
        const em_status_t expected = em_plan_read(one->bytes, one->num_bytes, &plan, &verdict);
        em_plan_free(plan);
        const uint64_t num_calls = em_alloc_count() - before;
        assert(num_calls > 10);
        for (uint64_t call = 0; call <= num_calls; call++) {
            em_alloc_fail_after(call);
            const em_status_t status = em_plan_read(one->bytes, one->num_bytes, &plan, &verdict);
            assert(status == (call == num_calls ? expected : EM_ERR_MEMORY));
            assert(status == EM_OK || plan == NULL);
            em_plan_free(plan);
        }
        em_alloc_fail_after(UINT64_MAX);
    }
}

/* From a file: the message names file, line and code; what cannot be opened is an input error. */
static void test_load(void)
{
    em_plan_t *plan = NULL;
    em_error_t err = {.status = EM_OK};
    assert(em_plan_load(EM_CORPUS "no-such.plan", &plan, &verdict, &err) == EM_ERR_IO);
    assert(plan == NULL && strstr(err.text, "no-such.plan: cannot open the plan") != NULL);
    em_error_clear(&err);
    const char *const broken = EM_CORPUS "invalid/graph-deadlock-crossing-sends.plan";
    assert(em_plan_load(broken, &plan, &verdict, &err) == EM_ERR_FIELD && plan == NULL);
    assert(strstr(err.text, "graph-deadlock-crossing-sends.plan:") != NULL);
    assert(strstr(err.text, ": graph.deadlock: ") != NULL && err.hint[0] != '\0');
    assert(strstr(verdict.text, "\n  rank 0 line ") != NULL);
    assert(strstr(verdict.text, "\n  rank 1 line ") != NULL);
    em_error_clear(&err);
    assert(em_plan_load(EM_CORPUS "valid/worked-example.plan", &plan, &verdict, &err) == EM_OK);
    assert(plan != NULL && err.status == EM_OK);
    em_plan_free(plan);
    em_plan_free(NULL);
}

int main(void)
{
    em_corpus_t corpus = em_corpus_read();
    test_sha256();
    test_sha256_without_extension();
    test_names();
    test_verdicts(&corpus);
    test_texts(&corpus);
    test_worked_example(&corpus);
    test_overrides(&corpus);
    test_quick_lines(&corpus);
    test_cut_off(&corpus);
    test_scarce_memory(&corpus);
    test_load();
    em_corpus_free(&corpus);
    puts("test_plan: ok");
    return 0;
}
