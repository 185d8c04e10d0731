/* Monotonic time in integer nanoseconds. */
#ifndef EM_CLOCK_H
#define EM_CLOCK_H

#include <stdint.h>

#include "exactmap/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Nanoseconds since an arbitrary fixed point; never goes back. */
EM_API uint64_t em_clock_ns(void);

/* Nanoseconds for which the calling thread has held a core so far. */
EM_API uint64_t em_clock_thread_ns(void);

#ifdef __cplusplus
}
#endif
#endif
