/* Phase 3: posts and waits, and the queues between them. Rulings 17 to 19 of section 10. */
#include "plan/em_program.h"

#include <inttypes.h>

static uint32_t queue_of(const em_walk_t *w, const em_instr_t *instr)
{
    switch ((em_op_t)instr->op) {
    case EM_OP_SF:
    case EM_OP_SB:
    case EM_OP_RF:
    case EM_OP_RB:
    case EM_OP_WS:
    case EM_OP_WR:
        return (uint32_t)instr->queue;
    case EM_OP_OFF:
    case EM_OP_LD:
    case EM_OP_WOFF:
    case EM_OP_WLD:
        return w->plan->num_channels + w->plan->num_groups;
    default:
        return w->plan->num_channels + (uint32_t)instr->queue;
    }
}

static bool is_reduction(const em_instr_t *instr)
{
    return instr->op == EM_OP_AG || instr->op == EM_OP_RS || instr->op == EM_OP_AR;
}

static bool is_item_post(const em_instr_t *instr)
{
    return !is_reduction(instr) && instr->op != EM_OP_NORM && instr->op != EM_OP_CHK;
}

static bool check_item_post(em_walk_t *w, const em_instr_t *post, const em_item_t *item)
{
    const char *order = NULL;
    const char *data = NULL;
    switch ((em_op_t)post->op) {
    case EM_OP_SF:
    case EM_OP_SB:
        order = em_output_fault(item, post->op == EM_OP_SF);
        data = em_output_data_fault(item, post->op == EM_OP_SF);
        break;
    case EM_OP_RF:
    case EM_OP_RB:
        order = (post->op == EM_OP_RF ? item->x : item->dy) == EM_INPUT_NONE
                    ? NULL
                    : "the item has had this input before";
        break;
    case EM_OP_OFF:
        order = em_offload_fault(item);
        break;
    case EM_OP_LD:
        order = item->away == EM_STASH_HOST ? NULL : "LD stands once, after the WOFF of its item";
        break;
    default:
        order = em_exchange_fault(post, item);
        break;
    }
    return em_walk_require(w, EM_VERDICT_PROG_ORDER, order) &&
           em_walk_require(w, EM_VERDICT_PROG_DATA, data);
}

static void take_item_post(const em_instr_t *post, em_item_t *item)
{
    switch ((em_op_t)post->op) {
    case EM_OP_SF:
        item->y_moved = true;
        break;
    case EM_OP_SB:
        item->dx_moved = true;
        break;
    case EM_OP_RF:
        item->x = EM_INPUT_POSTED;
        item->x_slot = post->slot[EM_POOL_H];
        break;
    case EM_OP_RB:
        item->dy = EM_INPUT_POSTED;
        item->dy_slot = post->slot[EM_POOL_H];
        break;
    case EM_OP_OFF:
        item->away = EM_STASH_LEAVING;
        item->o_slot = em_instr_slot(post, EM_POOL_O);
        break;
    case EM_OP_LD:
        item->away = EM_STASH_COMING;
        item->a_slot = post->slot[EM_POOL_A];
        item->w_slot = post->slot[EM_POOL_W];
        break;
    default:
        item->exchanges[post->phase]++;
        break;
    }
}

/* Put a post at the end of its queue and, if it is on one, of its bucket's. */
static bool enqueue(em_walk_t *w, const em_instr_t *post)
{
    const int32_t self = (int32_t)w->index;
    const uint32_t number = queue_of(w, post);
    em_queue_state_t *const queue = &w->queues[number];
    w->next_post[self] = UINT32_MAX;
    if (queue->num == 0) {
        uint32_t *const touched = em_vec_push(&w->touched, sizeof *touched);
        if (touched == NULL) {
            return em_no_memory(w->reader);
        }
        *touched = number;
        queue->first = self;
    } else {
        w->next_post[queue->last] = (uint32_t)self;
    }
    queue->last = self;
    queue->num++;
    if (queue->waiting == EM_NONE) {
        queue->waiting = self;
    }
    if (is_reduction(post)) {
        em_bucket_state_t *const bucket = &w->buckets[post->bucket];
        w->next_on_bucket[self] = EM_NONE;
        if (bucket->first_post == EM_NONE) {
            bucket->first_post = self;
        } else {
            w->next_on_bucket[bucket->last_post] = self;
        }
        bucket->last_post = self;
    }
    return true;
}

bool em_walk_post(em_walk_t *w, const em_instr_t *post)
{
    if (!em_walk_require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, post))) {
        return false;
    }
    em_item_t *item = NULL;
    if (is_item_post(post)) {
        item = em_item_of(w, post, post->stage);
        if (item == NULL) {
            return em_no_memory(w->reader);
        }
        if (!check_item_post(w, post, item)) {
            return false;
        }
    }
    if ((is_reduction(post) &&
         !em_walk_require(w, EM_VERDICT_PROG_BUCKET, em_bucket_fault(w, post))) ||
        !em_walk_require(w, EM_VERDICT_PROG_NORM, em_norm_fault(w, post)) ||
        !em_walk_name(w, post)) {
        return false;
    }
    if (w->num_waiting >= w->plan->limit) {
        return em_walk_refuse(
            w, EM_VERDICT_PROG_LIMIT,
            em_fault(w, "more than limit=%" PRIu64 " posts are not yet waited", w->plan->limit));
    }
    w->num_waiting++;
    if (!enqueue(w, post)) {
        return false;
    }
    if (item != NULL) {
        take_item_post(post, item);
    } else {
        em_bucket_apply(w, post);
    }
    return true;
}

static bool matches(const em_instr_t *post, const em_instr_t *wait)
{
    const bool loads = post->op == EM_OP_LD;
    const bool copies = loads || post->op == EM_OP_OFF;
    return post->stage == wait->stage && post->microbatch == wait->microbatch &&
           post->slice == wait->slice && post->part == wait->part && post->bucket == wait->bucket &&
           post->phase == wait->phase && (!copies || loads == (wait->op == EM_OP_WLD));
}

static void take_item_wait(em_walk_t *w, const em_instr_t *post, em_item_t *item)
{
    switch ((em_op_t)post->op) {
    case EM_OP_SF:
        em_slots_end(&w->slots, EM_POOL_H, item->y_slot);
        item->y_slot = EM_NONE;
        break;
    case EM_OP_SB:
        em_slots_end(&w->slots, EM_POOL_H, item->dx_slot);
        item->dx_slot = EM_NONE;
        break;
    case EM_OP_RF:
        item->x = EM_INPUT_READY;
        break;
    case EM_OP_RB:
        item->dy = EM_INPUT_READY;
        break;
    case EM_OP_OFF:
        item->away = EM_STASH_HOST;
        em_slots_end(&w->slots, EM_POOL_A, item->a_slot);
        em_slots_end(&w->slots, EM_POOL_W, item->w_slot);
        item->a_slot = EM_NONE;
        item->w_slot = EM_NONE;
        break;
    case EM_OP_LD:
        item->away = EM_STASH_BACK;
        em_slots_end(&w->slots, EM_POOL_O, item->o_slot);
        item->o_slot = EM_NONE;
        break;
    default:
        item->exchanges[post->phase]--;
        break;
    }
}

static bool refuse_wait(em_walk_t *w, int32_t oldest, const char *where)
{
    char op[128];
    (void)em_instr_text(w->plan, &w->instrs[oldest], op, sizeof op);
    return em_walk_refuse(
        w, EM_VERDICT_PROG_WAIT,
        em_fault(w, "the oldest post on its %s that is not yet waited is %s (line %" PRIu32 ")",
                 where, op, w->instrs[oldest].line));
}

bool em_walk_wait(em_walk_t *w, em_instr_t *wait)
{
    if (!em_walk_require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, wait))) {
        return false;
    }
    em_queue_state_t *const queue = &w->queues[queue_of(w, wait)];
    const int32_t oldest = queue->waiting;
    if (oldest == EM_NONE) {
        return em_walk_refuse(w, EM_VERDICT_PROG_WAIT, "nothing on its queue is left to wait for");
    }
    em_instr_t *const post = &w->instrs[oldest];
    if (!matches(post, wait)) {
        return refuse_wait(w, oldest, "queue");
    }
    if (is_reduction(post)) {
        em_bucket_state_t *const bucket = &w->buckets[post->bucket];
        if (bucket->first_post != oldest) {
            return refuse_wait(w, bucket->first_post, "bucket");
        }
        bucket->first_post = w->next_on_bucket[oldest];
    }
    queue->waiting = w->next_post[oldest] == UINT32_MAX ? EM_NONE : (int32_t)w->next_post[oldest];
    post->match = (int32_t)w->index;
    wait->match = oldest;
    w->num_waiting--;
    if (!is_item_post(post)) {
        em_slots_end(&w->slots, EM_POOL_Q, em_bucket_waited(w, post));
        return true;
    }
    em_item_t *const item = em_item_of(w, post, post->stage);
    if (item == NULL) {
        return em_no_memory(w->reader);
    }
    take_item_wait(w, post, item);
    return true;
}
