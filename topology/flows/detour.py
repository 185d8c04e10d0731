"""Routes around lost links: what ECMP and spraying do once switches know which of their links live.

The links of a sprayed flow are all its shortest paths, a graph without cycles from sender to receiver. Taking
out lost links, and all from which the receiver cannot be reached any more, leaves what a switch still
chooses from. A sprayed flow is spread anew at each node, evenly or by the rates of its next links::

    share(link) = share(node) w(link) / sum of w over links out of the node      w = 1, or the link's rate

A flow by ECMP is hashed again among the live ones. Where no shortest path is left the flow is cut off:
fabrics route along shortest paths only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.errors import InfeasibleError
from exactmap.topology.fabric.build import BuiltFabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.hashing import Chooser
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.flows.health import Health
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["live_routes"]

MAX_HASHES = 16
"""Hashes that a flow by ECMP tries before its paths are looked at one by one."""


def live_routes(
    fabric: BuiltFabric,
    first: Ints,
    second: Ints,
    health: Health,
    *,
    spread: Spread,
    seed: int = 0,
    plane: int | None = None,
    minds_rates: bool = True,
) -> Routes:
    """Links of a flow between each pair that avoid lost links.

    Parameters
    ----------
    fabric, first, second, spread, seed
        As `Fabric.routes` takes them.
    health
        What is left of the links.
    plane
        Plane of a fat tree that all flows by ECMP take while it is whole; each by its hash if left out.
    minds_rates
        Sprayed packets go to each link by its rate, as adaptive routing does; if not, evenly over live ones.

    Raises
    ------
    InfeasibleError
        If some pair is cut off: which, and which of its links are lost.
    """
    if plane is not None and isinstance(fabric, FatTree):
        chooser = Chooser(first, second, seed)
        routes = fabric.routes_on(first, second, np.full(len(first), plane), chooser)
    else:
        routes = fabric.routes(first, second, spread=spread, seed=seed)
    factor = health.of(routes.link)
    minds = minds_rates and spread is Spread.SPRAY
    broken = _flows(routes, factor < 1.0 if minds else factor == 0.0)
    if not len(broken):
        return routes
    replaced: dict[int, tuple[Ints, Floats]] = {}
    if spread is Spread.ECMP:
        for again in range(1, MAX_HASHES):
            other = fabric.routes(first[broken], second[broken], spread=spread, seed=seed + (again << 32))
            dead = set(_flows(other, health.of(other.link) == 0.0).tolist())
            for place, flow in enumerate(broken.tolist()):
                if place not in dead:
                    row = slice(other.start[place], other.start[place + 1])
                    replaced[flow] = (other.link[row], other.share[row])
            broken = broken[sorted(dead)]
            if not len(broken):
                break
    table = fabric.links
    for flow in broken.tolist():
        pair = np.array([flow])
        every = fabric.routes(first[pair], second[pair], spread=Spread.SPRAY)
        graph = _Paths.of(table, every.link, health, minds_rates=minds)
        if not graph.reaches:
            lost = every.link[health.of(every.link) == 0.0]
            raise InfeasibleError(
                "lost links cut a GPU off",
                got=f"no path from gpu {first[flow]} to gpu {second[flow]}",
                expected="one shortest path that lives",
                hint="lost on its paths: " + ", ".join(table.name(link) for link in lost[:4].tolist()),
            )
        rng = np.random.default_rng((seed, flow))
        replaced[flow] = graph.spread() if spread is Spread.SPRAY else graph.one(rng)
    return _replaced(routes, replaced)


def _flows(routes: Routes, marked: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ints:
    """Flows with a marked entry."""
    before = np.concatenate(([0], np.cumsum(marked)))
    return np.flatnonzero(before[routes.start[1:]] > before[routes.start[:-1]])


@dataclass(frozen=True, slots=True, eq=False)
class _Paths:
    """Live shortest paths of one flow: links in order of hops, nodes numbered from the sender, 0."""

    link: Ints
    tail: Ints
    head: Ints
    hop: Ints
    weight: Floats
    reaches: bool

    @classmethod
    def of(cls, table: Wiring, links: Ints, health: Health, *, minds_rates: bool) -> _Paths:
        """Take the lost links out of all paths of a flow, and what leads nowhere."""
        tails, heads = table.ends(links)
        factor = health.of(links)
        weight = table.capacity_bytes_per_s(links) * factor if minds_rates else np.ones(len(links))
        nodes, both = np.unique(np.concatenate((tails, heads)), return_inverse=True)
        tail, head = both[: len(links)], both[len(links) :]
        hop = _hops(tail, head, len(nodes))
        order = np.argsort(hop, kind="stable")
        links, tail, head, hop = links[order], tail[order], head[order], hop[order]
        lives, weight = factor[order] > 0.0, weight[order]
        # The receiver sends nothing on; walk back from it.
        is_left = np.bincount(tail, minlength=len(nodes)) == 0
        for at in range(int(hop.max()), -1, -1):
            here = hop == at
            lives[here] &= is_left[head[here]]
            is_left[tail[here & lives]] = True
        sender = np.flatnonzero(np.bincount(head, minlength=len(nodes)) == 0)
        return cls(
            links[lives], tail[lives], head[lives], hop[lives], weight[lives], bool(is_left[sender].all())
        )

    def spread(self) -> tuple[Ints, Floats]:
        """All links with the part of the flow that takes each."""
        num_nodes = int(max(self.tail.max(), self.head.max())) + 1
        total = np.bincount(self.tail, self.weight, num_nodes)
        amount = np.zeros(num_nodes)
        amount[self.tail[self.hop == 0]] = 1.0
        share = np.zeros(len(self.link))
        for at in range(int(self.hop.max()) + 1):
            here = np.flatnonzero(self.hop == at)
            share[here] = amount[self.tail[here]] * self.weight[here] / total[self.tail[here]]
            amount += np.bincount(self.head[here], share[here], num_nodes)
        used = share > 0.0
        return self.link[used], share[used]

    def one(self, rng: np.random.Generator) -> tuple[Ints, Floats]:
        """One of the paths, a choice at each node."""
        path: list[int] = []
        node = int(self.tail[0])
        while len(nexts := np.flatnonzero(self.tail == node)):
            chosen = int(rng.choice(nexts))
            path.append(int(self.link[chosen]))
            node = int(self.head[chosen])
        return np.array(path, dtype=np.int64), np.ones(len(path))


def _hops(tail: Ints, head: Ints, num_nodes: int) -> Ints:
    """Hops from the sender to each link, all paths being shortest ones."""
    far = np.full(num_nodes, -1)
    far[np.bincount(head, minlength=num_nodes) == 0] = 0
    level = 0
    while len(nexts := head[far[tail] == level]):
        far[nexts] = level = level + 1
    return far[tail]


def _replaced(routes: Routes, rows: dict[int, tuple[Ints, Floats]]) -> Routes:
    """Routes with some rows exchanged."""
    lengths = np.diff(routes.start)
    kept = np.ones(len(lengths), dtype=np.bool_)
    kept[list(rows)] = False
    old = np.repeat(kept, lengths)
    new_lengths = lengths.copy()
    for flow, (links, _) in rows.items():
        new_lengths[flow] = len(links)
    start = np.concatenate(([0], np.cumsum(new_lengths))).astype(np.int64)
    stays = np.repeat(kept, new_lengths)
    link, share = np.empty(start[-1], dtype=np.int64), np.empty(start[-1])
    link[stays], share[stays] = routes.link[old], routes.share[old]
    for flow, (links, shares) in rows.items():
        link[start[flow] : start[flow + 1]], share[start[flow] : start[flow + 1]] = links, shares
    return Routes(start, link, share)
