/*
 * Fuzz target of the plan reader: whatever the bytes, it gives a verdict, and a plan that it
 * accepts can be walked from end to end.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_POSIX_C_SOURCE=200809L \
 *         -Ibackend_c/include -Ibackend_c/src backend_c/fuzz/fuzz_plan.c \
 *         backend_c/src/plan/[a-z]*.c backend_c/src/common/[a-z]*.c -lm -o fuzz_plan
 *     ./fuzz_plan tests/golden/plans/valid tests/golden/plans/invalid
 *
 * Without libFuzzer, backend_c/tests/test_plan_fuzz.c feeds it changed plans of the corpus.
 */
#include <stdlib.h>
#include <string.h>

#include "exactmap/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes);

/* What must hold, in release builds too. */
static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static bool is_post(const em_instr_t *instr)
{
    return instr->op >= EM_OP_SF && instr->op <= EM_OP_LD;
}

static bool is_wait(const em_instr_t *instr)
{
    return instr->op >= EM_OP_WS && instr->op <= EM_OP_WLD;
}

static void walk_program(const em_plan_t *plan, const em_program_t *program)
{
    require(program->num_instrs > 0 && program->pp < plan->num_ranks);
    require(program->instrs[program->num_instrs - 1].op == EM_OP_END);
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        char text[64];
        require(em_instr_text(plan, instr, text, sizeof text) > 0);
        require(instr->line > program->line && instr->line <= program->end_line);
        if (is_post(instr) || is_wait(instr)) {
            require(instr->match >= 0 && (uint64_t)instr->match < program->num_instrs);
            require(program->instrs[instr->match].match == (int32_t)i);
            require(is_post(instr) == ((uint64_t)instr->match > i));
        } else {
            require(instr->match == EM_NONE);
        }
    }
}

static void walk_plan(const em_plan_t *plan)
{
    for (uint32_t i = 0; i < plan->num_programs; i++) {
        walk_program(plan, &plan->programs[i]);
    }
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        const em_program_t *const program = em_plan_program(plan, pp, 0);
        require(program != NULL && program->pp == pp);
    }
    require(em_plan_program(plan, plan->num_ranks, 0) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes)
{
    static em_verdict_t verdict;
    em_plan_t *plan = NULL;
    const em_status_t status = em_plan_read(bytes, num_bytes, &plan, &verdict);
    require((status == EM_OK) == (plan != NULL));
    require(status == EM_ERR_MEMORY || status == em_verdict_status(verdict.code));
    require(strcmp(em_verdict_name(verdict.code), "?") != 0);
    require((verdict.code == EM_VERDICT_OK) == (verdict.line == 0));
    require((status == EM_OK) == (verdict.text[0] == '\0'));
    if (plan != NULL) {
        walk_plan(plan);
    }
    em_plan_free(plan);
    return 0;
}
