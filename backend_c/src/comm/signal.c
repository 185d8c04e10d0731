/* Counters to wait for, on futexes. See em_signal.h. */
#define _GNU_SOURCE /* syscall, sched_getaffinity */
#include "comm/em_signal.h"

#include <sched.h>
#include <time.h>
#include <unistd.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

/* One pause is 40 to 140 cycles: about 0.5 ms with a core each, 2 us without. */
enum { EM_SPINS_ALONE = 20000, EM_SPINS_SHARED = 60 };
/* A sleeper looks up this often, in case of an abort. */
enum { EM_LOOK_UP_NS = 50 * 1000 * 1000 };

static uint32_t num_cpus(void)
{
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return (uint32_t)CPU_COUNT(&set);
    }
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (uint32_t)online : 1;
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void sleep_while(em_signal_t *signal, uint32_t value, uint64_t timeout_ns)
{
    struct timespec limit;
    limit.tv_sec = (time_t)(timeout_ns / 1000000000u);
    limit.tv_nsec = (long)(timeout_ns % 1000000000u);
#if defined(__linux__)
    /* A wake-up, a changed value, a signal and the time limit all mean: look again. */
    (void)syscall(SYS_futex, &signal->value, FUTEX_WAIT_PRIVATE, value, &limit, NULL, 0);
#else
    const struct timespec nap = {0, 20000};
    (void)limit;
    (void)nanosleep(&nap, NULL);
    (void)signal;
    (void)value;
#endif
}

void em_team_init(em_team_t *team, uint32_t num_ranks)
{
    atomic_init(&team->aborted, false);
    team->num_spins = num_ranks <= num_cpus() ? EM_SPINS_ALONE : EM_SPINS_SHARED;
}

void em_team_abort(em_team_t *team)
{
    atomic_store(&team->aborted, true);
}

void em_signal_init(em_signal_t *signal)
{
    atomic_init(&signal->value, 0);
    atomic_init(&signal->num_sleepers, 0);
}

void em_signal_add(em_signal_t *signal, uint32_t num)
{
    /* Sequentially consistent against sleepers: either they see the value or we see them. */
    atomic_fetch_add(&signal->value, num);
    if (atomic_load(&signal->num_sleepers) == 0) {
        return;
    }
#if defined(__linux__)
    (void)syscall(SYS_futex, &signal->value, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#endif
}

bool em_signal_wait_for(em_signal_t *signal, uint32_t target, uint64_t timeout_ns)
{
    if (em_signal_reached(signal, target)) {
        return true;
    }
    atomic_fetch_add(&signal->num_sleepers, 1);
    const uint32_t value = atomic_load(&signal->value);
    if ((int32_t)(value - target) < 0) {
        sleep_while(signal, value, timeout_ns);
    }
    atomic_fetch_sub(&signal->num_sleepers, 1);
    return em_signal_reached(signal, target);
}

bool em_signal_wait(em_signal_t *signal, uint32_t target, em_team_t *team)
{
    for (uint32_t i = 0; i < team->num_spins; i++) {
        if (em_signal_reached(signal, target)) {
            return true;
        }
        pause_cpu();
    }
    while (!em_signal_wait_for(signal, target, EM_LOOK_UP_NS)) {
        if (em_team_aborted(team)) {
            return false;
        }
    }
    return true;
}
