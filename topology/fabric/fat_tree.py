"""Fat trees: plain or rail-optimised, of one plane or several, routed by arithmetic.

A pair of GPUs meets at the lowest tier where one subtree holds both leaves. On the way up each switch offers
w_(t+1) parents with p_(t+1) cables; on the way down only cables are left to choose. A flow by ECMP takes one
path of one plane, a sprayed flow takes all of them evenly: of its rate each of the W_t w_(t+1) p_(t+1) links
that leave its subtree carries an equal share, in each plane.
"""

from __future__ import annotations

import numpy as np

from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.hashing import Chooser
from exactmap.topology.fabric.regular import RegularFabric
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.fabric.tree_links import TreeLinks
from exactmap.topology.fabric.tree_shape import TreeShape
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["FatTree"]


class FatTree(RegularFabric[TreeShape, TreeLinks]):
    """A built fat tree.

    Parameters
    ----------
    spec
        What was asked for, its tiers counted.
    shape
        Sizes of one plane.
    port_bytes_per_s
        Rate of a port: an interface's rate divided by the planes.
    """

    def __init__(self, spec: FabricSpec, shape: TreeShape, port_bytes_per_s: float) -> None:
        super().__init__(spec, shape, TreeLinks(shape, spec.planes, port_bytes_per_s), port_bytes_per_s)

    @property
    def bisection_bytes_per_s(self) -> float:
        """Rate between two halves made of whole subtrees, one direction."""
        return self.num_gpus // 2 * self.port_bytes_per_s * self.spec.planes * self.shape.taper

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        """Tier at which each pair meets: 0 for a GPU and itself, 1 within a leaf."""
        leaf_a, leaf_b = self._links.leaf(first), self._links.leaf(second)
        tier = np.where(first == second, 0, 1).astype(np.int64)
        for above in range(1, self.shape.num_tiers):
            tier += self._links.subtree(leaf_a, above) != self._links.subtree(leaf_b, above)
        return tier

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        """Switches and cables on the shortest path of each pair, without the interfaces at its ends."""
        by_tier = [0, *(self.spec.path_ns(tier) for tier in range(1, self.shape.num_tiers + 1))]
        return np.array(by_tier, dtype=np.int64)[self.tier_between(first, second)]

    def leaf(self, gpu: Ints) -> Ints:
        """Leaf of each GPU; every plane numbers its leaves alike."""
        return self._links.leaf(gpu)

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        """Links of a flow between each pair; with ECMP the path hangs on pair, place in the list, seed."""
        if spread is Spread.SPRAY:
            return self._sprayed(first, second, np.arange(self.spec.planes)[np.newaxis])
        chooser = Chooser(first, second, seed)
        return self.routes_on(first, second, chooser.choose(0, self.spec.planes), chooser)

    def routes_on(self, first: Ints, second: Ints, plane: Ints, chooser: Chooser) -> Routes:
        """One path for each flow on a given plane; `chooser` decides where switches have a choice."""
        links, shape = self._links, self.shape
        tier = self.tier_between(first, second)
        highest = int(tier.max(initial=0))
        table = np.empty((len(first), 2 * max(highest, 1)), dtype=np.int64)
        used = np.empty(table.shape, dtype=np.bool_)
        table[:, 0] = links.gpu_link(first, up=True)
        table[:, -1] = links.gpu_link(second, up=False)
        used[:, 0] = used[:, -1] = tier > 0
        leaf_a, leaf_b = links.leaf(first), links.leaf(second)
        column = np.zeros(len(first), dtype=np.int64)
        for below in range(1, highest):
            parents, trunks = shape.parents[below], shape.trunks[below]
            parent = chooser.choose(3 * below, parents)
            for leaf, place, up in ((leaf_a, below, True), (leaf_b, -1 - below, False)):
                cable = chooser.choose(3 * below + (1 if up else 2), trunks)
                subtree = links.subtree(leaf, below)
                table[:, place] = links.link(below, subtree, column, parent, cable, up=up)
                used[:, place] = tier > below
            column = column + shape.columns(below) * parent
        table += (plane * links.plane_links)[:, np.newaxis]
        start = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
        chosen = table[used]
        return Routes(start, chosen, np.ones(len(chosen)))

    def sprayed_on(self, first: Ints, second: Ints, plane: Ints) -> Routes:
        """All paths of each flow on a given plane, as shares of its rate."""
        return self._sprayed(first, second, plane[:, np.newaxis])

    def _sprayed(self, first: Ints, second: Ints, planes: Ints) -> Routes:
        """All paths of each flow on its planes, [flows or 1, planes of each]."""
        links, num_planes = self._links, planes.shape[1]
        planes = np.broadcast_to(planes, (len(first), num_planes)) * links.plane_links
        tier = self.tier_between(first, second)
        ends = (links.leaf(first), links.leaf(second))
        # Links of a flow that meets at a tier: those of every tier below, up and down, in each plane.
        fans = [1, *(links.fan_size(below) for below in range(1, self.shape.num_tiers))]
        lengths = np.concatenate(([0], 2 * num_planes * np.cumsum(fans)))[tier]
        start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        link = np.empty(start[-1], dtype=np.int64)
        share: Floats = np.empty(start[-1])
        for below, size in enumerate(fans):
            flows = np.flatnonzero(tier > below)
            entry = start[flows] + 2 * num_planes * sum(fans[:below])
            for side, up in enumerate((True, False)):
                if below == 0:
                    base = links.gpu_link((first, second)[side][flows], up=up)
                else:
                    base = links.fan(below, links.subtree(ends[side][flows], below), up=up)
                for plane in range(num_planes):
                    place = (entry + (side * num_planes + plane) * size)[:, np.newaxis] + np.arange(size)
                    link[place] = (base + planes[flows, plane])[:, np.newaxis] + np.arange(size)
                    share[place] = 1.0 / (num_planes * size)
        return Routes(start, link, share)
