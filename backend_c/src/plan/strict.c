/*
 * Phase 5, the strict token game: the order that every mover and every channel depth obeys.
 *
 * Posts never block. WR passes when its send is posted, WS when the partner came to the WR of that
 * message, WC when all members came to theirs (a scan: when those before it passed), WOFF and WLD
 * at once. Who is left over waits for others, whatever the durations.
 */
#include "common/em_arena.h"
#include "plan/em_board.h"

/* One channel in one class of replicas. */
typedef struct {
    uint32_t sent;       /* sends posted */
    uint32_t sends_over; /* WS passed */
    uint32_t reached;    /* WR that comp came to */
    uint32_t received;   /* WR passed */
} em_traffic_t;

typedef struct {
    em_board_t *board;
    em_worklist_t list;
    uint32_t *at;          /* instruction where comp stands, by actor */
    bool *counted;         /* by actor: came to the wait where it stands */
    bool *released;        /* by actor: all members came to its WC */
    em_traffic_t *traffic; /* by class, channel */
    uint64_t *arrived;     /* by instance of a group */
    uint32_t *passed;      /* by member of a scan */
} em_strict_t;

static em_traffic_t *traffic_of(const em_strict_t *g, uint64_t actor, int32_t channel)
{
    const uint64_t class = actor / g->board->num_ranks;
    return &g->traffic[class * g->board->plan->num_channels + (uint64_t)channel];
}

static const em_instr_t *instr_of(const em_strict_t *g, uint64_t actor)
{
    return &em_program_of(g->board, actor)->instrs[g->at[actor]];
}

static bool passes_scan(em_strict_t *g, uint64_t actor, uint32_t group)
{
    const uint64_t place = em_scan_place(g->board, group, actor);
    uint32_t *const own = &g->passed[em_scanned(g->board, group, actor, place)];
    if (place > 0 && own[-1] <= own[0]) {
        return false;
    }
    (*own)++;
    if (place + 1 < em_num_members(g->board, group)) {
        em_worklist_push(&g->list, em_scan_actor(g->board, group, actor, place + 1));
    }
    return true;
}

static bool passes_group(em_strict_t *g, uint64_t actor, uint32_t group)
{
    if (em_num_instances(g->board, group) == 0) {
        return true;
    }
    if (g->board->plan->groups[group].scan != EM_SCAN_NONE) {
        return passes_scan(g, actor, group);
    }
    const uint64_t instance = em_instance_of(g->board, group, actor);
    uint64_t *const arrived = &g->arrived[em_meeting_of(g->board, group, actor)];
    const uint64_t num_members = em_num_members(g->board, group);
    if (!g->counted[actor]) {
        g->counted[actor] = true;
        (*arrived)++;
    }
    if (*arrived == num_members) {
        *arrived = 0;
        for (uint64_t i = 0; i < num_members; i++) {
            const uint64_t member = em_member(g->board, group, instance, i);
            g->released[member] = true;
            em_worklist_push(&g->list, member);
        }
    }
    if (!g->released[actor]) {
        return false;
    }
    g->released[actor] = false;
    g->counted[actor] = false;
    return true;
}

static bool passes_receive(em_strict_t *g, uint64_t actor, int32_t channel)
{
    em_traffic_t *const traffic = traffic_of(g, actor, channel);
    if (!g->counted[actor]) {
        g->counted[actor] = true;
        traffic->reached++;
        em_worklist_push(&g->list, em_partner_of(g->board, actor, channel));
    }
    if (traffic->sent <= traffic->received) {
        return false;
    }
    traffic->received++;
    g->counted[actor] = false;
    return true;
}

/* False if comp of the actor must wait here. */
static bool passes(em_strict_t *g, uint64_t actor, const em_instr_t *instr)
{
    switch ((em_op_t)instr->op) {
    case EM_OP_SF:
    case EM_OP_SB:
        traffic_of(g, actor, instr->queue)->sent++;
        em_worklist_push(&g->list, em_partner_of(g->board, actor, instr->queue));
        return true;
    case EM_OP_WR:
        return passes_receive(g, actor, instr->queue);
    case EM_OP_WS: {
        em_traffic_t *const traffic = traffic_of(g, actor, instr->queue);
        if (traffic->reached <= traffic->sends_over) {
            return false;
        }
        traffic->sends_over++;
        return true;
    }
    case EM_OP_WC:
        return passes_group(g, actor, (uint32_t)instr->queue);
    default:
        return true;
    }
}

/* Lowest actor that a stuck one waits for. */
static uint64_t awaited(const void *game, uint64_t actor)
{
    const em_strict_t *const g = game;
    const em_instr_t *const instr = instr_of(g, actor);
    if (instr->op != EM_OP_WC) {
        return em_partner_of(g->board, actor, instr->queue);
    }
    const uint32_t group = (uint32_t)instr->queue;
    uint64_t lowest = UINT64_MAX;
    if (g->board->plan->groups[group].scan != EM_SCAN_NONE) {
        const uint64_t place = em_scan_place(g->board, group, actor);
        const uint32_t *const first = &g->passed[em_scanned(g->board, group, actor, 0)];
        for (uint64_t i = 0; i < place; i++) {
            const uint64_t before = em_scan_actor(g->board, group, actor, i);
            if (first[i] <= first[place] && before < lowest) {
                lowest = before;
            }
        }
        return lowest;
    }
    const uint64_t instance = em_instance_of(g->board, group, actor);
    for (uint64_t i = 0; i < em_num_members(g->board, group); i++) {
        const uint64_t member = em_member(g->board, group, instance, i);
        const em_instr_t *const there = instr_of(g, member);
        const bool came =
            g->counted[member] && there->op == EM_OP_WC && (uint32_t)there->queue == group;
        if (!came && member < lowest) {
            lowest = member;
        }
    }
    return lowest;
}

static bool open_game(em_strict_t *g)
{
    const em_board_t *const board = g->board;
    g->at = em_alloc_zeroed(board->num_actors, sizeof *g->at);
    g->counted = em_alloc_zeroed(board->num_actors, sizeof *g->counted);
    g->released = em_alloc_zeroed(board->num_actors, sizeof *g->released);
    g->traffic = em_alloc_zeroed((uint64_t)board->num_classes * board->plan->num_channels + 1,
                                 sizeof *g->traffic);
    g->arrived = em_alloc_zeroed(board->num_meetings + 1, sizeof *g->arrived);
    g->passed = em_alloc_zeroed(board->num_scanned + 1, sizeof *g->passed);
    if (!em_worklist_create(&g->list, board->num_actors) || g->at == NULL || g->counted == NULL ||
        g->released == NULL || g->traffic == NULL || g->arrived == NULL || g->passed == NULL) {
        return em_no_memory(board->reader);
    }
    return true;
}

static void close_game(em_strict_t *g)
{
    em_worklist_destroy(&g->list);
    em_free(g->at);
    em_free(g->counted);
    em_free(g->released);
    em_free(g->traffic);
    em_free(g->arrived);
    em_free(g->passed);
}

bool em_play_strict(em_board_t *board)
{
    em_strict_t game = {.board = board};
    bool good = open_game(&game);
    uint64_t actor = 0;
    while (good && em_worklist_pop(&game.list, &actor)) {
        const em_instr_t *instr = instr_of(&game, actor);
        while (instr->op != EM_OP_END && passes(&game, actor, instr)) {
            game.at[actor]++;
            instr++;
        }
    }
    good = good && em_report_cycle(board, EM_VERDICT_GRAPH_DEADLOCK, &game, awaited, game.at);
    close_game(&game);
    return good;
}
