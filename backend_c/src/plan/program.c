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
bool em_walk_refuse(em_walk_t *w, em_verdict_code_t code, const char *wrong)
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
bool em_walk_require(em_walk_t *w, em_verdict_code_t code, const char *wrong)
{
    return wrong == NULL || em_walk_refuse(w, code, wrong);
}

/* Bring the slots that an instruction names to life. */
bool em_walk_name(em_walk_t *w, const em_instr_t *instr)
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
        return em_walk_refuse(w, EM_VERDICT_PROG_SLOT,
                              em_fault(w, "slot %c%d: %s: %c%" PRIu64 " was named at line %" PRIu32,
                                       "hawgkpqo"[pool], slot, how, "hawgkpqo"[other], other_slot,
                                       w->slots.pools[other].line[other_slot]));
    }
    return true;
}

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
    if (!em_walk_require(w, EM_VERDICT_PROG_ORDER, em_output_fault(giver, forward)) ||
        !em_walk_require(w, EM_VERDICT_PROG_ORDER,
                         (forward ? taker->x : taker->dy) == EM_INPUT_NONE
                             ? NULL
                             : "the neighbour stage has had this input before") ||
        !em_walk_require(w, EM_VERDICT_PROG_DATA, em_output_data_fault(giver, forward))) {
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
    if (!em_walk_require(w, EM_VERDICT_PROG_BUCKET, em_bucket_fault(w, instr))) {
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
            return em_walk_refuse(
                w, EM_VERDICT_PROG_WAIT,
                em_fault(w, "%s of line %" PRIu32 " is never waited", op, w->instrs[waiting].line));
        }
    }
    for (uint64_t i = 0; i < w->items.num; i++) {
        if (!em_item_complete(&EM_AT(w->items, em_item_t, i))) {
            return em_walk_refuse(w, EM_VERDICT_PROG_WORK,
                                  "an item has F but no whole backward pass");
        }
    }
    const int32_t bucket = em_bucket_unstepped(w);
    if (bucket != EM_NONE) {
        const em_plan_bucket_t *const b = &w->plan->buckets[bucket];
        return em_walk_refuse(
            w, EM_VERDICT_PROG_BUCKET,
            em_fault(w, "bucket %" PRIu32 "/%" PRIu32 " has no OPT", b->stage, b->index));
    }
    for (em_pool_t pool = EM_POOL_H; pool < EM_NUM_POOLS; pool++) {
        const uint64_t slot = em_slots_next(&w->slots, pool, 0);
        if (slot != UINT64_MAX) {
            return em_walk_refuse(
                w, EM_VERDICT_PROG_SLOT,
                em_fault(w, "slot %c%" PRIu64 " is alive: it was named at line %" PRIu32,
                         "hawgkpqo"[pool], slot, w->slots.pools[pool].line[slot]));
        }
    }
    return true;
}

static bool walk_instr(em_walk_t *w, em_instr_t *instr)
{
    const em_op_t op = (em_op_t)instr->op;
    switch (op) {
    case EM_OP_FB:
        return em_walk_passes(w, &w->plan->members[instr->queue], instr->bucket);
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
    case EM_OP_RC:
        return em_walk_passes(w, instr, 1);
    case EM_OP_ZERO:
    case EM_OP_OPT:
    case EM_OP_PV:
    case EM_OP_UNDO:
        return em_walk_bucket(w, instr);
    case EM_OP_WS:
    case EM_OP_WR:
    case EM_OP_WC:
    case EM_OP_WOFF:
    case EM_OP_WLD:
        return em_walk_wait(w, instr);
    case EM_OP_LF:
    case EM_OP_LB:
        return em_walk_require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, instr)) &&
               walk_hand_over(w, instr);
    case EM_OP_FREE:
        return em_walk_require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, instr)) &&
               walk_free(w, instr);
    case EM_OP_MARK:
        return true;
    case EM_OP_END:
        return check_end(w);
    default:
        return em_walk_post(w, instr);
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
