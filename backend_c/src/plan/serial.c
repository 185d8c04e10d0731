/*
 * Phase 5, the serial token game: each actor's posts are carried out one after the other.
 *
 * A message completes when both ends' posts are at the heads of their actors' FIFOs, a group's op
 * when those of all members are (a scan: a member's own, when the member before has completed its
 * own), OFF and LD at the head at once. A wait passes when its post is complete.
 */
#include "common/em_arena.h"
#include "plan/em_board.h"

typedef struct {
    em_board_t *board;
    em_worklist_t list;
    uint32_t *at;      /* instruction where comp stands, by actor */
    uint32_t *head;    /* first post that is not complete; at `at` if there is none */
    bool *offered;     /* by actor: its head was counted */
    uint64_t *arrived; /* by instance of a group */
    uint32_t *passed;  /* by member of a scan */
} em_serial_t;

static const em_instr_t *instr_at(const em_serial_t *g, uint64_t actor, uint32_t index)
{
    return &em_program_of(g->board, actor)->instrs[index];
}

static bool is_post(const em_instr_t *instr)
{
    return instr->op >= EM_OP_SF && instr->op <= EM_OP_LD;
}

static bool is_wait(const em_instr_t *instr)
{
    return instr->op >= EM_OP_WS && instr->op <= EM_OP_WLD;
}

static bool is_message(const em_instr_t *instr)
{
    return instr->op >= EM_OP_SF && instr->op <= EM_OP_RB;
}

static bool is_copy(const em_instr_t *instr)
{
    return instr->op == EM_OP_OFF || instr->op == EM_OP_LD;
}

/* The post at the head of an actor's FIFO, or NULL. */
static const em_instr_t *head_of(const em_serial_t *g, uint64_t actor)
{
    return g->head[actor] < g->at[actor] ? instr_at(g, actor, g->head[actor]) : NULL;
}

static void complete(em_serial_t *g, uint64_t actor)
{
    g->head[actor]++;
    g->offered[actor] = false;
    em_worklist_push(&g->list, actor);
}

static void serve_message(em_serial_t *g, uint64_t actor, const em_instr_t *post)
{
    const uint64_t partner = em_partner_of(g->board, actor, post->queue);
    const em_instr_t *const other = head_of(g, partner);
    g->offered[actor] = true;
    if (g->offered[partner] && other != NULL && is_message(other) && other->queue == post->queue) {
        complete(g, actor);
        complete(g, partner);
    }
}

static void serve_scan(em_serial_t *g, uint64_t actor, uint32_t group)
{
    const uint64_t place = em_scan_place(g->board, group, actor);
    uint32_t *const own = &g->passed[em_scanned(g->board, group, actor, place)];
    if (place > 0 && own[-1] <= own[0]) {
        return;
    }
    (*own)++;
    complete(g, actor);
    if (place + 1 < em_num_members(g->board, group)) {
        em_worklist_push(&g->list, em_scan_actor(g->board, group, actor, place + 1));
    }
}

static void serve_group(em_serial_t *g, uint64_t actor, uint32_t group)
{
    if (em_num_instances(g->board, group) == 0) {
        complete(g, actor);
        return;
    }
    if (g->board->plan->groups[group].scan != EM_SCAN_NONE) {
        serve_scan(g, actor, group);
        return;
    }
    const uint64_t instance = em_instance_of(g->board, group, actor);
    const uint64_t num_members = em_num_members(g->board, group);
    uint64_t *const arrived = &g->arrived[em_meeting_of(g->board, group, actor)];
    if (!g->offered[actor]) {
        g->offered[actor] = true;
        (*arrived)++;
    }
    if (*arrived == num_members) {
        *arrived = 0;
        for (uint64_t i = 0; i < num_members; i++) {
            complete(g, em_member(g->board, group, instance, i));
        }
    }
}

/* Move comp as far as it gets, then see what the head of the FIFO completes. */
static void move(em_serial_t *g, uint64_t actor)
{
    const em_instr_t *instr = instr_at(g, actor, g->at[actor]);
    for (;;) {
        while (g->head[actor] < g->at[actor] && !is_post(instr_at(g, actor, g->head[actor]))) {
            g->head[actor]++;
        }
        if (instr->op == EM_OP_END ||
            (is_wait(instr) && (uint32_t)instr->match >= g->head[actor])) {
            break;
        }
        g->at[actor]++;
        instr++;
    }
    const em_instr_t *const post = head_of(g, actor);
    if (post == NULL) {
        return;
    }
    if (is_copy(post)) {
        complete(g, actor);
    } else if (is_message(post)) {
        serve_message(g, actor, post);
    } else {
        serve_group(g, actor, (uint32_t)post->queue);
    }
}

/* Lowest actor that keeps the head of a stuck actor's FIFO. */
static uint64_t awaited(const void *game, uint64_t actor)
{
    const em_serial_t *const g = game;
    const em_instr_t *const post = head_of(g, actor);
    if (is_message(post)) {
        return em_partner_of(g->board, actor, post->queue);
    }
    const uint32_t group = (uint32_t)post->queue;
    const uint64_t instance = em_instance_of(g->board, group, actor);
    if (g->board->plan->groups[group].scan != EM_SCAN_NONE) {
        return em_scan_actor(g->board, group, actor, em_scan_place(g->board, group, actor) - 1);
    }
    uint64_t lowest = UINT64_MAX;
    for (uint64_t i = 0; i < em_num_members(g->board, group); i++) {
        const uint64_t member = em_member(g->board, group, instance, i);
        const em_instr_t *const head = head_of(g, member);
        const bool there = g->offered[member] && head != NULL && !is_message(head) &&
                           !is_copy(head) && (uint32_t)head->queue == group;
        if (!there && member < lowest) {
            lowest = member;
        }
    }
    return lowest;
}

static bool open_game(em_serial_t *g)
{
    const em_board_t *const board = g->board;
    g->at = em_alloc_zeroed(board->num_actors, sizeof *g->at);
    g->head = em_alloc_zeroed(board->num_actors, sizeof *g->head);
    g->offered = em_alloc_zeroed(board->num_actors, sizeof *g->offered);
    g->arrived = em_alloc_zeroed(board->num_meetings + 1, sizeof *g->arrived);
    g->passed = em_alloc_zeroed(board->num_scanned + 1, sizeof *g->passed);
    if (!em_worklist_create(&g->list, board->num_actors) || g->at == NULL || g->head == NULL ||
        g->offered == NULL || g->arrived == NULL || g->passed == NULL) {
        return em_no_memory(board->reader);
    }
    return true;
}

static void close_game(em_serial_t *g)
{
    em_worklist_destroy(&g->list);
    em_free(g->at);
    em_free(g->head);
    em_free(g->offered);
    em_free(g->arrived);
    em_free(g->passed);
}

bool em_play_serial(em_board_t *board)
{
    em_serial_t game = {.board = board};
    bool good = open_game(&game);
    uint64_t actor = 0;
    while (good && em_worklist_pop(&game.list, &actor)) {
        move(&game, actor);
    }
    good = good && em_report_cycle(board, EM_VERDICT_GRAPH_SERIAL, &game, awaited, game.at);
    close_game(&game);
    return good;
}
