/*
 * Phase 2, first half: model, training, mesh, stages, placement, channels, groups, buckets, ties.
 *
 * Checks stand in the order of the page's table; rulings 8 to 12 of its section 10.
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

/* Parts that a stage has, as EM_HOLDS_ bits. */
static uint32_t parts_of(const em_plan_t *plan, const em_plan_stage_t *stage)
{
    uint32_t parts = 0;
    parts |= stage->embedding ? EM_HOLDS_WTE : 0u;
    parts |= stage->embedding && !plan->model.llama ? EM_HOLDS_WPE : 0u;
    parts |= stage->has_layers ? EM_HOLDS_LAYERS : 0u;
    parts |= stage->head ? EM_HOLDS_NORM | EM_HOLDS_HEAD : 0u;
    return parts;
}

static bool names_twice(em_reader_t *r, const int32_t *groups, uint32_t num, em_map_t *seen)
{
    em_map_clear(seen);
    for (uint32_t i = 0; i < num; i++) {
        bool added = false;
        if (em_map_insert(seen, (uint64_t)groups[i], 0, &added) == NULL) {
            return !em_no_memory(r);
        }
        if (!added) {
            return true;
        }
    }
    return false;
}

static const char *bucket_fault(em_reader_t *r, const em_plan_bucket_t *bucket, uint32_t held,
                                em_map_t *seen)
{
    const em_plan_t *const plan = r->plan;
    const int32_t *const reduce = plan->reduce_groups + bucket->first_reduce;
    if ((bucket->holds & ~parts_of(plan, &plan->stages[bucket->stage])) != 0) {
        return "it holds a part that its stage does not have";
    }
    if ((bucket->holds & held) != 0) {
        return "it holds a part that another bucket of the stage holds";
    }
    if (bucket->holds_twice) {
        return "parts must stand once each, in the order wte wpe layers norm head";
    }
    if (bucket->elements == 0) {
        return "elements must be at least 1";
    }
    if (bucket->shard == EM_UNKNOWN) {
        return "the group of shard= is not declared";
    }
    for (uint32_t i = 0; i < bucket->num_reduce; i++) {
        if (reduce[i] < 0) {
            return "a group of reduce= is not declared";
        }
    }
    return names_twice(r, reduce, bucket->num_reduce, seen) ? "reduce= names a group twice" : NULL;
}

static bool check_bucket(em_reader_t *r, uint32_t i, uint32_t *held, em_map_t *seen)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_BUCKET;
    const em_plan_bucket_t *const bucket = &plan->buckets[i];
    const em_plan_bucket_t *const before = i == 0 ? NULL : &plan->buckets[i - 1];
    if (bucket->stage >= plan->num_stages) {
        return em_refuse(r, code, bucket->line, "bucket %" PRIu32 "/%" PRIu32 ": no such stage",
                         bucket->stage, bucket->index);
    }
    const bool same = before != NULL && bucket->stage == before->stage;
    if ((before != NULL && bucket->stage < before->stage) ||
        bucket->index != (same ? before->index + 1 : 0)) {
        return em_refuse(r, code, bucket->line, "bucket %" PRIu32 "/%" PRIu32 " is out of order",
                         bucket->stage, bucket->index);
    }
    em_plan_stage_t *const stage = &EM_AT(r->store->stages, em_plan_stage_t, bucket->stage);
    if (!same) {
        stage->first_bucket = i;
        *held = 0;
    }
    stage->num_buckets++;
    const char *const wrong = bucket_fault(r, bucket, *held, seen);
    if (wrong != NULL) {
        return em_refuse(r, code, bucket->line, "bucket %" PRIu32 "/%" PRIu32 ": %s", bucket->stage,
                         bucket->index, wrong);
    }
    *held |= bucket->holds;
    return true;
}

bool em_shares_embedding(const em_plan_t *plan)
{
    const em_plan_stage_t *const last = &plan->stages[plan->num_stages - 1];
    for (uint32_t i = 0; i < last->num_buckets; i++) {
        if ((plan->buckets[last->first_bucket + i].holds & EM_HOLDS_HEAD) != 0) {
            return false;
        }
    }
    return plan->model.tied;
}

static bool check_buckets(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_BUCKET;
    em_map_t seen = {.capacity = 0};
    uint32_t held = 0;
    bool good = true;
    for (uint32_t i = 0; good && i < plan->num_buckets; i++) {
        good = check_bucket(r, i, &held, &seen);
    }
    em_map_free(&seen);
    if (!good) {
        return false;
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        const em_plan_stage_t *const stage = &plan->stages[s];
        uint32_t missing = parts_of(plan, stage);
        missing &= plan->model.tied ? ~(uint32_t)EM_HOLDS_HEAD : ~0u;
        for (uint32_t i = 0; i < stage->num_buckets; i++) {
            missing &= ~plan->buckets[stage->first_bucket + i].holds;
        }
        if (missing != 0) {
            (void)em_refuse(r, code, plan->buckets[plan->num_buckets - 1].line,
                            "no bucket holds a part of stage %" PRIu32, s);
            return em_advise(r, "every parameter is stepped by exactly one bucket");
        }
    }
    const em_plan_stage_t *const last = &plan->stages[plan->num_stages - 1];
    for (uint32_t i = 0; em_shares_embedding(plan) && i < last->num_ranks; i++) {
        const uint32_t rank = plan->place_ranks[last->first_rank + i];
        if (!em_plan_stage_on(plan, 0, rank)) {
            (void)em_refuse(r, code, plan->buckets[last->first_bucket].line,
                            "the tied head on rank %" PRIu32 " has no bucket with wte on its rank",
                            rank);
            return em_advise(r, "hold `head` in a bucket of the last stage and tie it to that of "
                                "`wte`");
        }
    }
    return true;
}

/* True if `group` joins all ranks of both stages. */
static bool joins(const em_plan_t *plan, uint32_t group, const em_plan_bucket_t *const pair[2])
{
    if ((plan->groups[group].axes & 1u << EM_AXIS_PP) == 0) {
        return false;
    }
    for (int end = 0; end < 2; end++) {
        const em_plan_stage_t *const stage = &plan->stages[pair[end]->stage];
        for (uint32_t i = 0; i < stage->num_ranks; i++) {
            if (!em_plan_group_has(plan, group, plan->place_ranks[stage->first_rank + i])) {
                return false;
            }
        }
    }
    return true;
}

static bool reduces_over(const em_plan_t *plan, const em_plan_bucket_t *bucket, int32_t group)
{
    for (uint32_t i = 0; i < bucket->num_reduce; i++) {
        if (plan->reduce_groups[bucket->first_reduce + i] == group) {
            return true;
        }
    }
    return false;
}

static const char *tie_fault(const em_plan_t *plan, const em_plan_bucket_t *const pair[2])
{
    if ((pair[0]->holds & EM_HOLDS_WTE) == 0 || (pair[1]->holds & EM_HOLDS_HEAD) == 0) {
        return "a tie joins a bucket with wte to a bucket with head";
    }
    if (pair[0]->elements != pair[1]->elements) {
        return "the tied buckets differ in elements";
    }
    const em_plan_stage_t *const stage = &plan->stages[pair[0]->stage];
    for (uint32_t i = 0; i < stage->num_ranks; i++) {
        if (em_plan_stage_on(plan, pair[1]->stage, plan->place_ranks[stage->first_rank + i])) {
            return "both are placed on one rank, which keeps one buffer: leave `head` out of the "
                   "bucket";
        }
    }
    for (uint32_t i = 0; i < pair[0]->num_reduce; i++) {
        const int32_t group = plan->reduce_groups[pair[0]->first_reduce + i];
        if (reduces_over(plan, pair[1], group) && joins(plan, (uint32_t)group, pair)) {
            return NULL;
        }
    }
    return "no group over the ranks of both is in both reduce lists";
}

static bool check_ties(em_reader_t *r)
{
    const em_plan_t *const plan = r->plan;
    const em_verdict_code_t code = EM_VERDICT_HEAD_TIE;
    if (r->raw_ties.num == 0 && plan->model.tied && !em_shares_embedding(plan)) {
        (void)em_refuse(
            r, code, plan->buckets[plan->num_buckets - 1].line,
            "the model is tied, its head has a bucket, and no tie line joins it to wte");
        return em_advise(r, "add `tie S/K S/K`, or leave `head` out of the bucket");
    }
    for (uint64_t i = 0; i < r->raw_ties.num; i++) {
        const em_raw_tie_t *const raw = &EM_AT(r->raw_ties, em_raw_tie_t, i);
        if (!plan->model.tied) {
            return em_refuse(r, code, raw->line, "the model is not tied");
        }
        const em_plan_bucket_t *pair[2] = {NULL, NULL};
        em_plan_tie_t *const tie = em_vec_push(&r->store->ties, sizeof *tie);
        if (tie == NULL) {
            return em_no_memory(r);
        }
        tie->line = raw->line;
        for (int end = 0; end < 2; end++) {
            const uint64_t key = (uint64_t)raw->stage[end] << 20 | raw->index[end];
            const uint32_t *const bucket = em_map_find(&r->bucket_of_pair, key);
            if (bucket == NULL) {
                return em_refuse(r, code, raw->line, "there is no bucket %" PRIu32 "/%" PRIu32,
                                 raw->stage[end], raw->index[end]);
            }
            pair[end] = &plan->buckets[*bucket];
            *(end == 0 ? &tie->first : &tie->second) = (int32_t)*bucket;
        }
        const char *const wrong = i > 0 ? "a second tie" : tie_fault(plan, pair);
        if (wrong != NULL) {
            return em_refuse(r, code, raw->line, "%s", wrong);
        }
    }
    return true;
}

bool em_check_head(em_reader_t *r)
{
    const bool good = check_model(r) && check_train(r) && check_mesh(r) && check_stages(r) &&
                      check_place(r) && check_couple(r) && check_channels(r) && check_groups(r) &&
                      check_buckets(r) && check_ties(r) && em_check_memory(r) && em_check_maps(r);
    em_store_publish(r->store);
    return good;
}
