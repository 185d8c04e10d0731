"""Dragonfly: groups of fully connected routers, each group with cables to each other group.

After Kim, Dally, Scott and Abts, "Technology-driven, highly-scalable dragonfly topology" (ISCA 2008): a
router has e endpoints, a - 1 cables to the others of its group and h global ones, so that a h + 1 groups at
most reach each other directly. With g groups each two have floor(a h / (g - 1)) global cables between them.
Those of group i go to i + 1, i + 2, ... in turn and fill its routers one after the other.

A minimal route has one global cable at most, and before and after it a local one where it is needed; among
several global cables those with the fewest hops count. (Valiant's routing, which goes through a random third
group to spread bad patterns, doubles the global hops; it is not modelled.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.topology.fabric.dragonfly_links import DragonflyLinks, DragonflyShape
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.gather import Pieces
from exactmap.topology.fabric.hashing import Chooser
from exactmap.topology.fabric.regular import RegularFabric
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Dragonfly"]


@dataclass(frozen=True, slots=True)
class _Choices:
    """Global cables that a minimal route may take, as two runs of numbers, and its hops between routers."""

    hops: Ints
    start: Ints
    length: Ints
    further_start: Ints
    further: Ints

    @property
    def num(self) -> Ints:
        """Cables to choose from."""
        return self.length + self.further

    def copy(self, row: Ints, which: Ints) -> Ints:
        """The cable with a place among those of a row."""
        beyond = which - self.length[row]
        return np.where(beyond < 0, self.start[row] + which, self.further_start[row] + beyond)


class Dragonfly(RegularFabric[DragonflyShape, DragonflyLinks]):
    """A built dragonfly with minimal routing.

    Parameters
    ----------
    spec
        What was asked for.
    shape
        Sizes of one plane.
    port_bytes_per_s
        Rate of a port: an interface's rate divided by the planes.
    """

    def __init__(self, spec: FabricSpec, shape: DragonflyShape, port_bytes_per_s: float) -> None:
        super().__init__(spec, shape, DragonflyLinks(shape, spec.planes, port_bytes_per_s), port_bytes_per_s)

    @property
    def bisection_bytes_per_s(self) -> float:
        """Rate between two halves of whole groups (of whole routers if there is one group)."""
        groups, routers = self.shape.num_groups, self.shape.routers
        cables = (groups // 2) * (groups - groups // 2) * self.shape.copies
        if groups == 1:
            cables = (routers // 2) * (routers - routers // 2)
        endpoints = self.num_gpus // 2
        alone = groups == 1 and routers == 1
        return self.spec.planes * self.port_bytes_per_s * (endpoints if alone else min(cables, endpoints))

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        """0 for a GPU and itself, 1 at one router, 2 inside a group, 3 between groups."""
        a, b = self.leaf(first), self.leaf(second)
        routers = self.shape.routers
        tier = (first != second).astype(np.int64)
        out: Ints = tier + (a != b) + (a // routers != b // routers)
        return out

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        """Routers and cables on the minimal route of each pair."""
        hops = self._choices(self.leaf(first), self.leaf(second)).hops
        time = (hops + 1) * self.spec.hop_ns(1) + hops * self.spec.cable_ns
        return np.where(first == second, 0, time)

    def leaf(self, gpu: Ints) -> Ints:
        """Router of each GPU."""
        return gpu // self.shape.endpoints

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        """Links of a flow between each pair; with ECMP the path hangs on pair, place in the list, seed."""
        links = self._links
        pieces = Pieces(len(first))
        moving = np.flatnonzero(first != second)
        pieces.add(moving, first[moving])
        a, b = self.leaf(first), self.leaf(second)
        near = np.flatnonzero((a != b) & (a // self.shape.routers == b // self.shape.routers))
        pieces.add(near, links.local(a[near], b[near]))
        far = np.flatnonzero(a // self.shape.routers != b // self.shape.routers)
        choices = self._choices(a[far], b[far])
        chooser = Chooser(first, second, seed)
        if spread is Spread.SPRAY:
            # Each flow as many times as it has cables to choose from.
            times = choices.num
            row = np.repeat(np.arange(len(far)), times)
            which = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
        else:
            row = np.arange(len(far))
            which = chooser.choose_among(1, np.maximum(self._scatter(choices.num, far, len(first)), 1))[far]
        flows = far[row]
        share = 1.0 / choices.num[row] if spread is Spread.SPRAY else np.ones(len(flows))
        self._add_far(pieces, choices.copy(row, which), flows, a[flows], b[flows], share)
        pieces.add(moving, second[moving] + self.num_gpus)
        if spread is Spread.SPRAY:
            return pieces.routes(planes=self.spec.planes, plane_links=links.plane_links, merge=True)
        found = pieces.routes()
        plane = np.repeat(chooser.choose(0, self.spec.planes), np.diff(found.start))
        return Routes(found.start, found.link + plane * links.plane_links, found.share)

    def _add_far(self, pieces: Pieces, copy: Ints, flows: Ints, a: Ints, b: Ints, share: Floats) -> None:
        """Local, global and local link of flows, each through one copy of the cables between its groups."""
        links, routers = self._links, self.shape.routers
        group_a, group_b = a // routers, b // routers
        port = links.port(group_a, group_b, copy)
        out = links.router_of_port(group_a, port)
        into = links.router_of_port(group_b, links.port(group_b, group_a, copy))
        before, after = np.flatnonzero(a != out), np.flatnonzero(into != b)
        pieces.add(flows[before], links.local(a[before], out[before]), share[before])
        pieces.add(flows, links.global_link(group_a, port), share)
        pieces.add(flows[after], links.local(into[after], b[after]), share[after])

    def _choices(self, a: Ints, b: Ints) -> _Choices:
        """The global cables that give each pair of routers its shortest route.

        The cables between two groups are numbered 0 to copies - 1, and those on a given router are a run of
        them. If the runs at a and at b overlap, the overlap needs no local cable; else the cables of either
        run need one, at the other end; else every cable needs two.
        """
        copies, routers = self.shape.copies, self.shape.routers
        group_a, group_b = a // routers, b // routers
        low_a, high_a = self._run(group_a, group_b, a % routers)
        low_b, high_b = self._run(group_b, group_a, b % routers)
        low, high = np.maximum(low_a, low_b), np.minimum(high_a, high_b)
        len_a, len_b = high_a - low_a, high_b - low_b
        both, either = high > low, len_a + len_b > 0
        inside = group_a == group_b
        hops = np.where(both, 1, np.where(either, 2, 3))
        return _Choices(
            hops=np.where(inside, a != b, hops).astype(np.int64),
            start=np.where(both, low, np.where(either, low_a, 0)),
            length=np.where(both, high - low, np.where(either, len_a, copies)),
            further_start=low_b,
            further=np.where(both | ~either, 0, len_b),
        )

    def _run(self, group: Ints, other: Ints, place: Ints) -> tuple[Ints, Ints]:
        """First cable towards another group that sits on a router, and the one after the last."""
        first = self._links.port(group, other, 0)
        low = place * self.shape.global_links - first
        copies = self.shape.copies
        return np.clip(low, 0, copies), np.clip(low + self.shape.global_links, 0, copies)

    @staticmethod
    def _scatter(values: Ints, places: Ints, size: int) -> Ints:
        out = np.zeros(size, dtype=np.int64)
        out[places] = values
        return out
