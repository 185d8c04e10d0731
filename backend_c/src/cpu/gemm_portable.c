/*
 * Matrix products in portable C: the panel scheme of Goto and van de Geijn, "Anatomy of
 * high-performance matrix multiplication" (2008), with small panels on the stack.
 *
 * For each block of KC rows of op(B) and NC columns, op(B) is packed once; each strip of MR rows
 * of op(A) is packed and multiplied with it, MR x NR results at a time in registers.
 */
#include "cpu/em_cpu_ops.h"
#include "cpu/em_simd.h"

enum { MR = 6, NR = EM_LANES, KC = 256, NC = 64 };

/* acc[MR][NR] = strip (KC x MR, packed) times panel (KC x NR, packed) */
EM_INLINE void micro_kernel(uint64_t depth, const float *strip, const float *panel, float *acc)
{
    em_vf_t sum[MR];
    for (int i = 0; i < MR; ++i) {
        sum[i] = em_set(0.0f);
    }
    for (uint64_t p = 0; p < depth; ++p) {
        const em_vf_t row = em_load(panel + p * NR);
        for (int i = 0; i < MR; ++i) {
            sum[i] += row * strip[p * MR + (uint64_t)i];
        }
    }
    for (int i = 0; i < MR; ++i) {
        em_store(acc + i * NR, sum[i]);
    }
}

EM_INLINE void pack_b(bool trans, const float *b, uint64_t ldb, uint64_t depth, uint64_t cols,
                      float *panel)
{
    for (uint64_t j = 0; j < cols; j += NR) {
        const uint64_t width = cols - j < NR ? cols - j : NR;
        float *const out = panel + j * depth;
        for (uint64_t p = 0; p < depth; ++p) {
            for (uint64_t i = 0; i < NR; ++i) {
                const uint64_t at = trans ? (j + i) * ldb + p : p * ldb + j + i;
                out[p * NR + i] = i < width ? b[at] : 0.0f;
            }
        }
    }
}

EM_INLINE void pack_a(bool trans, const float *a, uint64_t lda, uint64_t depth, uint64_t rows,
                      float *strip)
{
    for (uint64_t p = 0; p < depth; ++p) {
        for (uint64_t i = 0; i < MR; ++i) {
            const uint64_t at = trans ? p * lda + i : i * lda + p;
            strip[p * MR + i] = i < rows ? a[at] : 0.0f;
        }
    }
}

EM_INLINE void merge(const float *acc, uint64_t rows, uint64_t cols, float alpha, float beta,
                     float *c, uint64_t ldc)
{
    for (uint64_t i = 0; i < rows; ++i) {
        for (uint64_t j = 0; j < cols; ++j) {
            float *const out = c + i * ldc + j;
            const float value = alpha * acc[i * NR + j];
            *out = beta == 0.0f ? value : beta * *out + value;
        }
    }
}

/* C block [m, cols] from depth rows of op(B), packed in `panel`. */
EM_CLONES static void multiply_block(bool trans_a, uint64_t m, uint64_t cols, uint64_t depth,
                                     float alpha, const float *a, uint64_t lda, bool trans_b,
                                     const float *b, uint64_t ldb, float beta, float *c,
                                     uint64_t ldc)
{
    float panel[KC * NC];
    float strip[KC * MR];
    float acc[MR * NR];
    pack_b(trans_b, b, ldb, depth, cols, panel);
    for (uint64_t i = 0; i < m; i += MR) {
        const uint64_t rows = m - i < MR ? m - i : MR;
        pack_a(trans_a, trans_a ? a + i : a + i * lda, lda, depth, rows, strip);
        for (uint64_t j = 0; j < cols; j += NR) {
            micro_kernel(depth, strip, panel + j * depth, acc);
            merge(acc, rows, cols - j < NR ? cols - j : NR, alpha, beta, c + i * ldc + j, ldc);
        }
    }
}

void em_cpu_gemm_portable(bool trans_a, bool trans_b, uint64_t m, uint64_t n, uint64_t k,
                          float alpha, const float *a, uint64_t lda, const float *b, uint64_t ldb,
                          float beta, float *c, uint64_t ldc)
{
    for (uint64_t j = 0; j < n; j += NC) {
        const uint64_t cols = n - j < NC ? n - j : NC;
        for (uint64_t p = 0; p < k; p += KC) {
            const uint64_t depth = k - p < KC ? k - p : KC;
            multiply_block(trans_a, m, cols, depth, alpha, trans_a ? a + p * lda : a + p, lda,
                           trans_b, trans_b ? b + j * ldb + p : b + p * ldb + j, ldb,
                           p == 0 ? beta : 1.0f, c + j, ldc);
        }
    }
}
