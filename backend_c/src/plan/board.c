/* Actors, and the groups and channels between them. See em_board.h. */
#include "plan/em_board.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_checked.h"

static int compare_replicas(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a;
    const int32_t y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* Replicas with a program of their own, each once, ascending. */
static uint32_t list_replicas(const em_plan_t *plan, int32_t *replicas)
{
    for (uint32_t i = 0; i < plan->num_overrides; i++) {
        replicas[i] = (int32_t)plan->overrides[i].dp;
    }
    qsort(replicas, plan->num_overrides, sizeof *replicas, compare_replicas);
    uint32_t num = 0;
    for (uint32_t i = 0; i < plan->num_overrides; i++) {
        if (num == 0 || replicas[num - 1] != replicas[i]) {
            replicas[num++] = replicas[i];
        }
    }
    return num;
}

static uint32_t find_class(const em_board_t *board, uint32_t dp)
{
    uint32_t low = 0;
    uint32_t high = board->num_classes;
    while (low + 1 < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (board->class_dp[middle] <= (int32_t)dp) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Number the instances of groups and the members of scans through. */
static bool number_groups(em_board_t *board)
{
    const em_plan_t *const plan = board->plan;
    board->first_meeting = em_alloc_zeroed((uint64_t)plan->num_groups + 1, sizeof(uint64_t));
    board->first_scanned = em_alloc_zeroed((uint64_t)plan->num_groups + 1, sizeof(uint64_t));
    if (board->first_meeting == NULL || board->first_scanned == NULL) {
        return em_no_memory(board->reader);
    }
    for (uint32_t i = 0; i < plan->num_groups; i++) {
        board->first_meeting[i] = board->num_meetings;
        board->first_scanned[i] = board->num_scanned;
        board->num_meetings += em_num_instances(board, i);
        if (plan->groups[i].scan != EM_SCAN_NONE) {
            board->num_scanned += em_num_instances(board, i) * em_num_members(board, i);
        }
    }
    return true;
}

bool em_board_create(em_board_t *board, em_reader_t *reader)
{
    const em_plan_t *const plan = reader->plan;
    *board = (em_board_t){.reader = reader, .plan = plan, .num_ranks = plan->num_ranks};
    board->class_dp = em_alloc_zeroed((uint64_t)plan->num_overrides + 1, sizeof *board->class_dp);
    if (board->class_dp == NULL) {
        return em_no_memory(reader);
    }
    /* The class of all others comes first, if there are others. */
    board->num_classes = list_replicas(plan, board->class_dp + 1) + 1;
    board->class_dp[0] = EM_NONE;
    if (board->num_classes - 1 >= plan->mesh.size[EM_AXIS_DP]) {
        board->num_classes--;
        memmove(board->class_dp, board->class_dp + 1, board->num_classes * sizeof(int32_t));
    }
    board->num_actors = (uint64_t)board->num_classes * board->num_ranks;
    board->program_of = em_alloc_zeroed(board->num_actors, sizeof *board->program_of);
    if (board->program_of == NULL) {
        return em_no_memory(reader);
    }
    for (uint32_t class = 0; class < board->num_classes; class ++) {
        for (uint32_t pp = 0; pp < board->num_ranks; pp++) {
            board->program_of[em_actor(board, class, pp)] = plan->ranks[pp].program;
        }
    }
    for (uint32_t i = 0; i < plan->num_overrides; i++) {
        const em_plan_override_t *const override = &plan->overrides[i];
        const uint32_t class = find_class(board, override->dp);
        board->program_of[em_actor(board, class, override->pp)] = override->program;
    }
    return number_groups(board);
}

void em_board_destroy(em_board_t *board)
{
    em_free(board->class_dp);
    em_free(board->program_of);
    em_free(board->first_meeting);
    em_free(board->first_scanned);
}

static bool joins_ranks(const em_board_t *board, uint32_t group)
{
    return (board->plan->groups[group].axes & 1u << EM_AXIS_PP) != 0;
}

static bool joins_classes(const em_board_t *board, uint32_t group)
{
    return (board->plan->groups[group].axes & 1u << EM_AXIS_DP) != 0;
}

bool em_refuse_actor(em_board_t *b, em_verdict_code_t code, uint64_t actor, const em_instr_t *instr,
                     const char *what)
{
    char op[128];
    (void)em_instr_text(b->plan, instr, op, sizeof op);
    return em_refuse(b->reader, code, instr->line, "rank %" PRIu64 ": %s: %s", actor % b->num_ranks,
                     op, what);
}

const em_program_extra_t *em_extra_of(const em_board_t *b, uint64_t actor)
{
    return &EM_AT(b->reader->extras, em_program_extra_t, b->program_of[actor]);
}

uint32_t em_next_post(const em_board_t *b, uint64_t actor, uint32_t index)
{
    return EM_AT(b->reader->next_post, uint32_t, em_extra_of(b, actor)->first_instr + index);
}

uint64_t em_num_instances(const em_board_t *board, uint32_t group)
{
    if (joins_ranks(board, group)) {
        return joins_classes(board, group) ? 1 : board->num_classes;
    }
    return joins_classes(board, group) ? board->num_ranks : 0;
}

uint64_t em_instance_of(const em_board_t *board, uint32_t group, uint64_t actor)
{
    if (joins_ranks(board, group)) {
        return joins_classes(board, group) ? 0 : actor / board->num_ranks;
    }
    return actor % board->num_ranks;
}

static uint64_t num_member_ranks(const em_board_t *board, uint32_t group)
{
    const em_plan_group_t *const g = &board->plan->groups[group];
    return g->has_pp ? g->num_pp : board->num_ranks;
}

static uint32_t member_rank(const em_board_t *board, uint32_t group, uint64_t number)
{
    const em_plan_group_t *const g = &board->plan->groups[group];
    return g->has_pp ? board->plan->group_ranks[g->first_pp + number] : (uint32_t)number;
}

uint64_t em_num_members(const em_board_t *board, uint32_t group)
{
    const uint64_t ranks = joins_ranks(board, group) ? num_member_ranks(board, group) : 1;
    return ranks * (joins_classes(board, group) ? board->num_classes : 1);
}

uint64_t em_member(const em_board_t *board, uint32_t group, uint64_t instance, uint64_t number)
{
    if (!joins_ranks(board, group)) {
        return em_actor(board, (uint32_t)number, (uint32_t)instance);
    }
    if (!joins_classes(board, group)) {
        return em_actor(board, (uint32_t)instance, member_rank(board, group, number));
    }
    return em_actor(board, (uint32_t)(number % board->num_classes),
                    member_rank(board, group, number / board->num_classes));
}

uint64_t em_meeting_of(const em_board_t *board, uint32_t group, uint64_t actor)
{
    return board->first_meeting[group] + em_instance_of(board, group, actor);
}

uint64_t em_scan_actor(const em_board_t *board, uint32_t group, uint64_t actor, uint64_t place)
{
    const bool up = board->plan->groups[group].scan == EM_SCAN_UP;
    return em_member(board, group, em_instance_of(board, group, actor),
                     up ? place : em_num_members(board, group) - 1 - place);
}

uint64_t em_scan_place(const em_board_t *board, uint32_t group, uint64_t actor)
{
    uint64_t low = 0;
    uint64_t high = em_num_members(board, group);
    const bool up = board->plan->groups[group].scan == EM_SCAN_UP;
    while (low + 1 < high) {
        const uint64_t middle = low + (high - low) / 2;
        const uint64_t there = em_scan_actor(board, group, actor, middle);
        if (up ? there <= actor : there >= actor) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

uint64_t em_scanned(const em_board_t *board, uint32_t group, uint64_t actor, uint64_t place)
{
    return board->first_scanned[group] +
           em_instance_of(board, group, actor) * em_num_members(board, group) + place;
}

uint64_t em_partner_of(const em_board_t *board, uint64_t actor, int32_t channel)
{
    const em_plan_channel_t *const c = &board->plan->channels[channel];
    const uint32_t pp = (uint32_t)(actor % board->num_ranks);
    const uint32_t class = (uint32_t)(actor / board->num_ranks);
    return em_actor(board, class, c->src == pp ? c->dst : c->src);
}
