/*
 * The reader of a plan: what its phases share.
 *
 * Phase 1 (text.c, header*.c, body.c) turns lines into records, and sees every line before any
 * phase after it looks at one. Phases 2 to 5 (head*.c, program*.c, pair*.c, strict.c, serial.c)
 * look at records alone. A phase gives true, or false after em_refuse (a verdict) or em_no_memory.
 */
#ifndef EM_READER_H
#define EM_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "exactmap/plan.h"
#include "plan/em_vec.h"

enum {
    EM_MAX_FILE_BYTES = 1 << 30,
    EM_MAX_LINE_BYTES = 4096,
    EM_MAX_INDEX = 1048575,
    EM_MAX_INSTRS = 1 << 24,
    EM_FIRST_STAGE_LINE = 7,
    EM_MODEL_LINE = 3,
    EM_TRAIN_LINE = 4,
    EM_MESH_LINE = 6
};

/* One `R=..` of the place line. */
typedef struct {
    uint32_t stage;
    uint32_t first_rank; /* in place_ranks */
    uint32_t num_ranks;
} em_raw_place_t;

typedef struct {
    uint32_t stage[2];
    uint32_t index[2];
    uint32_t line;
} em_raw_tie_t;

typedef struct {
    uint32_t pp;
    uint32_t line;
    uint64_t bytes;
} em_raw_arena_t;

/* A region or pool line; regions have num 1. */
typedef struct {
    uint32_t pp;
    uint32_t kind; /* em_region_t or em_pool_t */
    uint32_t line;
    uint64_t num;
    uint64_t bytes;
    uint64_t at;
} em_raw_block_t;

typedef struct {
    uint32_t pp;
    int32_t dp; /* EM_NONE: the default of all replicas */
    uint32_t name;
    uint32_t line;
} em_raw_map_t;

typedef struct {
    uint32_t kind; /* place in F I W B RC FB */
    uint32_t axes; /* bits */
    bool out_of_order;
} em_raw_couple_t;

/* The first post of a program on a queue, how many there are, and the next one of each. */
typedef struct {
    uint32_t queue; /* a channel, or num_channels + group */
    uint32_t first; /* instruction of the program */
    uint32_t num;
} em_queue_use_t;

typedef struct {
    uint64_t first_instr; /* in em_store_t.instrs */
    uint64_t first_use;   /* in em_reader_t.uses */
    uint64_t num_uses;
} em_program_extra_t;

/* Everything that a plan owns. The public part comes first, so that one is the other. */
typedef struct {
    em_plan_t plan;
    em_vec_t stages;        /* em_plan_stage_t */
    em_vec_t parts;         /* uint32_t */
    em_vec_t place_ranks;   /* uint32_t */
    em_vec_t channels;      /* em_plan_channel_t */
    em_vec_t groups;        /* em_plan_group_t */
    em_vec_t group_ranks;   /* uint32_t */
    em_vec_t buckets;       /* em_plan_bucket_t */
    em_vec_t reduce_groups; /* int32_t */
    em_vec_t ties;          /* em_plan_tie_t */
    em_vec_t ranks;         /* em_plan_rank_t */
    em_vec_t overrides;     /* em_plan_override_t */
    em_vec_t programs;      /* em_program_t */
    em_vec_t instrs;        /* em_instr_t, all programs one after the other */
    em_vec_t members;       /* em_instr_t */
    em_vec_t names;         /* char[EM_NAME_BYTES] */
} em_store_t;

typedef struct {
    const uint8_t *bytes;
    size_t num_bytes;
    em_store_t *store;
    em_plan_t *plan; /* the public part of the store */
    em_verdict_t *verdict;
    bool no_memory;
    bool plain; /* take every line by the whole grammar, common ones too */

    em_map_t name_of_text;    /* hash of a text -> name */
    em_map_t channel_of_name; /* name -> channel; the first of that name */
    em_map_t group_of_name;   /* name -> group; the first of that name */
    em_map_t bucket_of_pair;  /* S << 20 | K -> bucket; the first such */
    em_map_t part_of_pair;    /* S << 32 | name -> part of the stage */
    em_map_t program_of_name; /* name -> program; the first of that name */

    uint64_t place_line;
    uint64_t couple_line;
    bool couple_bad;      /* kinds or axes repeated or out of order, or an axis pp or dp */
    em_vec_t raw_places;  /* em_raw_place_t */
    em_vec_t raw_ties;    /* em_raw_tie_t */
    em_vec_t raw_arenas;  /* em_raw_arena_t */
    em_vec_t raw_regions; /* em_raw_block_t */
    em_vec_t raw_pools;   /* em_raw_block_t */
    em_vec_t raw_maps;    /* em_raw_map_t */

    em_vec_t extras;      /* em_program_extra_t, one per program */
    em_vec_t rank_first;  /* uint32_t: stages of rank r are rank_stages[rank_first[r]..[r+1]) */
    em_vec_t rank_stages; /* uint32_t, ascending */
    em_vec_t uses;        /* em_queue_use_t */
    em_vec_t next_post;   /* uint32_t per instruction: the next post on its queue, or UINT32_MAX */
} em_reader_t;

/* As em_plan_read_timed; `plain` as in em_reader_t: tests hold one way against the other. */
em_status_t em_plan_read_by(const uint8_t *bytes, size_t num_bytes, em_plan_t **plan,
                            em_verdict_t *verdict, em_plan_times_t *times, bool plain);

/* Set the verdict; always false. */
bool em_refuse(em_reader_t *reader, em_verdict_code_t code, uint64_t line, const char *fmt, ...)
    EM_PRINTF(4, 5);
/* Add a hint to the verdict; always false. */
bool em_advise(em_reader_t *reader, const char *fmt, ...) EM_PRINTF(2, 3);
/* Note that memory ran out; always false. */
bool em_no_memory(em_reader_t *reader);

/* Text of a line of the file without its LF (for messages; walks the file). */
void em_line_text(const em_reader_t *reader, uint64_t line, char *text, size_t size);

/* The number of a name, which is added if it is new; EM_NONE: no memory. */
int32_t em_intern(em_reader_t *reader, const char *text, size_t num_bytes);
/* The number of a name that was seen before; EM_UNKNOWN if it was not. */
int32_t em_find_name(const em_reader_t *reader, const char *text, size_t num_bytes);
/* Text of a name, "" for a negative number. */
const char *em_name_text(const em_plan_t *plan, int64_t name);

/* True if the tied head uses the embedding's own bucket: no bucket of the last stage holds it. */
bool em_shares_embedding(const em_plan_t *plan);

/* Point the public arrays at what the vectors hold. */
void em_store_publish(em_store_t *store);

/* Phase 1: the lines, then the hash of the body. */
bool em_read_text(em_reader_t *reader);
bool em_check_hash(em_reader_t *reader);
/* Phase 2, whole; of it buckets and ties, memory of the ranks, and which programs they run. */
bool em_check_head(em_reader_t *reader);
bool em_check_parameters(em_reader_t *reader);
bool em_check_memory(em_reader_t *reader);
bool em_check_maps(em_reader_t *reader);
/* Phase 3. */
bool em_check_programs(em_reader_t *reader);
/* Phase 4. */
bool em_check_pairs(em_reader_t *reader);
/* Phase 5. */
bool em_check_progress(em_reader_t *reader);

#endif
