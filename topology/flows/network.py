"""Flows that come and go: rates are shared out anew whenever a flow starts or ends.

Between two such moments every flow has a constant rate. With b bytes left at time t and rate r it ends at ::

    end = t + ceil(b / r)        in whole ns

A moment that leaves a flow's rate as it was leaves its end as it was, so ends do not drift. All that starts
or ends in the same ns is one moment.

Only flows that can notice are shared out again:

- A flow that leaves at rate r held no link that was full below r; one that comes gets at least the even share
  of its tightest link. Flows slower than that keep their rates, and what they take is taken off the links.
- Among the faster ones the change spreads from the links of who came or went, and from flow to flow only
  over links that can be short of rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.reduced import Bools, alone, share_out, short_links, span
from exactmap.topology.flows.rows import Rows
from exactmap.topology.flows.shares import check_amounts
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["NEVER", "Finished", "FlowNetwork", "Observer"]

NEVER = int(np.iinfo(np.int64).max)
"""Time of what does not happen: the end of a flow over a lost link."""

SAME = 1e-11
"""Rates that differ by less than this part are taken as unchanged."""

SLACK = 1e-9
"""Margin below which a flow is held to be slower than another."""


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """Flows that have ended.

    Parameters
    ----------
    flow
        Their numbers, by time of end, then number.
    end_ns
        When the last byte was sent: the links are free again.
    arrive_ns
        When it is there: the flow's latency later.
    """

    flow: Ints
    end_ns: Ints
    arrive_ns: Ints


class Observer(Protocol):
    """Told what the links carried between two moments."""

    def interval(self, from_ns: int, to_ns: int, links: Ints, load: Floats, flows: Floats) -> None:
        """Take a stretch of constant rates: links, bytes/s on each, flows on each."""
        ...


class FlowNetwork:
    """A network with the flows that are under way, at one moment.

    Start flows now, ask for the next end, advance to it (or to any moment before, to start more).

    Parameters
    ----------
    capacity
        [links] bytes/s of each.
    observer
        Told every stretch of constant rates.

    Examples
    --------
    A flow of 1,000 bytes is alone on a link of 10 bytes/ns for 50 ns, then shares it:

    >>> net = FlowNetwork(np.array([1e10]))
    >>> first = net.start(Routes.of([[0]]), np.array([1000]))
    >>> net.next_ns()
    100
    >>> _ = net.advance(50)
    >>> second = net.start(Routes.of([[0]]), np.array([1000]))
    >>> net.next_ns()
    150
    >>> done = net.advance(200)
    >>> done.flow.tolist(), done.end_ns.tolist()
    ([0, 1], [150, 200])
    """

    def __init__(self, capacity: Floats, *, observer: Observer | None = None) -> None:
        check_amounts(rate=capacity)
        self.now_ns = 0
        self._rows = Rows(capacity)
        self._observer = observer
        self._pending: list[Rows.Added] = []
        self._num_started = 0
        self._floor = np.inf
        """Least rate that can change at the next sharing."""
        self._touched: list[Ints] = []
        """Links of what has come or gone, or whose rate was set."""
        self._ended: list[tuple[Ints, Ints]] = []
        """Flows without bytes: number and latency."""

    @property
    def num_flows(self) -> int:
        """Flows under way."""
        return len(self._rows.flow) + sum(len(added.flow) for added in self._pending)

    def start(
        self,
        routes: Routes,
        num_bytes: Ints,
        *,
        count: Floats | None = None,
        most: Floats | None = None,
        latency_ns: Ints | None = None,
    ) -> Ints:
        """Start flows now.

        Parameters
        ----------
        routes
            Links of each.
        num_bytes
            [flows] bytes of each; of each of its equals where `count` is over 1.
        count
            [flows] equal flows that each stands for; 1 if left out.
        most
            [flows] bytes/s that the sender cannot pass; none if left out.
        latency_ns
            [flows] from the end of sending to arrival; 0 if left out.

        Returns
        -------
        Ints
            [flows] their numbers, counted from 0 over all that were ever started.
        """
        check_amounts(share=routes.share, count=count, bound=most)
        num = routes.num_flows
        flow = np.arange(self._num_started, self._num_started + num)
        self._num_started += num
        latency = np.zeros(num, dtype=np.int64) if latency_ns is None else latency_ns.astype(np.int64)
        added = Rows.Added(
            flow,
            routes,
            num_bytes.astype(np.float64),
            np.ones(num) if count is None else count.astype(np.float64),
            np.full(num, np.inf) if most is None else most.astype(np.float64),
            latency,
        )
        empty = (num_bytes == 0) | (added.count == 0.0)
        if empty.any():
            self._ended.append((flow[empty], latency[empty]))
            added = added.those(np.flatnonzero(~empty))
        if len(added.flow):
            self._pending.append(added)
        return flow

    def set_capacity(self, links: Ints, bytes_per_s: Floats) -> None:
        """Change the rate of links from now on: 0 for one that is lost."""
        check_amounts(rate=bytes_per_s)
        self._settle()
        self._rows.set_capacity(links, bytes_per_s)
        self._touched.append(self._rows.dense[links])
        self._floor = 0.0

    def rates(self) -> tuple[Ints, Floats]:
        """Flows under way and the bytes/s of each."""
        self._settle()
        return self._rows.flow, self._rows.rate

    def next_ns(self) -> int:
        """When the next flow ends; `NEVER` if none does."""
        if self._ended:
            return self.now_ns
        self._settle()
        return int(self._rows.end_ns.min(initial=NEVER))

    def advance(self, to_ns: int) -> Finished:
        """Let time pass, and return what has ended by then, `to_ns` included."""
        if to_ns < self.now_ns:
            raise InvalidInputError(
                "time does not run backwards", got=f"{to_ns} ns", expected=f"{self.now_ns} ns or later"
            )
        flows: list[Ints] = []
        ends: list[Ints] = []
        arrivals: list[Ints] = []
        while (at_ns := self.next_ns()) <= to_ns and at_ns != NEVER:
            self._pass(at_ns)
            flow, latency = self._take_ended()
            flows.append(flow)
            ends.append(np.full(len(flow), at_ns))
            arrivals.append(at_ns + latency)
        self._pass(to_ns)
        none = [np.zeros(0, dtype=np.int64)]
        return Finished(*(np.concatenate(parts or none) for parts in (flows, ends, arrivals)))

    def _pass(self, to_ns: int) -> None:
        """Move the clock."""
        if self._observer is not None and self.now_ns < to_ns < NEVER:
            self._settle()
            rows = self._rows
            links, load, flows = rows.loads()
            self._observer.interval(self.now_ns, to_ns, links, load, flows)
        self.now_ns = to_ns

    def _take_ended(self) -> tuple[Ints, Ints]:
        """Take out the flows that end now: their numbers and latencies."""
        rows = self._rows
        is_done = rows.end_ns <= self.now_ns
        flow, latency = rows.flow[is_done], rows.latency_ns[is_done]
        if len(flow):
            self._floor = min(self._floor, float(rows.rate[is_done].min()))
            self._touched.append(rows.drop(is_done))
        if self._ended:
            flow = np.concatenate([flow, *(part[0] for part in self._ended)])
            latency = np.concatenate([latency, *(part[1] for part in self._ended)])
            self._ended.clear()
        order = np.argsort(flow)
        return flow[order], latency[order]

    def _settle(self) -> None:
        """Share out anew if anything has changed."""
        if not self._pending and not self._touched:
            return
        rows = self._rows
        num_old = len(rows.flow)
        for added in self._pending:
            self._touched.append(rows.add(added, self.now_ns))
        self._pending.clear()
        is_new = np.arange(len(rows.flow)) >= num_old
        if len(rows.flow):
            bound = alone(rows.lengths, rows.link, rows.weight(), rows.capacity, rows.most)
            is_short = short_links(rows.lengths, rows.link, rows.weight(), rows.capacity, bound)
            flows = self._noticing(is_new, is_short)
            if len(flows):
                self._share(flows, bound, is_short)
        self._touched.clear()
        self._floor = np.inf

    def _noticing(self, is_new: Bools, is_short: Bools) -> Ints:
        """Flows whose rate may change."""
        rows = self._rows
        weight = rows.weight()
        floor = self._floor
        if is_new.any():
            # The even share of a link only grows as others freeze.
            load = np.bincount(rows.link, weight, len(rows.capacity))
            entries = np.repeat(is_new, rows.lengths)
            links = rows.link[entries]
            even = np.full(len(links), np.inf)
            np.divide(rows.capacity[links], load[links], out=even, where=load[links] > 0.0)
            floor = min(floor, float(even.min(initial=np.inf)), float(rows.most[is_new].min()))
        may = is_new | (rows.rate >= floor * (1.0 - SLACK))
        reached = np.zeros(len(rows.capacity), dtype=np.bool_)
        for links in self._touched:
            reached[links] = True
        is_in = is_new
        while True:
            # A row without links comes in only by itself.
            hit = np.bincount(rows.row[reached[rows.link]], minlength=len(may)) > 0
            grown = is_in | (hit & may)
            size = int(grown.sum())
            if 2 * size > int(may.sum()):
                return np.flatnonzero(may)
            if size == int(is_in.sum()):
                return np.flatnonzero(grown)
            is_in = grown
            reached[rows.link[np.repeat(is_in, rows.lengths)]] = True
            if self._floor > 0.0:
                # Which links can be short hangs on rates of links: where these were set, all links may tell.
                reached &= is_short

    def _share(self, flows: Ints, bound: Floats, is_short: Bools) -> None:
        """Give some flows new rates beside all others, and new ends where the rate has changed."""
        rows = self._rows
        weight = rows.weight()
        left = rows.capacity
        if len(flows) < len(rows.flow):
            # What has no bound is over at once, and takes only links without end.
            kept = np.where(np.isfinite(rows.rate), rows.rate, 0.0)
            kept[flows] = 0.0
            taken = weight * kept[rows.row]
            left = np.maximum(left - np.bincount(rows.link, taken, len(left)), 0.0)
            # A link that can carry all at their bounds holds nobody back, whatever rounding leaves of it.
            left[~is_short] = np.inf
        start, entries = span(rows.start, flows)
        rate = share_out(
            np.diff(start), rows.link[entries], weight[entries], left, rows.count[flows], bound[flows]
        )
        old = rows.rate[flows]
        with np.errstate(invalid="ignore"):
            is_changed = ~(np.abs(rate - old) <= SAME * np.minimum(rate, old))
        rows.set_rate(flows[is_changed], rate[is_changed], self.now_ns)
