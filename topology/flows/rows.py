"""The flows under way, in columns: what `FlowNetwork` keeps of each, and the sparse matrix of their links."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.reduced import Bools
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Rows"]

NEVER = np.iinfo(np.int64).max
NS_PER_S = 1e9

ROUNDING = 1e-12
"""Part of a time by which floats may miss it: 1 GB at a third of 3 GB/s takes a second, not a ns more."""


class Rows:
    """Flows under way; links are numbered by first use, so that a large network costs nothing.

    Parameters
    ----------
    capacity
        [links] bytes/s of each link of the network.
    """

    @dataclass(frozen=True, slots=True, eq=False)
    class Added:
        """Flows to be put in: number, links, bytes, equals, bound of the sender, latency."""

        flow: Ints
        routes: Routes
        num_bytes: Floats
        count: Floats
        most: Floats
        latency_ns: Ints

        def those(self, places: Ints) -> Rows.Added:
            """Some of them."""
            return Rows.Added(
                self.flow[places],
                self.routes.rows(places),
                self.num_bytes[places],
                self.count[places],
                self.most[places],
                self.latency_ns[places],
            )

    def __init__(self, capacity: Floats) -> None:
        self.all_capacity = capacity.astype(np.float64)
        self.dense = np.full(len(capacity), -1, dtype=np.int64)
        self.links = np.zeros(0, dtype=np.int64)
        self.capacity = np.zeros(0)
        self.flow = np.zeros(0, dtype=np.int64)
        self.count = np.zeros(0)
        self.most = np.zeros(0)
        self.latency_ns = np.zeros(0, dtype=np.int64)
        self.rate = np.zeros(0)
        """Bytes/s; 0 until it is shared out."""
        self.left = np.zeros(0)
        """Bytes left at `since_ns`."""
        self.since_ns = np.zeros(0, dtype=np.int64)
        """When the rate changed last."""
        self.end_ns = np.zeros(0, dtype=np.int64)
        self.start = np.zeros(1, dtype=np.int64)
        self.link = np.zeros(0, dtype=np.int64)
        self.share = np.zeros(0)
        self.row = np.zeros(0, dtype=np.int64)
        """[entries] row of each."""

    @property
    def lengths(self) -> Ints:
        """Entries of each flow."""
        return np.diff(self.start)

    def weight(self) -> Floats:
        """[entries] what a rate of 1 takes of the link."""
        return self.share * self.count[self.row]

    def set_capacity(self, links: Ints, bytes_per_s: Floats) -> None:
        """Change the rate of links."""
        self._number(links)
        self.all_capacity[links] = bytes_per_s
        self.capacity[self.dense[links]] = bytes_per_s

    def add(self, added: Added, now_ns: int) -> Ints:
        """Put flows in at the end, and return their links."""
        routes = added.routes
        link, share, lengths = routes.link, routes.share, np.diff(routes.start)
        self._number(link)
        num = len(added.flow)
        self.flow = np.concatenate((self.flow, added.flow))
        self.count = np.concatenate((self.count, added.count))
        self.most = np.concatenate((self.most, added.most))
        self.latency_ns = np.concatenate((self.latency_ns, added.latency_ns))
        self.rate = np.concatenate((self.rate, np.zeros(num)))
        self.left = np.concatenate((self.left, added.num_bytes))
        self.since_ns = np.concatenate((self.since_ns, np.full(num, now_ns)))
        self.end_ns = np.concatenate((self.end_ns, np.full(num, NEVER)))
        self.link = np.concatenate((self.link, self.dense[link]))
        self.share = np.concatenate((self.share, share))
        self._set_lengths(np.concatenate((self.lengths, lengths)))
        return self.dense[link]

    def drop(self, is_done: Bools) -> Ints:
        """Take flows out, and return their links."""
        gone = is_done[self.row]
        links = self.link[gone]
        kept, stays = ~gone, ~is_done
        lengths = self.lengths[stays]
        self.link, self.share = self.link[kept], self.share[kept]
        self.flow, self.count, self.most = self.flow[stays], self.count[stays], self.most[stays]
        self.latency_ns, self.rate, self.left = self.latency_ns[stays], self.rate[stays], self.left[stays]
        self.since_ns, self.end_ns = self.since_ns[stays], self.end_ns[stays]
        self._set_lengths(lengths)
        return links

    def set_rate(self, rows: Ints, rate: Floats, now_ns: int) -> None:
        """Give flows new rates from now on."""
        sent = np.zeros(len(rows))
        passed = (now_ns - self.since_ns[rows]) / NS_PER_S
        np.multiply(self.rate[rows], passed, out=sent, where=passed > 0.0)
        left = np.maximum(self.left[rows] - sent, 0.0)
        ns = np.full(len(rows), np.inf)
        np.divide(left * NS_PER_S, rate, out=ns, where=rate > 0.0)
        ns[~(left > 0.0)] = 0.0
        ends = ns < 2.0**62
        span_ns = np.ceil(np.where(ends, ns, 0.0) * (1.0 - ROUNDING)).astype(np.int64)
        self.left[rows], self.rate[rows], self.since_ns[rows] = left, rate, now_ns
        self.end_ns[rows] = np.where(ends, now_ns + span_ns, NEVER)

    def loads(self) -> tuple[Ints, Floats, Floats]:
        """Links, bytes/s and flows on each."""
        weight = self.weight()
        load = np.bincount(self.link, weight * self.rate[self.row], len(self.links))
        flows = np.bincount(self.link, self.count[self.row], len(self.links))
        return self.links, load.astype(np.float64), flows.astype(np.float64)

    def _set_lengths(self, lengths: Ints) -> None:
        self.start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        self.row = np.repeat(np.arange(len(lengths)), lengths)

    def _number(self, links: Ints) -> None:
        """Give links that are new their numbers."""
        if len(links) and not 0 <= int(links.min()) <= int(links.max()) < len(self.dense):
            raise InvalidInputError(
                "a route takes a link that is not there",
                got=f"links {links.min()} to {links.max()}",
                expected=f"0 to {len(self.dense) - 1}",
            )
        new = np.unique(links[self.dense[links] < 0])
        self.dense[new] = np.arange(len(self.links), len(self.links) + len(new))
        self.links = np.concatenate((self.links, new))
        self.capacity = np.concatenate((self.capacity, self.all_capacity[new]))
