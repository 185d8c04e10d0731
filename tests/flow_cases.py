"""What the tests of flows share: plain water filling to compare with, a small leaf-spine, random traffic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.topology.links import Floats, Ints, Routes


def plain_rates(
    routes: Routes, capacity: Floats, *, count: Floats | None = None, most: Floats | None = None
) -> Floats:
    """Fair rates as the textbook has them: one level a round."""
    num_flows = routes.num_flows
    flow = np.repeat(np.arange(num_flows), np.diff(routes.start))
    weight = routes.share * (1.0 if count is None else count[flow])
    rate = np.full(num_flows, np.inf)
    own = np.full(num_flows, np.inf) if most is None else most
    left = capacity.astype(np.float64).copy()
    is_open = np.ones(num_flows, dtype=np.bool_)
    while is_open.any():
        active = is_open[flow]
        load = np.bincount(routes.link[active], weight[active], minlength=len(left))
        level = np.full(len(left), np.inf)
        np.divide(left, load, out=level, where=load > 0.0)
        bound = min(level.min(initial=np.inf), own[is_open].min())
        full = level <= bound
        done = is_open & (own <= bound)
        done[flow[active & full[routes.link]]] = True
        if not np.isfinite(bound):
            break
        rate[done] = bound
        fixed = done[flow] & active
        left -= np.bincount(routes.link[fixed], weight[fixed] * bound, minlength=len(left))
        np.maximum(left, 0.0, out=left)
        is_open &= ~done
    return rate


@dataclass(frozen=True)
class LeafSpine:
    """A two-tier fabric: each leaf has one link up to and down from each spine."""

    num_leaves: int
    hosts_per_leaf: int
    num_spines: int
    host_rate: float = 1.0
    up_rate: float = 1.0

    @property
    def num_hosts(self) -> int:
        """Hosts attached."""
        return self.num_leaves * self.hosts_per_leaf

    @property
    def num_links(self) -> int:
        """Host up, host down, leaf up, leaf down."""
        return 2 * self.num_hosts + 2 * self.num_leaves * self.num_spines

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each link."""
        return np.where(links < 2 * self.num_hosts, self.host_rate, self.up_rate)

    def tier(self, links: Ints) -> Ints:
        """Tier of each link."""
        return (links >= 2 * self.num_hosts).astype(np.int64)

    def name(self, link: int) -> str:
        """Name of a link."""
        if link < self.num_hosts:
            return f"host {link} > leaf {link // self.hosts_per_leaf}"
        if link < 2 * self.num_hosts:
            host = link - self.num_hosts
            return f"leaf {host // self.hosts_per_leaf} > host {host}"
        way, place = divmod(link - 2 * self.num_hosts, self.num_leaves * self.num_spines)
        leaf, spine = divmod(place, self.num_spines)
        return f"spine {spine} > leaf {leaf}" if way else f"leaf {leaf} > spine {spine}"

    @property
    def capacity(self) -> Floats:
        """Rate of every link."""
        return self.capacity_bytes_per_s(np.arange(self.num_links))

    def up(self, leaf: int, spine: int) -> int:
        """Link from a leaf to a spine."""
        return 2 * self.num_hosts + leaf * self.num_spines + spine

    def routes(self, source: Ints, target: Ints, *, spray: bool = False, seed: int = 0) -> Routes:
        """Links of a flow between each pair of hosts, by a random spine each, or all spines evenly."""
        spines = np.random.default_rng(seed).integers(self.num_spines, size=len(source))
        num_up = self.num_leaves * self.num_spines
        start, link, share = [0], [], []
        for src, dst, spine in zip(source.tolist(), target.tolist(), spines.tolist(), strict=True):
            link += [src, self.num_hosts + dst]
            share += [1.0, 1.0]
            first, last = src // self.hosts_per_leaf, dst // self.hosts_per_leaf
            for via in () if first == last else range(self.num_spines) if spray else (spine,):
                link += [self.up(first, via), num_up + self.up(last, via)]
                share += [1.0 / self.num_spines if spray else 1.0] * 2
            start.append(len(link))
        return Routes(np.array(start), np.array(link, dtype=np.int64), np.array(share))

    def paths(self, routes: Routes) -> list[list[list[int]]]:
        """Paths of each flow, its links in the order of travel."""
        num_up = self.num_leaves * self.num_spines
        found: list[list[list[int]]] = []
        for first, last in zip(routes.start[:-1], routes.start[1:], strict=True):
            host_up, host_down, *between = routes.link[first:last].tolist()
            ups = [link for link in between if link < 2 * self.num_hosts + num_up]
            downs = [link for link in between if link >= 2 * self.num_hosts + num_up]
            found.append(
                [[host_up, up, down, host_down] for up, down in zip(ups, downs, strict=True)]
                or [[host_up, host_down]]
            )
        return found
