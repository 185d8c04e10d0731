/* Bytes that the engine needs on a rank, held against the plan's. */
#include <inttypes.h>
#include <string.h>

#include "common/em_checked.h"
#include "runtime/em_rank.h"

_Static_assert((int)EM_HOLDS_WTE == (int)EM_PART_WTE && (int)EM_HOLDS_WPE == (int)EM_PART_WPE &&
                   (int)EM_HOLDS_LAYERS == (int)EM_PART_LAYERS &&
                   (int)EM_HOLDS_NORM == (int)EM_PART_NORM &&
                   (int)EM_HOLDS_HEAD == (int)EM_PART_HEAD,
               "the plan and the stages name parts by the same bits");

static const char *const region_names[EM_NUM_REGIONS] = {"params", "grads", "moments", "staging",
                                                         "workspace"};
static const char pool_letters[] = "hawgkpqo";

void em_plan_stage(const em_plan_t *plan, uint32_t stage, em_stage_t *out)
{
    const em_plan_stage_t *const declared = &plan->stages[stage];
    const em_plan_model_t *const m = &plan->model;
    memset(out, 0, sizeof *out);
    out->model.kind = m->llama ? EM_MODEL_LLAMA : EM_MODEL_GPT2;
    out->model.layers = (uint32_t)m->layers;
    out->model.hidden = (uint32_t)m->hidden;
    out->model.heads = (uint32_t)m->heads;
    out->model.kv_heads = (uint32_t)m->kv_heads;
    out->model.head_dim = (uint32_t)m->head_dim;
    out->model.ffn = (uint32_t)m->ffn;
    out->model.vocab = (uint32_t)m->vocab;
    out->model.positions = (uint32_t)m->positions;
    out->model.norm_eps = (float)m->eps;
    out->model.rope_theta = (float)m->theta;
    out->model.tied = m->tied;
    out->first_layer = declared->has_layers ? (uint32_t)declared->first_layer : 0;
    out->num_layers =
        declared->has_layers ? (uint32_t)(declared->last_layer - declared->first_layer + 1) : 0;
    out->has_embedding = declared->embedding;
    out->has_head = declared->head;
}

uint64_t em_plan_message_bytes(const em_plan_t *plan)
{
    const uint64_t tokens = plan->train.microbatch * (plan->train.seq / plan->train.slices);
    return tokens * plan->model.hidden * sizeof(float);
}

const em_instr_t *em_plan_passes(const em_plan_t *plan, const em_instr_t *instr, uint32_t *num)
{
    const bool braid = instr->op == EM_OP_FB;
    *num = braid ? (uint32_t)instr->bucket : (instr->op <= EM_OP_RC ? 1 : 0);
    return braid ? &plan->members[instr->queue] : instr;
}

/* Scratch that a rank needs: the passes of em_pass_kind_t, then two that have their own need. */
enum { NEED_STASHLESS = EM_NUM_PASSES, NEED_RECOMPUTE, NUM_NEEDS };

static uint32_t need_of(const em_instr_t *pass)
{
    switch ((em_op_t)pass->op) {
    case EM_OP_F:
        return em_is_stashless(pass) ? (uint32_t)NEED_STASHLESS : (uint32_t)EM_PASS_F;
    case EM_OP_I:
        return EM_PASS_I;
    case EM_OP_W:
        return EM_PASS_W;
    case EM_OP_B:
        return EM_PASS_B;
    default:
        return NEED_RECOMPUTE;
    }
}

/* Needs (bit 1 << need) of what the programs of a pipeline rank run. */
static uint32_t needs_of_rank(const em_plan_t *plan, uint32_t pp)
{
    uint32_t needs = 0;
    for (uint32_t p = 0; p < plan->num_programs; p++) {
        const em_program_t *const program = &plan->programs[p];
        for (uint64_t i = 0; program->pp == pp && i < program->num_instrs; i++) {
            uint32_t num = 0;
            const em_instr_t *const passes = em_plan_passes(plan, &program->instrs[i], &num);
            for (uint32_t k = 0; k < num; k++) {
                needs |= 1u << need_of(&passes[k]);
            }
        }
    }
    return needs;
}

static uint64_t workspace_bytes(const em_stage_sizes_t *sizes, uint32_t need)
{
    switch (need) {
    case NEED_STASHLESS:
        return em_stage_stashless_bytes(sizes);
    case NEED_RECOMPUTE:
        return em_stage_recompute_bytes(sizes);
    default:
        return sizes->workspace_bytes[need];
    }
}

static void raise_to(uint64_t *most, uint64_t value)
{
    *most = *most > value ? *most : value;
}

static em_status_t add_parameters(const em_plan_t *plan, uint32_t index, const em_stage_t *stage,
                                  em_footprint_t *need, em_error_t *err)
{
    const em_plan_bucket_t *const bucket = &plan->buckets[index];
    uint32_t num_params = 0;
    uint64_t num_floats = 0, bytes = 0;
    EM_RETURN_IF_ERROR(
        em_stage_layout(stage, bucket->holds, NULL, 0, &num_params, &num_floats, err));
    const uint64_t replicas = bucket->shard == EM_NONE ? 1 : plan->mesh.size[EM_AXIS_DP];
    if (bucket->shard != EM_NONE) { /* filled up to equal parts of whole cache lines */
        const uint64_t unit = replicas * (EM_ALIGN / sizeof(float));
        num_floats = (num_floats + unit - 1) / unit * unit;
        raise_to(&need->slot_bytes[EM_POOL_P], num_floats * sizeof(float));
        raise_to(&need->slot_bytes[EM_POOL_Q], num_floats * sizeof(float));
    }
    EM_RETURN_ERROR_IF(num_floats != bucket->elements, err, EM_ERR_FIELD,
                       "line %" PRIu32 ": engine.bytes: bucket %" PRIu32 "/%" PRIu32
                       " elements: got %" PRIu64 ", expected %" PRIu64,
                       bucket->line, bucket->stage, bucket->index, bucket->elements, num_floats);
    EM_RETURN_ERROR_IF(!em_mul_u64(num_floats / replicas, 8, &bytes) ||
                           !em_add_u64(need->region_bytes[EM_REGION_MOMENTS], bytes,
                                       &need->region_bytes[EM_REGION_MOMENTS]),
                       err, EM_ERR_OVERFLOW, "the parameters' bytes overflow");
    need->region_bytes[EM_REGION_PARAMS] += bytes / 2;
    need->region_bytes[EM_REGION_GRADS] += bytes / 2;
    return EM_OK;
}

em_status_t em_engine_footprint(const em_plan_t *plan, uint32_t pp, em_footprint_t *need,
                                em_error_t *err)
{
    memset(need, 0, sizeof *need);
    const uint32_t needs = needs_of_rank(plan, pp);
    const uint64_t tokens = plan->train.microbatch * plan->train.seq;
    const uint64_t token_bytes = (tokens * sizeof(int32_t) + EM_ALIGN - 1) / EM_ALIGN * EM_ALIGN;
    /* Receive buffers of the channels that end here: with a mover inline they stay unused. */
    for (uint32_t c = 0; c < plan->num_channels; c++) {
        uint64_t bytes = 0;
        EM_RETURN_ERROR_IF(plan->channels[c].dst == pp &&
                               (!em_round_up_u64(plan->channels[c].bytes, EM_ALIGN, &bytes) ||
                                !em_mul_u64(bytes, plan->channels[c].depth, &bytes) ||
                                !em_add_u64(need->region_bytes[EM_REGION_STAGING], bytes,
                                            &need->region_bytes[EM_REGION_STAGING])),
                           err, EM_ERR_OVERFLOW, "the receive buffers' bytes overflow");
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        if (!em_plan_stage_on(plan, s, pp)) {
            continue;
        }
        em_stage_t stage;
        em_stage_sizes_t sizes;
        em_plan_stage(plan, s, &stage);
        EM_RETURN_IF_ERROR(em_stage_check(&stage, err));
        EM_RETURN_IF_ERROR(em_stage_slice_sizes(&stage, (uint32_t)plan->train.microbatch,
                                                (uint32_t)plan->train.seq,
                                                (uint32_t)plan->train.slices, &sizes, err));
        raise_to(&need->slot_bytes[EM_POOL_H], sizes.h_bytes);
        raise_to(&need->slot_bytes[EM_POOL_A], sizes.a_bytes);
        raise_to(&need->slot_bytes[EM_POOL_W], sizes.w_bytes);
        raise_to(&need->slot_bytes[EM_POOL_G], sizes.g_bytes);
        raise_to(&need->slot_bytes[EM_POOL_K], sizes.k_bytes);
        raise_to(&need->slot_bytes[EM_POOL_O], em_stage_offload_bytes(&sizes));
        for (uint32_t i = 0; i < NUM_NEEDS; i++) {
            if ((needs & 1u << i) != 0) {
                raise_to(&need->region_bytes[EM_REGION_WORKSPACE], workspace_bytes(&sizes, i));
            }
        }
        const uint64_t buffers = (uint64_t)stage.has_embedding + (uint64_t)stage.has_head;
        EM_RETURN_ERROR_IF(!em_add_u64(need->region_bytes[EM_REGION_STAGING], buffers * token_bytes,
                                       &need->region_bytes[EM_REGION_STAGING]),
                           err, EM_ERR_OVERFLOW, "the staging's bytes overflow");
        const em_plan_stage_t *const declared = &plan->stages[s];
        for (uint32_t k = 0; k < declared->num_buckets; k++) {
            EM_RETURN_IF_ERROR(add_parameters(plan, declared->first_bucket + k, &stage, need, err));
        }
    }
    return EM_OK;
}

static em_status_t check_rank(const em_plan_t *plan, uint32_t pp, const char *name, em_error_t *err)
{
    const em_plan_rank_t *const rank = &plan->ranks[pp];
    em_footprint_t need;
    EM_RETURN_IF_ERROR(em_engine_footprint(plan, pp, &need, err));
    EM_RETURN_ERROR_IF(rank->arena_bytes % EM_ALIGN != 0, err, EM_ERR_FIELD,
                       "%s:%" PRIu32 ": engine.bytes: arena pp=%" PRIu32 ": got %" PRIu64
                       " bytes, expected a multiple of %d",
                       name, rank->arena_line, pp, rank->arena_bytes, EM_ALIGN);
    for (int i = 0; i < EM_NUM_REGIONS; i++) {
        EM_RETURN_ERROR_IF(rank->regions[i].bytes != need.region_bytes[i], err, EM_ERR_FIELD,
                           "%s:%" PRIu32 ": engine.bytes: region pp=%" PRIu32 " %s: got %" PRIu64
                           " bytes, expected %" PRIu64,
                           name,
                           rank->regions[i].line > 0 ? rank->regions[i].line : rank->arena_line, pp,
                           region_names[i], rank->regions[i].bytes, need.region_bytes[i]);
    }
    for (int i = 0; i < EM_NUM_POOLS; i++) {
        const em_plan_pool_t *const pool = &rank->pools[i];
        EM_RETURN_ERROR_IF(pool->num > 0 && pool->bytes != need.slot_bytes[i], err, EM_ERR_FIELD,
                           "%s:%" PRIu32 ": engine.bytes: pool pp=%" PRIu32 " %c: got %" PRIu64
                           " bytes a slot, expected %" PRIu64,
                           name, pool->line, pp, pool_letters[i], pool->bytes, need.slot_bytes[i]);
    }
    uint64_t host_bytes = 0;
    EM_RETURN_ERROR_IF(
        !em_mul_u64(rank->pools[EM_POOL_O].num, rank->pools[EM_POOL_O].bytes, &host_bytes), err,
        EM_ERR_OVERFLOW, "the host memory of rank %" PRIu32 " does not fit 64 bits", pp);
    return EM_OK;
}

em_status_t em_check_bytes(const em_plan_t *plan, const char *name, em_error_t *err)
{
    for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
        EM_RETURN_IF_ERROR(check_rank(plan, pp, name, err));
    }
    const uint64_t message = em_plan_message_bytes(plan);
    for (uint32_t i = 0; i < plan->num_channels; i++) {
        EM_RETURN_ERROR_IF(plan->channels[i].bytes != message, err, EM_ERR_FIELD,
                           "%s:%" PRIu32 ": engine.bytes: chan %s: got %" PRIu64
                           " bytes, expected %" PRIu64,
                           name, plan->channels[i].line, plan->names[plan->channels[i].name],
                           plan->channels[i].bytes, message);
    }
    return EM_OK;
}

em_status_t em_engine_check(const em_plan_t *plan, const char *name, em_error_t *err)
{
    EM_RETURN_IF_ERROR(em_check_supported(plan, name, err));
    em_status_t status = em_check_bytes(plan, name, err);
    if (status != EM_OK) {
        em_hint(err, "the plan was made for another engine or version: make it again");
    }
    return status;
}
