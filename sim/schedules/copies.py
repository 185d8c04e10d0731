"""Copies of stashes to and from the host on one rank: one queue, whose waits stand in posting order."""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.units import BEFORE, COPY, NEVER, WAIT_RECEIVE, WORK, Ints, Units, key

__all__ = ["CopyQueue"]

_OFF, _LD = CODES[Op.OFF], CODES[Op.LD]


class CopyQueue:
    """The copies of one rank.

    Parameters
    ----------
    units, rank
        The walked order, and one of its ranks.

    Attributes
    ----------
    rows
        [copies] places among the rank's works, in posting order.
    leaves
        [copies] whether it is an OFF.
    keys
        [copies] where it is posted.
    """

    def __init__(self, units: Units, rank: int) -> None:
        here = units.rows(rank)
        op, item = units.op[here], units.item[here]
        self.rows = np.flatnonzero((op == _OFF) | (op == _LD))
        self.leaves = op[self.rows] == _OFF
        unit = units.unit[here][self.rows]
        self.keys = key(unit, COPY, self.rows)
        self._place = np.full(len(op), -1, dtype=np.int64)
        self._place[self.rows] = np.arange(len(self.rows))
        items = item[self.rows]
        # A stash leaves before it is brought back, and is back before the backward pass of its item.
        self._loads = self._place[units.load_row[items] - here.start]
        deadline = np.where(self.leaves, self.keys[self._loads], key(units.backward_unit[items], WORK))
        ends = units.end_ns[rank]
        over = np.minimum(np.searchsorted(ends, units.made_ns[here][self.rows]) + 1, len(ends))
        over_key = key(np.maximum(over, unit), WAIT_RECEIVE)
        self._deadline = _in_order(deadline)
        earliest = np.where(self.leaves, np.minimum(over_key, deadline - BEFORE), deadline - BEFORE)
        self._leave_key = _in_order(earliest)

    def __len__(self) -> int:
        """Number of copies."""
        return len(self.rows)

    def leave_keys(self, off_rows: Ints) -> Ints:
        """Where, at the earliest, the waits of some OFFs stand: in the walk the copies are over there.

        It is earlier only if this wait, or one behind it in the queue, can be put off no longer.
        """
        return self._leave_key[self._place[off_rows]]

    def wait_keys(self, off_rows: Ints, wanted_keys: Ints) -> Ints:
        """Where all waits stand, given where the slots that some OFFs free are wanted again."""
        wanted = np.full(len(self), NEVER, dtype=np.int64)
        wanted[self._place[off_rows]] = wanted_keys
        return _in_order(np.minimum(wanted, self._deadline)) - BEFORE

    def host_lives(self, wait_keys: Ints) -> tuple[Ints, Ints]:
        """Where each stash that leaves comes to life on the host, and where that ends."""
        return self.keys[self.leaves], wait_keys[self._loads[self.leaves]]


def _in_order(deadlines: Ints) -> Ints:
    """No wait stands behind that of a later post."""
    return np.minimum.accumulate(deadlines[::-1])[::-1]
