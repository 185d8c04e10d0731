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


def check_reasons(
    routes: Routes, capacity: Floats, rate: Floats, *, count: Floats | None = None, most: Floats | None = None
) -> None:
    """The definition: no link is overfull, and each flow is at its bound or the fastest on a full link."""
    num_flows = routes.num_flows
    count = np.ones(num_flows) if count is None else count
    most = np.full(num_flows, np.inf) if most is None else most
    flow = np.repeat(np.arange(num_flows), np.diff(routes.start))
    weight = routes.share * count[flow]
    finite = np.where(np.isfinite(rate), rate, 0.0)
    load = np.bincount(routes.link, weight * finite[flow], minlength=len(capacity))
    assert (load <= capacity * (1 + 1e-9)).all()
    assert (rate <= most * (1 + 1e-12)).all()
    fastest = np.zeros(len(capacity))
    np.maximum.at(fastest, routes.link[weight > 0.0], rate[flow[weight > 0.0]])
    is_full = load >= capacity * (1 - 1e-9)
    for one in range(num_flows):
        if count[one] == 0.0:
            assert rate[one] == 0.0
            continue
        links = routes.link[(flow == one) & (weight > 0.0)]
        if not np.isfinite(rate[one]):
            assert not np.isfinite(most[one])
            assert not np.isfinite(capacity[links]).any()
            continue
        stops = is_full[links] & (rate[one] >= fastest[links] * (1 - 1e-9))
        assert rate[one] >= most[one] * (1 - 1e-9) or stops.any()


def extreme_network(rng: np.random.Generator) -> tuple[Routes, Floats, Floats, Floats]:
    """Routes, capacity, count and bounds as nobody has them; a flow may take a link twice."""
    num_links, num_flows = int(rng.integers(1, 10)), int(rng.integers(0, 20))
    routes = extreme_routes(rng, num_links, num_flows)
    capacity = extreme_capacity(rng, int(rng.integers(5)), num_links)
    count = rng.choice([0.0, 1.0, 3.0, 1000.0], num_flows)
    most = rng.choice([0.0, 1e-6, 1.0 / 3.0, 1.0, 1e15, np.inf, np.inf, np.inf], num_flows)
    return routes, capacity, count, most


def extreme_routes(rng: np.random.Generator, num_links: int, num_flows: int) -> Routes:
    """Paths that may cross a link twice, some with shares from nothing to more than all."""
    routes = Routes.of([rng.integers(0, num_links, rng.integers(0, 6)).tolist() for _ in range(num_flows)])
    if rng.random() < 0.5:
        return routes
    shares = rng.choice([0.0, 1e-6, 0.125, 1.0 / 3.0, 1.0, 3.0], len(routes.link))
    return Routes(routes.start, routes.link, shares)


def extreme_capacity(rng: np.random.Generator, kind: int, num_links: int) -> Floats:
    """Rates of a kind: lost and endless, of all sizes, of two sizes, equal up to rounding, broken."""
    if kind == 0:
        return rng.choice([0.0, 1.0, 2.0, np.inf], num_links)
    if kind == 1:
        return 10.0 ** rng.uniform(-6, 15, num_links)
    if kind == 2:
        return rng.choice([1e-6, 1e15], num_links)
    if kind == 3:
        return (1.0 + rng.integers(-3, 4, num_links) * 1e-13).astype(np.float64)
    return rng.choice([1.0 / 3.0, 2.0 / 3.0, 1.0, 1e9 / 7.0], num_links)


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
