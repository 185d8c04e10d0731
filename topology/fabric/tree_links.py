"""Links of a fat tree by arithmetic: from the number of a link to its ends, tier, rate and name, and back.

Inside a plane the links lie tier after tier, upward ones before downward ones::

    tier 0         gpu
    tier t >= 1    ((subtree x W_t + column) x w_(t+1) + parent) x p_(t+1) + cable

and a link down has the place of the link up beside it. A switch's columns are mixed-radix numbers: the parent
b of column c has column c + W_t b, so a packet that goes down to a subtree has no choice but the cable.
"""

from __future__ import annotations

from math import prod

import numpy as np

from exactmap.topology.fabric.tree_shape import TreeShape
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.links import Floats, Ints

__all__ = ["TIER_NAMES", "TreeLinks"]

TIER_NAMES: dict[int, tuple[str, ...]] = {
    1: ("leaf",),
    2: ("leaf", "spine"),
    3: ("leaf", "spine", "core"),
    4: ("leaf", "spine", "core", "top"),
}


class TreeLinks(Wiring):
    """Links of all planes of a fat tree."""

    def __init__(self, shape: TreeShape, num_planes: int, port_bytes_per_s: float) -> None:
        self.shape = shape
        self._num_planes = num_planes
        self._rate = port_bytes_per_s
        tiers = range(shape.num_tiers)
        sizes = [shape.num_gpus if tier == 0 else shape.num_up_links(tier) for tier in tiers]
        # First link of each (tier, direction), upward before downward.
        self._first = np.concatenate(([0], np.cumsum(np.repeat(sizes, 2)))).astype(np.int64)
        switches = [shape.num_switches(tier + 1) for tier in tiers]
        self._first_switch = np.concatenate(([0], np.cumsum(switches))).astype(np.int64)

    @property
    def num_gpus(self) -> int:
        """GPUs: the first nodes."""
        return self.shape.num_gpus

    @property
    def num_planes(self) -> int:
        """Equal trees side by side."""
        return self._num_planes

    @property
    def plane_links(self) -> int:
        """Links of one plane."""
        return int(self._first[-1])

    @property
    def plane_switches(self) -> int:
        """Switches of one plane."""
        return int(self._first_switch[-1])

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each: all cables of a tree have that of an interface's port."""
        return np.full(len(links), self._rate)

    def tier(self, links: Ints) -> Ints:
        """Tier of each link."""
        return self._block(links) // 2

    def leaf(self, gpu: Ints) -> Ints:
        """Leaf of each GPU inside a plane."""
        shape = self.shape
        if shape.num_tiers == 1:
            return np.zeros_like(gpu)
        host = gpu // shape.gpus_per_host
        leaf: Ints = host // shape.hosts_per_leaf * shape.rails + gpu % shape.gpus_per_host % shape.rails
        return leaf

    def subtree(self, leaf: Ints, tier: int) -> Ints:
        """Subtree of a tier that each leaf lies in."""
        return leaf // prod(self.shape.children[1:tier])

    def gpu_link(self, gpu: Ints, *, up: bool) -> Ints:
        """Link of each GPU inside a plane."""
        out: Ints = gpu + self._first[0 if up else 1]
        return out

    def link(self, tier: int, subtree: Ints, column: Ints, parent: Ints, cable: Ints, *, up: bool) -> Ints:
        """Link between a switch of a tier and a parent, inside a plane."""
        shape = self.shape
        switch = subtree * shape.columns(tier) + column
        place = (switch * shape.parents[tier] + parent) * shape.trunks[tier] + cable
        out: Ints = place + self._first[2 * tier + (0 if up else 1)]
        return out

    def fan_size(self, tier: int) -> int:
        """Links between a subtree of a tier and the tier above, one direction."""
        return self.shape.columns(tier) * self.shape.up_ports(tier)

    def fan(self, tier: int, subtree: Ints, *, up: bool) -> Ints:
        """First of the `fan_size` links between each subtree and the tier above, inside a plane."""
        out: Ints = subtree * self.fan_size(tier) + self._first[2 * tier + (0 if up else 1)]
        return out

    def ends(self, links: Ints) -> tuple[Ints, Ints]:
        """Nodes that each link leads from and to."""
        plane, inside = np.divmod(links, self.plane_links)
        block = self._block(links)
        place = inside - self._first[block]
        lower, upper = np.empty_like(links), np.empty_like(links)
        for tier in range(self.shape.num_tiers):
            chosen = block // 2 == tier
            lower[chosen], upper[chosen] = self._tier_ends(tier, place[chosen])
        base = self.num_gpus + plane * self.plane_switches
        lower = np.where(block < 2, lower, lower + base)
        upper = upper + base
        is_up = block % 2 == 0
        return np.where(is_up, lower, upper), np.where(is_up, upper, lower)

    def node_tier(self, nodes: Ints) -> Ints:
        """Tier of each node: 0 for a GPU."""
        switch = (nodes - self.num_gpus) % self.plane_switches
        tier = np.searchsorted(self._first_switch, switch, side="right")
        return np.where(nodes < self.num_gpus, 0, tier).astype(np.int64)

    def switch_name(self, switch: int) -> str:
        """Name of a switch inside its plane."""
        tier = int(np.searchsorted(self._first_switch, switch, side="right"))
        return f"{TIER_NAMES[self.shape.num_tiers][tier - 1]} {switch - self._first_switch[tier - 1]}"

    def lane(self, links: Ints) -> Ints:
        """Cable of each link among the parallel ones; negative where there is one."""
        block = self._block(links)
        place = links % self.plane_links - self._first[block]
        trunks = np.array((1, *self.shape.trunks[1:]), dtype=np.int64)[block // 2]
        return np.where(trunks > 1, place % trunks, -1)

    def _block(self, links: Ints) -> Ints:
        """Number of the (tier, direction) that each link belongs to."""
        inside = links % self.plane_links
        # An empty tier has the same first link as the next: the last one that starts there counts.
        return np.searchsorted(self._first, inside, side="right") - 1

    def _tier_ends(self, tier: int, place: Ints) -> tuple[Ints, Ints]:
        """Lower and upper node of links of one tier; switches counted inside the plane, GPUs as they are."""
        if tier == 0:
            return place, self.leaf(place)
        shape = self.shape
        switch, parent = np.divmod(place // shape.trunks[tier], shape.parents[tier])
        subtree, column = np.divmod(switch, shape.columns(tier))
        above = subtree // shape.children[tier] * shape.columns(tier + 1)
        above = above + column + shape.columns(tier) * parent
        return switch + self._first_switch[tier - 1], above + self._first_switch[tier]
