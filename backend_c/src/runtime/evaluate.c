/*
 * The validation loss: forward passes alone, between steps, on slots that are dead then.
 *
 * Sequences are spread evenly over the validation file and cut into microbatches of the plan's
 * size; the last is filled up with targets that count nothing. Replica d takes microbatches d,
 * d + dp, .. . A stage on two ranks is judged on the first. Each rank walks (microbatch, slice,
 * stage) in ascending order, and hands a stage's output to the next rank before it goes on: with
 * one total order that cannot block for ever.
 */
#include <string.h>

#include "runtime/em_rank.h"

void em_evaluate_begin(em_engine_shared_t *shared)
{
    memset(shared->eval_losses, 0,
           (size_t)shared->num_eval_microbatches * sizeof *shared->eval_losses);
}

double em_evaluate_end(em_engine_shared_t *shared)
{
    double sum = 0.0;
    for (uint64_t i = 0; i < shared->num_eval_microbatches; i++) {
        sum += shared->eval_losses[i];
    }
    shared->num_evals++;
    return sum / (double)(shared->num_eval_sequences * shared->plan->train.seq);
}

static void load_tokens(em_rank_t *rank, uint64_t microbatch)
{
    const em_engine_shared_t *const shared = rank->shared;
    const em_plan_train_t *const train = &shared->plan->train;
    for (uint64_t i = 0; i < train->microbatch; i++) {
        const uint64_t sequence = microbatch * train->microbatch + i;
        const bool real = sequence < shared->num_eval_sequences;
        /* spread evenly; the product stays exact as both factors are below 2^32 in any use */
        const uint64_t window =
            real ? sequence * shared->val_windows / shared->num_eval_sequences : 0;
        int32_t *const targets = rank->targets == NULL ? NULL : rank->targets + i * train->seq;
        em_tokens_read(&shared->val, window, train->seq,
                       rank->tokens == NULL ? NULL : rank->tokens + i * train->seq, targets);
        for (uint64_t t = 0; !real && targets != NULL && t < train->seq; t++) {
            targets[t] = EM_TARGET_IGNORE;
        }
    }
}

/* Slot `index` of a pool, the last one if it has fewer; NULL without a pool. */
static float *any_slot(const em_rank_t *rank, em_pool_t pool, uint64_t index)
{
    const em_plan_pool_t *const declared = &rank->shared->plan->ranks[rank->pp].pools[pool];
    if (declared->num == 0) {
        return NULL;
    }
    const uint64_t number = index < declared->num ? index : declared->num - 1;
    return (float *)(void *)(rank->arena.base + declared->at + number * declared->bytes);
}

/* Input of a stage: what this rank has just made, or what the rank before hands over. */
static bool take_input(em_rank_t *rank, uint32_t stage, uint32_t number, float *into)
{
    em_engine_shared_t *const shared = rank->shared;
    const em_plan_t *const plan = shared->plan;
    em_world_channel_t *const edge =
        &shared->world.eval_edges[(stage - 1) * shared->world.num_replicas + rank->dp];
    if (!em_local_wait_ready(&edge->local, number, &shared->team)) {
        return false;
    }
    memcpy(into, edge->sources[0], (size_t)em_plan_message_bytes(plan));
    em_local_taken(&edge->local);
    return true;
}

/* Whether this rank judges a stage. */
static bool judges(const em_rank_t *rank, uint32_t stage)
{
    const em_plan_t *const plan = rank->shared->plan;
    return stage < plan->num_stages && em_plan_first_rank(plan, stage) == rank->pp;
}

/* Output of a stage to the next one's rank. */
static bool hand_over(em_rank_t *rank, uint32_t stage, uint32_t number, const float *made)
{
    em_engine_shared_t *const shared = rank->shared;
    em_world_channel_t *const edge =
        &shared->world.eval_edges[stage * shared->world.num_replicas + rank->dp];
    edge->sources[0] = made;
    em_local_send(&edge->local);
    return em_local_wait_sent(&edge->local, number, &shared->team);
}

/* One slice of one microbatch through all stages that this rank judges. */
static em_status_t run_slice(em_rank_t *rank, uint64_t microbatch, uint32_t slice, uint32_t number)
{
    em_engine_shared_t *const shared = rank->shared;
    float *made = NULL; /* output of the stage before, if it is this rank's */
    double loss = 0.0;
    uint64_t num_judged = 0;
    for (uint32_t i = 0; i < rank->num_stages; i++) {
        em_rank_stage_t *const stage = &rank->stages[i];
        if (!judges(rank, stage->index)) {
            continue;
        }
        float *input = NULL;
        if (!stage->stage.has_embedding) {
            const bool here = judges(rank, stage->index - 1);
            input = here ? made : any_slot(rank, EM_POOL_H, 0);
            if (!here && !take_input(rank, stage->index, number, input)) {
                return EM_ERR_EXEC;
            }
        }
        float *const first = any_slot(rank, EM_POOL_H, 0);
        made = input == first ? any_slot(rank, EM_POOL_H, 1) : first;
        const em_item_t item = {.tokens = rank->tokens,
                                .targets = rank->targets,
                                .x = input,
                                .y = stage->stage.has_head ? NULL : made,
                                .a = any_slot(rank, EM_POOL_A, 0),
                                .w = any_slot(rank, EM_POOL_W, 0),
                                .k = any_slot(rank, EM_POOL_K, num_judged++),
                                .slice = slice,
                                .loss_sum = &loss,
                                .scale = 1.0f,
                                .forward_only = true};
        em_rank_gather_stage(rank, stage);
        const em_status_t status = em_stage_f(&stage->ctx, &item);
        if (status != EM_OK) {
            return EM_FAIL(&rank->error, status,
                           "%s: validation: a token is outside of the model's vocabulary",
                           shared->plan_name);
        }
        atomic_fetch_add_explicit(&rank->progress, 1, memory_order_relaxed);
        if (!stage->stage.has_head && !judges(rank, stage->index + 1) &&
            !hand_over(rank, stage->index, number, made)) {
            return EM_ERR_EXEC;
        }
        if (stage->stage.has_head) {
            shared->eval_losses[microbatch] += loss;
        }
    }
    return EM_OK;
}

em_status_t em_rank_evaluate(em_rank_t *rank)
{
    const em_engine_shared_t *const shared = rank->shared;
    const uint64_t replicas = shared->world.num_replicas;
    const uint64_t num = shared->num_eval_microbatches;
    const uint64_t mine = num / replicas + (rank->dp < num % replicas ? 1 : 0);
    const uint32_t slices = (uint32_t)shared->plan->train.slices;
    uint32_t number = (uint32_t)(shared->num_evals * mine * slices);
    for (uint64_t i = rank->dp; i < num; i += replicas) {
        load_tokens(rank, i);
        for (uint32_t slice = 0; slice < slices; slice++) {
            EM_RETURN_IF_ERROR(run_slice(rank, i, slice, number));
            number++;
        }
    }
    return EM_OK;
}
