/* The POSIX clocks. See em_clock.h. */
#define _POSIX_C_SOURCE 200809L
#include "common/em_clock.h"

#include <time.h>

static uint64_t now_of(clockid_t clock)
{
    struct timespec now = {0, 0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t em_clock_ns(void)
{
    return now_of(CLOCK_MONOTONIC);
}

uint64_t em_clock_thread_ns(void)
{
    return now_of(CLOCK_THREAD_CPUTIME_ID);
}
