/*
 * Who runs what: actors are pipeline ranks of classes of replicas, numbered by class, then rank.
 *
 * Replicas without a program of their own form the first class, each other one is a class. Ranks
 * that differ in nothing else than tp, cp, ep or the replica of one class act alike: one actor.
 */
#ifndef EM_BOARD_H
#define EM_BOARD_H

#include "plan/em_reader.h"

typedef struct {
    em_reader_t *reader;
    const em_plan_t *plan;
    uint32_t num_classes;
    uint32_t num_ranks;
    uint64_t num_actors;
    int32_t *class_dp;    /* EM_NONE: all replicas without a program of their own */
    uint32_t *program_of; /* by actor */
    /* Groups by instance, and scans by instance and member, numbered through: where each begins. */
    uint64_t *first_meeting; /* by group */
    uint64_t *first_scanned; /* by group */
    uint64_t num_meetings;
    uint64_t num_scanned;
} em_board_t;

bool em_board_create(em_board_t *board, em_reader_t *reader);
void em_board_destroy(em_board_t *board);

static inline uint64_t em_actor(const em_board_t *board, uint32_t class, uint32_t pp)
{
    return (uint64_t)class * board->num_ranks + pp;
}

static inline const em_program_t *em_program_of(const em_board_t *board, uint64_t actor)
{
    return &board->plan->programs[board->program_of[actor]];
}

static inline const em_instr_t *em_post_at(const em_board_t *board, uint64_t actor, uint32_t index)
{
    return &em_program_of(board, actor)->instrs[index];
}

/* What phase 3 noted of an actor's program, and the next post on the queue of a post. */
const em_program_extra_t *em_extra_of(const em_board_t *board, uint64_t actor);
uint32_t em_next_post(const em_board_t *board, uint64_t actor, uint32_t index);

/* Say that `instr` of an actor is at fault; always false. */
bool em_refuse_actor(em_board_t *board, em_verdict_code_t code, uint64_t actor,
                     const em_instr_t *instr, const char *what);
/* The part of phase 4 that looks at groups. */
bool em_check_groups(em_board_t *board);

/* Instances of a group among actors: none if its members all act alike. */
uint64_t em_num_instances(const em_board_t *board, uint32_t group);
/* Instance of an actor that is a member. */
uint64_t em_instance_of(const em_board_t *board, uint32_t group, uint64_t actor);
/* Members of one instance, ordered by rank, then class. */
uint64_t em_num_members(const em_board_t *board, uint32_t group);
uint64_t em_member(const em_board_t *board, uint32_t group, uint64_t instance, uint64_t number);

/* Number of the instance of a group that an actor is a member of, among all instances. */
uint64_t em_meeting_of(const em_board_t *board, uint32_t group, uint64_t actor);
/* The place of an actor in the order of its scan, and the actor at a place of that scan. */
uint64_t em_scan_place(const em_board_t *board, uint32_t group, uint64_t actor);
uint64_t em_scan_actor(const em_board_t *board, uint32_t group, uint64_t actor, uint64_t place);
/* Number of the member at a place of an actor's scan, among all members of scans. */
uint64_t em_scanned(const em_board_t *board, uint32_t group, uint64_t actor, uint64_t place);
/* The actor at the other end of a channel. */
uint64_t em_partner_of(const em_board_t *board, uint64_t actor, int32_t channel);

/* Phase 5: the two token games; false after em_refuse or em_no_memory. */
bool em_play_strict(em_board_t *board);
bool em_play_serial(em_board_t *board);

/* Actors that wait to be looked at, each at most once. */
typedef struct {
    uint64_t *actors;
    bool *waits; /* by actor */
    uint64_t capacity;
    uint64_t first;
    uint64_t num;
} em_worklist_t;

/* All actors, in order. */
bool em_worklist_create(em_worklist_t *list, uint64_t num_actors);
void em_worklist_destroy(em_worklist_t *list);
void em_worklist_push(em_worklist_t *list, uint64_t actor);
/* False if the list is empty. */
bool em_worklist_pop(em_worklist_t *list, uint64_t *actor);

/*
 * Report who waits for whom: from the lowest stuck actor along `awaited` until one repeats; `at`
 * gives the instruction where comp of an actor stands. True if nobody is stuck.
 */
typedef uint64_t em_awaited_t(const void *game, uint64_t actor);
bool em_report_cycle(em_board_t *board, em_verdict_code_t code, const void *game,
                     em_awaited_t *awaited, const uint32_t *at);

#endif
