"""How most schedules are put together: two lists of passes in turn, and weight gradients put off.

All of it works on columns, so an order of a hundred thousand passes takes milliseconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Works

__all__ = ["alternate", "braided", "by_slot", "numbered", "passes", "run_bounds", "weights_later"]


def passes(op: Op, stage: ArrayLike, microbatch: ArrayLike, cut: ArrayLike = 0) -> Works:
    """Passes of one kind; stage, microbatch and slice are numbers or sequences of one length.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in passes(Op.F, 3, range(2))]
    ['F3.0', 'F3.1']
    """
    return Works.columns(CODES[op], stage, microbatch, cut)


def alternate(forward: Works, backward: Works, num_warmup: int) -> Works:
    """Weave two equally long lists: `num_warmup` of the first, one of each in turn, the rest.

    A warm-up longer than the list is cut to fit.

    Examples
    --------
    >>> woven = alternate(passes(Op.F, 0, range(3)), passes(Op.B, 0, range(3)), 1)
    >>> [f"{w.op}{w.microbatch}" for w in woven]
    ['F0', 'F1', 'B0', 'F2', 'B1', 'B2']
    """
    num = len(forward)
    ahead = min(num_warmup, num)
    row = np.arange(num)
    slots = (np.where(row < ahead, row, 2 * row - ahead), np.minimum(ahead + 2 * row + 1, num + row))
    return by_slot(Works.joined((forward, backward)), np.concatenate(slots))


def braided(forward: Works, backward: Works, num_warmup: int) -> Works:
    """As `alternate`, where one forward and the backward pass behind it are one braid.

    Examples
    --------
    >>> woven = braided(passes(Op.F, 0, range(3)), passes(Op.B, 0, range(3)), 2)
    >>> [(f"{w.op}{w.microbatch}", w.braid) for w in woven]
    [('F0', -1), ('F1', -1), ('F2', 0), ('B0', 0), ('B1', -1), ('B2', -1)]
    """
    woven = alternate(forward, backward, num_warmup)
    num, ahead = len(forward), min(num_warmup, len(forward))
    braid = np.full(len(woven), -1, dtype=np.int64)
    braid[ahead : 2 * num - ahead] = np.arange(2 * (num - ahead)) // 2
    return Works(woven.op, woven.stage, woven.microbatch, woven.cut, braid)


def weights_later(works: Works, delay: int) -> Works:
    """Give every I its W: right behind the I that comes `delay` later, the last ones at the end.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in weights_later(passes(Op.I, 0, range(3)), 1)]
    ['I0', 'I1', 'W0', 'I2', 'W1', 'W2']
    """
    rows = np.flatnonzero(works.op == CODES[Op.I])
    gradients = works.taken(rows)
    put_off = Works.columns(CODES[Op.W], gradients.stage, gradients.microbatch, gradients.cut)
    number = np.arange(len(rows))
    behind = np.append(rows, len(works))[np.minimum(number + delay, len(rows))]
    slots = np.concatenate((2 * np.arange(len(works)), 2 * behind + 1))
    return by_slot(Works.joined((works, put_off)), slots)


def by_slot(works: Works, slot: NDArray[np.int64]) -> Works:
    """Works in ascending order of their time slots; those of one slot stay as they stand.

    Examples
    --------
    >>> [w.microbatch for w in by_slot(passes(Op.F, 0, range(3)), np.array([4, 0, 2]))]
    [1, 2, 0]
    """
    return works.taken(np.argsort(slot, kind="stable"))


def numbered(*kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row how many rows before it are of the same kind; kinds are told apart by all columns.

    Examples
    --------
    >>> numbered(np.array([5, 5, 7, 5]), np.array([0, 1, 0, 0])).tolist()
    [0, 0, 0, 1]
    """
    count = np.empty(len(kinds[0]), dtype=np.int64)
    for kind in set(zip(*(column.tolist() for column in kinds), strict=True)):
        rows = np.logical_and.reduce([column == value for column, value in zip(kinds, kind, strict=True)])
        count[rows] = np.arange(int(rows.sum()))
    return count


def run_bounds(works: Works) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each row the first and the last row of its braid; the row itself where it is in none.

    Examples
    --------
    >>> woven = braided(passes(Op.F, 0, range(2)), passes(Op.B, 0, range(2)), 1)
    >>> [bound.tolist() for bound in run_bounds(woven)]
    [[0, 1, 1, 3], [0, 2, 2, 3]]
    """
    row = np.arange(len(works))
    starts = np.ones(len(works), dtype=np.bool_)
    starts[1:] = (works.braid[1:] < 0) | (works.braid[1:] != works.braid[:-1])
    first = np.maximum.accumulate(np.where(starts, row, 0))
    begins = np.append(np.flatnonzero(starts), len(works))
    return first, begins[np.cumsum(starts)] - 1
