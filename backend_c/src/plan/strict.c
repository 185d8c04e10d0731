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
    uint32_t *at;            /* instruction where comp stands, by actor */
    bool *counted;           /* by actor: came to the wait where it stands */
    bool *released;          /* by actor: all members came to its WC */
    em_traffic_t *traffic;   /* by class, channel */
    uint64_t *first_meeting; /* by group: its first instance */
    uint64_t *arrived;       /* by instance */
    uint32_t *passed;        /* by actor, of scans: see scan_count */
    uint64_t *first_scan;    /* by group */
} em_strict_t;

static em_traffic_t *traffic_of(const em_strict_t *g, uint64_t actor, int32_t channel)
{
    const uint64_t class = actor / g->board->num_ranks;
    return &g->traffic[class * g->board->plan->num_channels + (uint64_t)channel];
}

/* The actor at the other end of a channel. */
static uint64_t partner_of(const em_strict_t *g, uint64_t actor, int32_t channel)
{
    const em_plan_channel_t *const c = &g->board->plan->channels[channel];
    const uint32_t pp = (uint32_t)(actor % g->board->num_ranks);
    const uint32_t class = (uint32_t)(actor / g->board->num_ranks);
    return em_actor(g->board, class, c->src == pp ? c->dst : c->src);
}

static const em_instr_t *instr_of(const em_strict_t *g, uint64_t actor)
{
    return &em_program_of(g->board, actor)->instrs[g->at[actor]];
}

static uint64_t scan_actor(const em_strict_t *g, uint32_t group, uint64_t actor, uint64_t place)
{
    const uint64_t num = em_num_members(g->board, group);
    const bool up = g->board->plan->groups[group].scan == EM_SCAN_UP;
    return em_member(g->board, group, em_instance_of(g->board, group, actor),
                     up ? place : num - 1 - place);
}

/* Place of an actor in its scan. */
static uint64_t scan_place(const em_strict_t *g, uint32_t group, uint64_t actor)
{
    uint64_t low = 0;
    uint64_t high = em_num_members(g->board, group);
    const bool up = g->board->plan->groups[group].scan == EM_SCAN_UP;
    while (low + 1 < high) {
        const uint64_t middle = low + (high - low) / 2;
        const uint64_t there = scan_actor(g, group, actor, middle);
        if (up ? there <= actor : there >= actor) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* WC passed by the member at a place of an actor's scan. */
static uint32_t *scan_count(const em_strict_t *g, uint32_t group, uint64_t actor, uint64_t place)
{
    const uint64_t num = em_num_members(g->board, group);
    return &g->passed[g->first_scan[group] + em_instance_of(g->board, group, actor) * num + place];
}

static bool passes_scan(em_strict_t *g, uint64_t actor, uint32_t group)
{
    const uint64_t place = scan_place(g, group, actor);
    uint32_t *const own = scan_count(g, group, actor, place);
    if (place > 0 && *scan_count(g, group, actor, place - 1) <= *own) {
        return false;
    }
    (*own)++;
    if (place + 1 < em_num_members(g->board, group)) {
        em_worklist_push(&g->list, scan_actor(g, group, actor, place + 1));
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
    uint64_t *const arrived = &g->arrived[g->first_meeting[group] + instance];
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
        em_worklist_push(&g->list, partner_of(g, actor, channel));
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
        em_worklist_push(&g->list, partner_of(g, actor, instr->queue));
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
        return partner_of(g, actor, instr->queue);
    }
    const uint32_t group = (uint32_t)instr->queue;
    uint64_t lowest = UINT64_MAX;
    if (g->board->plan->groups[group].scan != EM_SCAN_NONE) {
        const uint64_t place = scan_place(g, group, actor);
        const uint32_t own = *scan_count(g, group, actor, place);
        for (uint64_t i = 0; i < place; i++) {
            const uint64_t before = scan_actor(g, group, actor, i);
            if (*scan_count(g, group, actor, i) <= own && before < lowest) {
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
    g->counted = em_alloc_zeroed(board->num_actors, sizeof *g->counted);
    g->released = em_alloc_zeroed(board->num_actors, sizeof *g->released);
    g->traffic =
        em_alloc_zeroed((uint64_t)board->num_classes * plan->num_channels + 1, sizeof *g->traffic);
    g->arrived = em_alloc_zeroed(num_instances + 1, sizeof *g->arrived);
    g->passed = em_alloc_zeroed(num_scanned + 1, sizeof *g->passed);
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
    em_free(g->first_meeting);
    em_free(g->first_scan);
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
