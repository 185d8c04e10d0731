/* Phase 4: the members of a group post the same. Ruling 24 of the page's section 10. */
#include <stdlib.h>

#include "plan/em_board.h"

/* The posts of one member on one group. */
typedef struct {
    uint32_t group;
    uint32_t num;
    uint32_t first;
    uint64_t instance;
    uint64_t actor;
    uint64_t rank_first; /* by rank, then class: the order of members */
} em_member_t;

static int compare_members(const void *a, const void *b)
{
    const em_member_t *const x = a;
    const em_member_t *const y = b;
    if (x->group != y->group) {
        return x->group < y->group ? -1 : 1;
    }
    if (x->instance != y->instance) {
        return x->instance < y->instance ? -1 : 1;
    }
    return (x->rank_first > y->rank_first) - (x->rank_first < y->rank_first);
}

static bool list_members(em_board_t *b, em_vec_t *members)
{
    const uint32_t num_channels = b->plan->num_channels;
    for (uint64_t actor = 0; actor < b->num_actors; actor++) {
        const em_program_extra_t *const extra = em_extra_of(b, actor);
        for (uint64_t i = 0; i < extra->num_uses; i++) {
            const em_queue_use_t *const use =
                &EM_AT(b->reader->uses, em_queue_use_t, extra->first_use + i);
            if (use->queue < num_channels || use->queue - num_channels >= b->plan->num_groups ||
                em_num_instances(b, use->queue - num_channels) == 0) {
                continue;
            }
            em_member_t *const member = em_vec_push(members, sizeof *member);
            if (member == NULL) {
                return em_no_memory(b->reader);
            }
            *member = (em_member_t){.group = use->queue - num_channels,
                                    .num = use->num,
                                    .first = use->first,
                                    .instance = em_instance_of(b, use->queue - num_channels, actor),
                                    .actor = actor,
                                    .rank_first = actor % b->num_ranks * b->num_classes +
                                                  actor / b->num_ranks};
        }
    }
    if (members->num > 0) {
        qsort(members->items, (size_t)members->num, sizeof(em_member_t), compare_members);
    }
    return true;
}

static bool same_kind(const em_plan_t *plan, const em_instr_t *a, const em_instr_t *b)
{
    return a->op == b->op &&
           (a->bucket < 0 || b->bucket < 0 ||
            plan->buckets[a->bucket].elements == plan->buckets[b->bucket].elements);
}

static bool same_operands(const em_instr_t *a, const em_instr_t *b)
{
    return a->stage == b->stage && a->microbatch == b->microbatch && a->slice == b->slice &&
           a->part == b->part && a->bucket == b->bucket && a->phase == b->phase;
}

/* A later member against the first one, and against the first one on its own rank. */
static bool check_member(em_board_t *b, const em_member_t *first, const em_member_t *mate,
                         const em_member_t *member)
{
    uint32_t at[3] = {first->first, mate->first, member->first};
    for (uint32_t n = 0; n < first->num && n < member->num; n++) {
        const em_instr_t *const mine = em_post_at(b, member->actor, at[2]);
        if (!same_kind(b->plan, em_post_at(b, first->actor, at[0]), mine) ||
            !same_operands(em_post_at(b, mate->actor, at[1]), mine)) {
            return em_refuse_actor(
                b, EM_VERDICT_PAIR_GROUP, member->actor, mine,
                "it differs from what other members of the group post at its place");
        }
        at[0] = em_next_post(b, first->actor, at[0]);
        at[1] = em_next_post(b, mate->actor, at[1]);
        at[2] = em_next_post(b, member->actor, at[2]);
    }
    if (member->num > first->num) {
        return em_refuse_actor(b, EM_VERDICT_PAIR_GROUP, member->actor,
                               em_post_at(b, member->actor, at[2]),
                               "it is more than the group's first member posts");
    }
    if (member->num < first->num) {
        const em_program_t *const program = em_program_of(b, member->actor);
        return em_refuse_actor(b, EM_VERDICT_PAIR_GROUP, member->actor,
                               &program->instrs[program->num_instrs - 1],
                               "it posts less on a group than the group's first member");
    }
    return true;
}

/* The members of one instance that post at all, against all that should. */
static bool check_instance(em_board_t *b, const em_member_t *members, uint64_t num)
{
    const uint32_t group = members[0].group;
    const uint64_t num_members = em_num_members(b, group);
    uint64_t mate = 0;
    for (uint64_t i = 0; i < num_members; i++) {
        const uint64_t actor = em_member(b, group, members[0].instance, i);
        if (i >= num || members[i].actor != actor) {
            if (i == 0) {
                return em_refuse_actor(b, EM_VERDICT_PAIR_GROUP, members[0].actor,
                                       em_post_at(b, members[0].actor, members[0].first),
                                       "it is more than the group's first member posts");
            }
            const em_program_t *const program = em_program_of(b, actor);
            return em_refuse_actor(b, EM_VERDICT_PAIR_GROUP, actor,
                                   &program->instrs[program->num_instrs - 1],
                                   "it posts nothing on a group of which other members do");
        }
        if (members[mate].actor % b->num_ranks != actor % b->num_ranks) {
            mate = i;
        }
        if (i > 0 && !check_member(b, &members[0], &members[mate], &members[i])) {
            return false;
        }
    }
    return true;
}

static bool check_instances(em_board_t *b, em_vec_t *members)
{
    if (!list_members(b, members)) {
        return false;
    }
    for (uint64_t i = 0; i < members->num;) {
        const em_member_t *const first = &EM_AT(*members, em_member_t, i);
        uint64_t num = 1;
        while (i + num < members->num && first[num].group == first->group &&
               first[num].instance == first->instance) {
            num++;
        }
        if (!check_instance(b, first, num)) {
            return false;
        }
        i += num;
    }
    return true;
}

bool em_check_groups(em_board_t *b)
{
    em_vec_t members = {.num = 0};
    const bool good = check_instances(b, &members);
    em_vec_free(&members);
    return good;
}
