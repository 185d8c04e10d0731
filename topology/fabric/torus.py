"""Torus: a grid of routers, closed in each direction, with dimension-ordered routing.

A packet corrects its first coordinate, then its second, and so on, each the shorter way round; half way round
both ways are as short, and a flow by ECMP takes one of them by hash, a sprayed one both (Dally and Towles,
"Principles and Practices of Interconnection Networks", 2004). In a direction of size 2 the two ways are one
cable. The GPUs are shared out evenly over the routers, the first to router 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.gather import Pieces
from exactmap.topology.fabric.hashing import Chooser
from exactmap.topology.fabric.regular import RegularFabric
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Torus", "TorusLinks", "TorusShape"]


@dataclass(frozen=True, slots=True)
class TorusShape:
    """Sizes of one plane: GPUs attached, and routers in each direction (the first counts fastest)."""

    num_gpus: int
    sizes: tuple[int, ...]

    @property
    def num_routers(self) -> int:
        """Routers."""
        return prod(self.sizes)

    @property
    def endpoints(self) -> int:
        """GPUs per router; the last routers may have fewer."""
        return ceil(self.num_gpus / self.num_routers)

    @property
    def ways(self) -> tuple[tuple[int, int], ...]:
        """(direction, step) of each cable that a router sends through."""
        both = [(axis, step) for axis, size in enumerate(self.sizes) if size > 1 for step in (1, -1)]
        return tuple((axis, step) for axis, step in both if step == 1 or self.sizes[axis] > 2)

    def stride(self, axis: int) -> int:
        """Distance in routers between neighbours in a direction."""
        return prod(self.sizes[:axis])


class TorusLinks(Wiring):
    """Links of a torus: of GPUs (up, then down), then (router, way)."""

    def __init__(self, shape: TorusShape, num_planes: int, port_bytes_per_s: float) -> None:
        self.shape = shape
        self._num_planes = num_planes
        self._rate = port_bytes_per_s

    @property
    def num_gpus(self) -> int:
        """GPUs: the first nodes."""
        return self.shape.num_gpus

    @property
    def num_planes(self) -> int:
        """Equal networks side by side."""
        return self._num_planes

    @property
    def plane_links(self) -> int:
        """Links of one plane."""
        return 2 * self.num_gpus + self.shape.num_routers * len(self.shape.ways)

    @property
    def plane_switches(self) -> int:
        """Routers of one plane."""
        return self.shape.num_routers

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each: that of an interface's port."""
        return np.full(len(links), self._rate)

    def tier(self, links: Ints) -> Ints:
        """0 at a GPU, 1 between routers."""
        return (links % self.plane_links >= 2 * self.num_gpus).astype(np.int64)

    def node_tier(self, nodes: Ints) -> Ints:
        """0 for a GPU, 1 for a router."""
        return (nodes >= self.num_gpus).astype(np.int64)

    def switch_name(self, switch: int) -> str:
        """Coordinates of a router."""
        place = [switch // self.shape.stride(axis) % size for axis, size in enumerate(self.shape.sizes)]
        return f"router {','.join(map(str, place))}"

    def link(self, router: Ints, way: int) -> Ints:
        """Link that a router sends through, inside a plane."""
        return 2 * self.num_gpus + router * len(self.shape.ways) + way

    def neighbour(self, router: Ints, axis: int, step: int | Ints) -> Ints:
        """Router some steps away in a direction."""
        stride, size = self.shape.stride(axis), self.shape.sizes[axis]
        place = router // stride % size
        return router + ((place + step) % size - place) * stride

    def ends(self, links: Ints) -> tuple[Ints, Ints]:
        """Nodes that each link leads from and to."""
        plane, inside = np.divmod(links, self.plane_links)
        gpus = self.num_gpus
        base = gpus + plane * self.plane_switches
        gpu = inside % gpus
        leaf = base + gpu // self.shape.endpoints
        first, second = np.where(inside < gpus, gpu, leaf), np.where(inside < gpus, leaf, gpu)
        router, port = np.divmod(inside - 2 * gpus, max(len(self.shape.ways), 1))
        for way, (axis, step) in enumerate(self.shape.ways):
            chosen = np.flatnonzero((inside >= 2 * gpus) & (port == way))
            first[chosen] = base[chosen] + router[chosen]
            second[chosen] = base[chosen] + self.neighbour(router[chosen], axis, step)
        return first, second


class Torus(RegularFabric[TorusShape, TorusLinks]):
    """A built torus with dimension-ordered routing.

    Parameters
    ----------
    spec
        What was asked for.
    shape
        Sizes of one plane.
    port_bytes_per_s
        Rate of a port: an interface's rate divided by the planes.
    """

    def __init__(self, spec: FabricSpec, shape: TorusShape, port_bytes_per_s: float) -> None:
        super().__init__(spec, shape, TorusLinks(shape, spec.planes, port_bytes_per_s), port_bytes_per_s)

    @property
    def bisection_bytes_per_s(self) -> float:
        """Rate through a cut across the longest direction, which meets each ring twice."""
        longest = max(self.shape.sizes)
        endpoints = self.num_gpus // 2
        cables = self.shape.num_routers // longest * (2 if longest > 2 else 1)
        return (
            self.spec.planes * self.port_bytes_per_s * (endpoints if longest == 1 else min(cables, endpoints))
        )

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        """0 for a GPU and itself, 1 at one router, 2 further away."""
        out: Ints = (first != second).astype(np.int64) + (self.leaf(first) != self.leaf(second))
        return out

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        """Routers and cables on the shortest path of each pair."""
        a, b = self.leaf(first), self.leaf(second)
        hops = np.zeros(len(first), dtype=np.int64)
        for axis in range(len(self.shape.sizes)):
            hops += np.abs(self._steps(a, b, axis))
        time = (hops + 1) * self.spec.hop_ns(1) + hops * self.spec.cable_ns
        return np.where(first == second, 0, time)

    def leaf(self, gpu: Ints) -> Ints:
        """Router of each GPU."""
        return gpu // self.shape.endpoints

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        """Links of a flow between each pair; with ECMP the path hangs on pair, place in the list, seed."""
        links = self._links
        pieces = Pieces(len(first))
        chooser = Chooser(first, second, seed)
        moving = np.flatnonzero(first != second)
        pieces.add(moving, first[moving])
        here, goal = self.leaf(first), self.leaf(second)
        for axis, size in enumerate(self.shape.sizes):
            steps = self._steps(here, goal, axis)
            is_tie = (2 * np.abs(steps) == size) & (size > 2)
            if spread is Spread.SPRAY:
                share = np.where(is_tie, 0.5, 1.0)
                self._walk(pieces, here, axis, steps, share)
                self._walk(pieces, here, axis, np.where(is_tie, -steps, 0), share)
            else:
                steps = np.where(is_tie & (chooser.choose(1 + axis, 2) == 1), -steps, steps)
                self._walk(pieces, here, axis, steps, np.ones(len(first)))
            here = links.neighbour(here, axis, steps)
        pieces.add(moving, second[moving] + self.num_gpus)
        if spread is Spread.SPRAY:
            return pieces.routes(planes=self.spec.planes, plane_links=links.plane_links)
        found = pieces.routes()
        plane = np.repeat(chooser.choose(0, self.spec.planes), np.diff(found.start))
        return Routes(found.start, found.link + plane * links.plane_links, found.share)

    def _steps(self, here: Ints, goal: Ints, axis: int) -> Ints:
        """Signed steps of the shorter way round; forward if both are as short."""
        stride, size = self.shape.stride(axis), self.shape.sizes[axis]
        ahead = (goal // stride - here // stride) % size
        return np.where(2 * ahead <= size, ahead, ahead - size)

    def _walk(self, pieces: Pieces, here: Ints, axis: int, steps: Ints, share: Floats) -> None:
        """Add the links of straight walks in one direction."""
        ways = self.shape.ways
        for step in (1, -1):
            if (axis, step) not in ways:
                continue
            flows = np.flatnonzero(steps * step > 0)
            lengths = steps[flows] * step
            flow = np.repeat(flows, lengths)
            done = np.arange(len(flow)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            router = self._links.neighbour(here[flow], axis, done * step)
            pieces.add(flow, self._links.link(router, ways.index((axis, step))), share[flow])
