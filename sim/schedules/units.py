"""An order and its walk as flat columns: works, the units that compute takes in turn, lives of items.

A *unit* is what compute does at one go: a work, or a braid of works. Before unit u lies *gap* u, behind the
last unit one more; all else that a program has (posts, waits, notes, copies) stands in gaps. Where in a
program an instruction stands is one integer, its *key*: gap, phase inside the gap, number inside the phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.timeline import Timeline

__all__ = [
    "BEFORE",
    "COPY",
    "EARLY",
    "NEVER",
    "NOTE",
    "OPEN",
    "POST",
    "SEND",
    "START",
    "WAIT_RECEIVE",
    "WAIT_SEND",
    "WORK",
    "Ints",
    "Units",
    "grouped",
    "key",
    "position_key",
]

Ints = NDArray[np.int64]

NOTE, EARLY, SEND, OPEN, WAIT_SEND, POST, COPY, WAIT_RECEIVE, WORK = range(9)
"""Phases of a gap, in program order; a unit is the last phase of the gap before it."""
_PHASES: Final = 16
_NUMBERS: Final = 2**25
START: Final = -1
"""The gap at the start of a program, before gap 0."""
BEFORE: Final = 1
"""Keys of instructions are even: `key - BEFORE` is a place just before one."""
NEVER: Final = 2**62
"""Behind every key."""

_F, _I, _W, _B, _RC, _OFF, _LD = (CODES[op] for op in (Op.F, Op.I, Op.W, Op.B, Op.RC, Op.OFF, Op.LD))


@overload
def key(gap: int, phase: int, number: int = 0) -> int: ...
@overload
def key(gap: Ints, phase: int, number: Ints | int = 0) -> Ints: ...
def key(gap: Ints | int, phase: int, number: Ints | int = 0) -> Ints | int:
    """Where an instruction stands; it grows along the program.

    Examples
    --------
    >>> key(START, WORK) < key(0, NOTE, 1) < key(0, WORK) - BEFORE < key(0, WORK) < key(1, NOTE)
    True
    """
    return ((gap + 1) * _PHASES + phase) * _NUMBERS + 2 * number


def position_key(position: Ints, number: Ints) -> Ints:
    """Key for a position (gap * 16 + phase) as posts are placed by."""
    return (position + _PHASES) * _NUMBERS + 2 * number


def grouped(numbers: Ints) -> Ints:
    """Places of equal numbers one behind the other, groups ascending, inside a group in order.

    Examples
    --------
    >>> grouped(np.array([1, 0, 1, 0])).tolist()
    [1, 3, 0, 2]
    """
    small = int(numbers.max(initial=0)) < 2**15
    return np.argsort(numbers.astype(np.int16) if small else numbers, kind="stable")  # radix sort if small


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """All works of an order, rank after rank, and when their units start and end.

    Attributes
    ----------
    first_row
        [ranks + 1] where the works of each rank begin among all.
    op, stage, microbatch, cut, item
        [works] columns.
    unit
        [works] number of the work's unit on its rank; for a copy the gap in which it is posted.
    start_ns, end_ns
        Per rank, [units of the rank]; both strictly ascend.
    made_ns
        [works] end of each work.
    forward_unit, backward_unit, last_unit, again_unit
        [items] units, on the item's own rank, of its F, of its I or B, of its W or B, of its RC (-1: none).
    off_row, load_row
        [items] works that send the stash to the host and bring it back, -1: none.
    """

    order: Order
    first_row: Ints
    op: NDArray[np.int8]
    stage: Ints
    microbatch: Ints
    cut: Ints
    item: Ints
    unit: Ints
    start_ns: tuple[Ints, ...]
    end_ns: tuple[Ints, ...]
    made_ns: Ints
    forward_unit: Ints
    backward_unit: Ints
    last_unit: Ints
    again_unit: Ints
    off_row: Ints
    load_row: Ints

    @staticmethod
    def of(order: Order, timeline: Timeline) -> Units:
        """Flatten a walked order."""
        works = [order.works(rank) for rank in range(order.num_ranks)]
        first_row = np.concatenate(([0], np.cumsum([len(part) for part in works], dtype=np.int64)))
        op = np.concatenate([part.op for part in works])
        braid = np.concatenate([part.braid for part in works])
        item = np.concatenate([order.items(part) for part in works])
        copies = (op == _OFF) | (op == _LD)
        begins = ~copies
        begins[1:] &= (braid[1:] < 0) | (braid[1:] != braid[:-1])
        begins[first_row[:-1][np.diff(first_row) > 0]] |= True
        begins &= ~copies
        counted = np.cumsum(begins, dtype=np.int64)
        before = np.concatenate(([0], counted))[first_row[:-1]]
        unit = counted - np.repeat(before, np.diff(first_row)) - ~copies
        spans = list(zip(first_row[:-1].tolist(), first_row[1:].tolist(), strict=True))

        def scatter(values: Ints, *codes: int) -> Ints:
            out = np.full(order.num_items, -1, dtype=np.int64)
            for code in codes:
                rows = np.flatnonzero(op == code)
                out[item[rows]] = values[rows]
            return out

        all_rows = np.arange(len(op), dtype=np.int64)
        return Units(
            order=order,
            first_row=first_row,
            op=op,
            stage=np.concatenate([part.stage for part in works]),
            microbatch=np.concatenate([part.microbatch for part in works]),
            cut=np.concatenate([part.cut for part in works]),
            item=item,
            unit=unit,
            start_ns=tuple(
                start[begins[low:high]] for start, (low, high) in zip(timeline.start_ns, spans, strict=True)
            ),
            end_ns=tuple(
                end[begins[low:high]] for end, (low, high) in zip(timeline.end_ns, spans, strict=True)
            ),
            made_ns=np.concatenate(timeline.end_ns),
            forward_unit=scatter(unit, _F),
            backward_unit=scatter(unit, _I, _B),
            last_unit=scatter(unit, _W, _B),
            again_unit=scatter(unit, _RC),
            off_row=scatter(all_rows, _OFF),
            load_row=scatter(all_rows, _LD),
        )

    def rows(self, rank: int) -> slice:
        """Works of one rank among all."""
        return slice(int(self.first_row[rank]), int(self.first_row[rank + 1]))

    def num_units(self, rank: int) -> int:
        """Units of one rank."""
        return len(self.end_ns[rank])

    def stage_span(self, units: Ints, rank: int, stage: int) -> tuple[int, int]:
        """Smallest and largest of `units` (one per item) over a stage's items on a rank; (-1, -1): none."""
        step = self.order.num_microbatches * self.order.num_slices
        span = slice(stage * step, (stage + 1) * step)
        here = units[span][self.order.rank_of_item[span] == rank]
        return (int(here.min()), int(here.max())) if len(here) else (-1, -1)
