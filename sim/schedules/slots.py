"""Give every buffer of a pool a slot, with the fewest slots.

A buffer lives from the instruction that names it to the one that ends it, both included: an interval of the
program. With n the most that live at once, the k-th to come to life takes slot k if k < n, else the slot of
the (k-n)-th whose life ended: that many have ended by then, for k - n + 1 of the k before no longer live. So
slots are used in turn; no assignment needs fewer, and none gives what still moves its slot's bytes more time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.sim.schedules.units import NEVER, Ints

__all__ = ["Colouring", "colour"]


@dataclass(frozen=True, slots=True, eq=False)
class Colouring:
    """Slots of the buffers of one pool.

    Attributes
    ----------
    num_slots
        Slots of the pool.
    slot
        [buffers] the slot of each.
    by_end
        [buffers] buffers in the order in which their lives end.
    wanted_key
        [buffers] where the next buffer comes to life in the slot, ascending along `by_end`; `NEVER`: nowhere.
    """

    num_slots: int
    slot: Ints
    by_end: Ints
    wanted_key: Ints


def colour(begin_keys: Ints, end_keys: Ints) -> Colouring:
    """Give slots to buffers that live from `begin_keys` to `end_keys`, both included.

    Examples
    --------
    >>> colouring = colour(np.array([0, 2, 6]), np.array([4, 8, 10]))
    >>> colouring.num_slots, colouring.slot.tolist()
    (2, [0, 1, 0])
    """
    num = len(begin_keys)
    by_begin = np.argsort(begin_keys, kind="stable")
    by_end = np.argsort(end_keys, kind="stable")
    begins, ends = begin_keys[by_begin], end_keys[by_end]
    wanted = np.full(num, NEVER, dtype=np.int64)
    slot = np.empty(num, dtype=np.int64)
    if not num:
        return Colouring(0, slot, by_end, wanted)
    count = np.arange(num, dtype=np.int64)
    num_slots = int((count + 1 - np.searchsorted(ends, begins)).max())
    place = np.empty(num, dtype=np.int64)
    place[by_begin] = count
    wanted[by_end[: num - num_slots]] = begins[num_slots:]
    # The buffer before in the slot, then the one before that, twice as far back each time: its first.
    first = np.concatenate((count[:num_slots], place[by_end[: num - num_slots]]))
    while True:
        further = first[first]
        if np.array_equal(further, first):
            break
        first = further
    slot[by_begin] = first
    return Colouring(num_slots, slot, by_end, wanted)
