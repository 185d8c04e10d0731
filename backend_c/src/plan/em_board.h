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

/* Instances of a group among actors: none if its members all act alike. */
uint64_t em_num_instances(const em_board_t *board, uint32_t group);
/* Instance of an actor that is a member. */
uint64_t em_instance_of(const em_board_t *board, uint32_t group, uint64_t actor);
/* Members of one instance, ordered by rank, then class. */
uint64_t em_num_members(const em_board_t *board, uint32_t group);
uint64_t em_member(const em_board_t *board, uint32_t group, uint64_t instance, uint64_t number);

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
