"""Fast check of slots: no slot is named while it lives, and every life ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exactmap.sim.plan.accept_items import Life
from exactmap.sim.plan.accept_rows import NEVER, Ints, Rows, need
from exactmap.sim.plan.table import POOL_LETTERS

__all__ = ["check_slots"]


def check_slots(rows: Rows, lives: Sequence[Life]) -> None:
    """Check that lives of one slot follow each other, and that all slots are in their pools.

    Slots of all pools and programs are numbered through. A slot lives once at a time if, over (slot,
    position), births and ends take turns: then it does not matter which end belongs to which birth.

    Raises
    ------
    Unproven
        If a rule does not hold.
    """
    num = np.zeros((len(rows.views), len(POOL_LETTERS)), dtype=np.int64)
    for number, view in enumerate(rows.views):
        for pool in view.pools.values():
            num[number, POOL_LETTERS.index(pool.letter)] = min(pool.num, int(NEVER))
    first = (np.cumsum(num) - num.ravel()).reshape(num.shape)
    num_positions = len(rows.op) + 1
    need(int(num.sum()) < 2**62 // num_positions)
    births: list[Ints] = []
    ends: list[Ints] = []
    for life in lives:
        program, slot, at = rows.program[life.rows], rows.slots[life.rows, life.letter], rows.at[life.rows]
        need((slot < num[program, life.letter]).all())
        need(((at < life.ends) & (life.ends < NEVER)).all())
        base = (first[program, life.letter] + slot) * num_positions
        births.append(base + at)
        ends.append(base + life.ends)
    if births:
        born, over = np.sort(np.concatenate(births)), np.sort(np.concatenate(ends))
        need((over[:-1] < born[1:]).all())
