"""Step time and stash of schedules without a closed form: read off their orders.

The stash of a rank does not depend on durations, so it is counted once for each (schedule, p, m, v). The
step time is walked. A step runs into a steady state, so of more than 3p microbatches only 3p and 2p are
walked and the difference is carried on: exact where the order repeats itself, and the finalists are walked
in full anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.metrics import most_at_once
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

__all__ = ["OrderForm", "order_form", "walked_time_ns"]


@dataclass(frozen=True, slots=True)
class OrderForm:
    """What an order needs on each rank, whatever its passes take.

    Attributes
    ----------
    placement
        The ranks of each stage.
    stash, stash_until_i, num_left_to_w
        Most (stage, microbatch) at once, by rank: from F to W or B, from F to I or B, from I to W.
    """

    placement: tuple[tuple[int, ...], ...]
    stash: tuple[int, ...]
    stash_until_i: tuple[int, ...]
    num_left_to_w: tuple[int, ...]


@lru_cache(maxsize=4096)
def order_form(schedule: str, num_ranks: int, num_microbatches: int, chunks: int) -> OrderForm:
    """Stash and placement of a schedule's order.

    Examples
    --------
    >>> form = order_form("zb-h2", 4, 16, 1)
    >>> form.stash, form.stash_until_i, form.num_left_to_w
    ((7, 7, 7, 7), (7, 5, 3, 1), (1, 3, 5, 7))
    """
    order = make_order(schedule, num_ranks, num_microbatches, chunks)
    counts: list[tuple[int, int, int]] = []
    for rank in range(num_ranks):
        works = order.works(rank)
        mine = order.rank_of_item == rank
        begin, until_i = order.forward_at[mine], order.backward_at[mine] + 1
        rows = np.flatnonzero(works.op == CODES[Op.W])
        until_w = np.zeros(order.num_items, dtype=np.int64)
        until_w[order.items(works)[rows]] = rows + 1
        split = until_w[mine] > 0
        last = np.where(split, until_w[mine], until_i)
        counts.append(
            (
                most_at_once(begin, last),
                most_at_once(begin, until_i),
                most_at_once(until_i[split] - 1, last[split]),
            )
        )
    stash, stash_until_i, num_left_to_w = zip(*counts, strict=True)
    return OrderForm(order.placement, stash, stash_until_i, num_left_to_w)


def walked_time_ns(
    schedule: str,
    work_ns: Mapping[tuple[str, int], int],
    *,
    num_ranks: int,
    num_microbatches: int,
    chunks: int,
    hop_ns: int,
) -> int:
    """Barrier makespan of the passes of one step, in ns.

    Examples
    --------
    >>> work_ns = {(op, stage): 1 for op in "FIW" for stage in range(4)}
    >>> walked_time_ns("zb-h1", work_ns, num_ranks=4, num_microbatches=200, chunks=1, hop_ns=0)
    603
    """
    times = WorkTimes(work_ns, hop_ns)
    if num_microbatches <= 3 * num_ranks:
        return walk(_order(schedule, num_ranks, num_microbatches, chunks), times).makespan_ns
    short_ns, long_ns = (
        walk(_order(schedule, num_ranks, turns * num_ranks, chunks), times).makespan_ns for turns in (2, 3)
    )
    return long_ns + (num_microbatches - 3 * num_ranks) * (long_ns - short_ns) // num_ranks


@lru_cache(maxsize=64)
def _order(schedule: str, num_ranks: int, num_microbatches: int, chunks: int) -> Order:
    return make_order(schedule, num_ranks, num_microbatches, chunks)
