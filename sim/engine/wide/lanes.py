"""Columns as lanes: the durations of some columns for the replay of lanes and for the event engine.

So that a replica of a whole cluster can be looked at instruction by instruction, and so that the wide replay
can be held against the other engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.engine.durations import ActorDurations, ChannelDurations, Durations, Lane
from exactmap.sim.engine.encoded import WORK_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.columns import Columns, WideTimes

__all__ = ["durations_of"]


def durations_of(compiled: CompiledPlan, times: WideTimes, columns: Sequence[int]) -> Durations:
    """Durations of some columns of one step, each column a lane.

    Lanes meet each other and nobody else: with all columns of a step the other engines give the times of the
    wide replay; with those of one replica they give what it would do if it had to wait for no other.

    Parameters
    ----------
    compiled
        The plan, with one lane.
    times
        Durations of all columns.
    columns
        Which, ascending; all of one step.

    Raises
    ------
    InvalidInputError
        If columns are of several steps, do not ascend or do not exist, a duration is negative, or time passes
        where none does in the compiled plan.
    """
    chosen = np.array(columns, dtype=np.int64)
    step_columns = len(times.columns) // times.columns.num_steps
    if (
        not len(chosen)
        or chosen[0] < 0
        or chosen[-1] >= len(times.columns)
        or (np.diff(chosen) <= 0).any()
        or chosen[0] // step_columns != chosen[-1] // step_columns
    ):
        raise InvalidInputError("the columns must ascend, be of one step and exist")
    first = int(chosen[0])
    part, which = slice(first, int(chosen[-1]) + 1), chosen - first
    lanes = tuple(_lane(compiled, times.columns, column) for column in chosen.tolist())
    actors: dict[tuple[int, int], ActorDurations] = {}
    channels: dict[tuple[int, str], ChannelDurations] = {}
    for pp in range(compiled.plan.mesh.pp):
        own = compiled.durations.actors[0, pp]
        num = own.program.num_instructions
        comp = np.asarray(times.comp_ns(pp, 0, num, part))[:, which]
        free = ~WORK_KINDS[own.program.kind] & (own.comp_ns == 0)
        if comp[free].any():
            raise InvalidInputError(
                "a column spends time at a post or wait that is free in the compiled plan",
                where=Place(
                    field=f"pipeline rank {pp}, instruction {np.flatnonzero(free & comp.any(axis=1))[0]}"
                ),
                hint="give such posts a cost in the profile that the plan is compiled with",
            )
        op = np.zeros_like(comp)
        for index in own.program.post_at[
            own.program.queue[own.program.post_at] >= 2 * len(compiled.plan.channels)
        ]:
            op[index] = times.op_ns(pp, int(index), part)[which]
        for lane in range(len(lanes)):
            actors[lane, pp] = ActorDurations(
                own.program, _column(comp, lane), _column(op, lane), own.issue_ns
            )
    for number, channel in enumerate(compiled.plan.channels):
        if (0, channel.name) not in compiled.durations.channels:
            continue
        copy = compiled.durations.channels[0, channel.name].copy_ns
        wire = np.asarray(times.wire_ns(number, 0, len(copy), part))[:, which]
        lat = np.asarray(times.lat_ns(number, 0, len(copy), part))[:, which]
        for lane in range(len(lanes)):
            channels[lane, channel.name] = ChannelDurations(_column(wire, lane), _column(lat, lane), copy)
    return Durations(compiled.durations.mover, lanes, actors, channels)


def _column(rows: Ints, number: int) -> Ints:
    return np.ascontiguousarray(rows[:, number])


def _lane(compiled: CompiledPlan, columns: Columns, column: int) -> Lane:
    rest, tp = divmod(column, columns.tp)
    rest, cp = divmod(rest, columns.cp)
    rest, ep = divmod(rest, columns.ep)
    replicas = (rest % columns.dp,) if columns.dp > 1 else compiled.durations.lanes[0].replicas
    return Lane(replicas, (tp, cp, ep))
