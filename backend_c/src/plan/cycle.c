/* Who is to be looked at next, and who waits for whom at the end of a game. See em_board.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/em_arena.h"
#include "plan/em_board.h"

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
