/* What this engine refuses although the plan is valid: plan-format.md, section 8. */
#include <inttypes.h>
#include <stdarg.h>

#include "runtime/em_unsupported.h"

enum { EM_MAX_RANKS = 1024 };

/* All but what cuts a pass into parts. */
static bool executes(em_op_t op)
{
    return op != EM_OP_A2A_D && op != EM_OP_A2A_C && op != EM_OP_KV;
}

em_status_t em_unsupported(em_error_t *err, const char *name, uint32_t line, const char *fmt, ...)
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

/* Whether some group of the bucket's list sums over the replicas. */
static bool joins_replicas(const em_plan_t *plan, const em_plan_bucket_t *bucket)
{
    bool joins = plan->mesh.size[EM_AXIS_DP] == 1;
    for (uint32_t k = 0; k < bucket->num_reduce; k++) {
        joins =
            joins || em_has_axis(plan, plan->reduce_groups[bucket->first_reduce + k], EM_AXIS_DP);
    }
    return joins;
}

/* A sharded bucket is cut over the replicas; its first sum leaves each its part, the others sum
 * equal parts. */
static em_status_t check_shard(const em_plan_t *plan, const em_plan_bucket_t *bucket,
                               const char *name, em_error_t *err)
{
    EM_REFUSE_IF(plan->groups[bucket->shard].axes != 1u << EM_AXIS_DP, bucket->line,
                 "bucket %" PRIu32 "/%" PRIu32 " is sharded over another group than one over dp",
                 bucket->stage, bucket->index);
    for (uint32_t k = 0; k < bucket->num_reduce; k++) {
        const int32_t group = plan->reduce_groups[bucket->first_reduce + k];
        EM_REFUSE_IF(k == 0 ? group != bucket->shard : em_has_axis(plan, group, EM_AXIS_DP),
                     bucket->line,
                     "bucket %" PRIu32 "/%" PRIu32
                     " is reduced otherwise than over its shards, then over ranks of one replica",
                     bucket->stage, bucket->index);
    }
    return EM_OK;
}

static em_status_t check_declarations(const em_plan_t *plan, const char *name, em_error_t *err)
{
    for (uint32_t i = 0; i < plan->num_stages; i++) {
        const em_plan_stage_t *const stage = &plan->stages[i];
        EM_REFUSE_IF(stage->num_parts != 0, stage->line, "stage %" PRIu32 " has parts", i);
    }
    for (uint32_t i = 0; i < plan->num_buckets; i++) {
        const em_plan_bucket_t *const bucket = &plan->buckets[i];
        EM_REFUSE_IF(!joins_replicas(plan, bucket), bucket->line,
                     "bucket %" PRIu32 "/%" PRIu32 " is not reduced over "
                     "the replicas, which would drift apart",
                     bucket->stage, bucket->index);
        EM_REFUSE_IF(!joins_placement(plan, bucket), bucket->line,
                     "bucket %" PRIu32 "/%" PRIu32 " is not reduced over the ranks of its stage, "
                     "which would drift apart",
                     bucket->stage, bucket->index);
        if (bucket->shard != EM_NONE) {
            EM_RETURN_IF_ERROR(check_shard(plan, bucket, name, err));
        }
    }
    return EM_OK;
}

/* Sums that this engine does not form: of gradients in a scan; of several gradients of a step that
 * were cut into shards and then summed over further ranks. */
static em_status_t check_sum(const em_plan_t *plan, const em_program_t *program,
                             const em_instr_t *instr, const char *name, em_error_t *err)
{
    const em_plan_bucket_t *const bucket = &plan->buckets[instr->bucket];
    EM_REFUSE_IF(plan->groups[instr->queue].scan != EM_SCAN_NONE, instr->line,
                 "%s over a group that scans", em_op_name((em_op_t)instr->op));
    for (uint64_t i = 0; bucket->num_reduce > 1 && instr->op == EM_OP_RS; i++) {
        const em_instr_t *const other = &program->instrs[i];
        if (other == instr) {
            break;
        }
        EM_REFUSE_IF(other->op == EM_OP_RS && other->bucket == instr->bucket &&
                         other->queue == instr->queue,
                     instr->line, "a second RS of a bucket that several groups reduce");
    }
    return EM_OK;
}

static em_status_t check_program(const em_plan_t *plan, const em_program_t *program,
                                 const char *name, em_error_t *err)
{
    EM_REFUSE_IF(program->num_instrs > UINT32_MAX / 2, program->line, "%" PRIu64 " instructions",
                 program->num_instrs);
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        const em_op_t op = (em_op_t)instr->op;
        if (!executes(op)) {
            char text[160];
            (void)em_instr_text(plan, instr, text, sizeof text);
            return em_unsupported(err, name, instr->line, "the instruction %s (%s)", em_op_name(op),
                                  text);
        }
        if (op == EM_OP_AG || op == EM_OP_RS || op == EM_OP_AR) {
            EM_RETURN_IF_ERROR(check_sum(plan, program, instr, name, err));
        }
    }
    return em_check_norm(plan, program, name, err);
}

em_status_t em_check_supported(const em_plan_t *plan, const char *name, em_error_t *err)
{
    EM_RETURN_IF_ERROR(check_header(plan, name, err));
    EM_RETURN_IF_ERROR(check_declarations(plan, name, err));
    for (uint32_t i = 0; i < plan->num_programs; i++) {
        EM_RETURN_IF_ERROR(check_program(plan, &plan->programs[i], name, err));
    }
    return EM_OK;
}
