/*
 * Phase 3, between its files: the walk over one program.
 *
 * Rulings 15 to 23 of the page's section 10. Each *_fault function gives the text of what is wrong
 * with an instruction, or NULL; the text lives until the next fault.
 */
#ifndef EM_PROGRAM_H
#define EM_PROGRAM_H

#include "plan/em_reader.h"
#include "plan/em_slots.h"

/* Where an input of an item is. */
enum { EM_INPUT_NONE = 0, EM_INPUT_POSTED, EM_INPUT_READY };
/* Where its stash is: here, leaving, on the host, coming, here again. */
enum { EM_STASH_HERE = 0, EM_STASH_LEAVING, EM_STASH_HOST, EM_STASH_COMING, EM_STASH_BACK };

/* One item on this rank: parts done of each pass, slots by role, what is on its way. */
typedef struct {
    uint32_t done[EM_OP_RC + 1]; /* parts that ran, by op: F I W B RC */
    uint32_t num_parts;
    uint32_t exchanges[EM_PHASE_B + 1]; /* A2A and KV not yet waited, by pass */
    int32_t x_slot;
    int32_t y_slot;
    int32_t dy_slot;
    int32_t dx_slot;
    int32_t a_slot;
    int32_t w_slot;
    int32_t g_slot;
    int32_t k_slot; /* of slice 0 */
    int32_t o_slot;
    uint8_t x;
    uint8_t dy;
    uint8_t away;
    bool stash_by_f; /* F named a and w */
    bool y_moved;
    bool dx_moved;
} em_item_t;

/* One bucket on this rank; `posted` and `waited` count the closing posts since its last ZERO. */
typedef struct {
    uint32_t posted;
    uint32_t waited;
    int32_t q_slot;
    int32_t p_slot;
    int32_t first_post; /* oldest AG RS AR that is not waited, and the latest */
    int32_t last_post;
    bool opened;
    bool open;
    bool closed; /* opened, and all closing posts are over */
    bool stepped;
    bool gathered;
    bool gathering;
    bool judged;
    bool undone;
} em_bucket_state_t;

/* Buckets that the passes of a stage use. */
typedef struct {
    uint32_t num;
    uint32_t num_open;
    uint32_t num_sharded;
    uint32_t num_gathered;
} em_stage_use_t;

typedef struct {
    int32_t first; /* post of the program */
    int32_t last;
    int32_t waiting; /* the oldest that is not waited */
    uint32_t num;
} em_queue_state_t;

typedef struct {
    em_reader_t *reader;
    const em_plan_t *plan;
    bool shares_embedding;

    /* for all programs */
    em_map_t item_of_key;
    em_vec_t items;             /* em_item_t */
    em_bucket_state_t *buckets; /* by bucket */
    em_stage_use_t *stages;     /* by stage */
    em_queue_state_t *queues;   /* channels, groups, the copy queue */
    em_vec_t touched;           /* uint32_t: queues that this program posted on */
    int32_t *next_on_bucket;    /* by instruction of the program */
    em_slots_t slots;

    /* for this one */
    const em_program_t *program;
    const em_plan_rank_t *rank;
    em_instr_t *instrs;
    uint32_t *next_post; /* by instruction of the program */
    uint32_t pp;
    uint32_t num_unclosed; /* buckets of the rank whose gradient is not complete */
    uint64_t num_waiting;
    uint32_t num_norms;
    uint32_t norms_waited;
    uint32_t num_checks;
    uint32_t checks_waited;

    uint64_t index; /* of the instruction at hand */
    char text[256]; /* of a fault */
} em_walk_t;

/* Refuse the instruction at hand; always false. */
bool em_walk_refuse(em_walk_t *walk, em_verdict_code_t code, const char *wrong);
/* True if `wrong` is NULL, else em_walk_refuse. */
bool em_walk_require(em_walk_t *walk, em_verdict_code_t code, const char *wrong);
/* Bring the slots that an instruction names to life (prog.slot). */
bool em_walk_name(em_walk_t *walk, const em_instr_t *instr);

/* One step of the walk: a pass or the members of a braid; ZERO OPT PV UNDO; a post; a wait. */
bool em_walk_passes(em_walk_t *walk, const em_instr_t *members, int32_t num);
bool em_walk_bucket(em_walk_t *walk, const em_instr_t *instr);
bool em_walk_post(em_walk_t *walk, const em_instr_t *post);
bool em_walk_wait(em_walk_t *walk, em_instr_t *wait);

/* Format a fault. */
const char *em_fault(em_walk_t *walk, const char *fmt, ...) EM_PRINTF(2, 3);

static inline uint32_t em_num_parts(const em_plan_stage_t *stage)
{
    return stage->num_parts == 0 ? 1 : stage->num_parts;
}

/* Names that an instruction may use here (no braid): prog.ref. */
const char *em_ref_fault(em_walk_t *walk, const em_instr_t *instr);

/* The item of an instruction, made new if need be; NULL: no memory. Valid until the next one. */
em_item_t *em_item_of(em_walk_t *walk, const em_instr_t *instr, int32_t stage);
/* The same item of another slice, or NULL if nothing happened to it yet. */
const em_item_t *em_item_beside(const em_walk_t *walk, const em_instr_t *instr, int32_t slice);
/* Step of a pass (0: its first part) that an instruction takes. */
uint32_t em_step_of(const em_walk_t *walk, const em_instr_t *pass);
const char *em_order_fault(em_walk_t *walk, const em_instr_t *pass, const em_item_t *item);
const char *em_data_fault(const em_instr_t *pass, const em_item_t *item);
const char *em_output_fault(const em_item_t *item, bool forward);
const char *em_output_data_fault(const em_item_t *item, bool forward);
const char *em_offload_fault(const em_item_t *item);
const char *em_exchange_fault(const em_instr_t *post, const em_item_t *item);
/* True if the item has not begun, or has had its whole backward pass. */
bool em_item_complete(const em_item_t *item);

/* Prepare the buckets of a rank for a program. */
void em_buckets_begin(em_walk_t *walk);
const char *em_pass_bucket_fault(const em_walk_t *walk, const em_instr_t *pass);
const char *em_bucket_fault(em_walk_t *walk, const em_instr_t *instr);
const char *em_norm_fault(const em_walk_t *walk, const em_instr_t *instr);
/* Take the effect of a bucket's instruction, NORM or CHK. */
void em_bucket_apply(em_walk_t *walk, const em_instr_t *instr);
/* Take the effect of the wait of one; gives the q slot that ends with it, or EM_NONE. */
int32_t em_bucket_waited(em_walk_t *walk, const em_instr_t *post);
/* First bucket of the rank without OPT, or EM_NONE. */
int32_t em_bucket_unstepped(const em_walk_t *walk);

#endif
