/* Matrix products through OpenBLAS, as the wheel scipy-openblas32 carries it. */
#ifdef EM_HAVE_OPENBLAS

#include <cblas.h>

#include "cpu/em_cpu_ops.h"

void em_cpu_openblas_single_thread(void)
{
    scipy_openblas_set_num_threads(1);
}

/* Sizes are below 2^31: em_stage_check bounds every dimension. */
void em_cpu_gemm_openblas(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                          float alpha, const float *a, uint64_t lda, const float *b, uint64_t ldb,
                          float beta, float *c, uint64_t ldc)
{
    scipy_cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
                      trans_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k,
                      alpha, a, (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

#else

/* ISO C wants a declaration in every file. */
typedef int em_no_openblas_t;

#endif
