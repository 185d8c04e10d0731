/* The kernel table on CPUs. */
#ifndef EM_CPU_H
#define EM_CPU_H

#include "nn/em_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    EM_CPU_AUTO = 0, /* OpenBLAS where this build has it, else portable C */
    EM_CPU_OPENBLAS, /* NULL where this build lacks it */
    EM_CPU_PORTABLE
} em_cpu_gemm_t;

/* The table; constant, shared by all threads. Each call of a kernel runs on the calling thread
 * alone. Call it once before ranks start: it sets OpenBLAS to one thread per call. */
EM_API const em_kernels_t *em_cpu_kernels(em_cpu_gemm_t gemm);

#ifdef __cplusplus
}
#endif
#endif
