/*
 * Phase 4: every item runs once, messages meet and fit. Ruling 24 of the page's section 10.
 */
#include <inttypes.h>

#include "common/em_arena.h"
#include "plan/em_board.h"

/* Where an item runs first; and second, if it does. */
typedef struct {
    uint64_t first_actor;
    uint64_t second_actor;
    const em_instr_t *second;
} em_runs_t;

static uint64_t key_of(uint64_t stage, uint64_t microbatch, uint64_t slice)
{
    return stage << 40 | microbatch << 20 | slice;
}

static bool note_pass(em_board_t *b, uint64_t actor, const em_instr_t *pass,
                      const em_instr_t *instr, em_map_t *item_of, em_vec_t *runs)
{
    if (pass->op != EM_OP_F || pass->part > 0) {
        return true;
    }
    const uint64_t slice = pass->slice < 0 ? 0 : (uint64_t)pass->slice;
    bool added = false;
    const uint32_t *const item =
        em_map_insert(item_of, key_of((uint64_t)pass->stage, (uint64_t)pass->microbatch, slice),
                      (uint32_t)runs->num, &added);
    if (item == NULL) {
        return em_no_memory(b->reader);
    }
    if (added) {
        em_runs_t *const run = em_vec_push(runs, sizeof *run);
        if (run == NULL) {
            return em_no_memory(b->reader);
        }
        run->first_actor = actor;
        return true;
    }
    em_runs_t *const run = &EM_AT(*runs, em_runs_t, *item);
    if (run->second == NULL) {
        run->second = instr;
        run->second_actor = actor;
    }
    return true;
}

static bool note_program(em_board_t *b, uint64_t actor, em_map_t *item_of, em_vec_t *runs)
{
    const em_program_t *const program = em_program_of(b, actor);
    for (uint64_t i = 0; i < program->num_instrs; i++) {
        const em_instr_t *const instr = &program->instrs[i];
        const bool braid = instr->op == EM_OP_FB;
        const em_instr_t *const passes = braid ? &b->plan->members[instr->queue] : instr;
        for (int32_t p = 0; p < (braid ? instr->bucket : 1); p++) {
            if (!note_pass(b, actor, &passes[p], instr, item_of, runs)) {
                return false;
            }
        }
    }
    return true;
}

static bool check_item(em_board_t *b, uint32_t class, const em_plan_stage_t *stage, uint64_t key,
                       const em_map_t *item_of, const em_vec_t *runs)
{
    const uint32_t *const item = em_map_find(item_of, key);
    const em_runs_t *const run = item == NULL ? NULL : &EM_AT(*runs, em_runs_t, *item);
    if (run != NULL && run->second == NULL) {
        return true;
    }
    char name[64];
    const int cut = b->plan->train.slices > 1 ? (int)(key & EM_MAX_INDEX) : EM_NONE;
    const em_instr_t as_free = {.op = EM_OP_LF,
                                .stage = (int32_t)(key >> 40),
                                .microbatch = (int32_t)(key >> 20 & EM_MAX_INDEX),
                                .slice = cut,
                                .part = EM_NONE,
                                .bucket = EM_NONE,
                                .queue = EM_NONE,
                                .slot = {EM_NONE, EM_NONE, EM_NONE, EM_NONE, EM_NONE}};
    (void)em_instr_text(b->plan, &as_free, name, sizeof name);
    if (run != NULL) {
        return em_refuse(b->reader, EM_VERDICT_PAIR_WORK, run->second->line,
                         "rank %" PRIu64 ": item %s runs on rank %" PRIu64 " too",
                         run->second_actor % b->num_ranks, name + 3,
                         run->first_actor % b->num_ranks);
    }
    const uint32_t rank = b->plan->place_ranks[stage->first_rank];
    return em_refuse(b->reader, EM_VERDICT_PAIR_WORK,
                     em_program_of(b, em_actor(b, class, rank))->end_line,
                     "rank %" PRIu32 ": no rank runs item %s", rank, name + 3);
}

static bool check_items(em_board_t *b, uint32_t class, em_map_t *item_of, em_vec_t *runs)
{
    const em_plan_t *const plan = b->plan;
    em_map_clear(item_of);
    runs->num = 0;
    for (uint32_t pp = 0; pp < b->num_ranks; pp++) {
        if (!note_program(b, em_actor(b, class, pp), item_of, runs)) {
            return false;
        }
    }
    for (uint32_t s = 0; s < plan->num_stages; s++) {
        for (uint64_t mb = 0; mb < plan->train.m; mb++) {
            for (uint64_t slice = 0; slice < plan->train.slices; slice++) {
                if (!check_item(b, class, &plan->stages[s], key_of(s, mb, slice), item_of, runs)) {
                    return false;
                }
            }
        }
    }
    return true;
}

/* The posts of one end of a channel in one class. */
typedef struct {
    uint64_t actor;
    uint32_t next;
    uint32_t num;
} em_end_t;

static bool check_channel(em_board_t *b, const em_plan_channel_t *channel, em_end_t ends[2])
{
    const int32_t step = channel->backward ? -1 : 1;
    while (ends[0].num > 0 && ends[1].num > 0) {
        const em_instr_t *const send = em_post_at(b, ends[0].actor, ends[0].next);
        const em_instr_t *const receive = em_post_at(b, ends[1].actor, ends[1].next);
        if (send->stage + step != receive->stage || send->microbatch != receive->microbatch ||
            send->slice != receive->slice) {
            (void)em_refuse_actor(
                b, EM_VERDICT_PAIR_MESSAGE, ends[1].actor, receive,
                "the message does not meet its send: both ends of a channel must post "
                "the same items in the same order");
            return em_advise(b->reader,
                             "the send is that of %d.%d at line %" PRIu32 " of rank %" PRIu32,
                             send->stage, send->microbatch, send->line, channel->src);
        }
        for (int end = 0; end < 2; end++) {
            ends[end].next = em_next_post(b, ends[end].actor, ends[end].next);
            ends[end].num--;
        }
    }
    for (int end = 0; end < 2; end++) {
        if (ends[end].num > 0) {
            return em_refuse_actor(b, EM_VERDICT_PAIR_MESSAGE, ends[end].actor,
                                   em_post_at(b, ends[end].actor, ends[end].next),
                                   "the other end of the channel has no partner for it");
        }
    }
    return true;
}

static bool check_messages(em_board_t *b, uint32_t class, em_end_t *ends)
{
    const em_plan_t *const plan = b->plan;
    for (uint64_t i = 0; i < 2 * (uint64_t)plan->num_channels; i++) {
        ends[i].num = 0;
    }
    for (uint32_t pp = 0; pp < b->num_ranks; pp++) {
        const uint64_t actor = em_actor(b, class, pp);
        const em_program_extra_t *const extra = em_extra_of(b, actor);
        for (uint64_t i = 0; i < extra->num_uses; i++) {
            const em_queue_use_t *const use =
                &EM_AT(b->reader->uses, em_queue_use_t, extra->first_use + i);
            if (use->queue < plan->num_channels) {
                const bool receives = plan->channels[use->queue].dst == pp;
                ends[2 * (uint64_t)use->queue + receives] =
                    (em_end_t){.actor = actor, .next = use->first, .num = use->num};
            }
        }
    }
    for (uint32_t c = 0; c < plan->num_channels; c++) {
        if (!check_channel(b, &plan->channels[c], &ends[2 * (uint64_t)c])) {
            return false;
        }
    }
    return true;
}

static bool check_bytes(em_board_t *b)
{
    for (uint32_t c = 0; c < b->plan->num_channels; c++) {
        const em_plan_channel_t *const channel = &b->plan->channels[c];
        const uint32_t ends[2] = {channel->src, channel->dst};
        for (int end = 0; end < 2; end++) {
            const em_plan_pool_t *const pool = &b->plan->ranks[ends[end]].pools[EM_POOL_H];
            if (channel->bytes > pool->bytes) {
                return em_refuse(b->reader, EM_VERDICT_PAIR_BYTES, channel->line,
                                 "a message of channel %s does not fit a slot of pool h of rank "
                                 "%" PRIu32 ": got %" PRIu64 " bytes, expected at most %" PRIu64,
                                 em_name_text(b->plan, channel->name), ends[end], channel->bytes,
                                 pool->bytes);
            }
        }
    }
    return true;
}

static bool check_all(em_board_t *board)
{
    em_map_t item_of = {.capacity = 0};
    em_vec_t runs = {.num = 0};
    em_end_t *const ends =
        em_alloc_zeroed(2 * (uint64_t)board->plan->num_channels + 1, sizeof *ends);
    bool good = ends != NULL || em_no_memory(board->reader);
    for (uint32_t class = 0; good && class < board->num_classes; class ++) {
        good = check_items(board, class, &item_of, &runs) && check_messages(board, class, ends);
    }
    good = good && check_bytes(board) && em_check_groups(board);
    em_map_free(&item_of);
    em_vec_free(&runs);
    em_free(ends);
    return good;
}

bool em_check_pairs(em_reader_t *reader)
{
    em_board_t board;
    const bool good = em_board_create(&board, reader) && check_all(&board);
    em_board_destroy(&board);
    return good;
}

bool em_check_progress(em_reader_t *reader)
{
    em_board_t board;
    const bool good = em_board_create(&board, reader) && em_play_strict(&board) &&
                      (!reader->plan->serial || em_play_serial(&board));
    em_board_destroy(&board);
    return good;
}
