"""Recomputation: no stash is kept after the forward pass; it is made again right before the backward pass.

A transformation of any order: RC stands before I or B (before the braid that holds it) and the F of such an
item keeps nothing. *Full*: every item, so a rank stashes one item at a time and works F + B + F per
microbatch. *Selective*: only as many items as a stash limit demands. Rank by rank the works are gone
through; whenever one more stash would be over the limit, the stash that is wanted last of those held is
given up. No choice gives up fewer, as in caching with known demands.

Sources: Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174; Korthikanti et al.,
arXiv:2205.05198; the choice: Belady, IBM Systems Journal 5(2), 1966.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InfeasibleError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order, Works
from exactmap.sim.schedules.weave import by_slot, run_bounds

__all__ = ["items_within", "recompute", "recompute_selectively"]

_F, _I, _B = CODES[Op.F], CODES[Op.I], CODES[Op.B]
_ENDS = (CODES[Op.W], CODES[Op.B])


def recompute(order: Order, items: NDArray[np.bool_] | None = None) -> Order:
    """Recompute some items, all if none are named; `items` is a mask of shape [stages*m*slices].

    Examples
    --------
    >>> from exactmap.sim.schedules.one_f_one_b import one_f_one_b
    >>> [f"{w.op}{w.microbatch}" for w in recompute(one_f_one_b(2, 2)).works(0)]
    ['F0', 'F1', 'RC0', 'B0', 'RC1', 'B1']
    """
    ranks: list[Works] = []
    for works in map(order.works, range(order.num_ranks)):
        backward = (works.op == _I) | (works.op == _B)
        rows = np.flatnonzero(backward if items is None else backward & items[order.items(works)])
        first, _ = run_bounds(works)
        again = works.taken(rows)
        again = Works.columns(CODES[Op.RC], again.stage, again.microbatch, again.cut)
        slots = np.concatenate((2 * np.arange(len(works)), 2 * first[rows] - 1))
        ranks.append(by_slot(Works.joined((works, again)), slots))
    return Order(order.num_microbatches, order.placement, ranks, order.num_slices)


def recompute_selectively(order: Order, stash_limit: int) -> Order:
    """Recompute as few items as a limit allows, in microbatches of a rank's layers; 0: no limit, none.

    Raises
    ------
    InfeasibleError
        If the limit is passed even if all items are recomputed.

    Examples
    --------
    >>> from exactmap.sim.schedules.one_f_one_b import one_f_one_b
    >>> [f"{w.op}{w.microbatch}" for w in recompute_selectively(one_f_one_b(3, 3), 2).works(0)]
    ['F0', 'F1', 'F2', 'B0', 'B1', 'RC2', 'B2']
    """
    if not stash_limit:
        return order
    most = items_within(order, stash_limit)
    given_up = np.zeros(order.num_items, dtype=np.bool_)
    for rank in range(order.num_ranks):
        given_up[_given_up(order, rank, most)] = True
    return recompute(order, given_up)


def items_within(order: Order, stash_limit: int) -> int:
    """Items of a rank that are within a limit in microbatches of a rank's layers.

    Examples
    --------
    >>> from exactmap.sim.schedules.interleaved import interleaved
    >>> items_within(interleaved(4, 8, 3), 2)
    6
    """
    return stash_limit * order.num_stages * order.num_slices // order.num_ranks


def _given_up(order: Order, rank: int, most: int) -> list[int]:
    """Items of a rank whose stash is given up so that at most `most` live at once."""
    works = order.works(rank)
    items = order.items(works).tolist()
    codes = works.op.tolist()
    first, last = (bound.tolist() for bound in run_bounds(works))
    wanted = order.backward_at.tolist()
    held: set[int] = set()
    given_up: list[int] = []
    remade: set[int] = set()
    gone = set[int]()

    def make_room(row: int) -> None:
        while len(held) + len(remade) > most:
            # A stash that this very run wants gains nothing by being given up.
            choice = max((item for item in held if wanted[item] > row), key=wanted.__getitem__, default=-1)
            if choice < 0:
                raise InfeasibleError(
                    "recomputation alone cannot keep to the stash limit",
                    where=f"rank {rank}",
                    got=f"{len(held) + len(remade)} stashes at {order.name(items[row])}",
                    expected=f"at most {most}",
                    hint="raise the stash limit, or take a schedule that puts weight gradients off less",
                )
            held.discard(choice)
            gone.add(choice)
            given_up.append(choice)

    row = 0
    while row < len(codes):
        run = range(first[row], last[row] + 1)
        for at in run:
            if codes[at] in {_I, _B} and items[at] in gone:
                remade.add(items[at])
                make_room(last[row])
        for at in run:
            if codes[at] == _F:
                held.add(items[at])
                make_room(last[row])
        for at in run:
            if codes[at] in _ENDS:
                held.discard(items[at])
                remade.discard(items[at])
        row = run.stop
    return given_up
