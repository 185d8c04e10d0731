/* Phase 3: what an instruction names must be there, on this rank (prog.ref). Rulings 15 and 16. */
#include "plan/em_program.h"

enum {
    HAS_H = 1u << EM_POOL_H,
    HAS_A = 1u << EM_POOL_A,
    HAS_W = 1u << EM_POOL_W,
    HAS_G = 1u << EM_POOL_G,
    HAS_K = 1u << EM_POOL_K,
    HAS_Q = 1u << EM_POOL_Q
};

static bool is_here(const em_walk_t *w, int64_t stage)
{
    return stage >= 0 && stage < w->plan->num_stages &&
           em_plan_stage_on(w->plan, (uint32_t)stage, w->pp);
}

static const char *item_fault(em_walk_t *w, const em_instr_t *instr, bool parted)
{
    const em_plan_train_t *const train = &w->plan->train;
    if (!is_here(w, instr->stage)) {
        return em_fault(w, "stage %d is not placed on this rank", instr->stage);
    }
    if ((uint64_t)instr->microbatch >= train->m) {
        return em_fault(w, "microbatch %d is out of range: m=%d", instr->microbatch, (int)train->m);
    }
    if (train->slices == 1 ? instr->slice != EM_NONE
                           : instr->slice < 0 || (uint64_t)instr->slice >= train->slices) {
        return em_fault(w, "an item names a slice below slices=%d if there are several, else none",
                        (int)train->slices);
    }
    if (!parted) {
        return instr->part == EM_NONE ? NULL : "this instruction names no part";
    }
    const em_plan_stage_t *const stage = &w->plan->stages[instr->stage];
    if (stage->num_parts == 0 ? instr->part != EM_NONE : instr->part < 0) {
        return em_fault(w,
                        "an item names a part if and only if its stage has parts: stage %d has %d",
                        instr->stage, (int)stage->num_parts);
    }
    return NULL;
}

/* Slots that a pass must name; *or_else is another set that will do. */
static uint32_t slots_of_pass(const em_walk_t *w, const em_instr_t *pass, uint32_t *or_else)
{
    const em_plan_stage_t *const stage = &w->plan->stages[pass->stage];
    const bool first = stage->num_parts == 0 || pass->part == 0;
    const bool last = stage->num_parts == 0 || (uint32_t)pass->part + 1 == stage->num_parts;
    const bool last_stage = (uint32_t)pass->stage + 1 == w->plan->num_stages;
    uint32_t slots = 0;
    switch ((em_op_t)pass->op) {
    case EM_OP_F:
        slots |= last && !last_stage ? HAS_H : 0u;
        slots |= first && pass->slice == 0 ? HAS_K : 0u;
        *or_else = slots;
        return slots | (first ? HAS_A | HAS_W : 0u);
    case EM_OP_RC:
        slots = first ? HAS_A | HAS_W : 0u;
        break;
    case EM_OP_I:
        slots |= last ? HAS_G : 0u;
        slots |= first && pass->stage > 0 ? HAS_H : 0u;
        break;
    case EM_OP_B:
        slots |= first && pass->stage > 0 ? HAS_H : 0u;
        break;
    default:
        break;
    }
    *or_else = slots;
    return slots;
}

/* Slots that are named must be those that must be, and in range. */
static const char *slot_fault(em_walk_t *w, const em_instr_t *instr, uint32_t wanted,
                              uint32_t or_else)
{
    uint32_t named = 0;
    for (em_pool_t pool = EM_POOL_H; pool < EM_NUM_POOLS; pool++) {
        const int32_t slot = em_instr_slot(instr, pool);
        if (slot == EM_NONE) {
            continue;
        }
        named |= 1u << pool;
        if ((uint64_t)slot >= w->rank->pools[pool].num) {
            return em_fault(w, "slot %c%d is out of range: pool %c of this rank has %d slots",
                            "hawgkpqo"[pool], slot, "hawgkpqo"[pool],
                            (int)w->rank->pools[pool].num);
        }
    }
    if (named == wanted || named == or_else) {
        return NULL;
    }
    char letters[EM_NUM_POOLS + 1];
    size_t num = 0;
    for (int pool = 0; pool < EM_NUM_POOLS; pool++) {
        if ((wanted >> pool & 1u) != 0) {
            letters[num++] = "hawgkpqo"[pool];
        }
    }
    letters[num] = '\0';
    return em_fault(w, "it does not name the slots that it must: expected %s%s",
                    num == 0 ? "none" : letters, wanted == or_else ? "" : " (or no a and w)");
}

static const char *message_fault(em_walk_t *w, const em_instr_t *instr)
{
    const char *const wrong = item_fault(w, instr, false);
    if (wrong != NULL) {
        return wrong;
    }
    if (instr->queue < 0) {
        return "there is no such channel";
    }
    const em_plan_channel_t *const channel = &w->plan->channels[instr->queue];
    const em_op_t op = (em_op_t)instr->op;
    const bool sends = op == EM_OP_SF || op == EM_OP_SB || op == EM_OP_WS;
    const bool waits = op == EM_OP_WS || op == EM_OP_WR;
    const bool backward = op == EM_OP_SB || op == EM_OP_RB;
    if (!waits && backward != channel->backward) {
        return em_fault(w, "the channel is of class %c", channel->backward ? 'B' : 'F');
    }
    if (w->pp != (sends ? channel->src : channel->dst)) {
        return em_fault(w, "this rank is not the channel's %s: it leads from %u to %u",
                        sends ? "source" : "end", channel->src, channel->dst);
    }
    const int64_t neighbour = (int64_t)instr->stage + (channel->backward != sends ? 1 : -1);
    if (neighbour < 0 || neighbour >= w->plan->num_stages) {
        return "the stage has no neighbour stage there";
    }
    const uint32_t peer = sends ? channel->dst : channel->src;
    if (!em_plan_stage_on(w->plan, (uint32_t)neighbour, peer)) {
        return em_fault(w, "the channel leads to rank %u, where stage %d is not placed", peer,
                        (int)neighbour);
    }
    const uint32_t slots = op == EM_OP_RF || op == EM_OP_RB ? HAS_H : 0u;
    return slot_fault(w, instr, slots, slots);
}

static const char *group_fault(const em_walk_t *w, const em_instr_t *instr)
{
    if (instr->queue < 0) {
        return "there is no such group";
    }
    return em_plan_group_has(w->plan, (uint32_t)instr->queue, w->pp)
               ? NULL
               : "this rank is no member of the group";
}

static const char *bucket_fault(em_walk_t *w, const em_instr_t *instr)
{
    if (instr->bucket < 0 || !is_here(w, instr->stage)) {
        return "there is no such bucket on this rank";
    }
    const em_op_t op = (em_op_t)instr->op;
    const char *const wrong = op == EM_OP_AG || op == EM_OP_RS || op == EM_OP_AR || op == EM_OP_WC
                                  ? group_fault(w, instr)
                                  : NULL;
    if (wrong != NULL) {
        return wrong;
    }
    uint32_t slots = op == EM_OP_AG ? 1u << EM_POOL_P : 0u;
    slots |= op == EM_OP_ZERO && w->plan->buckets[instr->bucket].shard != EM_NONE ? HAS_Q : 0u;
    return slot_fault(w, instr, slots, slots);
}

static const char *exchange_fault(em_walk_t *w, const em_instr_t *instr)
{
    const char *const wrong = item_fault(w, instr, true);
    if (wrong != NULL) {
        return wrong;
    }
    return instr->part < 0 ? "the stage has no parts to exchange between" : group_fault(w, instr);
}

static const char *item_only_fault(em_walk_t *w, const em_instr_t *instr)
{
    const em_op_t op = (em_op_t)instr->op;
    const char *const wrong = item_fault(w, instr, false);
    if (wrong != NULL) {
        return wrong;
    }
    if (op == EM_OP_LF || op == EM_OP_LB) {
        return is_here(w, (int64_t)instr->stage + (op == EM_OP_LF ? 1 : -1))
                   ? NULL
                   : "the neighbour stage is not on this rank";
    }
    uint32_t slots = op == EM_OP_OFF ? 1u << EM_POOL_O : 0u;
    slots |= op == EM_OP_LD ? HAS_A | HAS_W : 0u;
    return slot_fault(w, instr, slots, slots);
}

const char *em_ref_fault(em_walk_t *w, const em_instr_t *instr)
{
    const em_op_t op = (em_op_t)instr->op;
    if (!w->plan->clock_free && (op == EM_OP_PV || op == EM_OP_UNDO || op == EM_OP_CHK)) {
        return "it belongs to clock=free, the plan has clock=barrier";
    }
    switch (op) {
    case EM_OP_F:
    case EM_OP_I:
    case EM_OP_W:
    case EM_OP_B:
    case EM_OP_RC: {
        const char *const wrong = item_fault(w, instr, true);
        if (wrong != NULL) {
            return wrong;
        }
        uint32_t or_else = 0;
        const uint32_t slots = slots_of_pass(w, instr, &or_else);
        return slot_fault(w, instr, slots, or_else);
    }
    case EM_OP_SF:
    case EM_OP_SB:
    case EM_OP_RF:
    case EM_OP_RB:
    case EM_OP_WS:
    case EM_OP_WR:
        return message_fault(w, instr);
    case EM_OP_ZERO:
    case EM_OP_OPT:
    case EM_OP_PV:
    case EM_OP_UNDO:
    case EM_OP_FREE:
    case EM_OP_AG:
    case EM_OP_RS:
    case EM_OP_AR:
        return bucket_fault(w, instr);
    case EM_OP_A2A_D:
    case EM_OP_A2A_C:
    case EM_OP_KV:
        return exchange_fault(w, instr);
    case EM_OP_WC:
        if (instr->phase != EM_PHASE_NONE) {
            return exchange_fault(w, instr);
        }
        return instr->bucket == EM_NONE ? group_fault(w, instr) : bucket_fault(w, instr);
    case EM_OP_NORM:
    case EM_OP_CHK:
        return group_fault(w, instr);
    case EM_OP_OFF:
    case EM_OP_LD:
    case EM_OP_WOFF:
    case EM_OP_WLD:
    case EM_OP_LF:
    case EM_OP_LB:
        return item_only_fault(w, instr);
    case EM_OP_FB:
    case EM_OP_MARK:
    case EM_OP_END:
    case EM_NUM_OPS:
        break;
    }
    return NULL;
}
