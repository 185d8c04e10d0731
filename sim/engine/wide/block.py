"""Stepping a block of columns along the tape: blocks of rows, a few numpy calls per step.

A block holds whole (tp, cp, ep) groups of columns, so that columns that meet on those axes do so within the
block. All that it needs of the others comes from the meetings between phases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.wide.columns import PickyTimes

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.columns import WideTimes
    from exactmap.sim.engine.wide.step import Step
    from exactmap.sim.engine.wide.tape import Tape
    from exactmap.sim.engine.wide.windows import OperationTimes, Transfers, Window

__all__ = ["Block", "Buffers", "longest", "meet"]

_FEW = 16  # so many columns are compared one by one: numpy is slow where the last axis is short


class Buffers:
    """What a thread needs besides: durations of a window, and the edges of a step."""

    def __init__(self, tape: Tape, num_columns: int) -> None:
        self.durations = np.empty(tape.most_rows * num_columns, dtype=np.int64)
        self.edges = np.empty(tape.most_edges * num_columns, dtype=np.int64)


class Block:
    """Some columns, and how far they have been stepped.

    Parameters
    ----------
    tape
        The steps.
    times
        Durations of all columns.
    first
        The first column.
    shape
        How many of them there are along (steps, dp, ep, cp, tp).
    results
        [kinds, lines, columns of the block] where times that are asked for go; zeros.
    """

    def __init__(
        self, tape: Tape, times: WideTimes, first: int, shape: tuple[int, ...], results: list[Ints]
    ) -> None:
        self.tape, self.times, self.shape, self.results = tape, times, shape, results
        self.num_columns = int(np.prod(shape))
        self.columns = slice(first, first + self.num_columns)
        self.pool = np.zeros((tape.num_rows, self.num_columns), dtype=np.int64)

    def play(self, phase: int, buffers: Buffers) -> None:
        """Step through one phase."""
        tape, num = self.tape, self.num_columns
        durations = buffers.durations[: tape.most_rows * num].reshape(-1, num)
        edges = buffers.edges[: tape.most_edges * num].reshape(-1, num)
        for window in tape.phases[phase]:
            self._fill(window, durations)
            for step in window.steps:
                self._settle(step, durations, window.first_row, edges[: len(step.sources)])

    def _settle(self, step: Step, durations: Ints, first_row: int, reached: Ints) -> None:
        maximum, num = np.maximum, step.num_nodes
        self.pool.take(step.sources, 0, reached, "clip")
        for low, high, row in step.edge_runs:
            reached[low:high] += durations[row - first_row : row - first_row + high - low]
        starts = reached[:num]
        for count, first in step.further:
            maximum(starts[:count], reached[first : first + count], out=starts[:count])
        if step.floor is not None:
            maximum(starts, step.floor, out=starts)
        if step.axes:
            meet(starts, self.shape, step.axes)
        out = self.pool[step.row : step.row + num]
        done = 0
        for low, high, row in step.node_runs:
            took = durations[row - first_row : row - first_row + high - low]
            if step.axes:
                meet(took, self.shape, step.axes)
            out[done:low] = starts[done:low]
            np.add(starts[low:high], took, out=out[low:high])
            done = high
        out[done:] = starts[done:]
        for node, kind, line in step.results:
            self.results[kind][line] = out[node]

    def _fill(self, window: Window, durations: Ints) -> None:
        times, columns = self.times, self.columns
        picky = times if isinstance(times, PickyTimes) else None
        for pp, indices, rows in window.works:
            if picky is not None:
                durations[rows] = picky.works_ns(pp, indices, columns)
            else:
                first = int(indices[0])
                durations[rows] = times.comp_ns(pp, first, int(indices[-1]) + 1, columns)[indices - first]
        for transfers in window.transfers:
            durations[transfers.rows] = self._moved(transfers)
        for operation in window.operations:
            durations[operation.row] = longest(times, operation, columns)
        rows, constants = window.alone
        if len(rows):
            durations[rows] = constants
        rows, constants = window.constants
        if len(rows):
            durations[rows] += constants

    def _moved(self, transfers: Transfers) -> Ints:
        part = (transfers.channel, transfers.first, transfers.last, self.columns)
        if transfers.takes_wire:
            out = self.times.wire_ns(*part)
            if transfers.takes_lat:
                out = out + self.times.lat_ns(*part)
        else:
            out = self.times.lat_ns(*part)
        return out if transfers.chosen is None else out[transfers.chosen]


def longest(times: WideTimes, operation: OperationTimes, columns: slice) -> Ints:
    """[columns] the longest duration of the operation's posts."""
    (pp, index), *others = operation.posts
    out = times.op_ns(pp, index, columns)
    for pp, index in others:
        out = np.maximum(out, times.op_ns(pp, index, columns))
    return out


def meet(rows: Ints, shape: tuple[int, ...], axes: int) -> None:
    """Replace each entry by the largest of those that agree with it on all axes but `axes`; in place.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[1, 5, 3, 2]])
    >>> meet(rows, (1, 2, 1, 1, 2), 1)  # two replicas of two tensor ranks: over dp
    >>> rows
    array([[3, 5, 3, 5]])
    """
    view = rows.reshape(len(rows), *shape)
    latest = view
    for number in range(4):
        axis = number + 2
        if axes >> number & 1:
            if latest.shape[axis] <= _FEW:
                parts = np.moveaxis(latest, axis, 0)
                most = parts[0].copy()
                for part in parts[1:]:
                    np.maximum(most, part, out=most)
                latest = np.expand_dims(most, axis)
            else:
                latest = latest.max(axis=axis, keepdims=True)
    view[...] = latest
