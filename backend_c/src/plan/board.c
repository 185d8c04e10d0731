/* Actors and the groups that they form; reporting a cycle. See em_board.h. */
#include "plan/em_board.h"

#include <inttypes.h>
#include <stdio.h>
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
    return true;
}

void em_board_destroy(em_board_t *board)
{
    em_free(board->class_dp);
    em_free(board->program_of);
}

static bool joins_ranks(const em_board_t *board, uint32_t group)
{
    return (board->plan->groups[group].axes & 1u << EM_AXIS_PP) != 0;
}

static bool joins_classes(const em_board_t *board, uint32_t group)
{
    return (board->plan->groups[group].axes & 1u << EM_AXIS_DP) != 0;
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

bool em_worklist_create(em_worklist_t *list, uint64_t num_actors)
{
    *list = (em_worklist_t){.capacity = num_actors};
    list->actors = em_alloc_zeroed(num_actors, sizeof *list->actors);
    list->waits = em_alloc_zeroed(num_actors, sizeof *list->waits);
    if (list->actors == NULL || list->waits == NULL) {
        return false;
    }
    for (uint64_t actor = 0; actor < num_actors; actor++) {
        em_worklist_push(list, actor);
    }
    return true;
}

void em_worklist_destroy(em_worklist_t *list)
{
    em_free(list->actors);
    em_free(list->waits);
}

void em_worklist_push(em_worklist_t *list, uint64_t actor)
{
    if (!list->waits[actor]) {
        list->waits[actor] = true;
        list->actors[(list->first + list->num) % list->capacity] = actor;
        list->num++;
    }
}

bool em_worklist_pop(em_worklist_t *list, uint64_t *actor)
{
    if (list->num == 0) {
        return false;
    }
    *actor = list->actors[list->first];
    list->waits[*actor] = false;
    list->first = (list->first + 1) % list->capacity;
    list->num--;
    return true;
}

static const em_instr_t *instr_at(const em_board_t *board, uint64_t actor, const uint32_t *at)
{
    return &em_program_of(board, actor)->instrs[at[actor]];
}

/* "\n  rank R [dp D] line L: OP" at `used` bytes of the verdict's text; gives the bytes used then.
 */
static size_t add_actor(em_board_t *board, uint64_t actor, const uint32_t *at, size_t used)
{
    char replica[32] = "";
    char op[128];
    em_verdict_t *const verdict = board->reader->verdict;
    const em_instr_t *const instr = instr_at(board, actor, at);
    const int32_t dp = board->class_dp[actor / board->num_ranks];
    if (dp != EM_NONE) {
        (void)snprintf(replica, sizeof replica, " dp %" PRId32, dp);
    }
    (void)em_instr_text(board->plan, instr, op, sizeof op);
    const size_t left = sizeof verdict->text - used;
    const int written =
        snprintf(verdict->text + used, left, "\n  rank %" PRIu64 "%s line %" PRIu32 ": %s",
                 actor % board->num_ranks, replica, instr->line, op);
    return written < 0 || (size_t)written >= left ? sizeof verdict->text - 1
                                                  : used + (size_t)written;
}

bool em_report_cycle(em_board_t *board, em_verdict_code_t code, const void *game,
                     em_awaited_t *awaited, const uint32_t *at)
{
    uint64_t actor = 0;
    while (actor < board->num_actors && instr_at(board, actor, at)->op == EM_OP_END) {
        actor++;
    }
    if (actor == board->num_actors) {
        return true;
    }
    /* As many steps as there are actors lead onto the cycle for sure. */
    for (uint64_t i = 0; i < board->num_actors; i++) {
        actor = awaited(game, actor);
    }
    uint64_t lowest = actor;
    for (uint64_t next = awaited(game, actor); next != actor; next = awaited(game, next)) {
        lowest = next < lowest ? next : lowest;
    }
    const bool serial = code == EM_VERDICT_GRAPH_SERIAL;
    (void)em_refuse(board->reader, code, instr_at(board, lowest, at)->line, "%s",
                    serial ? "ranks wait for each other if each carries out its posts one by one"
                           : "ranks wait for each other in a circle, whatever the durations");
    size_t used = strlen(board->reader->verdict->text);
    uint64_t next = lowest;
    do {
        used = add_actor(board, next, at, used);
        next = awaited(game, next);
    } while (next != lowest);
    return em_advise(board->reader,
                     serial
                         ? "serial=no leaves such a plan to transports with a queue per channel"
                         : "post a send or a receive earlier, or change the order of work on one "
                           "of these ranks");
}
