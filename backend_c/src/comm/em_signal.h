/*
 * A counter that threads wait for: the one thing by which ranks of one process meet.
 *
 * A waiter spins briefly, because the partner on another core is often about to arrive, and then
 * sleeps in the kernel, because with more ranks than cores the partner needs this very core. What
 * was written before em_signal_add is seen by whoever waited for the value. Counters wrap: targets
 * are compared by their distance, which must stay below 2^31.
 */
#ifndef EM_SIGNAL_H
#define EM_SIGNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Alone on its cache line. */
typedef struct {
    _Alignas(64) _Atomic uint32_t value;
    _Atomic uint32_t num_sleepers;
} em_signal_t;

/* What all ranks of a run share: whether they must stop, and how long they spin. */
typedef struct {
    _Alignas(64) _Atomic bool aborted;
    uint32_t num_spins;
} em_team_t;

/* `num_ranks` threads on this machine: long spins if each has a core of its own. */
void em_team_init(em_team_t *team, uint32_t num_ranks);

/* Let every wait of the team end soon, without success. */
void em_team_abort(em_team_t *team);

static inline bool em_team_aborted(em_team_t *team)
{
    return atomic_load_explicit(&team->aborted, memory_order_acquire);
}

void em_signal_init(em_signal_t *signal);

/* Raise the value by `num` and wake who sleeps. */
void em_signal_add(em_signal_t *signal, uint32_t num);

static inline bool em_signal_reached(em_signal_t *signal, uint32_t target)
{
    return (int32_t)(atomic_load_explicit(&signal->value, memory_order_acquire) - target) >= 0;
}

/* Wait until the value reaches `target`. False: the team was aborted. */
bool em_signal_wait(em_signal_t *signal, uint32_t target, em_team_t *team);

/* As em_signal_wait, without spinning, but for about `timeout_ns` at most. */
bool em_signal_wait_for(em_signal_t *signal, uint32_t target, uint64_t timeout_ns);

#endif
