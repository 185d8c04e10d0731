/* What this engine refuses although the plan is valid: plan-format.md, section 8. */
#include <inttypes.h>
#include <stdarg.h>

#include "runtime/em_rank.h"

enum { EM_MAX_RANKS = 1024 };

/* All but what cuts a pass into parts, the sharded buckets and the late validation. */
static bool executes(em_op_t op)
{
    switch (op) {
    case EM_OP_PV:
    case EM_OP_UNDO:
    case EM_OP_AG:
    case EM_OP_RS:
    case EM_OP_A2A_D:
    case EM_OP_A2A_C:
    case EM_OP_KV:
    case EM_OP_CHK:
    case EM_OP_FREE:
        return false;
    default:
        return true;
    }
}

/* Report at a line (0: the whole file). */
#define EM_REFUSE_IF(cond, line, ...)                                                              \
    do {                                                                                           \
        if (cond) {                                                                                \
            return refuse(err, name, (line), __VA_ARGS__);                                         \
        }                                                                                          \
    } while (0)

static EM_PRINTF(4, 5) em_status_t
    refuse(em_error_t *err, const char *name, uint32_t line, const char *fmt, ...)
{
    char what[256];
    va_list arguments;
    va_start(arguments, fmt);
    (void)vsnprintf(what, sizeof what, fmt, arguments);
    va_end(arguments);
    char place[32] = "";
    if (line > 0) {
        (void)snprintf(place, sizeof place, ":%" PRIu32, line);
    }
    (void)EM_FAIL(err, EM_ERR_UNSUPPORTED, "%s%s: engine.unsupported: %s", name, place, what);
    em_hint(err, "docs/reference/plan-format.md section 8 lists what this engine executes");
    return EM_ERR_UNSUPPORTED;
}

static em_status_t check_header(const em_plan_t *plan, const char *name, em_error_t *err)
{
    static const char *const axes[] = {"tp", "cp", "ep"};
    for (int axis = EM_AXIS_TP; axis <= EM_AXIS_EP; axis++) {
        EM_REFUSE_IF(plan->mesh.size[axis] != 1, 0, "mesh %s=%" PRIu64 ", only 1 is executed",
                     axes[axis], plan->mesh.size[axis]);
    }
    EM_REFUSE_IF(plan->mesh.size[EM_AXIS_DP] * plan->num_ranks > EM_MAX_RANKS, 0,
                 "%" PRIu64 " ranks, at most %d threads",
                 plan->mesh.size[EM_AXIS_DP] * plan->num_ranks, EM_MAX_RANKS);
    EM_REFUSE_IF(plan->clock_free, 0, "clock=free");
    const em_plan_precision_t *const p = &plan->precision;
    EM_REFUSE_IF(p->param != EM_DTYPE_F32 || p->grad != EM_DTYPE_F32 || p->act != EM_DTYPE_F32 ||
                     p->comm != EM_DTYPE_F32 || p->moment != EM_DTYPE_F32,
                 0, "precision other than f32 throughout");
    const uint64_t numbers[] = {plan->model.layers,   plan->model.hidden,    plan->model.heads,
                                plan->model.kv_heads, plan->model.head_dim,  plan->model.ffn,
                                plan->model.vocab,    plan->model.positions, plan->train.microbatch,
                                plan->train.m,        plan->train.seq};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        EM_REFUSE_IF(numbers[i] > INT32_MAX, 0, "a dimension of %" PRIu64, numbers[i]);
    }
    return EM_OK;
}

/* Whether one group of the bucket's list has all ranks of its stage. */
static bool joins_placement(const em_plan_t *plan, const em_plan_bucket_t *bucket)
{
    const em_plan_stage_t *const stage = &plan->stages[bucket->stage];
    bool joins = stage->num_ranks == 1;
    for (uint32_t k = 0; !joins && k < bucket->num_reduce; k++) {
        const uint32_t group = (uint32_t)plan->reduce_groups[bucket->first_reduce + k];
        joins = (plan->groups[group].axes & 1u << EM_AXIS_PP) != 0;
        for (uint32_t r = 0; joins && r < stage->num_ranks; r++) {
            joins = em_plan_group_has(plan, group, plan->place_ranks[stage->first_rank + r]);
        }
    }
    return joins;
}

static em_status_t check_declarations(const em_plan_t *plan, const char *name, em_error_t *err)
{
    for (uint32_t i = 0; i < plan->num_stages; i++) {
        const em_plan_stage_t *const stage = &plan->stages[i];
        EM_REFUSE_IF(stage->num_parts != 0, stage->line, "stage %" PRIu32 " has parts", i);
    }
    for (uint32_t i = 0; i < plan->num_groups; i++) {
        EM_REFUSE_IF(plan->groups[i].scan != EM_SCAN_NONE, plan->groups[i].line,
                     "group %s is a scan", plan->names[plan->groups[i].name]);
    }
    for (uint32_t i = 0; i < plan->num_buckets; i++) {
        const em_plan_bucket_t *const bucket = &plan->buckets[i];
        EM_REFUSE_IF(bucket->shard != EM_NONE, bucket->line,
                     "bucket %" PRIu32 "/%" PRIu32 " is sharded", bucket->stage, bucket->index);
        bool summed = plan->mesh.size[EM_AXIS_DP] == 1;
        for (uint32_t k = 0; k < bucket->num_reduce; k++) {
            const int32_t group = plan->reduce_groups[bucket->first_reduce + k];
            summed = summed || (plan->groups[group].axes & 1u << EM_AXIS_DP) != 0;
        }
        EM_REFUSE_IF(!summed, bucket->line,
                     "bucket %" PRIu32 "/%" PRIu32 " is not reduced over "
                     "the replicas, which would drift apart",
                     bucket->stage, bucket->index);
        EM_REFUSE_IF(!joins_placement(plan, bucket), bucket->line,
                     "bucket %" PRIu32 "/%" PRIu32 " is not reduced over the ranks of its stage, "
                     "which would drift apart",
                     bucket->stage, bucket->index);
    }
    return EM_OK;
}

/* One norm for the whole model: its group spans all pipeline ranks. */
static em_status_t check_norm_group(const em_plan_t *plan, const em_instr_t *norm, const char *name,
                                    em_error_t *err)
{
    const em_plan_group_t *const group = &plan->groups[norm->queue];
    uint32_t num_members = 0;
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        num_members += em_plan_group_has(plan, (uint32_t)norm->queue, pp);
    }
    const bool spans = (group->axes & 1u << EM_AXIS_PP) != 0 && num_members == plan->num_ranks;
    EM_REFUSE_IF(plan->num_ranks > 1 && !spans, norm->line,
                 "a NORM over some pipeline ranks alone (group %s)", plan->names[group->name]);
    return EM_OK;
}

/* *norm_seen: whether the programs before this one have a NORM. */
static em_status_t check_program(const em_plan_t *plan, const em_program_t *program,
                                 const char *name, bool *norm_seen, em_error_t *err)
{
    bool has_norm = false, waited = false;
    uint32_t early_opt = 0; /* line of an OPT without a waited NORM before it */
    EM_REFUSE_IF(program->num_instrs > UINT32_MAX / 2, program->line, "%" PRIu64 " instructions",
                 program->num_instrs);
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        const em_op_t op = (em_op_t)instr->op;
        if (!executes(op)) {
            char text[160];
            (void)em_instr_text(plan, instr, text, sizeof text);
            return refuse(err, name, instr->line, "the instruction %s (%s)", em_op_name(op), text);
        }
        if (op == EM_OP_NORM) {
            EM_REFUSE_IF(has_norm, instr->line, "a second NORM");
            has_norm = true;
            EM_RETURN_IF_ERROR(check_norm_group(plan, instr, name, err));
        }
        waited = waited || (op == EM_OP_WC && instr->bucket < 0);
        if (op == EM_OP_OPT && !waited && early_opt == 0) {
            early_opt = instr->line;
        }
    }
    /* the norm of all decides for all: no weight may move before it, nor without it */
    EM_REFUSE_IF(has_norm && early_opt != 0, early_opt, "an OPT before the NORM is known");
    EM_REFUSE_IF(has_norm != *norm_seen && program != plan->programs, program->line,
                 "a NORM in some programs alone");
    *norm_seen = has_norm;
    return EM_OK;
}

em_status_t em_check_supported(const em_plan_t *plan, const char *name, em_error_t *err)
{
    EM_RETURN_IF_ERROR(check_header(plan, name, err));
    EM_RETURN_IF_ERROR(check_declarations(plan, name, err));
    bool norm_seen = false;
    for (uint32_t i = 0; i < plan->num_programs; i++) {
        EM_RETURN_IF_ERROR(check_program(plan, &plan->programs[i], name, &norm_seen, err));
    }
    return EM_OK;
}
