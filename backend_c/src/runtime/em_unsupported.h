/* What the engine refuses although the plan is valid, between the files that look for it. */
#ifndef EM_UNSUPPORTED_H
#define EM_UNSUPPORTED_H

#include "runtime/em_rank.h"

/* Refuse at a line of the plan (0: the whole file). */
em_status_t em_unsupported(em_error_t *err, const char *name, uint32_t line, const char *fmt, ...)
    EM_PRINTF(4, 5);

/* With `err` and the plan's `name` at hand. */
#define EM_REFUSE_IF(cond, line, ...)                                                              \
    do {                                                                                           \
        if (cond) {                                                                                \
            return em_unsupported(err, name, (line), __VA_ARGS__);                                 \
        }                                                                                          \
    } while (0)

static inline bool em_has_axis(const em_plan_t *plan, int32_t group, em_axis_t axis)
{
    return (plan->groups[group].axes & 1u << axis) != 0;
}

/* unsupported_norm.c: the norm must be one for the whole model, and known to each OPT in time. */
em_status_t em_check_norm(const em_plan_t *plan, const em_program_t *program, const char *name,
                          em_error_t *err);

#endif
