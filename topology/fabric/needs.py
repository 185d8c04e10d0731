"""What a built fabric takes: switches and their ports, cables and their modules, power; how far it reaches.

Everything is counted on the links of one plane, since planes are equal. A cable is a link of two directions
between two ports; one that carries a part of a full port (a plane of an interface) counts as that part of the
cable of the catalog when modules and power are added up. A cable between switches is as long as its delay
says (5 ns per m); one at a GPU is 2 m if all hosts of a leaf stand in one rack, else as long as the others.
Each takes the first cable of the fabric's list that reaches so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from exactmap.topology.fabric.build import BuiltFabric
from exactmap.topology.fabric.dragonfly import Dragonfly
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.rail_only import RailOnly
from exactmap.topology.fabric.spec import Cable, FabricKind, FabricSpec, Switch
from exactmap.topology.fabric.torus import Torus
from exactmap.topology.fabric.tree_links import TIER_NAMES
from exactmap.topology.fabric.tree_reach import tree_reach
from exactmap.topology.hardware import Cluster

__all__ = ["CableNeeds", "FabricNeeds", "TierNeeds", "fabric_needs"]

_NS_PER_M = 5
_IN_RACK_M = 2
_LONGEST_COPPER_M = 7


@dataclass(frozen=True, slots=True)
class TierNeeds:
    """Switches of one tier, all planes together.

    Parameters
    ----------
    tier
        Counted from 1, the leaves.
    role
        What they are called: ``leaf``, ``spine``, ...
    switch
        The kind of switch; None where it is not known.
    num_switches
        How many.
    radix
        Ports of one at the rate of a cable; 0 where the switch is not known.
    ports_used
        Ports with a cable, all of them together.
    """

    tier: int
    role: str
    switch: Switch | None
    num_switches: int
    radix: int
    ports_used: int

    @property
    def ports_free(self) -> int:
        """Ports without a cable, all of them together; 0 where the switch is not known."""
        return max(self.num_switches * self.radix - self.ports_used, 0) if self.radix else 0

    @property
    def power_w(self) -> int:
        """Rated power of these switches."""
        return 0 if self.switch is None else self.num_switches * self.switch.power_w


@dataclass(frozen=True, slots=True)
class CableNeeds:
    """Cables of one tier, all planes together.

    Parameters
    ----------
    tier
        0 between interfaces and leaves, t between tiers t and t + 1.
    num_cables
        Links of two directions.
    bytes_per_s
        Rate of all of them, one direction.
    length_m
        How long one is.
    cable
        What it is; None where no cable of the list reaches so far, or none is known.
    """

    tier: int
    num_cables: int
    bytes_per_s: float
    length_m: float
    cable: Cable | None

    @property
    def is_copper(self) -> bool:
        """Whether they need no optics."""
        return self.cable is not None and self.cable.reach_m <= _LONGEST_COPPER_M

    @property
    def num_modules(self) -> int:
        """Optical modules at both ends, each of the rate of a whole cable; 0 for copper."""
        if self.cable is None or self.is_copper:
            return 0
        return 2 * ceil(self.bytes_per_s / self.cable.bytes_per_s)

    @property
    def power_w(self) -> int:
        """Power of both ends."""
        if self.cable is None:
            return 0
        return ceil(self.bytes_per_s / self.cable.bytes_per_s * self.cable.power_w)


@dataclass(frozen=True, slots=True)
class FabricNeeds:
    """The whole fabric.

    Parameters
    ----------
    tiers, cables
        By tier, from the leaves up.
    reach_gpus
        Most GPUs that such switches and tiers can hold; 0 where nothing bounds them.
    refused
        (tiers, most GPUs) of trees with fewer tiers, which are too small.
    """

    tiers: tuple[TierNeeds, ...]
    cables: tuple[CableNeeds, ...]
    reach_gpus: int
    refused: tuple[tuple[int, int], ...] = ()

    @property
    def num_switches(self) -> int:
        """Switches of all tiers."""
        return sum(tier.num_switches for tier in self.tiers)

    @property
    def num_copper(self) -> int:
        """Cables that need no optics."""
        return sum(row.num_cables for row in self.cables if row.is_copper)

    @property
    def num_optical(self) -> int:
        """All other cables."""
        return sum(row.num_cables for row in self.cables if not row.is_copper)

    @property
    def num_modules(self) -> int:
        """Optical modules."""
        return sum(row.num_modules for row in self.cables)

    @property
    def switch_power_w(self) -> int:
        """Rated power of all switches, without optics."""
        return sum(tier.power_w for tier in self.tiers)

    @property
    def cable_power_w(self) -> int:
        """Power of what is at the ends of all cables."""
        return sum(row.power_w for row in self.cables)


def fabric_needs(cluster: Cluster, fabric: BuiltFabric) -> FabricNeeds:
    """Count what a fabric takes.

    Parameters
    ----------
    cluster
        The machine whose fabric it is.
    fabric
        The fabric as built.
    """
    links, spec = fabric.links, fabric.spec
    every = np.arange(links.plane_links)
    first, second = links.ends(every)
    out = first < second
    link_tier, rate = links.tier(every), links.capacity_bytes_per_s(every)
    switches = np.arange(links.num_gpus, links.num_gpus + links.plane_switches)
    switch_tier = links.node_tier(switches)
    # Each cable sends once from either end, so links out of a switch are its ports in use.
    ports = np.bincount(first, minlength=links.num_gpus + links.plane_switches)[switches]
    planes = links.num_planes
    port_rate = cluster.scale_out.bytes_per_s / spec.planes
    tiers: list[TierNeeds] = []
    for tier in range(1, int(switch_tier.max()) + 1):
        here = switch_tier == tier
        known = spec.switches[min(tier, len(spec.switches)) - 1] if spec.switches else None
        radix = known.radix(port_rate) if known and spec.kind is not FabricKind.IDEAL else 0
        role = _role(fabric, int(switch_tier.max()), tier)
        used = planes * int(ports[here].sum())
        tiers.append(TierNeeds(tier, role, known, planes * int(here.sum()), radix, used))
    cables: list[CableNeeds] = []
    for tier in range(int(link_tier.max()) + 1):
        here = out & (link_tier == tier)
        length = _length_m(cluster, fabric, tier)
        cable = next((it for it in spec.cables if it.reach_m >= length), None)
        total = planes * float(rate[here].sum())
        cables.append(CableNeeds(tier, planes * int(here.sum()), total, length, cable))
    reach = _reach(cluster, fabric, port_rate)
    refused: list[tuple[int, int]] = []
    if isinstance(fabric, FatTree) and spec.kind is not FabricKind.IDEAL and not spec.shape:
        for fewer in range(1, spec.num_tiers):
            most = tree_reach(cluster.gpus_per_host, spec, port_rate, fewer)
            refused += [(fewer, most)] if most < fabric.num_gpus else []
    return FabricNeeds(tuple(tiers), tuple(cables), reach, tuple(refused))


def _role(fabric: BuiltFabric, num_tiers: int, tier: int) -> str:
    if isinstance(fabric, FatTree | RailOnly):
        return TIER_NAMES[num_tiers][tier - 1]
    if isinstance(fabric, Dragonfly | Torus):
        return "router"
    return f"switch of tier {tier}" if num_tiers > 1 else "switch"


def _length_m(cluster: Cluster, fabric: BuiltFabric, tier: int) -> float:
    """Length of a cable of a tier."""
    if tier == 0 and cluster.rack is not None:
        per_rack = cluster.rack.num_hosts * cluster.gpus_per_host
        if isinstance(fabric, FatTree | RailOnly):
            in_rack = fabric.shape.hosts_per_leaf <= cluster.rack.num_hosts
        else:
            in_rack = isinstance(fabric, Dragonfly | Torus) and fabric.shape.endpoints <= per_rack
        if in_rack:
            return _IN_RACK_M
    return fabric.spec.cable_ns / _NS_PER_M


def _reach(cluster: Cluster, fabric: BuiltFabric, port_rate: float) -> int:
    """Most GPUs of the same kind of fabric with the same tiers and switches; 0 where nothing bounds them."""
    spec: FabricSpec = fabric.spec
    per_host = cluster.gpus_per_host
    if spec.kind is FabricKind.IDEAL:
        return 0
    if isinstance(fabric, FatTree):
        return tree_reach(per_host, spec, port_rate, spec.num_tiers)
    if isinstance(fabric, RailOnly):
        return fabric.reach
    if isinstance(fabric, Dragonfly):
        return fabric.shape.reach
    if isinstance(fabric, Torus) and spec.switches:
        free = spec.switches[0].radix(port_rate) - len(fabric.shape.ways)
        return fabric.shape.num_routers * free
    return 0
