/* The transport between threads: signals, channels, groups, barriers, aborts; four ranks, so that
 * two cores are not enough. Run under ThreadSanitizer too. */
#undef NDEBUG
#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "comm/em_local.h"
#include "common/em_clock.h"
#include "common/em_rng.h"

enum { NUM_RANKS = 4, NUM_STEPS = 50, NUM_MESSAGES = 6, NUM_FLOATS = 1000 };

typedef struct {
    em_team_t team;
    em_barrier_t barrier;
    em_local_channel_t ring[NUM_RANKS]; /* rank r to rank r + 1 */
    em_local_group_t group;
    double values[NUM_RANKS];
    em_local_group_t scan;
    double scanned[2 * NUM_RANKS];
    float grads[NUM_RANKS][NUM_FLOATS];
    float *buffers[NUM_RANKS];
    float outbox[NUM_RANKS][2];
    uint32_t num_last; /* by whoever is last at the barrier */
} world_t;

typedef struct {
    world_t *world;
    uint32_t index;
    bool went_well;
    pthread_t thread;
} rank_t;

static void init_world(world_t *world, uint32_t num_ranks)
{
    memset(world, 0, sizeof *world);
    em_team_init(&world->team, num_ranks);
    em_barrier_init(&world->barrier, num_ranks);
    em_local_group_init(&world->group, num_ranks, world->values);
    em_local_group_init(&world->scan, num_ranks, world->scanned);
    for (uint32_t r = 0; r < NUM_RANKS; r++) {
        em_local_channel_init(&world->ring[r]);
        world->buffers[r] = world->grads[r];
    }
}

static void run_ranks(world_t *world, void *(*body)(void *), rank_t ranks[NUM_RANKS])
{
    for (uint32_t r = 0; r < NUM_RANKS; r++) {
        ranks[r] = (rank_t){.world = world, .index = r};
        assert(pthread_create(&ranks[r].thread, NULL, body, &ranks[r]) == 0);
    }
    for (uint32_t r = 0; r < NUM_RANKS; r++) {
        assert(pthread_join(ranks[r].thread, NULL) == 0);
    }
}

static float message(uint32_t rank, uint32_t step, uint32_t index)
{
    return (float)(rank * 10000 + step * 10 + index);
}

static void count_last(void *context)
{
    world_t *const world = context;
    world->num_last++;
}

/* Each step: messages round the ring, two under way at a time, then a barrier. */
static void *pass_messages(void *context)
{
    rank_t *const rank = context;
    world_t *const world = rank->world;
    em_local_channel_t *const next = &world->ring[rank->index];
    const uint32_t before = (rank->index + NUM_RANKS - 1) % NUM_RANKS;
    em_local_channel_t *const previous = &world->ring[before];
    for (uint32_t step = 0; step < NUM_STEPS; step++) {
        for (uint32_t i = 0; i < NUM_MESSAGES; i++) {
            const uint32_t number = em_local_number(step, NUM_MESSAGES, i);
            if (i >= 2) { /* the slot of the message before the last is free once it was taken */
                assert(em_local_wait_sent(next, number - 2, &world->team));
            }
            world->outbox[rank->index][i % 2] = message(rank->index, step, i);
            em_local_send(next);
            assert(em_local_wait_ready(previous, number, &world->team));
            float got = 0.0f;
            memcpy(&got, &world->outbox[before][i % 2], sizeof got);
            em_local_taken(previous);
            assert(got == message(before, step, i));
        }
        assert(em_local_wait_sent(next, em_local_number(step, NUM_MESSAGES, NUM_MESSAGES - 1),
                                  &world->team));
        /* everybody sees what the last one did; nobody goes on before all have looked */
        assert(em_barrier_meet(&world->barrier, 2 * step, &world->team, count_last, world));
        assert(world->num_last == step + 1);
        assert(em_barrier_meet(&world->barrier, 2 * step + 1, &world->team, NULL, NULL));
    }
    rank->went_well = true;
    return NULL;
}

/* Sums in member order: the same bits on every member, equal to a loop by hand. */
static void *sum_gradients(void *context)
{
    rank_t *const rank = context;
    world_t *const world = rank->world;
    em_local_reduce_t reduce = {.buffers = world->buffers};
    em_local_share(NUM_FLOATS, NUM_RANKS, rank->index, &reduce.begin, &reduce.end);
    for (uint32_t step = 0; step < NUM_STEPS; step++) {
        for (uint32_t i = 0; i < NUM_FLOATS; i++) {
            world->grads[rank->index][i] = (float)em_rng_normal(rank->index + 7u * step, i);
        }
        assert(em_local_group_enter(&world->group, 2 * step, &world->team));
        em_local_sum_share(&world->group, &reduce);
        assert(em_local_group_leave(&world->group, 2 * step, &world->team));
        for (uint32_t i = 0; i < NUM_FLOATS; i++) {
            float sum = (float)em_rng_normal(7u * step, i);
            for (uint32_t r = 1; r < NUM_RANKS; r++) {
                sum += (float)em_rng_normal(r + 7u * step, i);
            }
            assert(memcmp(&sum, &world->grads[rank->index][i], sizeof sum) == 0);
        }
        assert(em_local_group_enter(&world->group, 2 * step + 1, &world->team));
        world->values[rank->index] = 1.0 / (rank->index + 1 + step);
        assert(em_local_group_leave(&world->group, 2 * step + 1, &world->team));
        double sum = 0.0;
        for (uint32_t r = 0; r < NUM_RANKS; r++) {
            sum += 1.0 / (r + 1 + step);
        }
        assert(em_local_sum_values(&world->group) == sum);
    }
    rank->went_well = true;
    return NULL;
}

/* Each member sees the sum of those before it, from the last rank down to the first; nobody meets
 * anybody else between the steps. */
static void *scan_down(void *context)
{
    rank_t *const rank = context;
    world_t *const world = rank->world;
    const uint32_t position = NUM_RANKS - 1 - rank->index;
    for (uint32_t step = 0; step < NUM_STEPS; step++) {
        assert(em_local_scan_enter(&world->scan, step, position, &world->team));
        double sum = rank->index + step;
        sum += position > 0 ? world->scanned[2 * (position - 1)] : 0.0;
        world->scanned[2 * position] = sum;
        em_local_scan_leave(&world->scan);
        double expected = 0.0;
        for (uint32_t r = rank->index; r < NUM_RANKS; r++) {
            expected += r + step;
        }
        assert(sum == expected);
    }
    rank->went_well = true;
    return NULL;
}

/* Reduce to shards, twice into one; then everybody gathers all shards. */
static void *share_shards(void *context)
{
    rank_t *const rank = context;
    world_t *const world = rank->world;
    enum { SHARD = NUM_FLOATS / NUM_RANKS };
    static float shards[NUM_RANKS][SHARD];
    static float *const owners[NUM_RANKS] = {shards[0], shards[1], shards[2], shards[3]};
    float whole[NUM_FLOATS];
    const em_local_reduce_t reduce = {
        .buffers = world->buffers, .begin = rank->index * SHARD, .end = (rank->index + 1) * SHARD};
    for (uint32_t step = 0; step < NUM_STEPS; step++) {
        for (uint32_t i = 0; i < NUM_FLOATS; i++) {
            world->grads[rank->index][i] = (float)(i + step * rank->index);
        }
        for (uint32_t round = 0; round < 2; round++) {
            assert(em_local_group_enter(&world->group, 3 * step + round, &world->team));
            em_local_sum_into(&world->group, &reduce, round == 1, shards[rank->index]);
            assert(em_local_group_leave(&world->group, 3 * step + round, &world->team));
        }
        assert(em_local_group_enter(&world->group, 3 * step + 2, &world->team));
        em_local_gather(&world->group, owners, SHARD, whole);
        assert(em_local_group_leave(&world->group, 3 * step + 2, &world->team));
        for (uint32_t i = 0; i < NUM_FLOATS; i++) {
            assert(whole[i] == (float)(2 * (NUM_RANKS * i + step * (0 + 1 + 2 + 3))));
        }
    }
    rank->went_well = true;
    return NULL;
}

/* Rank 0 fails while the others wait for what never comes, each in another kind of wait. */
static void *wait_for_nothing(void *context)
{
    rank_t *const rank = context;
    world_t *const world = rank->world;
    bool reached = true;
    switch (rank->index) {
    case 0: {
        const uint64_t start = em_clock_ns();
        while (em_clock_ns() - start < 20000000) {
        }
        em_team_abort(&world->team);
        reached = false;
        break;
    }
    case 1:
        reached = em_local_wait_ready(&world->ring[0], 0, &world->team);
        break;
    case 2:
        reached = em_local_group_enter(&world->group, 0, &world->team);
        break;
    default:
        reached = em_local_scan_enter(&world->scan, 0, 1, &world->team) ||
                  em_barrier_meet(&world->barrier, 0, &world->team, NULL, NULL);
        break;
    }
    rank->went_well = !reached;
    return NULL;
}

static void test_shares(void)
{
    for (uint64_t num = 0; num < 200; num++) {
        for (uint32_t members = 1; members <= 7; members++) {
            uint64_t at = 0;
            for (uint32_t k = 0; k < members; k++) {
                uint64_t begin = 0, end = 0;
                em_local_share(num, members, k, &begin, &end);
                assert(begin == at && end >= begin && (begin % 16 == 0 || begin == num));
                at = end;
            }
            assert(at == num);
        }
    }
}

/* Counters wrap after 2^32: only distances count. */
static void test_wrap(void)
{
    em_signal_t signal;
    em_signal_init(&signal);
    atomic_store(&signal.value, UINT32_MAX - 1);
    assert(em_signal_reached(&signal, UINT32_MAX - 1));
    assert(!em_signal_reached(&signal, 1));
    em_signal_add(&signal, 3);
    assert(em_signal_reached(&signal, 1));
    assert(!em_signal_wait_for(&signal, 2, 1000000));
}

int main(void)
{
    static world_t world;
    rank_t ranks[NUM_RANKS];
    void *(*const bodies[])(void *) = {pass_messages, sum_gradients, scan_down, share_shards,
                                       wait_for_nothing};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        init_world(&world, NUM_RANKS);
        const uint64_t start = em_clock_ns();
        run_ranks(&world, bodies[i], ranks);
        assert(em_clock_ns() - start < 60000000000u);
        for (uint32_t r = 0; r < NUM_RANKS; r++) {
            assert(ranks[r].went_well);
        }
    }
    test_shares();
    test_wrap();
    puts("ok");
    return 0;
}
