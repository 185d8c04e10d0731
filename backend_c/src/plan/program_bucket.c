/* Phase 3: gradients, norms, steps, gathered parameters (prog.bucket, prog.norm). Rulings 21, 22.
 */
#include "plan/em_program.h"

static em_bucket_state_t *state_of(const em_walk_t *w, const em_instr_t *instr)
{
    return &w->buckets[instr->bucket];
}

static const em_plan_bucket_t *declared(const em_walk_t *w, const em_instr_t *instr)
{
    return &w->plan->buckets[instr->bucket];
}

/* Stages whose passes use a bucket: its own; for the one with wte also that of a tied head. */
static uint32_t users_of(const em_walk_t *w, int32_t bucket, em_stage_use_t *users[2])
{
    const em_plan_bucket_t *const b = &w->plan->buckets[bucket];
    const uint32_t last = w->plan->num_stages - 1;
    users[0] = &w->stages[b->stage];
    if (!w->shares_embedding || (b->holds & EM_HOLDS_WTE) == 0 || b->stage == last ||
        !em_plan_stage_on(w->plan, last, w->pp)) {
        return 1;
    }
    users[1] = &w->stages[last];
    return 2;
}

static const uint32_t *stages_here(const em_walk_t *w, uint32_t *num)
{
    const em_vec_t *const first = &w->reader->rank_first;
    const uint32_t begin = EM_AT(*first, uint32_t, w->pp);
    *num = EM_AT(*first, uint32_t, w->pp + 1) - begin;
    return &EM_AT(w->reader->rank_stages, uint32_t, begin);
}

void em_buckets_begin(em_walk_t *w)
{
    uint32_t num_stages = 0;
    const uint32_t *const here = stages_here(w, &num_stages);
    w->num_unclosed = 0;
    for (uint32_t i = 0; i < num_stages; i++) {
        w->stages[here[i]] = (em_stage_use_t){.num = 0};
    }
    for (uint32_t i = 0; i < num_stages; i++) {
        const em_plan_stage_t *const stage = &w->plan->stages[here[i]];
        for (uint32_t k = 0; k < stage->num_buckets; k++) {
            const uint32_t bucket = stage->first_bucket + k;
            w->buckets[bucket] = (em_bucket_state_t){
                .q_slot = EM_NONE, .p_slot = EM_NONE, .first_post = EM_NONE, .last_post = EM_NONE};
            w->num_unclosed++;
            em_stage_use_t *users[2];
            const uint32_t num_users = users_of(w, (int32_t)bucket, users);
            for (uint32_t u = 0; u < num_users; u++) {
                users[u]->num++;
                users[u]->num_sharded += w->plan->buckets[bucket].shard != EM_NONE;
            }
        }
    }
}

static void set_open(em_walk_t *w, const em_instr_t *instr, bool open)
{
    em_bucket_state_t *const state = state_of(w, instr);
    em_stage_use_t *users[2];
    const uint32_t num_users = users_of(w, instr->bucket, users);
    for (uint32_t u = 0; u < num_users && state->open != open; u++) {
        users[u]->num_open += open ? 1u : UINT32_MAX;
    }
    state->open = open;
}

static void set_gathered(em_walk_t *w, const em_instr_t *instr, bool gathered)
{
    em_bucket_state_t *const state = state_of(w, instr);
    em_stage_use_t *users[2];
    const uint32_t num_users = users_of(w, instr->bucket, users);
    for (uint32_t u = 0; u < num_users && state->gathered != gathered; u++) {
        users[u]->num_gathered += gathered ? 1u : UINT32_MAX;
    }
    state->gathered = gathered;
}

static void set_closed(em_walk_t *w, em_bucket_state_t *state, bool closed)
{
    if (state->closed != closed) {
        w->num_unclosed += closed ? UINT32_MAX : 1u;
    }
    state->closed = closed;
}

const char *em_pass_bucket_fault(const em_walk_t *w, const em_instr_t *pass)
{
    const em_stage_use_t *const use = &w->stages[pass->stage];
    if (pass->op != EM_OP_W && use->num_gathered < use->num_sharded) {
        return "a sharded bucket that it reads is not gathered: its AG must be waited before, and "
               "not freed";
    }
    if ((pass->op == EM_OP_W || pass->op == EM_OP_B) && use->num_open < use->num) {
        return "a bucket that it adds to is not open: no ZERO opened it, or a closing post or OPT "
               "closed it";
    }
    return NULL;
}

static const char *close_fault(em_walk_t *w, const em_instr_t *instr)
{
    const em_bucket_state_t *const state = state_of(w, instr);
    const em_plan_bucket_t *const bucket = declared(w, instr);
    if ((instr->op == EM_OP_RS) != (bucket->shard != EM_NONE)) {
        return "RS belongs to buckets with a shard, AR to those without";
    }
    if (!state->opened) {
        return "no ZERO has opened the bucket";
    }
    if (state->posted >= bucket->num_reduce) {
        return "all groups of reduce= have closed the bucket";
    }
    const int32_t wanted = w->plan->reduce_groups[bucket->first_reduce + state->posted];
    if (wanted != instr->queue) {
        return em_fault(w, "closing posts stand in the order of reduce=: expected group %s",
                        em_name_text(w->plan, w->plan->groups[wanted].name));
    }
    return NULL;
}

static const char *gather_fault(const em_walk_t *w, const em_instr_t *instr)
{
    const em_bucket_state_t *const state = state_of(w, instr);
    const em_plan_bucket_t *const bucket = declared(w, instr);
    if (bucket->shard == EM_NONE) {
        return "it belongs to buckets with a shard";
    }
    if (instr->op == EM_OP_FREE) {
        return state->gathered ? NULL : "the bucket is not gathered, or its AG is not waited";
    }
    if (instr->queue != bucket->shard) {
        return "AG goes over the group of shard=";
    }
    return state->gathered || state->gathering ? "the bucket is gathered already" : NULL;
}

static const char *zero_fault(const em_walk_t *w, const em_instr_t *instr)
{
    const em_bucket_state_t *const state = state_of(w, instr);
    if (state->open) {
        return "the bucket is open already";
    }
    if (state->stepped) {
        return "ZERO after the bucket's OPT";
    }
    if (state->opened && (declared(w, instr)->shard == EM_NONE || !state->closed)) {
        return "a second ZERO before the first gradient was reduced to a shard";
    }
    return NULL;
}

const char *em_bucket_fault(em_walk_t *w, const em_instr_t *instr)
{
    const em_bucket_state_t *const state = state_of(w, instr);
    switch ((em_op_t)instr->op) {
    case EM_OP_ZERO:
        return zero_fault(w, instr);
    case EM_OP_OPT:
        if (state->stepped) {
            return "a second OPT";
        }
        return state->closed ? NULL
                             : "OPT before the bucket's ZERO and the waits of its closing posts";
    case EM_OP_PV:
        return state->judged ? "a second PV" : NULL;
    case EM_OP_UNDO:
        return state->opened || state->undone || !state->judged
                   ? "UNDO stands once, after the bucket's PV and before its ZERO"
                   : NULL;
    case EM_OP_RS:
    case EM_OP_AR:
        return close_fault(w, instr);
    default:
        return gather_fault(w, instr);
    }
}

const char *em_norm_fault(const em_walk_t *w, const em_instr_t *instr)
{
    switch ((em_op_t)instr->op) {
    case EM_OP_NORM:
        return w->num_unclosed > 0 ? "NORM before the gradient of every bucket here is complete"
                                   : NULL;
    case EM_OP_OPT:
        return w->plan->train.clip > 0.0 && (w->num_norms == 0 || w->norms_waited < w->num_norms)
                   ? "OPT before a waited NORM, and the plan clips"
                   : NULL;
    case EM_OP_PV:
    case EM_OP_UNDO:
        return w->num_checks == 0 || w->checks_waited < w->num_checks
                   ? "it comes before a waited CHK"
                   : NULL;
    case EM_OP_W:
    case EM_OP_B:
        return w->num_norms > 0 ? "after NORM it would change a gradient whose norm was taken"
                                : NULL;
    default:
        return NULL;
    }
}

void em_bucket_apply(em_walk_t *w, const em_instr_t *instr)
{
    if (instr->op == EM_OP_NORM || instr->op == EM_OP_CHK) {
        *(instr->op == EM_OP_NORM ? &w->num_norms : &w->num_checks) += 1;
        return;
    }
    em_bucket_state_t *const state = state_of(w, instr);
    switch ((em_op_t)instr->op) {
    case EM_OP_ZERO:
        set_open(w, instr, true);
        state->opened = true;
        state->posted = 0;
        state->waited = 0;
        state->q_slot = em_instr_slot(instr, EM_POOL_Q);
        set_closed(w, state, declared(w, instr)->num_reduce == 0);
        break;
    case EM_OP_OPT:
        state->stepped = true;
        set_open(w, instr, false);
        break;
    case EM_OP_PV:
        state->judged = true;
        break;
    case EM_OP_UNDO:
        state->undone = true;
        break;
    case EM_OP_AG:
        state->gathering = true;
        state->p_slot = em_instr_slot(instr, EM_POOL_P);
        break;
    case EM_OP_FREE:
        set_gathered(w, instr, false);
        state->p_slot = EM_NONE;
        break;
    default: /* RS AR */
        state->posted++;
        set_open(w, instr, false);
        break;
    }
}

int32_t em_bucket_waited(em_walk_t *w, const em_instr_t *post)
{
    if (post->op == EM_OP_NORM || post->op == EM_OP_CHK) {
        *(post->op == EM_OP_NORM ? &w->norms_waited : &w->checks_waited) += 1;
        return EM_NONE;
    }
    em_bucket_state_t *const state = state_of(w, post);
    if (post->op == EM_OP_AG) {
        state->gathering = false;
        set_gathered(w, post, true);
        return EM_NONE;
    }
    state->waited++;
    if (state->waited < declared(w, post)->num_reduce) {
        return EM_NONE;
    }
    set_closed(w, state, true);
    const int32_t slot = state->q_slot;
    state->q_slot = EM_NONE;
    return slot;
}

int32_t em_bucket_unstepped(const em_walk_t *w)
{
    uint32_t num_stages = 0;
    const uint32_t *const here = stages_here(w, &num_stages);
    for (uint32_t i = 0; i < num_stages; i++) {
        const em_plan_stage_t *const stage = &w->plan->stages[here[i]];
        for (uint32_t k = 0; k < stage->num_buckets; k++) {
            if (!w->buckets[stage->first_bucket + k].stepped) {
                return (int32_t)(stage->first_bucket + k);
            }
        }
    }
    return EM_NONE;
}
