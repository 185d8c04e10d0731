/* The trace of a run, in the form of docs/reference/trace.md. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "io/em_file.h"
#include "runtime/em_rank.h"

static bool is_post(uint8_t op)
{
    return op >= EM_OP_SF && op <= EM_OP_LD;
}

static bool is_work(uint8_t op)
{
    return op <= EM_OP_UNDO;
}

/* When each record's transfer began and ended, seen from the other end where that did it. */
typedef struct {
    uint64_t s_ns;
    uint64_t done_ns;
    bool known;
} em_transfer_t;

/* Waits tell what their posts did: a WR stamps for both ends, a WC for itself. */
static void collect(const em_rank_t *rank, const em_times_t *times, em_transfer_t *transfers)
{
    for (uint32_t i = 0; i < rank->num_records; i++) {
        const em_record_t *const record = &rank->records[i];
        if (record->post == UINT32_MAX) {
            continue;
        }
        em_transfer_t *const transfer = &transfers[record->post];
        transfer->done_ns = times[i].e_ns;
        transfer->s_ns = times[i].s_ns;
        transfer->known = record->op != EM_OP_WS;
    }
}

/* A send's transfer is the one that its receiver stamped: look it up over there. */
static void collect_sends(const em_rank_t *rank, const em_rank_t *receiver,
                          const em_times_t *received, em_transfer_t *transfers)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < receiver->num_records; i++) {
        const em_record_t *const record = &receiver->records[i];
        if (record->op != EM_OP_WR) {
            continue;
        }
        /* sends of one channel stand in the order of their numbers, as do the receives */
        for (uint32_t tried = 0; tried < rank->num_records; tried++) {
            const uint32_t k = (at + tried) % rank->num_records;
            const em_record_t *const send = &rank->records[k];
            if ((send->op == EM_OP_SF || send->op == EM_OP_SB) &&
                send->channel == record->channel && send->number == record->number) {
                em_transfer_t *const transfer = &transfers[k];
                transfer->s_ns = received[i].s_ns;
                if (received[i].e_ns < transfer->done_ns) {
                    transfer->done_ns = received[i].e_ns;
                }
                transfer->known = true;
                at = k + 1;
                break;
            }
        }
    }
}

static void write_rank(FILE *out, const em_rank_t *rank, const em_times_t *times,
                       const em_transfer_t *transfers, uint64_t step)
{
    for (uint32_t i = 0; i < rank->num_records; i++) {
        const em_instr_t *const instr = &rank->program->instrs[i];
        char text[4352]; /* a braid may fill a line of the plan */
        (void)em_instr_text(rank->shared->plan, instr, text, sizeof text);
        (void)fprintf(out,
                      "%" PRIu64 "\t%" PRIu32 "\t0\t%" PRIu32 "\t%" PRIu32 "\t%" PRIu32 "\t%s\t",
                      step, rank->dp, rank->pp, i, instr->line, text);
        if (is_work(instr->op)) {
            (void)fprintf(out, "%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t-1\n", times[i].a_ns,
                          times[i].a_ns, times[i].e_ns);
        } else if (!is_post(instr->op)) {
            (void)fprintf(out, "%" PRIu64 "\t-1\t%" PRIu64 "\t-1\n", times[i].a_ns, times[i].e_ns);
        } else {
            /* a receiver may be done before the sender has left its post, which wakes others */
            const uint64_t done_ns =
                transfers[i].done_ns > times[i].e_ns ? transfers[i].done_ns : times[i].e_ns;
            (void)fprintf(out, "%" PRIu64 "\t%" PRId64 "\t%" PRIu64 "\t%" PRIu64 "\n",
                          times[i].a_ns, transfers[i].known ? (int64_t)transfers[i].s_ns : -1,
                          times[i].e_ns, done_ns);
        }
    }
}

static em_status_t write_step(FILE *out, const em_rank_t *ranks, uint32_t num_ranks, uint64_t slot,
                              uint64_t step, em_error_t *err)
{
    for (uint32_t r = 0; r < num_ranks; r++) {
        const em_rank_t *const rank = &ranks[r];
        const em_times_t *const times = rank->times + slot * rank->num_records;
        em_transfer_t *const transfers = em_alloc_zeroed(rank->num_records, sizeof *transfers);
        EM_RETURN_ERROR_IF(transfers == NULL, err, EM_ERR_MEMORY, "no memory to write the trace");
        collect(rank, times, transfers);
        for (uint32_t other = 0; other < num_ranks; other++) {
            if (other != r && ranks[other].dp == rank->dp) {
                collect_sends(rank, &ranks[other],
                              ranks[other].times + slot * ranks[other].num_records, transfers);
            }
        }
        write_rank(out, rank, times, transfers, step);
        em_free(transfers);
    }
    return EM_OK;
}

em_status_t em_trace_write(const em_engine_shared_t *shared, const em_rank_t *ranks,
                           uint32_t num_ranks, uint64_t first_step, uint64_t num_steps,
                           const char *path, em_error_t *err)
{
    char temporary[EM_PATH_BYTES];
    const int num = snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid());
    EM_RETURN_ERROR_IF(num < 0 || num >= EM_PATH_BYTES, err, EM_ERR_ARGUMENT,
                       "%.64s..: the path is too long", path);
    const bool direct = em_is_special(path);
    const char *const target = direct ? path : temporary;
    FILE *const out = fopen(target, "w");
    EM_RETURN_ERROR_IF(out == NULL, err, EM_ERR_IO, "%s: cannot write: %s", target,
                       strerror(errno));
    (void)fprintf(out, "# exactmap-trace 1 source=run plan_sha256=%s mover=inline clock=ns\n",
                  shared->plan->file_sha256);
    (void)fprintf(out, "step\tdp\tinner\tpp\tindex\tline\top\ta_ns\ts_ns\te_ns\tdone_ns\n");
    em_status_t status = EM_OK;
    for (uint64_t slot = 0; status == EM_OK && slot < num_steps; slot++) {
        status = write_step(out, ranks, num_ranks, slot, first_step + slot, err);
    }
    const em_status_t closed =
        direct ? em_file_close(out, path, err) : em_file_finish(out, target, err);
    status = status == EM_OK ? closed : status;
    if (!direct && status == EM_OK && rename(temporary, path) != 0) {
        status = EM_FAIL(err, EM_ERR_IO, "%s: cannot rename: %s", path, strerror(errno));
    }
    if (!direct && status != EM_OK) {
        (void)remove(temporary);
    }
    return status;
}
