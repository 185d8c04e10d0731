"""Offload: the stash of an item goes to the host after its forward pass and is back for its backward pass.

A transformation of any order: OFF behind F (behind the braid that holds it), LD some works before I or B. A
rank's copies share one queue, so the stash of an item is gone, and back, when its own copy and one in the
other direction have moved: `reach` works are left for that behind F and `lead` works before I or B. Items
whose passes lie closer together stay.

Either a share of each rank's items goes, evenly spread, or as few as a stash limit demands: rank by rank
the works are gone through, and whenever one more stash would be over the limit, the stash that is wanted
last of those that can be gone by then is sent away.

Source: Wan et al., PipeOffload, arXiv:2503.01328.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.schedules.metrics import peak_stash_items
from exactmap.sim.schedules.order import Order, Works
from exactmap.sim.schedules.recompute import items_within
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.schedules.weave import by_slot, run_bounds

__all__ = ["copy_reach", "offload", "offload_in_time", "offload_within"]

_F = CODES[Op.F]
_ENDS = (CODES[Op.W], CODES[Op.B])


def offload(order: Order, share: float = 1.0, *, reach: int = 1, lead: int = 1) -> Order:
    """Send a share of each rank's stashes to the host, evenly spread over its items.

    Parameters
    ----------
    order
        An order without copies.
    share
        From 0 to 1, of the items whose passes lie far enough apart.
    reach, lead
        Works behind its forward pass during which a stash goes; works before its backward pass during which
        it comes back.

    Raises
    ------
    InvalidInputError
        If the share is not from 0 to 1, or reach or lead not at least 1.

    Examples
    --------
    >>> from exactmap.sim.schedules.gpipe import gpipe
    >>> [f"{w.op}{w.microbatch}" for w in offload(gpipe(1, 3)).works(0)]
    ['F0', 'OFF0', 'F1', 'OFF1', 'LD0', 'F2', 'OFF2', 'LD1', 'B0', 'LD2', 'B1', 'B2']
    """
    if not 0 <= share <= 1:
        raise InvalidInputError(
            "a share of the stashes goes to the host", got=f"{share}", expected="from 0 to 1"
        )
    away: list[NDArray[np.bool_]] = []
    for works in map(order.works, range(order.num_ranks)):
        num = len(_trips(order, works, reach, lead).item)
        # The n-th trip is made where the whole part of n * share grows.
        steps = np.floor(np.arange(num + 1) * share + 1e-9)
        away.append(np.diff(steps) > 0)
    return _with_copies(order, away, reach, lead)


def offload_within(order: Order, stash_limit: int, *, reach: int = 1, lead: int = 1) -> Order:
    """Send away as few stashes as a limit allows, in microbatches of a rank's layers; 0: no limit, all.

    Raises
    ------
    InfeasibleError
        If the limit is passed even so.

    Examples
    --------
    >>> from exactmap.sim.schedules.gpipe import gpipe
    >>> [f"{w.op}{w.microbatch}" for w in offload_within(gpipe(1, 5), 4).works(0)]
    ['F0', 'F1', 'F2', 'OFF2', 'F3', 'F4', 'B0', 'LD2', 'B1', 'B2', 'B3', 'B4']
    """
    if not stash_limit:
        return offload(order, reach=reach, lead=lead)
    most = items_within(order, stash_limit)
    away = [_sent_away(order, rank, most, reach, lead) for rank in range(order.num_ranks)]
    return _with_copies(order, away, reach, lead)


def offload_in_time(order: Order, stash_limit: int, times: WorkTimes | None) -> Order:
    """As `offload_within`, reach and lead chosen by durations; without them a copy takes one work.

    Where copies queue up behind each other, a stash is still there when its room is wanted. Then the reach
    grows until a walk of the order stays within the limit.

    Raises
    ------
    InfeasibleError
        If the limit cannot be kept, or not with copies as slow as these.
    """
    reach = lead = copy_reach(order, times)
    while True:
        sent = offload_within(order, stash_limit, reach=reach, lead=lead)
        if times is None or not stash_limit:
            return sent
        if max(peak_stash_items(sent, walk(sent, times))) <= items_within(order, stash_limit):
            return sent
        reach += -(-reach // 2)


def copy_reach(order: Order, times: WorkTimes | None) -> int:
    """Works of average length that cover a copy out and a copy in; 1 without durations.

    Examples
    --------
    >>> from exactmap.sim.schedules.gpipe import gpipe
    >>> copies = {("OFF", 0): 5, ("LD", 0): 5}
    >>> copy_reach(gpipe(1, 3), WorkTimes({("F", 0): 2, ("I", 0): 2, ("W", 0): 2}, copy_ns=copies))
    4
    """
    if times is None:
        return 1
    both = zip(
        times.table(Op.OFF, order.num_stages, order.num_slices),
        times.table(Op.LD, order.num_stages, order.num_slices),
        strict=True,
    )
    longest = max(sum(pair) for pair in both)
    num, total = 0, 0
    for works in map(order.works, range(order.num_ranks)):
        for code in np.unique(works.op):
            per_stage = times.table(KINDS[code], order.num_stages, order.num_slices)
            total += int(np.array(per_stage)[works.stage[works.op == code]].sum())
        num += len(works)
    return max(1, -(-longest * num // total))


class _Trips(NamedTuple):
    """Items of a rank that can go to the host: row of F, last row of their stay, row of their return."""

    item: NDArray[np.int64]
    out: NDArray[np.int64]
    gone_after: NDArray[np.int64]
    back_before: NDArray[np.int64]


def _trips(order: Order, works: Works, reach: int, lead: int) -> _Trips:
    """What lies far enough apart, in the order of the forward passes."""
    if min(reach, lead) < 1:
        raise InvalidInputError(
            "a copy takes at least one work", got=str(min(reach, lead)), expected="1 or more"
        )
    first, last = run_bounds(works)
    out = np.flatnonzero(works.op == _F)
    item = order.items(works)[out]
    gone_after = last[out] + reach
    # Copies stand outside of braids.
    back_before = first[np.maximum(first[order.backward_at[item]] - lead, 0)]
    far = back_before > gone_after
    return _Trips(item[far], out[far], gone_after[far], back_before[far])


def _with_copies(order: Order, away: list[NDArray[np.bool_]], reach: int, lead: int) -> Order:
    """The order with copies of the trips that are marked, rank by rank."""
    ranks: list[Works] = []
    for rank, marked in enumerate(away):
        works = order.works(rank)
        trips = _trips(order, works, reach, lead)
        sent = works.taken(trips.out[marked])
        copies = [Works.columns(CODES[op], sent.stage, sent.microbatch, sent.cut) for op in (Op.OFF, Op.LD)]
        behind = run_bounds(works)[1][trips.out[marked]]
        slots = (2 * np.arange(len(works)), 2 * behind + 1, 2 * trips.back_before[marked] - 1)
        ranks.append(by_slot(Works.joined((works, *copies)), np.concatenate(slots)))
    return Order(order.num_microbatches, order.placement, ranks, order.num_slices)


def _sent_away(order: Order, rank: int, most: int, reach: int, lead: int) -> NDArray[np.bool_]:
    """Which trips of a rank are made so that at most `most` stashes are there at once."""
    works = order.works(rank)
    items, codes = order.items(works).tolist(), works.op.tolist()
    last: list[int] = run_bounds(works)[1].tolist()
    wanted = order.backward_at.tolist()
    trips = _trips(order, works, reach, lead)
    trip_of = {item: trip for trip, item in enumerate(trips.item.tolist())}
    gone_after, back_before = trips.gone_after.tolist(), trips.back_before.tolist()
    made = np.zeros(len(trips.item), dtype=np.bool_)
    held: set[int] = set()
    returning: dict[int, list[int]] = {}

    def make_room(row: int) -> None:
        while len(held) > most:
            away = [
                item
                for item in held
                if (trip := trip_of.get(item, -1)) >= 0
                and not made[trip]
                and gone_after[trip] < row < back_before[trip]
            ]
            if not away:
                raise InfeasibleError(
                    "offload alone cannot keep to the stash limit",
                    where=f"rank {rank}",
                    got=f"{len(held)} stashes at {KINDS[codes[row]]} {order.name(items[row])}",
                    expected=f"at most {most}",
                    hint="raise the stash limit, or take faster copies",
                )
            choice = max(away, key=wanted.__getitem__)
            held.discard(choice)
            made[trip_of[choice]] = True
            returning.setdefault(back_before[trip_of[choice]], []).append(choice)

    row = 0
    while row < len(codes):
        run = range(row, last[row] + 1)
        for item in returning.get(row, ()):
            held.add(item)
            make_room(row)
        for at in run:
            if codes[at] == _F:
                held.add(items[at])
                make_room(row)
        for at in run:
            if codes[at] in _ENDS:
                held.discard(items[at])
        row = run.stop
    return made
