"""A fat tree for each rail: GPU i of a host in tree i, and the trees never meet.

DeepSeek-V3's cluster has eight such planes of two tiers ("Insights into DeepSeek-V3", arXiv:2505.09343), and
"Rail-only" (Wang et al., arXiv:2307.12169) proposes the same. A message to a GPU of another rail first goes
over the scale-up network to the GPU of its own host on that rail, and leaves through its interface (NCCL
calls that PXN). So the route of a pair starts at that GPU, and a pair inside one host needs no fabric at all.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.hashing import Chooser
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.fabric.tree_links import TreeLinks
from exactmap.topology.fabric.tree_reach import tree_reach
from exactmap.topology.fabric.tree_shape import TreeShape
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["RailLinks", "RailOnly"]


class RailLinks(Wiring):
    """Links of the trees of all rails; inside a tree the endpoints are those of its rail, host after host."""

    def __init__(self, tree: TreeLinks, gpus_per_host: int) -> None:
        self.tree = tree
        self._gpus_per_host = gpus_per_host

    @property
    def num_gpus(self) -> int:
        """GPUs: the first nodes."""
        return self.tree.num_gpus * self.tree.num_planes

    @property
    def num_planes(self) -> int:
        """Trees."""
        return self.tree.num_planes

    @property
    def plane_links(self) -> int:
        """Links of one tree."""
        return self.tree.plane_links

    @property
    def plane_switches(self) -> int:
        """Switches of one tree."""
        return self.tree.plane_switches

    def split(self, gpu: Ints) -> tuple[Ints, Ints]:
        """Tree of each GPU, and its number inside."""
        host, place = np.divmod(gpu, self._gpus_per_host)
        rails = self.num_planes
        return place % rails, host * (self._gpus_per_host // rails) + place // rails

    def join(self, rail: Ints, endpoint: Ints) -> Ints:
        """GPU of an endpoint of a tree; the inverse of `split`."""
        per_rail = self._gpus_per_host // self.num_planes
        host, place = np.divmod(endpoint, per_rail)
        out: Ints = host * self._gpus_per_host + place * self.num_planes + rail
        return out

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each."""
        return self.tree.capacity_bytes_per_s(links)

    def tier(self, links: Ints) -> Ints:
        """Tier of each link."""
        return self.tree.tier(links)

    def ends(self, links: Ints) -> tuple[Ints, Ints]:
        """Nodes that each link leads from and to."""
        rail = links // self.plane_links
        first, second = self.tree.ends(links)
        return self._outer(first, rail), self._outer(second, rail)

    def node_tier(self, nodes: Ints) -> Ints:
        """Tier of each node."""
        switch = self.tree.num_gpus + (nodes - self.num_gpus) % self.plane_switches
        return np.where(nodes < self.num_gpus, 0, self.tree.node_tier(switch))

    def switch_name(self, switch: int) -> str:
        """Name of a switch inside its tree."""
        return self.tree.switch_name(switch)

    def lane(self, links: Ints) -> Ints:
        """Cable of each link among the parallel ones."""
        return self.tree.lane(links)

    def _outer(self, node: Ints, rail: Ints) -> Ints:
        inner = self.tree.num_gpus
        return np.where(node < inner, self.join(rail, node), node - inner + self.num_gpus)


class RailOnly:
    """Fat trees that never meet.

    Parameters
    ----------
    spec
        What was asked for; `rails` is the number of trees.
    shape
        Sizes of one tree, its endpoints counted host after host.
    gpus_per_host
        GPUs of one host.
    port_bytes_per_s
        Rate of an interface.
    """

    def __init__(
        self, spec: FabricSpec, shape: TreeShape, gpus_per_host: int, port_bytes_per_s: float
    ) -> None:
        inner = FabricSpec(spec.kind, spec.switches, shape.num_tiers, spec.rails, cable_ns=spec.cable_ns)
        self._spec = spec
        self._tree = FatTree(inner, shape, port_bytes_per_s)
        self._links = RailLinks(self._tree.links, gpus_per_host)
        self._gpus_per_host = gpus_per_host

    @property
    def spec(self) -> FabricSpec:
        """What was asked for."""
        return self._spec

    @property
    def shape(self) -> TreeShape:
        """Sizes of one tree."""
        return self._tree.shape

    @property
    def num_gpus(self) -> int:
        """GPUs attached."""
        return self._links.num_gpus

    @property
    def links(self) -> RailLinks:
        """Its links, those of all trees."""
        return self._links

    @property
    def reach(self) -> int:
        """Most GPUs that such trees can hold."""
        rails = self._spec.rails
        inner = replace(self._spec, rails=1)
        return rails * tree_reach(
            self._gpus_per_host // rails, inner, self._tree.port_bytes_per_s, inner.num_tiers
        )

    @property
    def bisection_bytes_per_s(self) -> float:
        """Rate between two halves of the hosts, one direction, all trees together."""
        return self._tree.bisection_bytes_per_s

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        """Tier that the pair's route climbs to; 0 inside one host."""
        return self._tree.tier_between(*self._inside(first, second))

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        """Switches and cables on the route of each pair; 0 inside one host."""
        return self._tree.latency_ns(*self._inside(first, second))

    def leaf(self, gpu: Ints) -> Ints:
        """Leaf of each GPU, counted over all trees."""
        rail, endpoint = self._links.split(gpu)
        return rail * self.shape.num_leaves + self._tree.leaf(endpoint)

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        """Links of a flow between each pair, from the GPU of the first host on the second rail."""
        rail = self._links.split(second)[0]
        inside = self._inside(first, second)
        if spread is Spread.ECMP:
            return self._tree.routes_on(*inside, rail, Chooser(first, second, seed))
        return self._tree.sprayed_on(*inside, rail)

    def _inside(self, first: Ints, second: Ints) -> tuple[Ints, Ints]:
        """Endpoints in the tree of the second GPU's rail; equal ones inside one host."""
        _, source = self._links.split(first)
        _, target = self._links.split(second)
        same_host = first // self._gpus_per_host == second // self._gpus_per_host
        return np.where(same_host, target, source), target
