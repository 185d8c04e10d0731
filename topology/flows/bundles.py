"""Sprayed flows of a fat tree over bundles: all links between a subtree and the tier above as one.

Spraying loads the W_t w_(t+1) p_(t+1) links that leave a subtree of tier t evenly, in every plane, whatever
the flows are. They are full together or not at all, so fair rates over bundles are those over links, with two
entries per tier instead of thousands. That is exact while all links of a bundle have one rate; with lost or
slow ones a bundle has the sum of what is left, as if packets always found the links that have room (the links
one by one: `exactmap.topology.flows.detour`).
"""

from __future__ import annotations

import numpy as np

from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.flows.health import Health
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Bundles"]

_ABOVE = ("", "spines", "cores", "top")


class Bundles:
    """Link table of the bundles of a fat tree, and routes over them.

    Bundles are numbered: interfaces up, interfaces down, then for each tier the subtrees up, subtrees down.

    Parameters
    ----------
    fabric
        The fat tree.
    health
        What is left of its links; all if left out.
    """

    def __init__(self, fabric: FatTree, health: Health | None = None) -> None:
        self.fabric = fabric
        self.health = health or Health.whole()
        shape = fabric.shape
        sizes = [shape.num_gpus, *(shape.num_subtrees(tier) for tier in range(1, shape.num_tiers))]
        self._first = np.concatenate(([0], np.cumsum(np.repeat(sizes, 2)))).astype(np.int64)
        fans = [1, *(shape.columns(tier) * shape.up_ports(tier) for tier in range(1, shape.num_tiers))]
        self._fans = np.array(fans, dtype=np.int64) * fabric.spec.planes
        port = fabric.links.capacity_bytes_per_s(np.zeros(1, dtype=np.int64))[0]
        self._rates = self._fans * port
        self._lost = np.zeros(self.num_links)
        links = np.unique(self.health.links)
        np.add.at(self._lost, self.bundle(links), port * (1.0 - self.health.of(links)))

    @property
    def num_links(self) -> int:
        """Number of bundles."""
        return int(self._first[-1])

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of all links of each bundle together, less what is lost."""
        return np.asarray(self._rates[self.tier(links)] - self._lost[links], dtype=np.float64)

    def tier(self, links: Ints) -> Ints:
        """Tier of each."""
        return self._block(links) // 2

    def bundle(self, links: Ints) -> Ints:
        """Bundle of each link of the fabric."""
        table = self.fabric.links
        tail, head = table.ends(links)
        tier, is_down = table.tier(links), table.node_tier(tail) > table.node_tier(head)
        found = links % table.plane_links
        nobody = np.zeros(1, dtype=np.int64)
        for level in range(self.fabric.shape.num_tiers):
            for side, up in enumerate((True, False)):
                here = (tier == level) & (is_down == (not up))
                first, size = table.gpu_link(nobody, up=up), 1
                if level:
                    first, size = table.fan(level, nobody, up=up), table.fan_size(level)
                found[here] = (found[here] - first[0]) // size + self._first[2 * level + side]
        return found

    def num_cables(self, links: Ints) -> Ints:
        """Links in each."""
        return self._fans[self.tier(links)]

    def name(self, link: int) -> str:
        """Name of a bundle, such as ``leaf 12 > spines (72 links)``; a pod is a subtree above the leaves."""
        block = int(self._block(np.array([link]))[0])
        tier, place = block // 2, link - int(self._first[block])
        if tier == 0:
            low, high = f"gpu {place}", f"leaf {self.fabric.leaf(np.array([place]))[0]}"
        else:
            low, high = f"leaf {place}" if tier == 1 else f"pod {place}", _ABOVE[tier]
        ends = f"{high} > {low}" if block % 2 else f"{low} > {high}"
        count = int(self._fans[tier])
        return f"{ends} ({count} links)" if count > 1 else ends

    def routes(self, first: Ints, second: Ints) -> Routes:
        """Bundles of a sprayed flow between each pair."""
        fabric, shape = self.fabric, self.fabric.shape
        tier = fabric.tier_between(first, second)
        table = np.empty((len(first), 2 * shape.num_tiers), dtype=np.int64)
        used = np.empty(table.shape, dtype=np.bool_)
        for side, gpus in enumerate((first, second)):
            leaf = fabric.leaf(gpus)
            for below in range(shape.num_tiers):
                place = gpus if below == 0 else fabric.links.subtree(leaf, below)
                column = -1 - below if side else below
                table[:, column] = place + self._first[2 * below + side]
                used[:, column] = tier > below
        start = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
        chosen = table[used]
        return Routes(start, chosen, np.ones(len(chosen)))

    def _block(self, links: Ints) -> Ints:
        return np.searchsorted(self._first, links, side="right") - 1
