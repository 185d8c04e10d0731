"""When each rank opens, uses and closes its buckets, and when it hears of the norm of the step before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.sim.schedules.gradients import Gradients
from exactmap.sim.schedules.units import START, Units

__all__ = ["Openings", "find_openings"]

_At = tuple[int, int]
"""Bucket and rank."""


@dataclass(frozen=True, slots=True)
class Openings:
    """For each (bucket, rank) that holds it.

    Attributes
    ----------
    open_gap
        Where the gradient is made zero; `START`: at the start of the program.
    close_unit
        The last unit that adds to the gradient; where none does, the one before it opens, -1: none.
    first_use, last_use
        Units of the first and the last pass that reads the parameters; -1: none does.
    check_gap
        Per rank, where the norm of the step before is waited for; empty with a barrier.
    """

    open_gap: dict[_At, int]
    close_unit: dict[_At, int]
    first_use: dict[_At, int]
    last_use: dict[_At, int]
    check_gap: tuple[int, ...]


def find_openings(units: Units, gradients: Gradients) -> Openings:
    """Read the lives of all buckets off a walked order.

    A whole gradient is made zero at the start, or, if the norm of the step before is checked, behind that
    check; a sharded one, which needs a slot, just before the first pass that adds to it.
    """
    order = units.order
    adds: dict[_At, tuple[int, int]] = {}
    uses: dict[_At, tuple[int, int]] = {}
    for stage, ranks in enumerate(order.placement):
        for rank in ranks:
            adds[stage, rank] = units.stage_span(units.last_unit, rank, stage)
            first = units.stage_span(units.forward_unit, rank, stage)[0]
            uses[stage, rank] = (first, units.stage_span(units.backward_unit, rank, stage)[1])
    first_adds = [
        min((first for (_, at), (first, _) in adds.items() if at == rank and first >= 0), default=0)
        for rank in range(order.num_ranks)
    ]
    check_gap = _check_gaps(units, first_adds) if gradients.check else ()
    openings = Openings({}, {}, {}, {}, check_gap)
    for bucket, declared in enumerate(gradients.buckets):
        for rank in order.placement[declared.stage]:
            at = (bucket, rank)
            users = [stage for stage in gradients.users[bucket] if rank in order.placement[stage]]
            added = [adds[stage, rank] for stage in users if adds[stage, rank][0] >= 0]
            used = [uses[stage, rank] for stage in users if uses[stage, rank][0] >= 0]
            default = check_gap[rank] if check_gap else START
            opens = min((first for first, _ in added), default=default) if declared.shard else default
            openings.open_gap[at] = opens
            openings.close_unit[at] = max((last for _, last in added), default=max(default, 0) - 1)
            openings.first_use[at] = min((first for first, _ in used), default=-1)
            openings.last_use[at] = max((last for _, last in used), default=-1)
    return openings


def _check_gaps(units: Units, first_adds: list[int]) -> tuple[int, ...]:
    """Before each rank's first W or B, and so that nobody waits in the walk's own order.

    The total comes down from the last rank: a rank that waits needs all ranks behind it to have come to their
    waits. So these stand no later, in the walk, than the wait of any rank before; and, in their gaps, behind
    the sends of what was made, before all other waits.
    """
    gaps: list[int] = []
    limit: int | None = None
    for rank, first in enumerate(first_adds):
        starts = units.start_ns[rank]
        gap = first if limit is None else min(first, int(np.searchsorted(starts, limit)))
        gaps.append(gap)
        if gap < len(starts):
            limit = int(starts[gap]) if limit is None else min(limit, int(starts[gap]))
    return tuple(gaps)
