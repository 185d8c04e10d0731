/* Phase 3: the life of one item on one rank (prog.work, prog.order, prog.data). Rulings 18, 19. */
#include "plan/em_program.h"

static uint64_t key_of(int32_t stage, int32_t microbatch, int32_t slice)
{
    const uint64_t cut = slice < 0 ? 0 : (uint64_t)slice;
    return (uint64_t)stage << 40 | (uint64_t)microbatch << 20 | cut;
}

em_item_t *em_item_of(em_walk_t *w, const em_instr_t *instr, int32_t stage)
{
    bool added = false;
    const uint64_t key = key_of(stage, instr->microbatch, instr->slice);
    const uint32_t *const found =
        em_map_insert(&w->item_of_key, key, (uint32_t)w->items.num, &added);
    if (found == NULL) {
        return NULL;
    }
    if (!added) {
        return &EM_AT(w->items, em_item_t, *found);
    }
    em_item_t *const item = em_vec_push(&w->items, sizeof *item);
    if (item == NULL) {
        return NULL;
    }
    const bool last = (uint32_t)stage + 1 == w->plan->num_stages;
    *item = (em_item_t){.num_parts = em_num_parts(&w->plan->stages[stage]),
                        .x_slot = EM_NONE,
                        .y_slot = EM_NONE,
                        .dy_slot = EM_NONE,
                        .dx_slot = EM_NONE,
                        .a_slot = EM_NONE,
                        .w_slot = EM_NONE,
                        .g_slot = EM_NONE,
                        .k_slot = EM_NONE,
                        .o_slot = EM_NONE,
                        .x = stage == 0 ? EM_INPUT_READY : EM_INPUT_NONE,
                        .dy = last ? EM_INPUT_READY : EM_INPUT_NONE};
    return item;
}

const em_item_t *em_item_beside(const em_walk_t *w, const em_instr_t *instr, int32_t slice)
{
    const uint32_t *const found =
        em_map_find(&w->item_of_key, key_of(instr->stage, instr->microbatch, slice));
    return found == NULL ? NULL : &EM_AT(w->items, em_item_t, *found);
}

uint32_t em_step_of(const em_walk_t *w, const em_instr_t *pass)
{
    const uint32_t num_parts = em_num_parts(&w->plan->stages[pass->stage]);
    const uint32_t part = pass->part < 0 ? 0 : (uint32_t)pass->part;
    const bool forward = pass->op == EM_OP_F || pass->op == EM_OP_RC;
    return forward ? part : num_parts - 1 - part;
}

static bool is_made(const em_item_t *item)
{
    return item->done[EM_OP_F] == item->num_parts;
}

static bool is_backward_made(const em_item_t *item)
{
    return item->done[EM_OP_I] == item->num_parts || item->done[EM_OP_B] == item->num_parts;
}

bool em_item_complete(const em_item_t *item)
{
    return item->done[EM_OP_F] == 0 || item->done[EM_OP_B] == item->num_parts ||
           (item->done[EM_OP_I] == item->num_parts && item->done[EM_OP_W] == item->num_parts);
}

/* Slices of F ascend, those of I and B descend. */
static const char *slice_fault(const em_walk_t *w, const em_instr_t *pass)
{
    const bool forward = pass->op == EM_OP_F;
    const int32_t beside = forward ? pass->slice - 1 : pass->slice + 1;
    if (w->plan->train.slices == 1 || beside < 0 || (uint64_t)beside >= w->plan->train.slices) {
        return NULL;
    }
    const em_item_t *const item = em_item_beside(w, pass, beside);
    if (forward) {
        return item == NULL || !is_made(item)
                   ? "slices of F must ascend: the one before is not done"
                   : NULL;
    }
    return item == NULL || !is_backward_made(item)
               ? "slices of I and B must descend: the one after is not done"
               : NULL;
}

static const char *backward_fault(const em_walk_t *w, const em_instr_t *pass, const em_item_t *item)
{
    if (!item->stash_by_f && item->done[EM_OP_RC] < item->num_parts) {
        return "it comes before the item's RC, and F named no stash";
    }
    const bool mixed = pass->op == EM_OP_B ? item->done[EM_OP_I] > 0 || item->done[EM_OP_W] > 0
                                           : item->done[EM_OP_B] > 0;
    return mixed ? "both B and I of one item" : slice_fault(w, pass);
}

const char *em_order_fault(em_walk_t *w, const em_instr_t *pass, const em_item_t *item)
{
    const uint32_t step = em_step_of(w, pass);
    const em_op_t op = (em_op_t)pass->op;
    const char *wrong = NULL;
    if (op == EM_OP_F) {
        wrong = slice_fault(w, pass);
    } else if (!is_made(item)) {
        wrong = "it comes before the item's F";
    } else if (op == EM_OP_RC) {
        wrong = item->stash_by_f ? "F of the item kept its stash" : NULL;
    } else if (op == EM_OP_W) {
        wrong = item->done[EM_OP_I] <= step ? "it comes before its I" : NULL;
    } else {
        wrong = backward_fault(w, pass, item);
    }
    if (wrong != NULL) {
        return wrong;
    }
    return step > item->done[op] ? "parts are out of order" : NULL;
}

static const char *input_fault(uint8_t state, bool forward)
{
    if (state == EM_INPUT_READY) {
        return NULL;
    }
    if (state == EM_INPUT_POSTED) {
        return forward ? "x is not there yet: the WR of its receive must come before"
                       : "dy is not there yet: the WR of its receive must come before";
    }
    return forward ? "x is not there: no receive and no LF brings it"
                   : "dy is not there: no receive and no LB brings it";
}

const char *em_data_fault(const em_instr_t *pass, const em_item_t *item)
{
    const em_op_t op = (em_op_t)pass->op;
    if (op == EM_OP_W) {
        return NULL;
    }
    if (item->exchanges[EM_PHASE_F] > 0 || (op == EM_OP_I && item->exchanges[EM_PHASE_I] > 0) ||
        (op == EM_OP_B && item->exchanges[EM_PHASE_B] > 0)) {
        return "an A2A or KV of the item is not waited";
    }
    if (op == EM_OP_F || op == EM_OP_RC) {
        return input_fault(item->x, true);
    }
    if (item->dy != EM_INPUT_READY) {
        return input_fault(item->dy, false);
    }
    return item->away == EM_STASH_HERE || item->away == EM_STASH_BACK
               ? NULL
               : "the stash is on the host or on its way";
}

const char *em_output_fault(const em_item_t *item, bool forward)
{
    if (forward ? !is_made(item) : !is_backward_made(item)) {
        return "the data is not made yet: its last part has not run";
    }
    return (forward ? item->y_moved : item->dx_moved) ? "the data was moved before" : NULL;
}

const char *em_output_data_fault(const em_item_t *item, bool forward)
{
    const bool waited = forward
                            ? item->exchanges[EM_PHASE_F] == 0
                            : item->exchanges[EM_PHASE_I] == 0 && item->exchanges[EM_PHASE_B] == 0;
    return waited ? NULL : "an A2A or KV of the item is not waited";
}

const char *em_offload_fault(const em_item_t *item)
{
    const bool whole =
        is_made(item) && (item->stash_by_f || item->done[EM_OP_RC] == item->num_parts);
    if (!whole || item->done[EM_OP_I] > 0 || item->done[EM_OP_B] > 0) {
        return "OFF needs a whole stash: after the item's F or RC, before its I or B";
    }
    return item->away == EM_STASH_HERE ? NULL : "the stash was sent to the host before";
}

const char *em_exchange_fault(const em_instr_t *post, const em_item_t *item)
{
    const uint32_t part = (uint32_t)post->part;
    const uint32_t step = item->num_parts - 1 - part;
    bool ran = false;
    if (post->phase == EM_PHASE_F) {
        ran = part < item->done[EM_OP_F] || part < item->done[EM_OP_RC];
    } else {
        ran = step < item->done[post->phase == EM_PHASE_I ? EM_OP_I : EM_OP_B];
    }
    return ran ? NULL : "that part of the pass has not run";
}
