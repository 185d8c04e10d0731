"""Fast check of items: inputs, passes, outputs, stash, and the slots that they hold.

All items of some programs at once: for each kind of instruction one array says where it stands for each item,
and the rules of `exactmap.sim.plan.item_state` are comparisons of such arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from exactmap.sim.plan.accept_rows import NEVER, Flags, Ints, Rows, need
from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.table import POOL_LETTERS

__all__ = ["Life", "Passes", "check_items", "check_slot_letters"]

_H, _A, _W, _G, _K, _P, _Q, _O = (128 >> place for place in range(8))  # as packbits lays them out


@dataclass(frozen=True, slots=True)
class Life:
    """Slots of one pool: rows that name them, and positions where they end."""

    letter: int  #: place in `POOL_LETTERS`
    rows: Ints
    ends: Ints


@dataclass(frozen=True, slots=True)
class Passes:
    """Positions of passes by [stage on its rank, microbatch and slice]; `NEVER` where there is none."""

    forward: Ints
    again: Ints
    input_gradient: Ints
    weight_gradient: Ints  #: W, or B


def _expected_letters() -> Ints:
    letters = np.zeros(len(KINDS), dtype=np.uint8)
    for op, bits in (
        (Op.RC, _A | _W),
        (Op.I, _G),
        (Op.RF, _H),
        (Op.RB, _H),
        (Op.AG, _P),
        (Op.OFF, _O),
        (Op.LD, _A | _W),
    ):
        letters[CODES[op]] = bits
    return letters


_LETTERS: Final = _expected_letters()


def check_slot_letters(plan: Plan, rows: Rows, sharded: Flags) -> None:
    """Each row names slots of the pools that it must name (`sharded` says so of ZEROs), and no others."""
    named = np.packbits(rows.slots >= 0, axis=1)[:, 0]
    expected = _LETTERS[rows.op]
    last_stage = len(plan.stages) - 1
    forward = rows.of(Op.F)
    # A forward pass names both its stashes or none.
    stash = named[forward] & (_A | _W)
    need(((stash == 0) | (stash == (_A | _W))).all())
    expected[forward] = stash | np.where(rows.stage[forward] < last_stage, _H, 0).astype(np.uint8)
    if plan.train.slices > 1:
        expected[forward[rows.slice[forward] == 0]] |= _K
    for op in (Op.I, Op.B):
        found = rows.of(op)
        expected[found[rows.stage[found] > 0]] |= _H
    expected[rows.of(Op.ZERO)[sharded]] = _Q
    need(np.array_equal(named, expected))


class _Where:
    """Position of each kind of instruction for each item."""

    def __init__(self, rows: Rows, num_items: int) -> None:
        self.rows = rows
        self.num_items = num_items
        self.nowhere = np.full(num_items, NEVER, dtype=np.int32)

    def of(self, op: Op) -> Ints:
        """Positions of the one instruction of a kind that each item has."""
        return self.scatter(self.rows.of(op))

    def scatter(self, found: Ints, items: Ints | None = None) -> Ints:
        """Positions of rows by item; by other items than their own if `items` names these."""
        if not len(found):
            return self.nowhere
        if items is None:
            items = self.rows.item[found]
        places = self.nowhere.copy()
        at = self.rows.at[found]
        places[items] = at
        need(np.array_equal(places[items], at))  # one of each kind
        return places


def _before(first: Ints, then: Ints) -> None:
    """Wherever `then` stands, `first` stands before it."""
    need(((first < then) | (then == NEVER)).all())


def _not_both(one: Ints, other: Ints) -> Ints:
    need(((one == NEVER) | (other == NEVER)).all())
    return np.minimum(one, other)


def _implies(one: Ints, other: Ints) -> None:
    """Where `one` stands, `other` stands too."""
    need(((one == NEVER) | (other != NEVER)).all())


def check_items(plan: Plan, rows: Rows) -> tuple[Passes, list[Life]]:
    """Check the life of all items.

    Returns
    -------
    tuple[Passes, list[Life]]
        Where passes stand, and the slots that items name.

    Raises
    ------
    Unproven
        If a rule does not hold.
    """
    per_stage = plan.train.m * plan.train.slices
    last_stage = len(plan.stages) - 1
    where = _Where(rows, len(rows.stages) * per_stage)

    def by_stage(places: Ints) -> Ints:
        return places.reshape(len(rows.stages), per_stage)

    forward, again, fused = where.of(Op.F), where.of(Op.RC), where.of(Op.B)
    input_pass, weight_pass = where.of(Op.I), where.of(Op.W)
    backward = _not_both(input_pass, fused)
    done = np.minimum(weight_pass, fused)
    send_y, send_dx = where.of(Op.SF), where.of(Op.SB)
    receive_x, receive_dy = where.of(Op.RF), where.of(Op.RB)
    waits = {
        (op, cls): where.scatter(found[of_class])
        for op in (Op.WS, Op.WR)
        for found, is_forward in [_waits(plan, rows, op)]
        for cls, of_class in (("F", is_forward), ("B", ~is_forward))
    }
    give_y, take_x, y_takers = _hand_over(rows, where, Op.LF, 1, per_stage, last_stage)
    give_dx, take_dy, dx_takers = _hand_over(rows, where, Op.LB, -1, per_stage, last_stage)

    # Inputs and passes.
    x_in, dy_in = _not_both(receive_x, take_x), _not_both(receive_dy, take_dy)
    x_ready = np.minimum(waits[Op.WR, "F"], take_x)
    dy_ready = np.minimum(waits[Op.WR, "B"], take_dy)
    by_stage(x_ready)[rows.stages == 0] = -1
    by_stage(dy_ready)[rows.stages == last_stage] = -1
    _before(x_ready, forward)
    _before(forward, backward)
    _before(dy_ready, backward)
    _before(input_pass, weight_pass)
    for one, other in ((forward, backward), (backward, forward), (x_in, forward), (dy_in, backward)):
        _implies(one, other)
    _implies(input_pass, weight_pass)
    if plan.train.slices > 1:
        forwards, backwards = (each.reshape(-1, plan.train.slices) for each in (forward, backward))
        _before(forwards[:, :-1], forwards[:, 1:])
        _before(backwards[:, 1:], backwards[:, :-1])

    # The stash: named by F or by RC; to the host and back.
    keeps = np.zeros(where.num_items, dtype=np.bool_)
    found = rows.of(Op.F)
    keeps[rows.item[found]] = rows.slots[found, 1] >= 0
    _before(forward, again)
    need((keeps | (forward == NEVER) | (again < backward)).all())
    need((~keeps | (again == NEVER)).all())
    off, load, away = where.of(Op.OFF), where.of(Op.LD), where.of(Op.WOFF)
    back = where.of(Op.WLD)
    if len(rows.of(Op.OFF)) or len(rows.of(Op.LD)):
        _before(np.where(keeps, forward, again), off)
        _before(away, load)
        _implies(off, load)
        _implies(load, off)
        need(((off == NEVER) | ((off < backward) & (back < backward))).all())

    # Outputs: moved once, by a message or to the stage beside.
    moved_y, moved_dx = _not_both(send_y, give_y), _not_both(send_dx, give_dx)
    _before(forward, moved_y)
    _before(backward, moved_dx)
    for made, moved, first, last in (
        (forward, moved_y, 0, last_stage),
        (backward, moved_dx, 1, last_stage + 1),
    ):
        sends = (rows.stages >= first) & (rows.stages < last)
        _implies(by_stage(made)[sends], by_stage(moved)[sends])

    y_end, dx_end = waits[Op.WS, "F"].copy(), waits[Op.WS, "B"].copy()
    for op, ends, takers in ((Op.LF, y_end, y_takers), (Op.LB, dx_end, dx_takers)):
        if len(takers):
            ends[rows.item[rows.of(op)]] = done[takers]
    lives = _lives(rows, y_end, dx_end, backward, done, away, back)
    passes = Passes(by_stage(forward), by_stage(again), by_stage(backward), by_stage(done))
    return passes, lives


def _waits(plan: Plan, rows: Rows, op: Op) -> tuple[Ints, Flags]:
    """Rows of WS or WR, and whether each waits on a channel of class F."""
    found = rows.of(op)
    is_forward = np.array([channel.cls == "F" for channel in plan.channels], dtype=np.bool_)
    if not len(is_forward):
        need(not len(found))
        return found, np.zeros(0, dtype=np.bool_)
    return found, is_forward[rows.queue_channel[rows.queue[found]]]


def _hand_over(
    rows: Rows, where: _Where, op: Op, step: int, per_stage: int, last_stage: int
) -> tuple[Ints, Ints, Ints]:
    """LF or LB: positions by item that gives, by item that takes; for each row the item that takes."""
    found = rows.of(op)
    if not len(found):
        return where.nowhere, where.nowhere, found
    stage = rows.stage[found] + step
    need(((stage >= 0) & (stage <= last_stage)).all())
    local = rows.local_stage[rows.program[found], stage]
    need((local >= 0).all())
    items = rows.item[found] % per_stage + local.astype(np.int64) * per_stage
    return where.scatter(found), where.scatter(found, items), items


def _lives(
    rows: Rows, y_end: Ints, dx_end: Ints, backward: Ints, done: Ints, away: Ints, back: Ints
) -> list[Life]:
    """Where each slot ends that a pass, a receive or a copy names."""
    h, a, w, g, k, _, _, o = range(len(POOL_LETTERS))
    stash_end, kept_end = np.minimum(backward, away), np.minimum(done, away)
    ends = (
        (Op.RF, h, done),
        (Op.RB, h, done),
        (Op.F, h, y_end),
        (Op.I, h, dx_end),
        (Op.B, h, dx_end),
        (Op.F, a, stash_end),
        (Op.F, w, kept_end),
        (Op.RC, a, stash_end),
        (Op.RC, w, kept_end),
        (Op.LD, a, backward),
        (Op.LD, w, done),
        (Op.I, g, done),
        (Op.F, k, backward),
        (Op.OFF, o, back),
    )
    lives: list[Life] = []
    for op, letter, end in ends:
        found = rows.of(op)
        found = found[rows.slots[found, letter] >= 0]
        if len(found):
            lives.append(Life(letter, found, end[rows.item[found]]))
    return lives
