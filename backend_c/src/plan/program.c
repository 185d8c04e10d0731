/*
 * Phase 3: each program alone, walked line by line.
 *
 * Within a line the order is ref, wait, work, order, data, bucket, norm, slot, limit; at END it is
 * wait, work, bucket, slot. Rulings 15 to 23 of the page's section 10.
 */
#include "plan/em_program.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/em_arena.h"

const char *em_fault(em_walk_t *w, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(w->text, sizeof w->text, fmt, args);
    va_end(args);
    return w->text;
}

static bool has_unknown(const em_instr_t *instr)
{
    return instr->queue == EM_UNKNOWN || instr->bucket == EM_UNKNOWN || instr->part == EM_UNKNOWN;
}

/* Always false. */
static bool refuse(em_walk_t *w, em_verdict_code_t code, const char *wrong)
{
    const em_instr_t *const instr = &w->instrs[w->index];
    char op[EM_MAX_LINE_BYTES + 1];
    bool unknown = has_unknown(instr);
    for (int32_t i = 0; instr->op == EM_OP_FB && i < instr->bucket; i++) {
        unknown = unknown || has_unknown(&w->plan->members[instr->queue + i]);
    }
    if (unknown) {
        em_line_text(w->reader, instr->line, op, sizeof op);
    } else {
        (void)em_instr_text(w->plan, instr, op, sizeof op);
    }
    (void)em_refuse(w->reader, code, instr->line, "rank %" PRIu32 ": %s: %s", w->pp, op, wrong);
    switch (code) {
    case EM_VERDICT_PROG_WAIT:
        return em_advise(w->reader, "each post has one wait, later in the program and in posting "
                                    "order");
    case EM_VERDICT_PROG_SLOT:
        return em_advise(w->reader, "a slot ends where section 4 of docs/reference/plan-format.md "
                                    "says");
    case EM_VERDICT_PROG_LIMIT:
        return em_advise(w->reader, "wait for earlier posts first, or raise limit=");
    default:
        return false;
    }
}

/* True if there is nothing wrong. */
static bool require(em_walk_t *w, em_verdict_code_t code, const char *wrong)
{
    return wrong == NULL || refuse(w, code, wrong);
}

/* Bring the slots that an instruction names to life. */
static bool name_slots(em_walk_t *w, const em_instr_t *instr)
{
    for (em_pool_t pool = EM_POOL_H; pool < EM_NUM_POOLS; pool++) {
        const int32_t slot = em_instr_slot(instr, pool);
        em_pool_t other = pool;
        uint64_t other_slot = 0;
        if (slot == EM_NONE ||
            em_slots_begin(&w->slots, w->rank, pool, slot, instr->line, &other, &other_slot)) {
            continue;
        }
        const char *const how =
            other == pool ? "it is alive" : "it shares bytes with a living slot";
        return refuse(w, EM_VERDICT_PROG_SLOT,
                      em_fault(w, "slot %c%d: %s: %c%" PRIu64 " was named at line %" PRIu32,
                               "hawgkpqo"[pool], slot, how, "hawgkpqo"[other], other_slot,
                               w->slots.pools[other].line[other_slot]));
    }
    return true;
}

/* ---- work ------------------------------------------------------------------------------ */

/* End what ends with the last step of I, W or B. */
static void end_slots(em_walk_t *w, em_op_t op, const em_instr_t *pass, em_item_t *item)
{
    if (op != EM_OP_W) {
        em_slots_end(&w->slots, EM_POOL_A, item->a_slot);
        item->a_slot = EM_NONE;
        if (pass->slice == 0) {
            em_slots_end(&w->slots, EM_POOL_K, item->k_slot);
            item->k_slot = EM_NONE;
        }
    }
    if (op != EM_OP_I) {
        em_slots_end(&w->slots, EM_POOL_W, item->w_slot);
        em_slots_end(&w->slots, EM_POOL_G, item->g_slot);
        em_slots_end(&w->slots, EM_POOL_H, item->x_slot);
        em_slots_end(&w->slots, EM_POOL_H, item->dy_slot);
        item->w_slot = EM_NONE;
        item->g_slot = EM_NONE;
        item->x_slot = EM_NONE;
        item->dy_slot = EM_NONE;
    }
}

static void keep(int32_t *role, int32_t slot)
{
    *role = slot == EM_NONE ? *role : slot;
}

static void take_pass(em_walk_t *w, const em_instr_t *pass, em_item_t *item)
{
    const em_op_t op = (em_op_t)pass->op;
    const bool last_step = em_step_of(w, pass) + 1 == item->num_parts;
    item->done[op]++;
    item->stash_by_f = item->stash_by_f || (op == EM_OP_F && pass->slot[EM_POOL_A] != EM_NONE);
    keep(&item->a_slot, pass->slot[EM_POOL_A]);
    keep(&item->w_slot, pass->slot[EM_POOL_W]);
    keep(&item->g_slot, pass->slot[EM_POOL_G]);
    keep(&item->k_slot, em_instr_slot(pass, EM_POOL_K));
    keep(op == EM_OP_F ? &item->y_slot : &item->dx_slot, pass->slot[EM_POOL_H]);
    if (last_step && (op == EM_OP_I || op == EM_OP_W || op == EM_OP_B)) {
        end_slots(w, op, pass, item);
    }
}

/* Members of a braid are of different (stage, microbatch). */
static bool members_differ(em_walk_t *w, const em_instr_t *members, int32_t num, bool *differ)
{
    em_map_t seen = {.capacity = 0};
    *differ = true;
    for (int32_t i = 0; i < num && num > 1; i++) {
        const uint64_t key = (uint64_t)members[i].stage << 20 | (uint64_t)members[i].microbatch;
        bool added = false;
        if (em_map_insert(&seen, key, 0, &added) == NULL) {
            em_map_free(&seen);
            return em_no_memory(w->reader);
        }
        *differ = *differ && added;
    }
    em_map_free(&seen);
    return true;
}

static bool check_member(em_walk_t *w, em_verdict_code_t code, const em_instr_t *pass)
{
    if (code == EM_VERDICT_PROG_BUCKET) {
        return require(w, code, em_pass_bucket_fault(w, pass));
    }
    if (code == EM_VERDICT_PROG_NORM) {
        return require(w, code, em_norm_fault(w, pass));
    }
    if (code == EM_VERDICT_PROG_SLOT) {
        return name_slots(w, pass);
    }
    const em_item_t *const item = em_item_of(w, pass, pass->stage);
    if (item == NULL) {
        return em_no_memory(w->reader);
    }
    if (code == EM_VERDICT_PROG_WORK) {
        return require(w, code,
                       em_step_of(w, pass) < item->done[pass->op] ? "it runs twice" : NULL);
    }
    return require(w, code,
                   code == EM_VERDICT_PROG_ORDER ? em_order_fault(w, pass, item)
                                                 : em_data_fault(pass, item));
}

/* A pass, or the passes of a braid: each check over all of them before the next one. */
static bool walk_passes(em_walk_t *w, const em_instr_t *members, int32_t num)
{
    static const em_verdict_code_t checks[] = {EM_VERDICT_PROG_WORK, EM_VERDICT_PROG_ORDER,
                                               EM_VERDICT_PROG_DATA, EM_VERDICT_PROG_BUCKET,
                                               EM_VERDICT_PROG_NORM, EM_VERDICT_PROG_SLOT};
    for (int32_t i = 0; i < num; i++) {
        if (!require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, &members[i]))) {
            return false;
        }
    }
    for (size_t c = 0; c < sizeof checks / sizeof *checks; c++) {
        bool differ = true;
        if (checks[c] == EM_VERDICT_PROG_ORDER && !members_differ(w, members, num, &differ)) {
            return false;
        }
        if (!differ) {
            return refuse(w, checks[c],
                          "members of a braid must be of different (stage, microbatch)");
        }
        for (int32_t i = 0; i < num; i++) {
            if (!check_member(w, checks[c], &members[i])) {
                return false;
            }
        }
    }
    for (int32_t i = 0; i < num; i++) {
        em_item_t *const item = em_item_of(w, &members[i], members[i].stage);
        if (item == NULL) {
            return em_no_memory(w->reader);
        }
        take_pass(w, &members[i], item);
    }
    return true;
}

/* ZERO OPT PV UNDO */
static bool walk_bucket_work(em_walk_t *w, const em_instr_t *instr)
{
    if (!require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, instr)) ||
        !require(w, EM_VERDICT_PROG_BUCKET, em_bucket_fault(w, instr)) ||
        !require(w, EM_VERDICT_PROG_NORM, em_norm_fault(w, instr)) || !name_slots(w, instr)) {
        return false;
    }
    em_bucket_apply(w, instr);
    return true;
}

/* ---- posts ----------------------------------------------------------------------------- */

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
    return require(w, EM_VERDICT_PROG_ORDER, order) && require(w, EM_VERDICT_PROG_DATA, data);
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

static bool walk_post(em_walk_t *w, const em_instr_t *post)
{
    if (!require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, post))) {
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
    if ((is_reduction(post) && !require(w, EM_VERDICT_PROG_BUCKET, em_bucket_fault(w, post))) ||
        !require(w, EM_VERDICT_PROG_NORM, em_norm_fault(w, post)) || !name_slots(w, post)) {
        return false;
    }
    if (w->num_waiting >= w->plan->limit) {
        return refuse(
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

/* ---- waits ----------------------------------------------------------------------------- */

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
    return refuse(
        w, EM_VERDICT_PROG_WAIT,
        em_fault(w, "the oldest post on its %s that is not yet waited is %s (line %" PRIu32 ")",
                 where, op, w->instrs[oldest].line));
}

static bool walk_wait(em_walk_t *w, em_instr_t *wait)
{
    if (!require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, wait))) {
        return false;
    }
    em_queue_state_t *const queue = &w->queues[queue_of(w, wait)];
    const int32_t oldest = queue->waiting;
    if (oldest == EM_NONE) {
        return refuse(w, EM_VERDICT_PROG_WAIT, "nothing on its queue is left to wait for");
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

/* ---- notes ----------------------------------------------------------------------------- */

/* LF LB: the output of one stage becomes the input of its neighbour. */
static bool walk_hand_over(em_walk_t *w, const em_instr_t *instr)
{
    const bool forward = instr->op == EM_OP_LF;
    const int32_t neighbour = instr->stage + (forward ? 1 : -1);
    if (em_item_of(w, instr, neighbour) == NULL) {
        return em_no_memory(w->reader);
    }
    em_item_t *const giver = em_item_of(w, instr, instr->stage);
    em_item_t *const taker = em_item_of(w, instr, neighbour);
    if (giver == NULL || taker == NULL) {
        return em_no_memory(w->reader);
    }
    if (!require(w, EM_VERDICT_PROG_ORDER, em_output_fault(giver, forward)) ||
        !require(w, EM_VERDICT_PROG_ORDER,
                 (forward ? taker->x : taker->dy) == EM_INPUT_NONE
                     ? NULL
                     : "the neighbour stage has had this input before") ||
        !require(w, EM_VERDICT_PROG_DATA, em_output_data_fault(giver, forward))) {
        return false;
    }
    if (forward) {
        giver->y_moved = true;
        taker->x = EM_INPUT_READY;
        taker->x_slot = giver->y_slot;
        giver->y_slot = EM_NONE;
    } else {
        giver->dx_moved = true;
        taker->dy = EM_INPUT_READY;
        taker->dy_slot = giver->dx_slot;
        giver->dx_slot = EM_NONE;
    }
    return true;
}

static bool walk_free(em_walk_t *w, const em_instr_t *instr)
{
    if (!require(w, EM_VERDICT_PROG_BUCKET, em_bucket_fault(w, instr))) {
        return false;
    }
    em_slots_end(&w->slots, EM_POOL_P, w->buckets[instr->bucket].p_slot);
    em_bucket_apply(w, instr);
    return true;
}

static bool check_end(em_walk_t *w)
{
    for (uint64_t i = 0; i < w->touched.num; i++) {
        const int32_t waiting = w->queues[EM_AT(w->touched, uint32_t, i)].waiting;
        if (waiting != EM_NONE) {
            char op[128];
            (void)em_instr_text(w->plan, &w->instrs[waiting], op, sizeof op);
            return refuse(
                w, EM_VERDICT_PROG_WAIT,
                em_fault(w, "%s of line %" PRIu32 " is never waited", op, w->instrs[waiting].line));
        }
    }
    for (uint64_t i = 0; i < w->items.num; i++) {
        if (!em_item_complete(&EM_AT(w->items, em_item_t, i))) {
            return refuse(w, EM_VERDICT_PROG_WORK, "an item has F but no whole backward pass");
        }
    }
    const int32_t bucket = em_bucket_unstepped(w);
    if (bucket != EM_NONE) {
        const em_plan_bucket_t *const b = &w->plan->buckets[bucket];
        return refuse(w, EM_VERDICT_PROG_BUCKET,
                      em_fault(w, "bucket %" PRIu32 "/%" PRIu32 " has no OPT", b->stage, b->index));
    }
    for (em_pool_t pool = EM_POOL_H; pool < EM_NUM_POOLS; pool++) {
        const uint64_t slot = em_slots_next(&w->slots, pool, 0);
        if (slot != UINT64_MAX) {
            return refuse(w, EM_VERDICT_PROG_SLOT,
                          em_fault(w, "slot %c%" PRIu64 " is alive: it was named at line %" PRIu32,
                                   "hawgkpqo"[pool], slot, w->slots.pools[pool].line[slot]));
        }
    }
    return true;
}

/* ---- programs -------------------------------------------------------------------------- */

static bool walk_instr(em_walk_t *w, em_instr_t *instr)
{
    const em_op_t op = (em_op_t)instr->op;
    switch (op) {
    case EM_OP_FB:
        return walk_passes(w, &w->plan->members[instr->queue], instr->bucket);
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
    case EM_OP_RC:
        return walk_passes(w, instr, 1);
    case EM_OP_ZERO:
    case EM_OP_OPT:
    case EM_OP_PV:
    case EM_OP_UNDO:
        return walk_bucket_work(w, instr);
    case EM_OP_WS:
    case EM_OP_WR:
    case EM_OP_WC:
    case EM_OP_WOFF:
    case EM_OP_WLD:
        return walk_wait(w, instr);
    case EM_OP_LF:
    case EM_OP_LB:
        return require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, instr)) && walk_hand_over(w, instr);
    case EM_OP_FREE:
        return require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, instr)) && walk_free(w, instr);
    case EM_OP_MARK:
        return true;
    case EM_OP_END:
        return check_end(w);
    default:
        return walk_post(w, instr);
    }
}

/* Note where the program posts on which queue, for the phases to come, and forget it here. */
static bool close_program(em_walk_t *w, em_program_extra_t *extra)
{
    extra->first_use = w->reader->uses.num;
    extra->num_uses = w->touched.num;
    for (uint64_t i = 0; i < w->touched.num; i++) {
        const uint32_t number = EM_AT(w->touched, uint32_t, i);
        em_queue_state_t *const queue = &w->queues[number];
        em_queue_use_t *const use = em_vec_push(&w->reader->uses, sizeof *use);
        if (use == NULL) {
            return em_no_memory(w->reader);
        }
        *use =
            (em_queue_use_t){.queue = number, .first = (uint32_t)queue->first, .num = queue->num};
        *queue = (em_queue_state_t){.first = EM_NONE, .last = EM_NONE, .waiting = EM_NONE};
    }
    w->touched.num = 0;
    w->items.num = 0;
    em_map_clear(&w->item_of_key);
    return true;
}

static bool walk_program(em_walk_t *w, uint32_t number)
{
    em_program_extra_t *const extra = &EM_AT(w->reader->extras, em_program_extra_t, number);
    w->program = &w->plan->programs[number];
    w->pp = w->program->pp;
    w->rank = &w->plan->ranks[w->pp];
    w->instrs = &EM_AT(w->reader->store->instrs, em_instr_t, extra->first_instr);
    w->next_post = &EM_AT(w->reader->next_post, uint32_t, extra->first_instr);
    w->num_waiting = 0;
    w->num_norms = 0;
    w->norms_waited = 0;
    w->num_checks = 0;
    w->checks_waited = 0;
    em_buckets_begin(w);
    for (w->index = 0; w->index < w->program->num_instrs; w->index++) {
        if (!walk_instr(w, &w->instrs[w->index])) {
            return false;
        }
    }
    return close_program(w, extra);
}

/* Room for all programs: as many posts and links as the longest has instructions. */
static bool open_walk(em_walk_t *w, em_reader_t *reader)
{
    const em_plan_t *const plan = reader->plan;
    const uint64_t num_queues = (uint64_t)plan->num_channels + plan->num_groups + 1;
    uint64_t longest = 0;
    for (uint32_t i = 0; i < plan->num_programs; i++) {
        longest = plan->programs[i].num_instrs > longest ? plan->programs[i].num_instrs : longest;
    }
    w->reader = reader;
    w->plan = plan;
    w->shares_embedding = em_shares_embedding(plan);
    w->buckets = em_alloc_zeroed(plan->num_buckets, sizeof *w->buckets);
    w->stages = em_alloc_zeroed(plan->num_stages, sizeof *w->stages);
    w->queues = em_alloc_zeroed(num_queues, sizeof *w->queues);
    w->next_on_bucket = em_alloc_zeroed(longest, sizeof *w->next_on_bucket);
    reader->next_post.num = reader->store->instrs.num;
    reader->next_post.capacity = reader->store->instrs.num;
    reader->next_post.items = em_alloc_zeroed(reader->store->instrs.num, sizeof(uint32_t));
    if (!em_slots_create(&w->slots, plan) || w->buckets == NULL || w->stages == NULL ||
        w->queues == NULL || w->next_on_bucket == NULL || reader->next_post.items == NULL) {
        return em_no_memory(reader);
    }
    for (uint64_t i = 0; i < num_queues; i++) {
        w->queues[i] = (em_queue_state_t){.first = EM_NONE, .last = EM_NONE, .waiting = EM_NONE};
    }
    return true;
}

static void close_walk(em_walk_t *w)
{
    em_map_free(&w->item_of_key);
    em_vec_free(&w->items);
    em_vec_free(&w->touched);
    em_free(w->buckets);
    em_free(w->stages);
    em_free(w->queues);
    em_free(w->next_on_bucket);
    em_slots_destroy(&w->slots);
}

bool em_check_programs(em_reader_t *reader)
{
    em_walk_t walk = {.reader = reader};
    bool good = open_walk(&walk, reader);
    for (uint32_t i = 0; good && i < reader->plan->num_programs; i++) {
        good = walk_program(&walk, i);
    }
    close_walk(&walk);
    return good;
}
