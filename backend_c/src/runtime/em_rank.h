/*
 * One rank at run time: its arena, its stages bound to it, its program decoded to fixed records,
 * and the world of channels and groups that it shares with the others.
 */
#ifndef EM_RANK_H
#define EM_RANK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "comm/em_local.h"
#include "common/em_arena.h"
#include "exactmap/engine.h"
#include "exactmap/error.h"
#include "exactmap/plan.h"
#include "io/em_tokens.h"
#include "nn/em_stage.h"

/* A stage on its rank. */
typedef struct {
    uint32_t index; /* S */
    em_stage_t stage;
    em_stage_sizes_t sizes;
    float **params; /* pointer tables of the nn layer */
    float **grads;
    em_stage_ctx_t ctx;
} em_rank_stage_t;

/* A bucket on its rank: places in the arena. What rests there are floats [begin, end): all of
 * them, or, of a sharded bucket, the part of this replica. */
typedef struct {
    uint32_t index; /* in the plan's buckets */
    bool sharded;
    em_param_t *table;
    uint32_t num_params;
    uint64_t begin;
    uint64_t end;
    uint64_t num_floats; /* of the whole bucket; a sharded one is filled up to equal parts */
    float *param;
    float *grad;
    float *m;
    float *v;
    bool is_first;  /* this rank is the first that the bucket's stage is placed on */
    bool in_norm;   /* each parameter counts once: on that rank, in the first of two tied buckets */
    uint32_t fresh; /* decoding: parts that the next W or B writes instead of adding */
    uint32_t zero;  /* decoding: index of its last ZERO */
    float *open;    /* decoding: where its gradient is summed now: grad, or a q slot */
    bool reduced;   /* decoding: an RS of this step has written the shard's gradient */
    bool undo;      /* its last OPT was wrong: PV found it */
} em_rank_bucket_t;

/* F, I, W, B or RC with every pointer resolved. */
typedef struct {
    uint8_t op; /* em_op_t */
    em_rank_stage_t *stage;
    em_item_t item;
    uint32_t microbatch;
} em_work_t;

/* OFF or LD: the stash of an item between the arena and the host. */
typedef struct {
    float *a;
    float *w;
    float *host; /* a, then w */
    uint64_t a_bytes;
    uint64_t w_bytes;
} em_copy_t;

/* A channel of one replica. Message n of a step lies at sources[n]. */
typedef struct {
    em_local_channel_t local;
    uint32_t per_step;
    const float **sources;
} em_world_channel_t;

/* A group at fixed coordinates on the axes that it does not span. */
typedef struct {
    em_local_group_t local;
    uint32_t per_step;
    float **buffers; /* [per_step][members]: what operation n sums or gathers, NULL for a NORM */
} em_world_group_t;

/* What the ranks share. */
typedef struct {
    const em_plan_t *plan;
    uint32_t num_replicas;
    em_world_channel_t *channels; /* [channel][replica] */
    em_world_group_t *groups;
    uint32_t num_groups;
    uint32_t *first_group;          /* [group]: its first instance in `groups` */
    em_world_channel_t *eval_edges; /* [stage S to S + 1][replica] */
} em_world_t;

/* One decoded instruction. */
typedef struct {
    uint8_t op;        /* em_op_t */
    uint8_t post_op;   /* of WC: the op that it waits for */
    uint32_t number;   /* of the message or operation, in a step */
    uint32_t per_step; /* of its channel or group */
    uint32_t member;   /* this rank's place in the group, of a scan in the order of the scan */
    uint32_t post;     /* of a wait: index of its post */
    em_local_channel_t *channel;
    em_local_group_t *group;
    const float *const *source; /* WR: where the message is */
    float *target;            /* RF, RB, WR, AG: where it goes; ZERO: where gradients are summed */
    em_local_reduce_t reduce; /* WC of an AR, RS or AG */
    bool scans;               /* WC of a NORM or CHK of a group that scans */
    bool scatters;            /* WC of an RS over the shards; else over ranks with the same one */
    bool add;                 /* WC of an RS: to what another one has written */
    em_rank_bucket_t *bucket; /* ZERO OPT PV UNDO AG RS AR */
    uint32_t parts;           /* ZERO: those that no pass of this program writes */
    uint32_t num_works;
    em_work_t *work; /* F I W B RC: one; FB: its members */
    em_copy_t *copy; /* WOFF WLD */
} em_record_t;

/* Times of one instruction, from the step's start barrier. */
typedef struct {
    uint64_t a_ns;
    uint64_t s_ns; /* when bytes began to move, 0 if they did not */
    uint64_t e_ns;
} em_times_t;

/* What a sum of squares says about the gradients. */
typedef struct {
    double sum;
    bool finite;
    double scale; /* clip factor */
} em_judgement_t;

/* An OPT that trusted a partial norm, until the total is known (late.c). */
typedef struct {
    bool pending;
    em_judgement_t used;
    double least_sum; /* what the first member of the scan used */
    em_adamw_t adamw; /* of that OPT */
    em_judgement_t right;
    bool wrong;   /* this rank's OPT was */
    bool flagged; /* some rank's OPT was wrong: the step in progress is run again */
} em_late_t;

typedef struct em_engine_shared em_engine_shared_t;

typedef struct em_rank {
    uint32_t pp;
    uint32_t dp;
    em_engine_shared_t *shared;
    const em_program_t *program;
    em_record_t *records;
    uint32_t num_records;
    em_work_t *works;
    em_copy_t *copies;

    em_arena_t arena;
    em_arena_t host; /* pool o */
    uint32_t num_stages;
    em_rank_stage_t *stages;
    uint32_t num_buckets;
    em_rank_bucket_t *buckets;
    int32_t *tokens; /* [T] of one microbatch, in the staging; NULL where no stage reads them */
    int32_t *targets;
    uint64_t loaded;    /* 1 + the microbatch that they hold; 0: none */
    double unread_loss; /* of a head that is computed again: it was counted the first time */

    /* within a step */
    bool has_norm;
    bool has_scan; /* the norm is a partial sum */
    em_judgement_t norm;
    em_late_t late;
    em_adamw_t adamw;     /* of this step's OPTs */
    uint64_t num_updates; /* optimizer steps done */
    uint64_t end_ns;

    em_times_t *times; /* [traced steps][num_records] */

    _Atomic uint32_t at;       /* record in progress, for the watchdog */
    _Atomic uint64_t progress; /* grows with every instruction */
    em_error_t error;
    pthread_t thread;
} em_rank_t;

/* What all ranks read; written by the coordinator while they wait. */
struct em_engine_shared {
    const em_plan_t *plan;
    const char *plan_name;
    em_team_t team;
    em_world_t world;
    struct em_rank *ranks; /* [replica][pipeline rank] */
    em_barrier_t start;
    const em_kernels_t *kernels;
    em_tokens_t train;
    em_tokens_t val;
    uint64_t train_windows;
    uint64_t val_windows;
    double *losses;      /* [replica][microbatch][slice] sums over tokens */
    double *eval_losses; /* [eval microbatch] */
    uint64_t num_eval_sequences;
    uint64_t num_eval_microbatches;
    uint64_t num_evals; /* done */

    uint64_t first_step;   /* steps done before this run */
    uint64_t first_sample; /* samples read before this run */
    uint64_t step;         /* in progress, from 0 */
    uint64_t step_round;   /* steps done in this run */
    uint64_t t0_ns;
    double lr;
    double total_sum; /* closing a run: what a CHK would bring */
    double least_sum;
    bool tracing;
    uint64_t trace_slot;
};

/* ---- parts of the runtime, a file each --------------------------------------------------- */

/* unsupported.c: refuse by name what this engine cannot execute. */
em_status_t em_check_supported(const em_plan_t *plan, const char *name, em_error_t *err);

/* footprint.c: the plan's stages as nn sees them, and what a rank needs. */
void em_plan_stage(const em_plan_t *plan, uint32_t stage, em_stage_t *out);
uint64_t em_plan_message_bytes(const em_plan_t *plan);
/* Host memory of a rank: its o slots. Fits 64 bits where em_check_bytes accepts the plan. */
static inline uint64_t em_plan_host_bytes(const em_plan_t *plan, uint32_t pp)
{
    const em_plan_pool_t *const pool = &plan->ranks[pp].pools[EM_POOL_O];
    return pool->num * pool->bytes;
}
static inline uint32_t em_plan_first_rank(const em_plan_t *plan, uint32_t stage)
{
    return plan->place_ranks[plan->stages[stage].first_rank];
}
/* Passes that a record or an instruction stands for: itself, or the members of a braid. */
const em_instr_t *em_plan_passes(const em_plan_t *plan, const em_instr_t *instr, uint32_t *num);
/* F without a stash: its item is computed again. */
static inline bool em_is_stashless(const em_instr_t *pass)
{
    return pass->op == EM_OP_F && pass->slot[EM_POOL_W] == EM_NONE;
}
em_status_t em_check_bytes(const em_plan_t *plan, const char *name, em_error_t *err);

/* world.c: channels and groups. */
em_status_t em_world_make(em_world_t *world, const em_plan_t *plan, em_error_t *err);
void em_world_free(em_world_t *world);
em_world_channel_t *em_world_channel(const em_world_t *world, int32_t channel, uint32_t dp);
em_world_group_t *em_world_group(const em_world_t *world, int32_t group, uint32_t pp, uint32_t dp);
/* This rank's place among the members, which are ordered by pipeline rank, then replica. */
uint32_t em_world_member(const em_world_t *world, int32_t group, uint32_t pp, uint32_t dp);

/* rank.c: arena, stages, buckets. */
em_status_t em_rank_make(em_rank_t *rank, em_engine_shared_t *shared, uint32_t pp, uint32_t dp,
                         em_error_t *err);
void em_rank_free(em_rank_t *rank);
em_rank_stage_t *em_rank_find_stage(const em_rank_t *rank, uint32_t stage);
/* By the plan's number; NULL where the rank does not hold it. */
em_rank_bucket_t *em_rank_find_bucket(const em_rank_t *rank, uint32_t index);

/* decode.c: program to records. */
em_status_t em_rank_decode(em_rank_t *rank, em_error_t *err);

/* shard.c: what rests of a sharded bucket on its rank, and the whole of it. */
typedef enum { EM_STATE_PARAM = 0, EM_STATE_M, EM_STATE_V, EM_NUM_STATES } em_state_kind_t;
float *em_bucket_state(const em_rank_bucket_t *bucket, em_state_kind_t kind);
/* Let the passes of a rank use parameters or gradients that lie at `base`. */
void em_rank_bind_params(em_rank_t *rank, const em_rank_bucket_t *bucket, float *base);
void em_rank_bind_grads(em_rank_t *rank, const em_rank_bucket_t *bucket, float *base);
/* The whole of one state of a bucket, from all replicas; nobody may be changing it. */
void em_rank_gather(const em_rank_t *rank, const em_rank_bucket_t *bucket, em_state_kind_t kind,
                    float *whole);
/* Gather the parameters of a stage in p slots, from the first one on, for a validation. */
void em_rank_gather_stage(em_rank_t *rank, const em_rank_stage_t *stage);
/* How many p slots that takes. */
uint32_t em_plan_num_gathered(const em_plan_t *plan, uint32_t stage, uint32_t pp);
/* Whether passes of a stage use a bucket: its own, or the embedding that is a tied head's too. */
bool em_plan_stage_uses(const em_plan_t *plan, uint32_t stage, uint32_t pp, uint32_t bucket);

/* collective.c: what a wait for a group does. EM_ERR_EXEC: stopped, as em_rank_step. */
em_status_t em_rank_wait_group(em_rank_t *rank, const em_record_t *record, em_times_t *times);

/* late.c: the norm, judged at once or in the next step. */
em_judgement_t em_judge(double sum, double clip);
void em_late_check(em_rank_t *rank, double total_sum, double least_sum);
void em_late_undo(em_rank_t *rank, const em_rank_bucket_t *bucket);
/* After the last instruction of a step: count the update, or wait for its verdict. */
void em_late_end_step(em_rank_t *rank);
/* CHK, PV and UNDO of all buckets outside of a step, with the shared sums. */
void em_late_close(em_rank_t *rank);
/* Copies of a parameter on several ranks, whose updates were put right from different wrong ones
 * and so differ in their last bits: all become the first rank's. Between commands. */
void em_late_align(const em_engine_shared_t *shared);

/* interpret.c: one training step. EM_ERR_EXEC without a message in rank->error: another rank
 * failed and this one was told to stop. */
em_status_t em_rank_step(em_rank_t *rank);

/* evaluate.c: the validation loss, forward only. */
em_status_t em_rank_evaluate(em_rank_t *rank);
void em_evaluate_begin(em_engine_shared_t *shared);
double em_evaluate_end(em_engine_shared_t *shared);

/* learning_rate.c: the schedule of the learning rate. */
double em_learning_rate(const em_plan_train_t *train, uint64_t step);

/* trace.c */
em_status_t em_trace_write(const em_engine_shared_t *shared, const em_rank_t *ranks,
                           uint32_t num_ranks, uint64_t first_step, uint64_t num_steps,
                           const char *path, em_error_t *err);

#endif
