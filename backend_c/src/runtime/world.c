/* Channels and groups of all replicas, sized by counting the programs' posts. */
#include <string.h>

#include "runtime/em_rank.h"

static bool has_axis(const em_plan_group_t *group, em_axis_t axis)
{
    return (group->axes & 1u << axis) != 0;
}

em_world_channel_t *em_world_channel(const em_world_t *world, int32_t channel, uint32_t dp)
{
    return &world->channels[(uint64_t)channel * world->num_replicas + dp];
}

em_world_group_t *em_world_group(const em_world_t *world, int32_t group, uint32_t pp, uint32_t dp)
{
    const em_plan_group_t *const declared = &world->plan->groups[group];
    const uint32_t replicas = has_axis(declared, EM_AXIS_DP) ? 1 : world->num_replicas;
    const uint32_t row = has_axis(declared, EM_AXIS_PP) ? 0 : pp;
    const uint32_t column = has_axis(declared, EM_AXIS_DP) ? 0 : dp;
    return &world->groups[world->first_group[group] + row * replicas + column];
}

static uint32_t count_ranks_below(const em_plan_t *plan, uint32_t group, uint32_t pp)
{
    uint32_t num = 0;
    for (uint32_t r = 0; r < pp; r++) {
        num += em_plan_group_has(plan, group, r) ? 1 : 0;
    }
    return num;
}

uint32_t em_world_member(const em_world_t *world, int32_t group, uint32_t pp, uint32_t dp)
{
    const em_plan_group_t *const declared = &world->plan->groups[group];
    const uint32_t row =
        has_axis(declared, EM_AXIS_PP) ? count_ranks_below(world->plan, (uint32_t)group, pp) : 0;
    return has_axis(declared, EM_AXIS_DP) ? row * world->num_replicas + dp : row;
}

/* Posts of one program on a queue. */
static uint32_t count_posts(const em_program_t *program, int32_t queue, bool channel)
{
    uint32_t num = 0;
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        const bool posts = channel ? instr->op == EM_OP_SF || instr->op == EM_OP_SB
                                   : instr->op >= EM_OP_AG && instr->op <= EM_OP_CHK;
        num += posts && instr->queue == queue;
    }
    return num;
}

static em_status_t no_memory(em_error_t *err)
{
    return EM_FAIL(err, EM_ERR_MEMORY, "no memory for channels and groups");
}

static em_status_t make_channel(em_world_channel_t *channel, uint32_t per_step, em_error_t *err)
{
    em_local_channel_init(&channel->local);
    channel->per_step = per_step;
    if (per_step > 0) {
        channel->sources = em_alloc_zeroed(per_step, sizeof *channel->sources);
        if (channel->sources == NULL) {
            return no_memory(err);
        }
    }
    return EM_OK;
}

static em_status_t make_channels(em_world_t *world, em_error_t *err)
{
    const em_plan_t *const plan = world->plan;
    const uint64_t num_edges = plan->num_stages;
    if (plan->num_channels > 0) {
        world->channels = em_alloc_zeroed((uint64_t)plan->num_channels * world->num_replicas,
                                          sizeof *world->channels);
        if (world->channels == NULL) {
            return no_memory(err);
        }
    }
    world->eval_edges = em_alloc_zeroed(num_edges * world->num_replicas, sizeof *world->eval_edges);
    if (world->eval_edges == NULL) {
        return no_memory(err);
    }
    for (uint32_t dp = 0; dp < world->num_replicas; dp++) {
        for (uint32_t c = 0; c < plan->num_channels; c++) {
            const em_program_t *const program = em_plan_program(plan, plan->channels[c].src, dp);
            EM_RETURN_IF_ERROR(make_channel(em_world_channel(world, (int32_t)c, dp),
                                            count_posts(program, (int32_t)c, true), err));
        }
        for (uint32_t s = 0; s < num_edges; s++) {
            EM_RETURN_IF_ERROR(
                make_channel(&world->eval_edges[s * world->num_replicas + dp], 1, err));
        }
    }
    return EM_OK;
}

/* The instance of `group` at (pp, dp), if (pp, dp) is the first of its members. */
static em_status_t make_group(em_world_t *world, uint32_t group, uint32_t pp, uint32_t dp,
                              em_error_t *err)
{
    const em_plan_t *const plan = world->plan;
    const em_plan_group_t *const declared = &plan->groups[group];
    if (!em_plan_group_has(plan, group, pp) ||
        em_world_member(world, (int32_t)group, pp, dp) != 0) {
        return EM_OK;
    }
    const uint32_t ranks =
        has_axis(declared, EM_AXIS_PP) ? count_ranks_below(plan, group, plan->num_ranks) : 1;
    const uint32_t members = ranks * (has_axis(declared, EM_AXIS_DP) ? world->num_replicas : 1);
    em_world_group_t *const made = em_world_group(world, (int32_t)group, pp, dp);
    made->per_step = count_posts(em_plan_program(plan, pp, dp), (int32_t)group, false);
    const uint64_t num_values = declared->scan == EM_SCAN_NONE ? members : 2 * (uint64_t)members;
    double *const values = em_alloc_zeroed(num_values, sizeof *values);
    em_local_group_init(&made->local, members, values);
    if (made->per_step > 0) {
        made->buffers = em_alloc_zeroed((uint64_t)made->per_step * members, sizeof *made->buffers);
    }
    return values == NULL || (made->per_step > 0 && made->buffers == NULL) ? no_memory(err) : EM_OK;
}

static em_status_t make_groups(em_world_t *world, em_error_t *err)
{
    const em_plan_t *const plan = world->plan;
    if (plan->num_groups == 0) {
        return EM_OK;
    }
    world->first_group = em_alloc_zeroed(plan->num_groups, sizeof *world->first_group);
    if (world->first_group == NULL) {
        return no_memory(err);
    }
    uint32_t num = 0;
    for (uint32_t g = 0; g < plan->num_groups; g++) {
        world->first_group[g] = num;
        num += (has_axis(&plan->groups[g], EM_AXIS_PP) ? 1 : plan->num_ranks) *
               (has_axis(&plan->groups[g], EM_AXIS_DP) ? 1 : world->num_replicas);
    }
    world->num_groups = num;
    world->groups = em_alloc_zeroed(num, sizeof *world->groups);
    if (world->groups == NULL) {
        return no_memory(err);
    }
    for (uint32_t g = 0; g < plan->num_groups; g++) {
        for (uint32_t pp = 0; pp < plan->num_ranks; pp++) {
            for (uint32_t dp = 0; dp < world->num_replicas; dp++) {
                EM_RETURN_IF_ERROR(make_group(world, g, pp, dp, err));
            }
        }
    }
    return EM_OK;
}

em_status_t em_world_make(em_world_t *world, const em_plan_t *plan, em_error_t *err)
{
    memset(world, 0, sizeof *world);
    world->plan = plan;
    world->num_replicas = (uint32_t)plan->mesh.size[EM_AXIS_DP];
    EM_RETURN_IF_ERROR(make_channels(world, err));
    return make_groups(world, err);
}

void em_world_free(em_world_t *world)
{
    const em_plan_t *const plan = world->plan;
    if (plan == NULL) {
        return;
    }
    const uint64_t num_replicas = world->num_replicas;
    for (uint64_t i = 0; world->channels != NULL && i < plan->num_channels * num_replicas; i++) {
        em_free(world->channels[i].sources);
    }
    for (uint64_t i = 0; world->eval_edges != NULL && i < plan->num_stages * num_replicas; i++) {
        em_free(world->eval_edges[i].sources);
    }
    for (uint32_t i = 0; world->groups != NULL && i < world->num_groups; i++) {
        em_free(world->groups[i].local.values);
        em_free(world->groups[i].buffers);
    }
    em_free(world->channels);
    em_free(world->eval_edges);
    em_free(world->groups);
    em_free(world->first_group);
    memset(world, 0, sizeof *world);
}
