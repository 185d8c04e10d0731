/* Instructions as text. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "exactmap/plan.h"
#include "plan/em_reader.h"

/* What snprintf does, piece after piece. */
typedef struct {
    char *text;
    size_t size;
    size_t needed;
} em_writer_t;

static void add(em_writer_t *w, const char *fmt, ...) EM_PRINTF(2, 3);

static void add(em_writer_t *w, const char *fmt, ...)
{
    const size_t left = w->needed < w->size ? w->size - w->needed : 0;
    va_list args;
    va_start(args, fmt);
    const int written = vsnprintf(left > 0 ? w->text + w->needed : NULL, left, fmt, args);
    va_end(args);
    w->needed += written > 0 ? (size_t)written : 0;
}

int32_t em_instr_slot(const em_instr_t *instr, em_pool_t pool)
{
    if (pool < EM_POOL_K) {
        return instr->slot[pool];
    }
    return instr->extra == pool ? instr->slot[EM_INSTR_SLOTS - 1] : EM_NONE;
}

static void add_operands(em_writer_t *w, const em_plan_t *plan, const em_instr_t *instr)
{
    static const char phases[] = {' ', 'F', 'I', 'B'};
    const em_op_t op = (em_op_t)instr->op;
    if (instr->phase != EM_PHASE_NONE) {
        add(w, " %c", phases[instr->phase & 3]);
    }
    if (instr->microbatch != EM_NONE) {
        add(w, " %d.%d", instr->stage, instr->microbatch);
        if (instr->slice != EM_NONE) {
            add(w, ".%d", instr->slice);
        }
        if (instr->part >= 0 && (uint32_t)instr->stage < plan->num_stages) {
            const em_plan_stage_t *const stage = &plan->stages[instr->stage];
            add(w, ":%s",
                em_name_text(plan, plan->parts[stage->first_part + (uint32_t)instr->part]));
        }
    } else if (instr->bucket >= 0) {
        const em_plan_bucket_t *const bucket = &plan->buckets[instr->bucket];
        add(w, " %" PRIu32 "/%" PRIu32, bucket->stage, bucket->index);
    }
    if (instr->queue >= 0) {
        const bool channel = (op >= EM_OP_SF && op <= EM_OP_RB) || op == EM_OP_WS || op == EM_OP_WR;
        const uint32_t name =
            channel ? plan->channels[instr->queue].name : plan->groups[instr->queue].name;
        const bool alone = instr->microbatch == EM_NONE && instr->bucket == EM_NONE;
        add(w, "%s@%s", alone ? " " : "", em_name_text(plan, name));
    }
    for (em_pool_t pool = EM_POOL_H; pool < EM_NUM_POOLS; pool++) {
        const int32_t slot = em_instr_slot(instr, pool);
        if (slot != EM_NONE) {
            add(w, " %c%d", "hawgkpqo"[pool], slot);
        }
    }
}

size_t em_instr_text(const em_plan_t *plan, const em_instr_t *instr, char *text, size_t size)
{
    em_writer_t writer = {.text = text, .size = size};
    if (size > 0) {
        text[0] = '\0';
    }
    add(&writer, "%s", em_op_name((em_op_t)instr->op));
    if (instr->op == EM_OP_FB) {
        for (int32_t i = 0; i < instr->bucket; i++) {
            const em_instr_t *const member = &plan->members[instr->queue + i];
            add(&writer, "%s%s", i == 0 ? "{" : "|", em_op_name((em_op_t)member->op));
            add_operands(&writer, plan, member);
        }
        add(&writer, "}");
    } else if (instr->op == EM_OP_MARK) {
        add(&writer, " %s", em_name_text(plan, instr->queue));
    } else {
        add_operands(&writer, plan, instr);
    }
    return writer.needed;
}
