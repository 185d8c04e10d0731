/* The exponential of the hot loops: accuracy over its range, edges, NaN. */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "cpu/em_simd.h"

EM_CLONES static void exp_all(uint64_t num, const float *x, float *y)
{
    for (uint64_t i = 0; i < num; i += EM_LANES) {
        em_store(y + i, em_exp(em_load(x + i)));
    }
}

/* Relative error below 1e-7 against the double-precision library function. */
static void test_accuracy(void)
{
    enum { NUM = 1 << 16 };
    static float x[NUM];
    static float y[NUM];
    double worst = 0.0;
    for (int pass = 0; pass < 40; ++pass) {
        for (int i = 0; i < NUM; ++i) {
            const double at = (double)(pass * NUM + i) / (40.0 * NUM);
            x[i] = (float)(-87.0 + 175.0 * at);
        }
        exp_all(NUM, x, y);
        for (int i = 0; i < NUM; ++i) {
            const double want = exp((double)x[i]);
            const double error = fabs((double)y[i] - want) / want;
            worst = error > worst ? error : worst;
        }
    }
    printf("exp: worst relative error %.3g\n", worst);
    assert(worst < 1e-7);
}

/* Saturates instead of overflowing; exact at 0; a NaN stays one. */
static void test_edges(void)
{
    const float x[EM_LANES] = {0.0f, -0.0f, -INFINITY, INFINITY, NAN, -1e30f, 1e30f, 88.0f, -87.0f};
    float y[EM_LANES];
    exp_all(EM_LANES, x, y);
    assert(y[0] == 1.0f && y[1] == 1.0f);
    assert(y[2] > 0.0f && y[2] < 2e-38f && y[5] == y[2] && y[8] == y[2]);
    assert(isfinite(y[3]) && y[3] > 1e38f && y[6] == y[3] && y[7] == y[3]);
    assert(isnan(y[4]));
}

int main(void)
{
    test_accuracy();
    test_edges();
    puts("cpu exp: ok");
    return 0;
}
