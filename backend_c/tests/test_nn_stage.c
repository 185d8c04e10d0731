/*
 * A stage through every pass, in C alone, so that sanitizers see each access: buffers have exactly
 * the sizes that em_stage_sizes states, and come from the allocator one by one.
 */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/em_arena.h"
#include "common/em_rng.h"
#include "cpu/em_cpu.h"
#include "exactmap/numerics.h"
#include "nn/em_stage.h"

enum { MICROBATCH = 2, SEQ = 37, TOKENS = MICROBATCH * SEQ };
enum { SLICED_SEQ = 36, SLICES = 3 };

static em_stage_t make_stage(em_model_kind_t kind, bool tied, uint32_t first, uint32_t num)
{
    em_stage_t stage;
    memset(&stage, 0, sizeof stage);
    stage.model = (em_model_t){kind, 2, 36, 4, 2, 10, 52, 261, 64, 1e-5f, 1e4f, tied};
    stage.first_layer = first;
    stage.num_layers = num;
    stage.has_embedding = first == 0;
    stage.has_head = first + num == stage.model.layers;
    return stage;
}

static float *floats(uint64_t bytes)
{
    return bytes == 0 ? NULL : em_alloc_zeroed(1, bytes);
}

/* All memory of one stage. */
typedef struct {
    em_stage_t stage;
    em_stage_sizes_t sizes;
    em_param_t table[40];
    uint32_t num_params;
    uint64_t num_floats;
    float *params, *grads, *m, *v;
    float **param_pointers;
    float **grad_pointers;
    float *y, *dx, *a, *w, *g, *k, *workspace;
    double loss;
    uint32_t seq, slices;
} rig_t;

static void rig_open_sliced(rig_t *rig, em_stage_t stage, uint32_t seq, uint32_t slices)
{
    em_error_t err;
    memset(&err, 0, sizeof err);
    memset(rig, 0, sizeof *rig);
    rig->stage = stage;
    rig->seq = seq;
    rig->slices = slices;
    assert(em_stage_slice_sizes(&stage, MICROBATCH, seq, slices, &rig->sizes, &err) == EM_OK);
    assert(em_stage_layout(&stage, EM_PART_ALL, rig->table, 40, &rig->num_params, &rig->num_floats,
                           &err) == EM_OK);
    const uint64_t bytes = rig->num_floats * sizeof(float);
    rig->params = floats(bytes);
    rig->grads = floats(bytes);
    rig->m = floats(bytes);
    rig->v = floats(bytes);
    rig->param_pointers = em_alloc_zeroed(em_stage_num_pointers(&stage), sizeof(float *));
    rig->grad_pointers = em_alloc_zeroed(em_stage_num_pointers(&stage), sizeof(float *));
    assert(em_stage_check_bound(&stage, rig->param_pointers, NULL) == EM_ERR_FIELD);
    em_stage_bind(&stage, rig->table, rig->num_params, rig->params, rig->param_pointers);
    em_stage_bind(&stage, rig->table, rig->num_params, rig->grads, rig->grad_pointers);
    assert(em_stage_check_bound(&stage, rig->param_pointers, &err) == EM_OK);
    em_params_init(rig->table, rig->num_params, 7, rig->num_floats, rig->params);
    rig->y = floats(rig->sizes.h_bytes);
    rig->dx = floats(rig->sizes.h_bytes);
    rig->a = floats(rig->sizes.a_bytes);
    rig->w = floats(rig->sizes.w_bytes);
    rig->g = floats(rig->sizes.g_bytes);
    rig->k = floats(rig->sizes.k_bytes);
    if (rig->k != NULL) {
        memset(rig->k, 0xff, rig->sizes.k_bytes); /* NaN: what is read was written before */
    }
}

static void rig_open(rig_t *rig, em_stage_t stage)
{
    em_stage_sizes_t sizes;
    rig_open_sliced(rig, stage, SEQ, 1);
    assert(em_stage_sizes(&stage, MICROBATCH, SEQ, &sizes, NULL) == EM_OK);
    assert(memcmp(&sizes, &rig->sizes, sizeof sizes) == 0 && sizes.k_bytes == 0);
}

static void rig_close(rig_t *rig)
{
    void *const all[] = {rig->params,
                         rig->grads,
                         rig->m,
                         rig->v,
                         rig->param_pointers,
                         rig->grad_pointers,
                         rig->y,
                         rig->dx,
                         rig->a,
                         rig->w,
                         rig->g,
                         rig->k};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) {
        em_free(all[i]);
    }
}

/* Run one pass in a workspace of exactly its size. */
static void run(rig_t *rig, em_pass_kind_t pass, const em_kernels_t *kernels, em_item_t item)
{
    static em_status_t (*const passes[])(const em_stage_ctx_t *, const em_item_t *) = {
        em_stage_f, em_stage_i, em_stage_w, em_stage_b};
    float *const workspace = floats(rig->sizes.workspace_bytes[pass]);
    if (workspace != NULL) {
        em_workspace_prepare(&rig->stage, rig->seq, workspace);
    }
    const em_stage_ctx_t ctx = {
        &rig->stage,        kernels,   MICROBATCH, rig->seq, rig->param_pointers,
        rig->grad_pointers, workspace, rig->slices};
    item.y = rig->stage.has_head ? NULL : rig->y;
    item.dx = rig->stage.has_embedding ? NULL : rig->dx;
    item.a = rig->a;
    item.w = rig->w;
    item.g = rig->g;
    item.k = rig->k;
    item.loss_sum = &rig->loss;
    assert(passes[pass](&ctx, &item) == EM_OK);
    em_free(workspace);
}

static void make_tokens(int32_t *tokens, int32_t *targets)
{
    for (uint64_t i = 0; i < TOKENS; ++i) {
        tokens[i] = (int32_t)em_rng_below(1, i, 261);
        targets[i] = (tokens[i] * 5 + 1) % 261;
    }
    targets[3] = EM_TARGET_IGNORE;
}

/* Two stages, F I W and F B, every gemm; then AdamW lowers the loss. */
static void test_pipeline(em_model_kind_t kind, em_cpu_gemm_t gemm)
{
    const em_kernels_t *const kernels = em_cpu_kernels(gemm);
    if (kernels == NULL) {
        return;
    }
    int32_t tokens[TOKENS];
    int32_t targets[TOKENS];
    make_tokens(tokens, targets);
    rig_t first;
    rig_t last;
    rig_open(&first, make_stage(kind, false, 0, 1));
    rig_open(&last, make_stage(kind, false, 1, 1));
    em_item_t item;
    memset(&item, 0, sizeof item);
    item.tokens = tokens;
    item.targets = targets;
    item.scale = 1.0f / TOKENS;
    double start = 0.0;
    const em_adamw_t adamw = {1e-2, 0.9, 0.95, 1e-8, 0.1, 1.0, 0};
    for (uint64_t step = 1; step <= 10; ++step) {
        item.x = NULL;
        run(&first, EM_PASS_F, kernels, item);
        item.x = first.y;
        run(&last, EM_PASS_F, kernels, item);
        assert(isfinite(last.loss));
        start = step == 1 ? last.loss : start;
        if (step % 2 == 1) {
            run(&last, EM_PASS_I, kernels, item);
            run(&last, EM_PASS_W, kernels, item);
        } else {
            run(&last, EM_PASS_B, kernels, item);
        }
        item.x = NULL;
        item.dy = last.dx;
        run(&first, EM_PASS_I, kernels, item);
        run(&first, EM_PASS_W, kernels, item);
        item.dy = NULL;
        rig_t *const rigs[] = {&first, &last};
        for (int i = 0; i < 2; ++i) {
            em_adamw_t now = adamw;
            now.step = step;
            assert(em_bucket_sum_squares(kernels, rigs[i]->table, rigs[i]->num_params, 0,
                                         rigs[i]->num_floats, rigs[i]->grads) > 0.0);
            em_bucket_adamw(kernels, rigs[i]->table, rigs[i]->num_params, 0, rigs[i]->num_floats,
                            &now, rigs[i]->params, rigs[i]->grads, rigs[i]->m, rigs[i]->v);
        }
    }
    assert(fabs(start / (TOKENS - 1) - log(261.0)) < 0.1);
    assert(last.loss < 0.8 * start);
    rig_close(&first);
    rig_close(&last);
}

/* Tied weights and all of the model in one stage; embedding and head without layers. */
static void test_odd_stages(em_model_kind_t kind)
{
    const em_kernels_t *const kernels = em_cpu_kernels(EM_CPU_AUTO);
    int32_t tokens[TOKENS];
    int32_t targets[TOKENS];
    make_tokens(tokens, targets);
    em_item_t item;
    memset(&item, 0, sizeof item);
    item.tokens = tokens;
    item.targets = targets;
    item.scale = 1.0f / TOKENS;
    rig_t rig;
    rig_open(&rig, make_stage(kind, true, 0, 2));
    run(&rig, EM_PASS_F, kernels, item);
    run(&rig, EM_PASS_B, kernels, item);
    assert(isfinite(rig.loss));
    assert(em_stage_wte(rig.grad_pointers) == rig.grads);
    rig_close(&rig);

    rig_t ends[2];
    rig_open(&ends[0], make_stage(kind, false, 0, 0));
    rig_open(&ends[1], make_stage(kind, false, 2, 0));
    run(&ends[0], EM_PASS_F, kernels, item);
    item.x = ends[0].y;
    run(&ends[1], EM_PASS_F, kernels, item);
    run(&ends[1], EM_PASS_I, kernels, item);
    run(&ends[1], EM_PASS_W, kernels, item);
    item.dy = ends[1].dx;
    run(&ends[0], EM_PASS_I, kernels, item);
    run(&ends[0], EM_PASS_W, kernels, item);
    rig_close(&ends[0]);
    rig_close(&ends[1]);
}

/* One item of a stage: a slice's own buffers in place of the rig's. */
static void exchange(rig_t *rig, rig_t *own)
{
    float **const mine[] = {&rig->y, &rig->dx, &rig->a, &rig->w, &rig->g};
    float **const other[] = {&own->y, &own->dx, &own->a, &own->w, &own->g};
    for (size_t i = 0; i < sizeof mine / sizeof mine[0]; ++i) {
        float *const kept = *mine[i];
        *mine[i] = *other[i];
        *other[i] = kept;
    }
}

static void assert_near(const rig_t *want, const rig_t *got)
{
    double error = 0.0, norm = 0.0;
    for (uint64_t i = 0; i < want->num_floats; ++i) {
        error += pow((double)got->grads[i] - want->grads[i], 2);
        norm += pow((double)want->grads[i], 2);
    }
    assert(norm > 0.0 && sqrt(error) < 1e-5 * sqrt(norm));
}

/* Two stages, three slices, F and B or I W, each item in buffers of its own, against one slice. */
static void test_slices(em_model_kind_t kind, em_cpu_gemm_t gemm)
{
    const em_kernels_t *const kernels = em_cpu_kernels(gemm);
    if (kernels == NULL) {
        return;
    }
    int32_t tokens[TOKENS];
    int32_t targets[TOKENS];
    make_tokens(tokens, targets);
    em_item_t item;
    memset(&item, 0, sizeof item);
    item.tokens = tokens;
    item.targets = targets;
    item.scale = 1.0f / (MICROBATCH * SLICED_SEQ);
    rig_t whole[2], sliced[2], own[2][SLICES];
    for (int s = 0; s < 2; ++s) {
        const em_stage_t stage = make_stage(kind, false, (uint32_t)s, 1);
        rig_open_sliced(&whole[s], stage, SLICED_SEQ, 1);
        rig_open_sliced(&sliced[s], stage, SLICED_SEQ, SLICES);
        assert(sliced[s].sizes.k_bytes > 0 && sliced[s].sizes.a_bytes < whole[s].sizes.a_bytes);
        for (int i = 0; i < SLICES; ++i) {
            rig_open_sliced(&own[s][i], stage, SLICED_SEQ, SLICES);
        }
    }
    run(&whole[0], EM_PASS_F, kernels, item);
    item.x = whole[0].y;
    run(&whole[1], EM_PASS_F, kernels, item);
    run(&whole[1], EM_PASS_B, kernels, item);
    item.dy = whole[1].dx;
    run(&whole[0], EM_PASS_B, kernels, item);

    double loss = 0.0;
    for (uint32_t i = 0; i < SLICES; ++i) {
        item.slice = i;
        for (int s = 0; s < 2; ++s) {
            item.x = own[0][i].y;
            exchange(&sliced[s], &own[s][i]);
            run(&sliced[s], EM_PASS_F, kernels, item);
            exchange(&sliced[s], &own[s][i]);
        }
        loss += sliced[1].loss;
    }
    for (uint32_t i = SLICES; i-- > 0;) {
        item.slice = i;
        item.accumulate = i == SLICES - 1 ? 0 : EM_PART_ALL;
        for (int s = 1; s >= 0; --s) {
            item.dy = own[1][i].dx;
            exchange(&sliced[s], &own[s][i]);
            if (s == 0) {
                run(&sliced[s], EM_PASS_B, kernels, item);
            } else {
                run(&sliced[s], EM_PASS_I, kernels, item);
                run(&sliced[s], EM_PASS_W, kernels, item);
            }
            exchange(&sliced[s], &own[s][i]);
        }
    }
    assert(fabs(loss - whole[1].loss) < 1e-6 * whole[1].loss);
    for (int s = 0; s < 2; ++s) {
        assert_near(&whole[s], &sliced[s]);
        rig_close(&whole[s]);
        rig_close(&sliced[s]);
        for (int i = 0; i < SLICES; ++i) {
            rig_close(&own[s][i]);
        }
    }
}

static void test_slice_sizes(void)
{
    const em_stage_t stage = make_stage(EM_MODEL_GPT2, false, 0, 2);
    em_stage_sizes_t sizes;
    assert(em_stage_slice_sizes(&stage, 1, 36, 0, &sizes, NULL) == EM_ERR_FIELD);
    assert(em_stage_slice_sizes(&stage, 1, 36, 5, &sizes, NULL) == EM_ERR_FIELD);
    assert(em_stage_slice_sizes(&stage, 1, 36, UINT32_MAX, &sizes, NULL) == EM_ERR_FIELD);
    assert(em_stage_slice_sizes(&stage, 1, 36, 36, &sizes, NULL) == EM_OK);
    /* two layers, 36 tokens, two heads of ten floats: keys and values, and gradients of both */
    assert(sizes.k_bytes == 2 * 2 * 36 * 2 * 2 * 10 * sizeof(float));
    assert(em_stage_stashless_bytes(&sizes) ==
           sizes.workspace_bytes[EM_PASS_F] + em_stage_offload_bytes(&sizes));
    assert(em_stage_recompute_bytes(&sizes) == sizes.workspace_bytes[EM_PASS_F] + sizes.h_bytes);
}

/* em_numerics_open gives all memory back at whichever allocation it fails. */
static void test_allocation_faults(void)
{
    const em_numerics_config_t config = {1, 2, 36, 4, 2, 10, 52, 261,   64,   0,
                                         0, 2, 1,  1, 2, 37, 0,  1e-5f, 1e4f, 1};
    em_numerics_t *handle = NULL;
    for (uint64_t fail = 0; fail < 5; ++fail) {
        em_error_t err;
        memset(&err, 0, sizeof err);
        em_alloc_fail_after(fail);
        assert(em_numerics_open(&config, &handle, &err) == EM_ERR_MEMORY && handle == NULL);
    }
    em_alloc_fail_after(UINT64_MAX);
    assert(em_numerics_open(&config, &handle, NULL) == EM_OK);
    em_numerics_close(handle);
    em_numerics_close(NULL);
}

static void test_part_names(void)
{
    assert(em_part_from_name("layers,norm", 6) == EM_PART_LAYERS);
    assert(em_part_from_name("wte", 3) == EM_PART_WTE &&
           em_part_from_name("head", 4) == EM_PART_HEAD);
    assert(em_part_from_name("wt", 2) == 0 && em_part_from_name("wtee", 4) == 0);
    assert(em_part_from_name("", 0) == 0);
}

int main(void)
{
    const em_model_kind_t kinds[] = {EM_MODEL_GPT2, EM_MODEL_LLAMA};
    for (int i = 0; i < 2; ++i) {
        test_pipeline(kinds[i], EM_CPU_OPENBLAS);
        test_pipeline(kinds[i], EM_CPU_PORTABLE);
        test_odd_stages(kinds[i]);
        test_slices(kinds[i], EM_CPU_OPENBLAS);
        test_slices(kinds[i], EM_CPU_PORTABLE);
    }
    test_slice_sizes();
    test_allocation_faults();
    test_part_names();
    puts("nn stage: ok");
    return 0;
}
