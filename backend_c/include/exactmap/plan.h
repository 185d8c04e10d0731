/*
 * The plan file, read and checked (docs/reference/plan-format.md is the meaning of every word).
 *
 * em_plan_read takes the bytes of a plan file and gives either a plan that passed every check of
 * the page's section 7, or the verdict: the first rule that fails, its line, and why. The plan is
 * plain data, read-only, and holds no pointer into the bytes that it was read from; instructions
 * stand in arrays of fixed-size records, REP blocks already written out, names and buckets already
 * resolved to indices. Everything is freed by em_plan_free.
 *
 *     em_plan_t *plan = NULL;
 *     em_verdict_t verdict;
 *     if (em_plan_read(bytes, num_bytes, &plan, &verdict) != EM_OK) {
 *         puts(verdict.text);
 *     }
 *     const em_program_t *program = em_plan_program(plan, pp, dp);
 *     for (uint64_t i = 0; i < program->num_instrs; i++) { ... program->instrs[i] ... }
 *     em_plan_free(plan);
 */
#ifndef EXACTMAP_PLAN_H
#define EXACTMAP_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exactmap/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- verdicts -------------------------------------------------------------------------- */

/* The codes of section 7. Numbers are stable, with a gap after each phase. */
typedef enum {
    EM_VERDICT_OK = 0,
    EM_VERDICT_TEXT_SIZE = 100,
    EM_VERDICT_TEXT_ASCII = 101,
    EM_VERDICT_TEXT_VERSION = 102,
    EM_VERDICT_TEXT_KEYWORD = 103,
    EM_VERDICT_TEXT_ORDER = 104,
    EM_VERDICT_TEXT_LINE = 105,
    EM_VERDICT_TEXT_RANGE = 106,
    EM_VERDICT_TEXT_REP = 107,
    EM_VERDICT_TEXT_HASH = 108,
    EM_VERDICT_HEAD_MODEL = 200,
    EM_VERDICT_HEAD_TRAIN = 201,
    EM_VERDICT_HEAD_MESH = 202,
    EM_VERDICT_HEAD_STAGE = 203,
    EM_VERDICT_HEAD_PLACE = 204,
    EM_VERDICT_HEAD_COUPLE = 205,
    EM_VERDICT_HEAD_CHANNEL = 206,
    EM_VERDICT_HEAD_GROUP = 207,
    EM_VERDICT_HEAD_BUCKET = 208,
    EM_VERDICT_HEAD_TIE = 209,
    EM_VERDICT_HEAD_ARENA = 210,
    EM_VERDICT_ARENA_BUDGET = 211,
    EM_VERDICT_HEAD_MAP = 212,
    EM_VERDICT_PROG_REF = 300,
    EM_VERDICT_PROG_WAIT = 301,
    EM_VERDICT_PROG_WORK = 302,
    EM_VERDICT_PROG_ORDER = 303,
    EM_VERDICT_PROG_DATA = 304,
    EM_VERDICT_PROG_BUCKET = 305,
    EM_VERDICT_PROG_NORM = 306,
    EM_VERDICT_PROG_SLOT = 307,
    EM_VERDICT_PROG_LIMIT = 308,
    EM_VERDICT_PAIR_WORK = 400,
    EM_VERDICT_PAIR_MESSAGE = 401,
    EM_VERDICT_PAIR_BYTES = 402,
    EM_VERDICT_PAIR_GROUP = 403,
    EM_VERDICT_GRAPH_DEADLOCK = 500,
    EM_VERDICT_GRAPH_SERIAL = 501
} em_verdict_code_t;

enum { EM_VERDICT_TEXT_BYTES = 8192, EM_VERDICT_HINT_BYTES = 512 };

/* What a reader says of a file. `text` is one message (for a deadlock: the cycle, a line each),
 * cut with "..." where it would not fit. */
typedef struct {
    em_verdict_code_t code;
    uint64_t line; /* of the file, from 1; 0 if the plan is accepted */
    char text[EM_VERDICT_TEXT_BYTES];
    char hint[EM_VERDICT_HINT_BYTES]; /* empty if there is none */
} em_verdict_t;

/* "graph.deadlock" for EM_VERDICT_GRAPH_DEADLOCK; "ok" for EM_VERDICT_OK; "?" if unknown. */
EM_API const char *em_verdict_name(em_verdict_code_t code);

/* The status that em_plan_read returns with a code: of the family of invalid input, or EM_OK. */
EM_API em_status_t em_verdict_status(em_verdict_code_t code);

/* ---- instructions ---------------------------------------------------------------------- */

typedef enum {
    /* work */
    EM_OP_F = 0,
    EM_OP_I,
    EM_OP_W,
    EM_OP_B,
    EM_OP_RC,
    EM_OP_FB,
    EM_OP_ZERO,
    EM_OP_OPT,
    EM_OP_PV,
    EM_OP_UNDO,
    /* post */
    EM_OP_SF,
    EM_OP_SB,
    EM_OP_RF,
    EM_OP_RB,
    EM_OP_AG,
    EM_OP_RS,
    EM_OP_AR,
    EM_OP_A2A_D,
    EM_OP_A2A_C,
    EM_OP_KV,
    EM_OP_NORM,
    EM_OP_CHK,
    EM_OP_OFF,
    EM_OP_LD,
    /* wait */
    EM_OP_WS,
    EM_OP_WR,
    EM_OP_WC,
    EM_OP_WOFF,
    EM_OP_WLD,
    /* note */
    EM_OP_LF,
    EM_OP_LB,
    EM_OP_FREE,
    EM_OP_MARK,
    EM_OP_END,
    EM_NUM_OPS
} em_op_t;

/* The word of an op in the file, e.g. "A2A_D"; "?" if unknown. */
EM_API const char *em_op_name(em_op_t op);

typedef enum {
    EM_POOL_H = 0,
    EM_POOL_A,
    EM_POOL_W,
    EM_POOL_G,
    EM_POOL_K,
    EM_POOL_P,
    EM_POOL_Q,
    EM_POOL_O,
    EM_NUM_POOLS
} em_pool_t;

typedef enum { EM_PHASE_NONE = 0, EM_PHASE_F, EM_PHASE_I, EM_PHASE_B } em_phase_t;

enum {
    EM_NONE = -1,      /* the instruction has no such operand */
    EM_UNKNOWN = -2,   /* names something undeclared; never in a plan that was accepted */
    EM_INSTR_SLOTS = 5 /* h, a, w, g, k; the last also holds p, q or o */
};

/*
 * One instruction of 56 bytes. Operands that its op does not have are EM_NONE.
 *
 * F I W B RC, SF SB RF RB, WS WR, OFF LD WOFF WLD, LF LB: stage, microbatch (slice, part)
 * A2A_D A2A_C KV and their WC: the same, phase, group in `queue`
 * ZERO OPT PV UNDO FREE, AG RS AR and their WC: stage, bucket (group in `queue`)
 * NORM CHK and their WC: group in `queue` alone
 * SF SB RF RB WS WR: channel in `queue`
 * FB: `queue` is the first of its `bucket` members in em_plan_t.members
 * MARK: `queue` is its name in em_plan_t.names
 */
typedef struct {
    uint8_t op;    /* em_op_t */
    uint8_t phase; /* em_phase_t */
    uint8_t extra; /* em_pool_t of slot[4] if that is named: K, P, Q or O; else 0 */
    uint8_t reserved;
    uint32_t line; /* of the file, from 1; lines of a REP repeat */
    int32_t stage;
    int32_t microbatch;
    int32_t slice;
    int32_t part;   /* index in the stage's parts */
    int32_t bucket; /* index in em_plan_t.buckets */
    int32_t queue;  /* index in em_plan_t.channels or .groups, see above */
    int32_t slot[EM_INSTR_SLOTS];
    int32_t match; /* post: its wait in this program; wait: its post; else EM_NONE */
} em_instr_t;

/* Slot that an instruction names in a pool, or EM_NONE. */
EM_API int32_t em_instr_slot(const em_instr_t *instr, em_pool_t pool);

/* ---- declarations ---------------------------------------------------------------------- */

enum { EM_NAME_BYTES = 33 }; /* 32 and the closing zero */

typedef struct {
    bool llama; /* else gpt */
    uint64_t layers;
    uint64_t hidden;
    uint64_t heads;
    uint64_t kv_heads;
    uint64_t head_dim;
    uint64_t ffn;
    uint64_t vocab;
    uint64_t positions;
    bool tied;
    double eps;
    double theta;
} em_plan_model_t;

typedef struct {
    uint64_t microbatch; /* sequences */
    uint64_t m;          /* microbatches per step and replica */
    uint64_t seq;        /* tokens */
    uint64_t slices;
    double lr;
    double lr_min;
    uint64_t warmup; /* steps */
    uint64_t steps;
    double beta1;
    double beta2;
    double eps;
    double decay;
    double clip; /* 0: no clipping */
    uint64_t seed;
} em_plan_train_t;

typedef enum { EM_DTYPE_F32 = 0, EM_DTYPE_BF16, EM_DTYPE_F16, EM_DTYPE_F8, EM_DTYPE_F4 } em_dtype_t;

typedef struct {
    em_dtype_t param;
    em_dtype_t grad;
    em_dtype_t act;
    em_dtype_t comm;
    em_dtype_t moment;
} em_plan_precision_t;

typedef enum {
    EM_AXIS_TP = 0,
    EM_AXIS_CP,
    EM_AXIS_EP,
    EM_AXIS_PP,
    EM_AXIS_DP,
    EM_NUM_AXES
} em_axis_t;

typedef struct {
    uint64_t size[EM_NUM_AXES]; /* by em_axis_t */
    em_axis_t order[EM_NUM_AXES];
    uint32_t num_order; /* axes that `order` names; 5 in a plan that was accepted */
} em_plan_mesh_t;

/* Parts of a stage's parameters that a bucket may hold; a bit each. */
enum {
    EM_HOLDS_WTE = 1u << 0,
    EM_HOLDS_WPE = 1u << 1,
    EM_HOLDS_LAYERS = 1u << 2,
    EM_HOLDS_NORM = 1u << 3,
    EM_HOLDS_HEAD = 1u << 4
};

typedef struct {
    uint64_t number;      /* S as written */
    uint64_t first_layer; /* first_layer..last_layer, both included, if has_layers */
    uint64_t last_layer;
    bool has_layers;
    bool embedding;
    bool head;
    uint32_t num_parts;
    uint32_t first_part; /* in em_plan_t.parts, an index into names each */
    uint32_t num_ranks;
    uint32_t first_rank; /* in em_plan_t.place_ranks, pipeline ranks ascending */
    uint32_t num_buckets;
    uint32_t first_bucket; /* in em_plan_t.buckets */
    uint32_t line;
} em_plan_stage_t;

typedef struct {
    uint32_t name; /* in em_plan_t.names */
    uint32_t src;  /* pipeline ranks */
    uint32_t dst;
    bool backward; /* class B, else F */
    uint64_t depth;
    uint64_t bytes; /* of one message */
    uint32_t line;
} em_plan_channel_t;

typedef enum { EM_SCAN_NONE = 0, EM_SCAN_UP, EM_SCAN_DOWN } em_scan_t;

typedef struct {
    uint32_t name;
    uint32_t axes; /* bit 1 << em_axis_t */
    bool axis_twice;
    em_scan_t scan;
    bool has_pp;     /* names its member pipeline ranks; else all */
    uint32_t num_pp; /* in em_plan_t.group_ranks, ascending */
    uint32_t first_pp;
    uint32_t line;
} em_plan_group_t;

typedef struct {
    uint32_t stage; /* S/K as written */
    uint32_t index;
    uint32_t holds; /* EM_HOLDS_ bits */
    bool holds_twice;
    uint64_t elements; /* with padding */
    int32_t shard;     /* group, or EM_NONE */
    uint32_t num_reduce;
    uint32_t first_reduce; /* in em_plan_t.reduce_groups, in closing order */
    uint32_t line;
} em_plan_bucket_t;

/* Two buckets (in em_plan_t.buckets) that hold copies of one parameter. */
typedef struct {
    int32_t first;
    int32_t second;
    uint32_t line;
} em_plan_tie_t;

typedef enum {
    EM_REGION_PARAMS = 0,
    EM_REGION_GRADS,
    EM_REGION_MOMENTS,
    EM_REGION_STAGING,
    EM_REGION_WORKSPACE,
    EM_NUM_REGIONS
} em_region_t;

typedef struct {
    uint64_t bytes;
    uint64_t at;   /* from the start of the rank's arena */
    uint32_t line; /* 0: the plan has no such region on this rank */
} em_plan_region_t;

typedef struct {
    uint64_t num;   /* slots; 0: no such pool on this rank */
    uint64_t bytes; /* of one slot */
    uint64_t at;    /* of slot 0; slot i lies at + i * bytes; pool o: 0, in host memory */
    uint32_t line;
} em_plan_pool_t;

/* What one pipeline rank holds (of every replica, at every tp, cp, ep). */
typedef struct {
    uint64_t arena_bytes;
    uint32_t arena_line;
    uint32_t program; /* the default one, in em_plan_t.programs */
    em_plan_region_t regions[EM_NUM_REGIONS];
    em_plan_pool_t pools[EM_NUM_POOLS];
} em_plan_rank_t;

/* `map pp=R,dp=D`: rank `pp` of replica `dp` runs another program. Ascending by (pp, dp). */
typedef struct {
    uint32_t pp;
    uint32_t dp;
    uint32_t program;
    uint32_t line;
} em_plan_override_t;

typedef struct {
    uint32_t name;
    uint32_t line;       /* of `program NAME` */
    uint32_t end_line;   /* of its END */
    uint32_t pp;         /* the one pipeline rank that runs it */
    uint64_t num_instrs; /* END included */
    const em_instr_t *instrs;
} em_program_t;

/* Pass kinds of `couple`, in the order of the page: F I W B RC. */
enum { EM_NUM_COUPLED = 5 };

typedef struct {
    uint64_t minor;       /* of the format version 1.MINOR */
    char file_sha256[65]; /* hex, of the whole file: the name of this plan everywhere */
    char body_sha256[65];
    uint64_t file_bytes;
    uint64_t num_lines;

    em_plan_model_t model;
    em_plan_train_t train;
    em_plan_precision_t precision;
    em_plan_mesh_t mesh;
    bool clock_free; /* else barrier */
    bool serial;
    uint64_t limit;
    uint32_t couple[EM_NUM_COUPLED]; /* axes bits per kind */
    bool has_budget;
    uint64_t budget_bytes;

    uint32_t num_stages;
    uint32_t num_channels;
    uint32_t num_groups;
    uint32_t num_buckets;
    uint32_t num_ties;
    uint32_t num_ranks; /* pipeline ranks: the mesh's pp */
    uint32_t num_overrides;
    uint32_t num_programs;
    const em_plan_stage_t *stages;
    const em_plan_channel_t *channels;
    const em_plan_group_t *groups;
    const em_plan_bucket_t *buckets;
    const em_plan_tie_t *ties;
    const em_plan_rank_t *ranks;
    const em_plan_override_t *overrides;
    const em_program_t *programs;

    const em_instr_t *members; /* of FB instructions */
    uint64_t num_members;
    const char (*names)[EM_NAME_BYTES]; /* channels, groups, parts, marks, programs */
    uint32_t num_names;
    const uint32_t *parts;        /* names */
    const uint32_t *place_ranks;  /* pipeline ranks */
    const uint32_t *group_ranks;  /* pipeline ranks */
    const int32_t *reduce_groups; /* groups */
} em_plan_t;

/* ---- reading --------------------------------------------------------------------------- */

/*
 * Read and check `num_bytes` of a plan file. On success *plan is the caller's to free. Otherwise
 * *plan is NULL and `verdict` (never NULL) says why: the status is of the invalid-input family,
 * or EM_ERR_MEMORY, then with code EM_VERDICT_OK and line 0, as memory says nothing of the plan.
 */
EM_API em_status_t em_plan_read(const uint8_t *bytes, size_t num_bytes, em_plan_t **plan,
                                em_verdict_t *verdict);

/* CPU nanoseconds of the calling thread in each part of a reading; 0 for what was not reached. */
typedef struct {
    uint64_t text;     /* phase 1: lines into records */
    uint64_t hash;     /* SHA-256 of the body and of the file */
    uint64_t head;     /* phase 2 */
    uint64_t programs; /* phase 3 */
    uint64_t pairs;    /* phase 4 */
    uint64_t progress; /* phase 5 */
} em_plan_times_t;

/* As em_plan_read; also says how long it took. */
EM_API em_status_t em_plan_read_timed(const uint8_t *bytes, size_t num_bytes, em_plan_t **plan,
                                      em_verdict_t *verdict, em_plan_times_t *times);

/*
 * As em_plan_read, from a file. A file that cannot be read gives EM_ERR_IO; `err` (NULL is
 * allowed) gets the whole message, with file, line, code and hint, whatever failed.
 */
EM_API em_status_t em_plan_load(const char *path, em_plan_t **plan, em_verdict_t *verdict,
                                em_error_t *err);

EM_API void em_plan_free(em_plan_t *plan);

/* Program of pipeline rank `pp` in replica `dp`. */
EM_API const em_program_t *em_plan_program(const em_plan_t *plan, uint32_t pp, uint64_t dp);

/* True if pipeline rank `pp` is a member of a group (in the group's own coordinates otherwise). */
EM_API bool em_plan_group_has(const em_plan_t *plan, uint32_t group, uint32_t pp);

/* True if stage `stage` is placed on pipeline rank `pp`. */
EM_API bool em_plan_stage_on(const em_plan_t *plan, uint32_t stage, uint32_t pp);

/*
 * The instruction as the file has it (inside a REP: with its numbers filled in), zero-terminated,
 * cut if it needs more than `size` bytes. Returns the bytes that the whole text needs.
 */
EM_API size_t em_instr_text(const em_plan_t *plan, const em_instr_t *instr, char *text,
                            size_t size);

/* ---- hashes ---------------------------------------------------------------------------- */

/* SHA-256 (FIPS 180-4) as lower-case hex, zero-terminated. */
EM_API void em_sha256_hex(const uint8_t *bytes, size_t num_bytes, char hex[65]);

#ifdef __cplusplus
}
#endif
#endif
