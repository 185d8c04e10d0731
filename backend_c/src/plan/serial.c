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
    uint32_t *at;            /* instruction where comp stands, by actor */
    uint32_t *head;          /* first post that is not complete; at `at` if there is none */
    bool *offered;           /* by actor: its head was counted */
    uint64_t *first_meeting; /* by group: its first instance */
    uint64_t *arrived;       /* by instance: members whose head is here */
    uint64_t *first_scan;    /* by group */
    uint32_t *passed;        /* completions by (scan, instance, member) */
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

static uint64_t partner_of(const em_serial_t *g, uint64_t actor, int32_t channel)
{
    const em_plan_channel_t *const c = &g->board->plan->channels[channel];
    const uint32_t pp = (uint32_t)(actor % g->board->num_ranks);
    const uint32_t class = (uint32_t)(actor / g->board->num_ranks);
    return em_actor(g->board, class, c->src == pp ? c->dst : c->src);
}

/* Number of an actor among the members of its scan, counted by rank. */
static uint64_t scan_number(const em_serial_t *g, uint32_t group, uint64_t actor)
{
    const uint64_t instance = em_instance_of(g->board, group, actor);
    uint64_t low = 0;
    uint64_t high = em_num_members(g->board, group);
    while (low + 1 < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (em_member(g->board, group, instance, middle) <= actor) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint32_t *scan_count(const em_serial_t *g, uint32_t group, uint64_t actor, uint64_t number)
{
    const uint64_t num = em_num_members(g->board, group);
    return &g->passed[g->first_scan[group] + em_instance_of(g->board, group, actor) * num + number];
}

/* The member before (step -1) or after (step 1) in scan order; false at the ends. */
static bool scan_neighbour(const em_serial_t *g, uint32_t group, uint64_t number, int step,
                           uint64_t *neighbour)
{
    const bool up = g->board->plan->groups[group].scan == EM_SCAN_UP;
    const bool higher = up == (step > 0);
    if (higher ? number + 1 == em_num_members(g->board, group) : number == 0) {
        return false;
    }
    *neighbour = higher ? number + 1 : number - 1;
    return true;
}

static void complete(em_serial_t *g, uint64_t actor)
{
    g->head[actor]++;
    g->offered[actor] = false;
    em_worklist_push(&g->list, actor);
}

static void serve_message(em_serial_t *g, uint64_t actor, const em_instr_t *post)
{
    const uint64_t partner = partner_of(g, actor, post->queue);
    const em_instr_t *const other = head_of(g, partner);
    g->offered[actor] = true;
    if (g->offered[partner] && other != NULL && is_message(other) && other->queue == post->queue) {
        complete(g, actor);
        complete(g, partner);
    }
}

static void serve_scan(em_serial_t *g, uint64_t actor, uint32_t group)
{
    const uint64_t number = scan_number(g, group, actor);
    uint32_t *const own = scan_count(g, group, actor, number);
    uint64_t neighbour = 0;
    if (scan_neighbour(g, group, number, -1, &neighbour) &&
        *scan_count(g, group, actor, neighbour) <= *own) {
        return;
    }
    (*own)++;
    complete(g, actor);
    if (scan_neighbour(g, group, number, 1, &neighbour)) {
        em_worklist_push(&g->list, em_member(g->board, group,
                                             em_instance_of(g->board, group, actor), neighbour));
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
    uint64_t *const arrived = &g->arrived[g->first_meeting[group] + instance];
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
        return partner_of(g, actor, post->queue);
    }
    const uint32_t group = (uint32_t)post->queue;
    const uint64_t instance = em_instance_of(g->board, group, actor);
    uint64_t neighbour = 0;
    if (g->board->plan->groups[group].scan != EM_SCAN_NONE) {
        (void)scan_neighbour(g, group, scan_number(g, group, actor), -1, &neighbour);
        return em_member(g->board, group, instance, neighbour);
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
    const em_plan_t *const plan = board->plan;
    uint64_t num_instances = 0;
    uint64_t num_scanned = 0;
    g->first_meeting = em_alloc_zeroed((uint64_t)plan->num_groups + 1, sizeof(uint64_t));
    g->first_scan = em_alloc_zeroed((uint64_t)plan->num_groups + 1, sizeof(uint64_t));
    if (g->first_meeting == NULL || g->first_scan == NULL) {
        return em_no_memory(board->reader);
    }
    for (uint32_t i = 0; i < plan->num_groups; i++) {
        g->first_meeting[i] = num_instances;
        g->first_scan[i] = num_scanned;
        num_instances += em_num_instances(board, i);
        if (plan->groups[i].scan != EM_SCAN_NONE) {
            num_scanned += em_num_instances(board, i) * em_num_members(board, i);
        }
    }
    g->at = em_alloc_zeroed(board->num_actors, sizeof *g->at);
    g->head = em_alloc_zeroed(board->num_actors, sizeof *g->head);
    g->offered = em_alloc_zeroed(board->num_actors, sizeof *g->offered);
    g->arrived = em_alloc_zeroed(num_instances + 1, sizeof *g->arrived);
    g->passed = em_alloc_zeroed(num_scanned + 1, sizeof *g->passed);
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
    em_free(g->first_meeting);
    em_free(g->first_scan);
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
