"""Windows of the tape: stretches of steps, and the durations that they need, by who is asked for them.

A duration is a row over columns. The rows of a window are numbered in the order of use; they are asked for in
blocks: a rank's works within the window, a channel's messages, one operation after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exactmap.sim.engine.encoded import Ints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.wide.graph import Flags
    from exactmap.sim.engine.wide.step import Step

__all__ = ["OperationTimes", "RowSources", "Transfers", "Window", "Works", "operation_times", "windows_of"]


class RowSources(NamedTuple):
    """What each row of durations holds; arrays of shape [rows], -1 for nothing of that sort."""

    step: Ints
    instruction: Ints
    message: Ints
    takes_wire: Flags
    takes_lat: Flags
    constant: Ints
    operation: Ints

    def part(self, first: int, last: int) -> RowSources:
        """Rows first..last-1."""
        rows = slice(first, last)
        return RowSources(
            self.step[rows],
            self.instruction[rows],
            self.message[rows],
            self.takes_wire[rows],
            self.takes_lat[rows],
            self.constant[rows],
            self.operation[rows],
        )


class Works(NamedTuple):
    """Instructions of one pipeline rank."""

    pp: int
    indices: Ints
    rows: Ints


class Transfers(NamedTuple):
    """Messages first..last-1 of one channel."""

    channel: int
    first: int
    last: int
    chosen: Ints | None  #: which of them; None for all
    rows: Ints
    takes_wire: bool
    takes_lat: bool


class OperationTimes(NamedTuple):
    """The posts of one operation, as (pipeline rank, instruction): the longest of their durations counts."""

    posts: tuple[tuple[int, int], ...]
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Steps, and the durations that they need."""

    steps: Sequence[Step]
    first_row: int  #: steps count rows from the tape's start
    num_rows: int
    works: list[Works]
    transfers: list[Transfers]
    operations: list[OperationTimes]
    constants: tuple[Ints, Ints]  #: rows, and what is added to them, [rows, 1]
    alone: tuple[Ints, Ints]  #: rows that hold a constant and nothing else, [rows, 1]


def windows_of(
    compiled: CompiledPlan, sources: RowSources, steps: Sequence[Step], first_step: int, most_rows: int
) -> list[Window]:
    """Cut the steps `first_step` and after into windows of at most `most_rows` rows each, or one step."""
    bounds = np.searchsorted(sources.step, np.arange(first_step, first_step + len(steps) + 1)).tolist()
    out: list[Window] = []
    low = 0
    for high in range(1, len(steps) + 1):
        if high == len(steps) or bounds[high + 1] - bounds[low] > most_rows:
            rows = sources.part(bounds[low], bounds[high])
            out.append(_window(compiled, rows, steps[low:high], bounds[low]))
            low = high
    return out


def _window(compiled: CompiledPlan, sources: RowSources, steps: Sequence[Step], first_row: int) -> Window:
    constants = np.flatnonzero((sources.constant > 0) & (sources.message >= 0))
    alone = np.flatnonzero((sources.constant > 0) & (sources.message < 0))
    operations = np.flatnonzero(sources.operation >= 0)
    return Window(
        steps,
        first_row,
        len(sources.step),
        list(_works(compiled, sources)),
        list(_transfers(compiled, sources)),
        operation_times(compiled, sources.operation[operations], operations),
        (constants, sources.constant[constants, None]),
        (alone, sources.constant[alone, None]),
    )


def _works(compiled: CompiledPlan, sources: RowSources) -> Iterator[Works]:
    rows = np.flatnonzero(sources.instruction >= 0)
    first = compiled.linked.first
    for pp, mine in _split(np.searchsorted(first, sources.instruction[rows], side="right") - 1):
        yield Works(pp, sources.instruction[rows[mine]] - first[pp], rows[mine])


def _transfers(compiled: CompiledPlan, sources: RowSources) -> Iterator[Transfers]:
    rows = np.flatnonzero(sources.message >= 0)
    messages = compiled.linked.messages
    number = sources.message[rows]
    wire, lat = sources.takes_wire[rows], sources.takes_lat[rows]
    for key, mine in _split(4 * messages.lane_channel[number] + 2 * wire + lat):
        channel, wire_and_lat = divmod(key, 4)
        place = number[mine] - int(np.searchsorted(messages.lane_channel, channel))
        low, high = int(place.min()), int(place.max()) + 1
        is_all = len(place) == high - low and bool((np.diff(place) == 1).all())
        yield Transfers(
            channel,
            low,
            high,
            None if is_all else place - low,
            rows[mine],
            takes_wire=wire_and_lat >= 2,
            takes_lat=bool(wire_and_lat % 2),
        )


def operation_times(compiled: CompiledPlan, operations: Ints, rows: Ints) -> list[OperationTimes]:
    """Posts of some operations."""
    linked = compiled.linked
    at, number = linked.operations.post
    by_number = np.argsort(number, kind="stable")
    at, number = at[by_number], number[by_number]
    low, high = np.searchsorted(number, operations), np.searchsorted(number, operations, side="right")
    pp = np.searchsorted(linked.first, at, side="right") - 1
    index = at - linked.first[pp]
    pairs = list(zip(pp.tolist(), index.tolist(), strict=True))
    return [
        OperationTimes(tuple(pairs[first:last]), row)
        for first, last, row in zip(low.tolist(), high.tolist(), rows.tolist(), strict=True)
    ]


def _split(keys: Ints) -> Iterator[tuple[int, Ints]]:
    """Each key and its places, in order."""
    if len(keys):
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        cuts = np.flatnonzero(np.diff(ordered)) + 1
        for mine in np.split(order, cuts):
            yield int(keys[mine[0]]), mine
