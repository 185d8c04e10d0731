/* Phase 3: passes, braids, and the work on buckets. Rulings 18 to 22 of the page's section 10. */
#include "plan/em_program.h"

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
        return em_walk_require(w, code, em_pass_bucket_fault(w, pass));
    }
    if (code == EM_VERDICT_PROG_NORM) {
        return em_walk_require(w, code, em_norm_fault(w, pass));
    }
    if (code == EM_VERDICT_PROG_SLOT) {
        return em_walk_name(w, pass);
    }
    const em_item_t *const item = em_item_of(w, pass, pass->stage);
    if (item == NULL) {
        return em_no_memory(w->reader);
    }
    if (code == EM_VERDICT_PROG_WORK) {
        return em_walk_require(w, code,
                               em_step_of(w, pass) < item->done[pass->op] ? "it runs twice" : NULL);
    }
    return em_walk_require(w, code,
                           code == EM_VERDICT_PROG_ORDER ? em_order_fault(w, pass, item)
                                                         : em_data_fault(pass, item));
}

/* A pass, or the passes of a braid: each check over all of them before the next one. */
bool em_walk_passes(em_walk_t *w, const em_instr_t *members, int32_t num)
{
    static const em_verdict_code_t checks[] = {EM_VERDICT_PROG_WORK, EM_VERDICT_PROG_ORDER,
                                               EM_VERDICT_PROG_DATA, EM_VERDICT_PROG_BUCKET,
                                               EM_VERDICT_PROG_NORM, EM_VERDICT_PROG_SLOT};
    for (int32_t i = 0; i < num; i++) {
        if (!em_walk_require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, &members[i]))) {
            return false;
        }
    }
    for (size_t c = 0; c < sizeof checks / sizeof *checks; c++) {
        bool differ = true;
        if (checks[c] == EM_VERDICT_PROG_ORDER && !members_differ(w, members, num, &differ)) {
            return false;
        }
        if (!differ) {
            return em_walk_refuse(w, checks[c],
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
bool em_walk_bucket(em_walk_t *w, const em_instr_t *instr)
{
    if (!em_walk_require(w, EM_VERDICT_PROG_REF, em_ref_fault(w, instr)) ||
        !em_walk_require(w, EM_VERDICT_PROG_BUCKET, em_bucket_fault(w, instr)) ||
        !em_walk_require(w, EM_VERDICT_PROG_NORM, em_norm_fault(w, instr)) ||
        !em_walk_name(w, instr)) {
        return false;
    }
    em_bucket_apply(w, instr);
    return true;
}
