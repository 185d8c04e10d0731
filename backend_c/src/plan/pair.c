/*
 * Phase 4: the ranks of a plan against each other. Ruling 24 of the page's section 10.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/em_arena.h"
#include "plan/em_board.h"

/* Always false: `instr` of an actor is at fault. */
static bool refuse(em_board_t *b, em_verdict_code_t code, uint64_t actor, const em_instr_t *instr,
                   const char *what)
{
    char op[128];
    (void)em_instr_text(b->plan, instr, op, sizeof op);
    return em_refuse(b->reader, code, instr->line, "rank %" PRIu64 ": %s: %s", actor % b->num_ranks,
                     op, what);
}

/* ---- every item runs once -------------------------------------------------------------- */

/* Where an item runs first; and second, if it does. */
typedef struct {
    uint64_t first_actor;
    uint64_t second_actor;
    const em_instr_t *second;
} em_runs_t;

static uint64_t key_of(uint64_t stage, uint64_t microbatch, uint64_t slice)
{
    return stage << 40 | microbatch << 20 | slice;
}

static bool note_pass(em_board_t *b, uint64_t actor, const em_instr_t *pass,
                      const em_instr_t *instr, em_map_t *item_of, em_vec_t *runs)
{
    if (pass->op != EM_OP_F || pass->part > 0) {
        return true;
    }
    const uint64_t slice = pass->slice < 0 ? 0 : (uint64_t)pass->slice;
    bool added = false;
    const uint32_t *const item =
        em_map_insert(item_of, key_of((uint64_t)pass->stage, (uint64_t)pass->microbatch, slice),
                      (uint32_t)runs->num, &added);
    if (item == NULL) {
        return em_no_memory(b->reader);
    }
    if (added) {
        em_runs_t *const run = em_vec_push(runs, sizeof *run);
        if (run == NULL) {
            return em_no_memory(b->reader);
        }
        run->first_actor = actor;
        return true;
    }
    em_runs_t *const run = &EM_AT(*runs, em_runs_t, *item);
    if (run->second == NULL) {
        run->second = instr;
        run->second_actor = actor;
    }
    return true;
}

static bool note_program(em_board_t *b, uint64_t actor, em_map_t *item_of, em_vec_t *runs)
{
    const em_program_t *const program = em_program_of(b, actor);
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        const bool braid = instr->op == EM_OP_FB;
        const em_instr_t *const passes = braid ? &b->plan->members[instr->queue] : instr;
        for (int32_t p = 0; p < (braid ? instr->bucket : 1); p++) {
            if (!note_pass(b, actor, &passes[p], instr, item_of, runs)) {
                return false;
            }
        }
    }
    return true;
}

static bool check_item(em_board_t *b, uint32_t class, const em_plan_stage_t *stage, uint64_t key,
                       const em_map_t *item_of, const em_vec_t *runs)
{
    const uint32_t *const item = em_map_find(item_of, key);
    const em_runs_t *const run = item == NULL ? NULL : &EM_AT(*runs, em_runs_t, *item);
    if (run != NULL && run->second == NULL) {
        return true;
    }
    char name[64];
    const int cut = b->plan->train.slices > 1 ? (int)(key & EM_MAX_INDEX) : EM_NONE;
    const em_instr_t as_free = {.op = EM_OP_LF,
                                .stage = (int32_t)(key >> 40),
                                .microbatch = (int32_t)(key >> 20 & EM_MAX_INDEX),
                                .slice = cut,
                                .part = EM_NONE,
                                .bucket = EM_NONE,
                                .queue = EM_NONE,
                                .slot = {EM_NONE, EM_NONE, EM_NONE, EM_NONE, EM_NONE}};
    (void)em_instr_text(b->plan, &as_free, name, sizeof name);
    if (run != NULL) {
        return em_refuse(b->reader, EM_VERDICT_PAIR_WORK, run->second->line,
                         "rank %" PRIu64 ": item %s runs on rank %" PRIu64 " too",
                         run->second_actor % b->num_ranks, name + 3,
                         run->first_actor % b->num_ranks);
    }
    const uint32_t rank = b->plan->place_ranks[stage->first_rank];
    return em_refuse(b->reader, EM_VERDICT_PAIR_WORK,
                     em_program_of(b, em_actor(b, class, rank))->end_line,
                     "rank %" PRIu32 ": no rank runs item %s", rank, name + 3);
}

static bool check_items(em_board_t *b, uint32_t class, em_map_t *item_of, em_vec_t *runs)
{
    const em_plan_t *const plan = b->plan;
    em_map_clear(item_of);
    runs->num = 0;
    for (uint32_t pp = 0; pp < b->num_ranks; pp++) {
        if (!note_program(b, em_actor(b, class, pp), item_of, runs)) {
            return false;
        }
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        for (uint64_t mb = 0; mb < plan->train.m; mb++) {
            for (uint64_t slice = 0; slice < plan->train.slices; slice++) {
                if (!check_item(b, class, &plan->stages[s], key_of(s, mb, slice), item_of, runs)) {
                    return false;
                }
            }
        }
    }
    return true;
}

/* ---- messages meet --------------------------------------------------------------------- */

/* The posts of one end of a channel in one class. */
typedef struct {
    uint64_t actor;
    uint32_t next;
    uint32_t num;
} em_end_t;

static const em_program_extra_t *extra_of(const em_board_t *b, uint64_t actor)
{
    return &EM_AT(b->reader->extras, em_program_extra_t, b->program_of[actor]);
}

static const em_instr_t *post_at(const em_board_t *b, uint64_t actor, uint32_t index)
{
    return &em_program_of(b, actor)->instrs[index];
}

static uint32_t next_post(const em_board_t *b, uint64_t actor, uint32_t index)
{
    return EM_AT(b->reader->next_post, uint32_t, extra_of(b, actor)->first_instr + index);
}

static bool check_channel(em_board_t *b, const em_plan_channel_t *channel, em_end_t ends[2])
{
    const int32_t step = channel->backward ? -1 : 1;
    while (ends[0].num > 0 && ends[1].num > 0) {
        const em_instr_t *const send = post_at(b, ends[0].actor, ends[0].next);
        const em_instr_t *const receive = post_at(b, ends[1].actor, ends[1].next);
        if (send->stage + step != receive->stage || send->microbatch != receive->microbatch ||
            send->slice != receive->slice) {
            (void)refuse(b, EM_VERDICT_PAIR_MESSAGE, ends[1].actor, receive,
                         "the message does not meet its send: both ends of a channel must post "
                         "the same items in the same order");
            return em_advise(b->reader,
                             "the send is that of %d.%d at line %" PRIu32 " of rank %" PRIu32,
                             send->stage, send->microbatch, send->line, channel->src);
        }
        for (int end = 0; end < 2; end++) {
            ends[end].next = next_post(b, ends[end].actor, ends[end].next);
            ends[end].num--;
        }
    }
    for (int end = 0; end < 2; end++) {
        if (ends[end].num > 0) {
            return refuse(b, EM_VERDICT_PAIR_MESSAGE, ends[end].actor,
                          post_at(b, ends[end].actor, ends[end].next),
                          "the other end of the channel has no partner for it");
        }
    }
    return true;
}

static bool check_messages(em_board_t *b, uint32_t class, em_end_t *ends)
{
    const em_plan_t *const plan = b->plan;
    for (uint64_t i = 0; i < 2 * (uint64_t)plan->num_channels; i++) {
        ends[i].num = 0;
    }
    for (uint32_t pp = 0; pp < b->num_ranks; pp++) {
        const uint64_t actor = em_actor(b, class, pp);
        const em_program_extra_t *const extra = extra_of(b, actor);
        for (uint64_t i = 0; i < extra->num_uses; i++) {
            const em_queue_use_t *const use =
                &EM_AT(b->reader->uses, em_queue_use_t, extra->first_use + i);
            if (use->queue < plan->num_channels) {
                const bool receives = plan->channels[use->queue].dst == pp;
                ends[2 * (uint64_t)use->queue + receives] =
                    (em_end_t){.actor = actor, .next = use->first, .num = use->num};
            }
        }
    }
    for (uint32_t c = 0; c < plan->num_channels; c++) {
        if (!check_channel(b, &plan->channels[c], &ends[2 * (uint64_t)c])) {
            return false;
        }
    }
    return true;
}

static bool check_bytes(em_board_t *b)
{
    for (uint32_t c = 0; c < b->plan->num_channels; c++) {
        const em_plan_channel_t *const channel = &b->plan->channels[c];
        const uint32_t ends[2] = {channel->src, channel->dst};
        for (int end = 0; end < 2; end++) {
            const em_plan_pool_t *const pool = &b->plan->ranks[ends[end]].pools[EM_POOL_H];
            if (channel->bytes > pool->bytes) {
                return em_refuse(b->reader, EM_VERDICT_PAIR_BYTES, channel->line,
                                 "a message of channel %s does not fit a slot of pool h of rank "
                                 "%" PRIu32 ": got %" PRIu64 " bytes, expected at most %" PRIu64,
                                 em_name_text(b->plan, channel->name), ends[end], channel->bytes,
                                 pool->bytes);
            }
        }
    }
    return true;
}

/* ---- groups agree ---------------------------------------------------------------------- */

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
        const em_program_extra_t *const extra = extra_of(b, actor);
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
        const em_instr_t *const mine = post_at(b, member->actor, at[2]);
        if (!same_kind(b->plan, post_at(b, first->actor, at[0]), mine) ||
            !same_operands(post_at(b, mate->actor, at[1]), mine)) {
            return refuse(b, EM_VERDICT_PAIR_GROUP, member->actor, mine,
                          "it differs from what other members of the group post at its place");
        }
        at[0] = next_post(b, first->actor, at[0]);
        at[1] = next_post(b, mate->actor, at[1]);
        at[2] = next_post(b, member->actor, at[2]);
    }
    if (member->num > first->num) {
        return refuse(b, EM_VERDICT_PAIR_GROUP, member->actor, post_at(b, member->actor, at[2]),
                      "it is more than the group's first member posts");
    }
    if (member->num < first->num) {
        const em_program_t *const program = em_program_of(b, member->actor);
        return refuse(b, EM_VERDICT_PAIR_GROUP, member->actor,
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
                return refuse(b, EM_VERDICT_PAIR_GROUP, members[0].actor,
                              post_at(b, members[0].actor, members[0].first),
                              "it is more than the group's first member posts");
            }
            const em_program_t *const program = em_program_of(b, actor);
            return refuse(b, EM_VERDICT_PAIR_GROUP, actor,
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

static bool check_groups(em_board_t *b, em_vec_t *members)
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

static bool check_all(em_board_t *board)
{
    em_map_t item_of = {.capacity = 0};
    em_vec_t runs = {.num = 0};
    em_vec_t members = {.num = 0};
    em_end_t *const ends =
        em_alloc_zeroed(2 * (uint64_t)board->plan->num_channels + 1, sizeof *ends);
    bool good = ends != NULL || em_no_memory(board->reader);
    for (uint32_t class = 0; good && class < board->num_classes; class ++) {
        good = check_items(board, class, &item_of, &runs) && check_messages(board, class, ends);
    }
    good = good && check_bytes(board) && check_groups(board, &members);
    em_map_free(&item_of);
    em_vec_free(&runs);
    em_vec_free(&members);
    em_free(ends);
    return good;
}

bool em_check_pairs(em_reader_t *reader)
{
    em_board_t board;
    const bool good = em_board_create(&board, reader) && check_all(&board);
    em_board_destroy(&board);
    return good;
}

bool em_check_progress(em_reader_t *reader)
{
    em_board_t board;
    const bool good = em_board_create(&board, reader) && em_play_strict(&board) &&
                      (!reader->plan->serial || em_play_serial(&board));
    em_board_destroy(&board);
    return good;
}
