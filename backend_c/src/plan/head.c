/*
 * Phase 2: model, training, mesh, stages, placement, channels, groups.
 *
 * Checks stand in the order of the page's table; rulings 8 to 10 of its section 10.
 */
#include <inttypes.h>

#include "plan/em_reader.h"

static bool check_model(em_reader_t *r)
{
    const em_plan_model_t *const model = &r->plan->model;
    if (model->heads % model->kv_heads != 0) {
        return em_refuse(r, EM_VERDICT_HEAD_MODEL, EM_MODEL_LINE,
                         "heads must be a multiple of kv_heads: got heads=%" PRIu64
                         " kv_heads=%" PRIu64,
                         model->heads, model->kv_heads);
    }
    if (model->llama && model->head_dim % 2 != 0) {
        return em_refuse(r, EM_VERDICT_HEAD_MODEL, EM_MODEL_LINE,
                         "rotary positions need an even head_dim: got head_dim=%" PRIu64,
                         model->head_dim);
    }
    if (r->plan->train.seq > model->positions) {
        return em_refuse(r, EM_VERDICT_HEAD_MODEL, EM_MODEL_LINE,
                         "the sequence is longer than the model's positions: got seq=%" PRIu64
                         ", expected at most positions=%" PRIu64,
                         r->plan->train.seq, model->positions);
    }
    return true;
}

static bool check_train(em_reader_t *r)
{
    const em_plan_train_t *const train = &r->plan->train;
    if (train->seq % train->slices != 0) {
        return em_refuse(r, EM_VERDICT_HEAD_TRAIN, EM_TRAIN_LINE,
                         "seq must be a multiple of slices: got seq=%" PRIu64 " slices=%" PRIu64,
                         train->seq, train->slices);
    }
    if (train->beta1 >= 1.0 || train->beta2 >= 1.0) {
        return em_refuse(r, EM_VERDICT_HEAD_TRAIN, EM_TRAIN_LINE,
                         "beta out of range: got beta1=%g beta2=%g, expected less than 1",
                         train->beta1, train->beta2);
    }
    return true;
}

static bool check_mesh(em_reader_t *r)
{
    const em_plan_mesh_t *const mesh = &r->plan->mesh;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < mesh->num_order && i < EM_NUM_AXES; i++) {
        seen |= 1u << mesh->order[i];
    }
    if (mesh->num_order != EM_NUM_AXES || seen != (1u << EM_NUM_AXES) - 1) {
        return em_refuse(r, EM_VERDICT_HEAD_MESH, EM_MESH_LINE,
                         "order must name each of the five axes once");
    }
    uint64_t world = 1;
    for (int axis = 0; axis < EM_NUM_AXES; axis++) {
        world *= mesh->size[axis]; /* both below 2^32 */
        if (world > UINT64_C(1) << 31) {
            return em_refuse(r, EM_VERDICT_HEAD_MESH, EM_MESH_LINE,
                             "too many ranks: expected at most 2^31 in all");
        }
    }
    return true;
}

/* True if so, or if there is no memory to tell. */
static bool has_repeated_part(em_reader_t *r, const em_plan_stage_t *stage, em_map_t *seen)
{
    em_map_clear(seen);
    for (uint32_t i = 0; i < stage->num_parts; i++) {
        bool added = false;
        if (em_map_insert(seen, r->plan->parts[stage->first_part + i], 0, &added) == NULL) {
            return !em_no_memory(r);
        }
        if (!added) {
            return true;
        }
    }
    return false;
}

static bool check_stage(em_reader_t *r, uint32_t index, uint64_t *next_layer, em_map_t *seen)
{
    const em_plan_stage_t *const stage = &r->plan->stages[index];
    const uint64_t layers = r->plan->model.layers;
    const em_verdict_code_t code = EM_VERDICT_HEAD_STAGE;
    if (stage->number != index) {
        return em_refuse(r, code, stage->line,
                         "stages must be numbered 0, 1, 2, ..: got %" PRIu64 ", expected %" PRIu32,
                         stage->number, index);
    }
    if (stage->has_layers) {
        if (stage->first_layer != *next_layer || stage->last_layer < stage->first_layer ||
            stage->last_layer >= layers) {
            return em_refuse(r, code, stage->line,
                             "layers must follow on from the stage before, each layer once: got "
                             "%" PRIu64 "..%" PRIu64 ", expected a range from %" PRIu64
                             " to at most %" PRIu64,
                             stage->first_layer, stage->last_layer, *next_layer, layers - 1);
        }
        *next_layer = stage->last_layer + 1;
    }
    if (stage->embedding != (index == 0)) {
        return em_refuse(r, code, stage->line, "stage 0 holds the embedding, and no other stage");
    }
    if (stage->head && index + 1 != r->plan->num_stages) {
        return em_refuse(r, code, stage->line, "only the last stage holds the head");
    }
    if (has_repeated_part(r, stage, seen)) {
        return em_refuse(r, code, stage->line, "a part is named twice");
    }
    return true;
}

static bool check_stages(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    uint64_t next_layer = 0;
    em_map_t seen = {.capacity = 0};
    bool good = true;
    for (uint32_t i = 0; good && i < plan->num_stages; i++) {
        good = check_stage(r, i, &next_layer, &seen);
    }
    em_map_free(&seen);
    const em_plan_stage_t *const last = &plan->stages[plan->num_stages - 1];
    if (good && next_layer != plan->model.layers) {
        return em_refuse(r, EM_VERDICT_HEAD_STAGE, last->line,
                         "the stages do not hold all layers: got %" PRIu64 ", expected %" PRIu64,
                         next_layer, plan->model.layers);
    }
    if (good && !last->head) {
        return em_refuse(r, EM_VERDICT_HEAD_STAGE, last->line, "the last stage must hold the head");
    }
    return good;
}

static bool is_ascending(const uint32_t *ranks, uint32_t num)
{
    for (uint32_t i = 1; i < num; i++) {
        if (ranks[i - 1] >= ranks[i]) {
            return false;
        }
    }
    return true;
}

/* For each rank its stages, ascending: counts, then a running sum, then the places. */
static bool list_stages(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const uint64_t pp = plan->mesh.size[EM_AXIS_PP];
    for (uint64_t i = 0; i < pp + 2; i++) {
        if (em_vec_push(&r->rank_first, sizeof(uint32_t)) == NULL) {
            return em_no_memory(r);
        }
    }
    for (uint64_t i = 0; i < r->store->place_ranks.num; i++) {
        if (em_vec_push(&r->rank_stages, sizeof(uint32_t)) == NULL) {
            return em_no_memory(r);
        }
        EM_AT(r->rank_first, uint32_t, plan->place_ranks[i] + 2)++;
    }
    for (uint64_t i = 0; i < pp; i++) {
        EM_AT(r->rank_first, uint32_t, i + 2) += EM_AT(r->rank_first, uint32_t, i + 1);
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        const em_plan_stage_t *const stage = &plan->stages[s];
        for (uint32_t i = 0; i < stage->num_ranks; i++) {
            const uint32_t rank = plan->place_ranks[stage->first_rank + i];
            uint32_t *const next = &EM_AT(r->rank_first, uint32_t, rank + 1);
            EM_AT(r->rank_stages, uint32_t, *next) = s;
            (*next)++;
        }
    }
    return true;
}

static bool check_place(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_PLACE;
    const uint64_t pp = plan->mesh.size[EM_AXIS_PP];
    for (uint64_t i = 0; i < r->raw_places.num; i++) {
        if (EM_AT(r->raw_places, em_raw_place_t, i).stage != i) {
            return em_refuse(r, code, r->place_line,
                             "every stage must be placed once, in order: got stage %" PRIu32
                             ", expected %" PRIu64,
                             EM_AT(r->raw_places, em_raw_place_t, i).stage, i);
        }
    }
    if (r->raw_places.num != plan->num_stages) {
        return em_refuse(r, code, r->place_line,
                         "every stage must be placed once: got %" PRIu64
                         " stages, expected %" PRIu32,
                         r->raw_places.num, plan->num_stages);
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        const em_raw_place_t *const place = &EM_AT(r->raw_places, em_raw_place_t, s);
        const uint32_t *const ranks = plan->place_ranks + place->first_rank;
        if (!is_ascending(ranks, place->num_ranks) || ranks[place->num_ranks - 1] >= pp) {
            return em_refuse(r, code, r->place_line,
                             "ranks of stage %" PRIu32 " must ascend and stay below pp=%" PRIu64, s,
                             pp);
        }
        em_plan_stage_t *const stage = &EM_AT(r->store->stages, em_plan_stage_t, s);
        stage->first_rank = place->first_rank;
        stage->num_ranks = place->num_ranks;
    }
    if (pp > r->store->place_ranks.num) {
        return em_refuse(r, code, r->place_line,
                         "a pipeline rank has no stage: got %" PRIu64
                         " places, expected pp=%" PRIu64 " at least",
                         r->store->place_ranks.num, pp);
    }
    if (!list_stages(r)) {
        return false;
    }
    for (uint64_t rank = 0; rank < pp; rank++) {
        if (EM_AT(r->rank_first, uint32_t, rank) == EM_AT(r->rank_first, uint32_t, rank + 1)) {
            return em_refuse(r, code, r->place_line, "rank %" PRIu64 " has no stage", rank);
        }
    }
    return true;
}

static bool check_couple(em_reader_t *r)
{
    if (r->couple_bad) {
        return em_refuse(r, EM_VERDICT_HEAD_COUPLE, r->couple_line,
                         "expected kinds in the order F I W B RC and axes in the order tp cp ep, "
                         "each once");
    }
    return true;
}

static bool check_channels(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_CHANNEL;
    const uint64_t pp = plan->mesh.size[EM_AXIS_PP];
    for (uint32_t i = 0; i < plan->num_channels; i++) {
        const em_plan_channel_t *const channel = &plan->channels[i];
        const char *const name = em_name_text(plan, channel->name);
        if (*em_map_find(&r->channel_of_name, channel->name) != i) {
            return em_refuse(r, code, channel->line, "channel %s: the name is repeated", name);
        }
        if (channel->src >= pp || channel->dst >= pp) {
            return em_refuse(r, code, channel->line,
                             "channel %s: got ranks %" PRIu32 ">%" PRIu32
                             ", expected ranks below pp=%" PRIu64,
                             name, channel->src, channel->dst, pp);
        }
        if (channel->src == channel->dst) {
            (void)em_refuse(r, code, channel->line, "channel %s ends where it starts", name);
            return em_advise(r, "stages on one rank hand over by LF and LB");
        }
    }
    return true;
}

static bool check_groups(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const uint64_t pp = plan->mesh.size[EM_AXIS_PP];
    for (uint32_t i = 0; i < plan->num_groups; i++) {
        const em_plan_group_t *const group = &plan->groups[i];
        const uint32_t *const ranks = plan->group_ranks + group->first_pp;
        const char *wrong = NULL;
        if (*em_map_find(&r->group_of_name, group->name) != i) {
            wrong = "the name is repeated";
        } else if (group->axis_twice) {
            wrong = "an axis is repeated";
        } else if (group->has_pp && (group->axes & 1u << EM_AXIS_PP) == 0) {
            wrong = "pp= needs the axis pp";
        } else if (group->has_pp &&
                   (!is_ascending(ranks, group->num_pp) || ranks[group->num_pp - 1] >= pp)) {
            wrong = "the ranks of pp= must ascend and be on the mesh";
        } else if (group->scan != EM_SCAN_NONE && group->axes != 1u << EM_AXIS_PP) {
            wrong = "a scan walks one line of ranks: expected axes=pp";
        }
        if (wrong != NULL) {
            return em_refuse(r, EM_VERDICT_HEAD_GROUP, group->line, "group %s: %s",
                             em_name_text(plan, group->name), wrong);
        }
    }
    return true;
}

bool em_check_head(em_reader_t *r)
{
    const bool good = check_model(r) && check_train(r) && check_mesh(r) && check_stages(r) &&
                      check_place(r) && check_couple(r) && check_channels(r) && check_groups(r) &&
                      em_check_parameters(r) && em_check_memory(r) && em_check_maps(r);
    em_store_publish(r->store);
    return good;
}
