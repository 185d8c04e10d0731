/* Decoding, between its files: the walk over one program and where it has left each item's data. */
#ifndef EM_DECODE_H
#define EM_DECODE_H

#include "runtime/em_rank.h"

/* Where the data of one item are, as far as the walk has come. */
typedef struct {
    float *x;
    float *y;
    float *dy;
    float *dx;
    float *a;
    float *w;
    float *g;
    float *k; /* at slice 0: of the whole microbatch */
    float *o; /* copy of a and w in host memory */
} em_places_t;

typedef struct {
    em_rank_t *rank;
    em_places_t *places; /* [stage of this rank][microbatch][slice] */
    uint32_t *posted;    /* [channel, then group]: posts so far */
    uint32_t *receives;  /* [channel]: receives posted so far */
    uint32_t num_works;
    uint32_t num_copies;
} em_decoding_t;

/* Address of the slot that an instruction names in a pool; NULL if it names none. */
float *em_decode_slot(const em_rank_t *rank, em_pool_t pool, const em_instr_t *instr);
/* Of the instruction's item, or of the same one in another stage of this rank. */
em_places_t *em_decode_places(const em_decoding_t *walk, int32_t stage, const em_instr_t *instr);
static inline uint32_t em_decode_slice(const em_instr_t *instr)
{
    return instr->slice < 0 ? 0 : (uint32_t)instr->slice;
}

/* decode_work.c: passes and braids, copies to the host, and the buckets that passes write to. */
void em_decode_passes(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record);
void em_decode_copy(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record);
void em_decode_zero(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record,
                    uint32_t index);
/* A bucket is about to be read: what no pass has written since its ZERO, that ZERO must clear. */
void em_decode_clear(em_decoding_t *walk, em_rank_bucket_t *bucket);

/* decode_queue.c: messages and groups. */
void em_decode_channel(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record);
void em_decode_group(em_decoding_t *walk, const em_instr_t *instr, em_record_t *record);

#endif
