"""What an order costs: makespan, period, both bubbles, stash, messages.

Clocks as in the model of time. *Barrier makespan*: end of the last work of all ranks. *Period*: the most that
lies, on one rank, between the start of its first pass and the end of its last; a step is no longer than that
if no rank waits for the others between steps. Bubble: 1 - mean over ranks of (sum of the durations of its
passes) / clock. The two clocks are reported side by side and never mixed.

Stash: items whose activations for W live at once, from F (from RC where the item is recomputed) to W or B. An
offloaded item is away from the end of its OFF to the start of its LD, in the walk's time. The unit is one
microbatch on a p-th of the stages, so an item counts p/(S*slices): 1/v for v chunks per rank, 1 for stages
that lie on two ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order, Works
from exactmap.sim.schedules.timeline import Timeline, WorkTimes, walk
from exactmap.sim.schedules.weave import run_bounds

__all__ = ["OrderMetrics", "measure", "most_at_once", "peak_stash_items"]

_F, _I, _W, _B, _RC, _OFF, _LD = (CODES[op] for op in (Op.F, Op.I, Op.W, Op.B, Op.RC, Op.OFF, Op.LD))


@dataclass(frozen=True, slots=True)
class OrderMetrics:
    """Cost of an order under given durations.

    Attributes
    ----------
    makespan_ns, period_ns
        Of the barrier clock and of the free one.
    bubble_barrier, bubble_steady
        Idle share of the ranks on each clock.
    peak_stash
        For each rank the most microbatches stashed at once.
    p2p_messages
        Outputs and gradients that go from one rank to another, all ranks together.
    copies
        Stashes that are sent to the host.
    """

    makespan_ns: int
    period_ns: int
    bubble_barrier: float
    bubble_steady: float
    peak_stash: tuple[float, ...]
    p2p_messages: int
    copies: int

    @property
    def peak_stash_microbatches(self) -> float:
        """Stash of the fullest rank."""
        return max(self.peak_stash)


def measure(order: Order, times: WorkTimes) -> OrderMetrics:
    """Walk an order and take its measures.

    Raises
    ------
    InfeasibleError
        If works wait for each other in a circle.

    Examples
    --------
    >>> from exactmap.sim.schedules.one_f_one_b import one_f_one_b
    >>> metrics = measure(one_f_one_b(4, 8), WorkTimes.unit(4, unit_ns=1000))
    >>> metrics.makespan_ns, round(metrics.bubble_barrier, 3), metrics.peak_stash
    (33000, 0.273, (4.0, 3.0, 2.0, 1.0))
    """
    timeline = walk(order, times)
    busy_ns, period_ns, copies = 0, 0, 0
    for rank in range(order.num_ranks):
        works = order.works(rank)
        copies += int((works.op == _OFF).sum())
        rows = np.flatnonzero((works.op != _OFF) & (works.op != _LD))
        if not len(rows):
            continue
        starts, ends = timeline.start_ns[rank][rows], timeline.end_ns[rank][rows]
        period_ns = max(period_ns, int(ends[-1] - starts[0]))
        # Works of a braid share start and end: count the first.
        first = np.append(True, starts[1:] != starts[:-1])
        busy_ns += int((ends - starts)[first].sum())
    makespan_ns = timeline.makespan_ns
    share = order.num_ranks / (order.num_stages * order.num_slices)
    return OrderMetrics(
        makespan_ns,
        period_ns,
        1 - busy_ns / order.num_ranks / makespan_ns,
        1 - busy_ns / order.num_ranks / period_ns,
        tuple(share * items for items in peak_stash_items(order, timeline)),
        _messages(order),
        copies,
    )


def peak_stash_items(order: Order, timeline: Timeline | None = None) -> tuple[int, ...]:
    """For each rank the most items stashed at once; a timeline is needed where stashes go to the host.

    Examples
    --------
    >>> from exactmap.sim.schedules.gpipe import gpipe
    >>> peak_stash_items(gpipe(2, 3))
    (3, 3)
    """
    peaks: list[int] = []
    for rank in range(order.num_ranks):
        works = order.works(rank)
        begin, end = _stash_rows(order, works)
        away = np.flatnonzero(works.op == _OFF)
        if not len(away):
            peaks.append(most_at_once(begin, end))
            continue
        assert timeline is not None, "offloaded stashes come and go in time, not in rows"
        peaks.append(most_at_once(*_stash_times(order, works, timeline, rank, begin, end)))
    return tuple(peaks)


def _stash_rows(order: Order, works: Works) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows from which and until after which each item of a rank is stashed, by ascending item.

    The works of a braid name all slots before they end any.
    """
    items = order.items(works)
    row = np.arange(len(works))
    after = run_bounds(works)[1] + 1
    begin = np.full(order.num_items, -1, dtype=np.int64)
    end = np.full(order.num_items, -1, dtype=np.int64)
    for code in (_F, _RC):
        rows = row[works.op == code]
        begin[items[rows]] = rows
    for code in (_W, _B):
        rows = row[works.op == code]
        end[items[rows]] = after[rows]
    mine = begin >= 0
    return begin[mine], end[mine]


def _stash_times(
    order: Order,
    works: Works,
    timeline: Timeline,
    rank: int,
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times between which stashes are on the rank: the whole life of an item, or its two ends."""
    starts, ends = timeline.start_ns[rank], timeline.end_ns[rank]
    items = order.items(works)
    begin_ns, end_ns = starts[begin], ends[end - 1]
    numbers = items[begin]
    sent, back = np.flatnonzero(works.op == _OFF), np.flatnonzero(works.op == _LD)
    sent, back = sent[np.argsort(items[sent])], back[np.argsort(items[back])]
    place = np.searchsorted(numbers, items[sent])
    # A stash that is asked back before it is gone never leaves room.
    left = starts[back] > ends[sent]
    place, sent, back = place[left], sent[left], back[left]
    back_ns, until_ns = starts[back], end_ns[place]
    end_ns[place] = ends[sent]
    return np.concatenate((begin_ns, back_ns)), np.concatenate((end_ns, until_ns))


def most_at_once(begin: NDArray[np.int64], end: NDArray[np.int64]) -> int:
    """Most intervals [begin, end) that hold one moment.

    Examples
    --------
    >>> most_at_once(np.array([0, 1, 4]), np.array([4, 3, 5]))
    2
    """
    if not len(begin):
        return 0
    begin = np.sort(begin)
    over = np.searchsorted(np.sort(end), begin, side="right")
    return int((np.arange(1, len(begin) + 1) - over).max())


def _messages(order: Order) -> int:
    """Hand-overs from stage to stage that leave a rank, there and back."""
    rank_of = order.rank_of_item.reshape(order.num_stages, -1)
    return 2 * int((rank_of[1:] != rank_of[:-1]).sum())
