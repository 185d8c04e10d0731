"""Durations by column for tests of the wide replay: whole arrays, drawn at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.encoded import Ints
from exactmap.sim.engine.wide.columns import Columns

if TYPE_CHECKING:
    from random import Random

    from exactmap.sim.engine.compiled import CompiledPlan

__all__ = ["ArrayTimes", "PickyArrayTimes", "drawn_times", "same_times"]


class ArrayTimes:
    """Every duration in memory."""

    def __init__(
        self, columns: Columns, comp: list[Ints], op: list[Ints], wire: list[Ints], lat: list[Ints]
    ) -> None:
        self._columns, self.comp, self.op, self.wire, self.lat = columns, comp, op, wire, lat

    @property
    def columns(self) -> Columns:
        return self._columns

    def comp_ns(self, pp: int, first: int, last: int, columns: slice) -> Ints:
        return self.comp[pp][first:last, columns]

    def op_ns(self, pp: int, index: int, columns: slice) -> Ints:
        return self.op[pp][index, columns]

    def wire_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        return self.wire[channel][first:last, columns]

    def lat_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        return self.lat[channel][first:last, columns]


class PickyArrayTimes(ArrayTimes):
    """The same, asked for single instructions."""

    def works_ns(self, pp: int, indices: Ints, columns: slice) -> Ints:
        return self.comp[pp][indices, columns]


def drawn_times(rng: Random, compiled: CompiledPlan, columns: Columns) -> ArrayTimes:
    """Each duration drawn from 0 to its own in the compiled plan and half as much again."""
    draws = np.random.default_rng(rng.randrange(2**32))

    def drawn(values: Ints) -> Ints:
        return draws.integers(0, values[:, None] * 3 // 2, (len(values), len(columns)), endpoint=True)

    durations = compiled.durations
    actors = [durations.actors[0, pp] for pp in range(compiled.plan.mesh.pp)]
    names = [channel.name for channel in compiled.plan.channels]
    nothing = np.empty((0, len(columns)), dtype=np.int64)
    found = [durations.channels.get((0, name)) for name in names]
    return rng.choice([ArrayTimes, PickyArrayTimes])(
        columns,
        [drawn(actor.comp_ns) for actor in actors],
        [drawn(actor.op_ns) for actor in actors],
        [nothing if each is None else drawn(each.wire_ns) for each in found],
        [nothing if each is None else drawn(each.lat_ns) for each in found],
    )


def same_times(compiled: CompiledPlan, columns: Columns) -> ArrayTimes:
    """The compiled plan's durations in all columns, as views."""
    durations, num = compiled.durations, len(columns)

    def spread(values: Ints) -> Ints:
        return np.broadcast_to(values[:, None], (len(values), num))

    actors = [durations.actors[0, pp] for pp in range(compiled.plan.mesh.pp)]
    found = [durations.channels.get((0, channel.name)) for channel in compiled.plan.channels]
    nothing = np.empty((0, num), dtype=np.int64)
    return ArrayTimes(
        columns,
        [spread(actor.comp_ns) for actor in actors],
        [spread(actor.op_ns) for actor in actors],
        [nothing if each is None else spread(each.wire_ns) for each in found],
        [nothing if each is None else spread(each.lat_ns) for each in found],
    )
