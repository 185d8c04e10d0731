/* Norms that this engine cannot judge. See em_unsupported.h. */
#include <inttypes.h>

#include "runtime/em_unsupported.h"

enum { MOST_NORMS = 2 };

/* What a program says about the norm. */
typedef struct {
    const em_instr_t *norms[MOST_NORMS];
    uint32_t num_norms;
    const em_instr_t *check;
    uint32_t num_undos;
    uint32_t early_opt; /* line of an OPT before the last norm's wait; 0: none */
} em_norm_use_t;

static em_status_t find(const em_program_t *program, const char *name, em_norm_use_t *use,
                        em_error_t *err)
{
    uint64_t known = 0; /* index of the last norm's wait */
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        if (instr->op == EM_OP_NORM) {
            EM_REFUSE_IF(use->num_norms == MOST_NORMS, instr->line, "a third NORM");
            use->norms[use->num_norms++] = instr;
            known = (uint64_t)instr->match;
        } else if (instr->op == EM_OP_CHK) {
            EM_REFUSE_IF(use->check != NULL, instr->line, "a second CHK");
            use->check = instr;
        }
        use->num_undos += instr->op == EM_OP_UNDO;
    }
    for (uint64_t i = 0; i < known && use->early_opt == 0; i++) {
        use->early_opt = program->instrs[i].op == EM_OP_OPT ? program->instrs[i].line : 0;
    }
    return EM_OK;
}

static bool spans_pipeline(const em_plan_t *plan, const em_instr_t *instr)
{
    uint32_t num_members = 0;
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        num_members += em_plan_group_has(plan, (uint32_t)instr->queue, pp);
    }
    return plan->num_ranks == 1 ||
           (em_has_axis(plan, instr->queue, EM_AXIS_PP) && num_members == plan->num_ranks);
}

static const char *group_name(const em_plan_t *plan, const em_instr_t *instr)
{
    return plan->names[plan->groups[instr->queue].name];
}

/* The groups of the norms together hold each parameter once. */
static em_status_t check_groups(const em_plan_t *plan, const em_norm_use_t *use, const char *name,
                                em_error_t *err)
{
    const em_instr_t *const last = use->norms[use->num_norms - 1];
    EM_REFUSE_IF(!spans_pipeline(plan, last), last->line,
                 "a NORM over some pipeline ranks alone (group %s)", group_name(plan, last));
    bool over_replicas = em_has_axis(plan, last->queue, EM_AXIS_DP);
    if (use->num_norms == 2) {
        const em_instr_t *const first = use->norms[0];
        EM_REFUSE_IF(over_replicas || plan->groups[first->queue].axes != 1u << EM_AXIS_DP,
                     first->line, "two NORMs other than over dp, then over pp (groups %s and %s)",
                     group_name(plan, first), group_name(plan, last));
        over_replicas = true;
    }
    for (uint32_t b = 0; b < plan->num_buckets; b++) {
        EM_REFUSE_IF(plan->buckets[b].shard != EM_NONE && !over_replicas, last->line,
                     "a NORM of sharded buckets that does not span dp (group %s)",
                     group_name(plan, last));
    }
    return EM_OK;
}

/* A partial norm is one to be checked, and every OPT that trusted it one to be undone. */
static em_status_t check_scan(const em_plan_t *plan, const em_program_t *program,
                              const em_norm_use_t *use, const char *name, em_error_t *err)
{
    const em_instr_t *const last = use->num_norms > 0 ? use->norms[use->num_norms - 1] : NULL;
    const em_scan_t scan = last == NULL ? EM_SCAN_NONE : plan->groups[last->queue].scan;
    if (scan == EM_SCAN_NONE) {
        EM_REFUSE_IF(use->check != NULL, use->check->line, "a CHK without a NORM that scans");
        return EM_OK;
    }
    EM_REFUSE_IF(use->check == NULL, last->line, "a NORM that scans without a CHK");
    const em_scan_t back = scan == EM_SCAN_UP ? EM_SCAN_DOWN : EM_SCAN_UP;
    EM_REFUSE_IF(plan->groups[use->check->queue].scan != back || !spans_pipeline(plan, use->check),
                 use->check->line, "a CHK that does not scan all the way back (group %s)",
                 group_name(plan, use->check));
    uint32_t num_buckets = 0;
    for (uint32_t b = 0; b < plan->num_buckets; b++) {
        num_buckets += em_plan_stage_on(plan, plan->buckets[b].stage, program->pp);
    }
    EM_REFUSE_IF(use->num_undos != num_buckets, use->check->line,
                 "a CHK with %" PRIu32 " UNDOs of %" PRIu32 " buckets", use->num_undos,
                 num_buckets);
    return EM_OK;
}

em_status_t em_check_norm(const em_plan_t *plan, const em_program_t *program, const char *name,
                          em_error_t *err)
{
    em_norm_use_t use = {.num_norms = 0}, first = {.num_norms = 0};
    EM_RETURN_IF_ERROR(find(program, name, &use, err));
    EM_RETURN_IF_ERROR(find(&plan->programs[0], name, &first, err));
    /* the norm of all decides for all: no weight may move before it, nor without it */
    EM_REFUSE_IF(use.num_norms > 0 && use.early_opt != 0, use.early_opt,
                 "an OPT before the NORM is known");
    bool same = use.num_norms == first.num_norms && (use.check == NULL) == (first.check == NULL);
    for (uint32_t i = 0; same && i < use.num_norms; i++) {
        same = use.norms[i]->queue == first.norms[i]->queue;
    }
    EM_REFUSE_IF(!same, program->line, "a NORM in some programs alone");
    if (use.num_norms > 0) {
        EM_RETURN_IF_ERROR(check_groups(plan, &use, name, err));
    }
    return check_scan(plan, program, &use, name, err);
}
