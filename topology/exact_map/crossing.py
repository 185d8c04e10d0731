"""Which network each axis's traffic crosses: how many hops at which tier, over which links.

Pipeline messages go from each stage to the next. The other axes' collectives go round rings inside each rack
over NVLink, and from rack to rack to each member's counterpart (`exactmap.topology.exact_map.pieces`). Links
are those that the fabric's routes name when each such hop is one flow on one path (ECMP).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.fabric.fabric import Fabric, Spread
from exactmap.topology.fabric.spec import FabricKind
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis

__all__ = ["AxisTraffic", "LinkUse", "axis_traffic", "tier_name"]

_NAMES = {1: "leaf", 2: "spine", 3: "core", 4: "super core"}
_TREES = {FabricKind.IDEAL, FabricKind.FAT_TREE, FabricKind.DUAL_TOR, FabricKind.RAIL_ONLY}


@dataclass(frozen=True, slots=True)
class LinkUse:
    """Links of one tier of the fabric that an axis's flows take.

    Parameters
    ----------
    tier
        0 between interface and leaf, t between tiers t and t + 1.
    num_links
        Links with at least one flow, of both directions and all planes.
    mean_flows, most_flows
        Flows on such a link, and on the busiest of them.
    busiest
        Its name.
    """

    tier: int
    num_links: int
    mean_flows: float
    most_flows: int
    busiest: str


@dataclass(frozen=True, slots=True)
class AxisTraffic:
    """Traffic of one axis over the whole mesh.

    Parameters
    ----------
    axis, size, num_groups
        The axis and its groups.
    inside
        Hops inside racks.
    by_tier
        Hops between racks, by the tier of the fabric that they climb to, from tier 1 on.
    on_rail
        Hops between racks that join GPUs of one rail.
    most_latency_ns
        Switches and cables of the longest of them.
    links
        Links that they take, by tier.
    """

    axis: Axis
    size: int
    num_groups: int
    inside: int
    by_tier: tuple[int, ...]
    on_rail: int
    most_latency_ns: int
    links: tuple[LinkUse, ...]

    @property
    def outside(self) -> int:
        """Hops between racks."""
        return sum(self.by_tier)


def tier_name(kind: FabricKind, tier: int) -> str:
    """What people call a tier of the fabric.

    Examples
    --------
    >>> tier_name(FabricKind.FAT_TREE, 2), tier_name(FabricKind.TORUS, 2)
    ('spine', 'tier 2')
    """
    return _NAMES.get(tier, f"tier {tier}") if kind in _TREES else f"tier {tier}"


def axis_traffic(exact_map: ExactMap, axis: Axis, seed: int = 0) -> AxisTraffic:
    """Count an axis's hops and the links that they take.

    Parameters
    ----------
    exact_map
        The map.
    axis
        The axis.
    seed
        Of the paths that flows choose.
    """
    inside, source, target = _between_racks(exact_map, axis)
    rail = exact_map.machine.rail
    fabric = exact_map.fabric_of() if exact_map.fabric_of is not None else None
    tiers = np.ones(len(source), dtype=np.int64)
    latency = 0
    links: tuple[LinkUse, ...] = ()
    if fabric is not None and len(source):
        tiers = fabric.tier_between(source, target)
        latency = int(fabric.latency_ns(source, target).max())
        links = _links(fabric, source, target, seed)
    by_tier = np.bincount(tiers, minlength=2)[1:] if len(source) else np.zeros(0, dtype=np.int64)
    return AxisTraffic(
        axis,
        exact_map.mesh.size(axis),
        exact_map.mesh.num_groups([axis]),
        inside,
        tuple(by_tier.tolist()),
        int(np.count_nonzero(rail(source) == rail(target))),
        latency,
        links,
    )


def _between_racks(exact_map: ExactMap, axis: Axis) -> tuple[int, Ints, Ints]:
    """Number of hops inside racks, and the GPUs of both ends of those between racks."""
    mesh, machine = exact_map.mesh, exact_map.machine
    nobody = np.zeros(0, dtype=np.int64)
    if mesh.size(axis) == 1:
        return 0, nobody, nobody
    if axis is Axis.PP:
        ranks = np.arange(mesh.num_ranks, dtype=np.int64)
        stride = mesh.stride(axis)
        senders = ranks[ranks // stride % mesh.pp < mesh.pp - 1]
        source, target = exact_map.gpu[senders], exact_map.gpu[senders + stride]
        apart = machine.rack(source) != machine.rack(target)
        return int(np.count_nonzero(~apart)), source[apart], target[apart]
    laid = exact_map.groups([axis])
    source, target = laid.hops()
    return int(np.count_nonzero(laid.pieces.size > 1)), source, target


def _links(fabric: Fabric, source: Ints, target: Ints, seed: int) -> tuple[LinkUse, ...]:
    routes = fabric.routes(source, target, spread=Spread.ECMP, seed=seed)
    links, flows = np.unique(routes.link, return_counts=True)
    tiers = fabric.links.tier(links)
    out: list[LinkUse] = []
    for tier in np.unique(tiers).tolist():
        here = tiers == tier
        busiest = int(np.argmax(np.where(here, flows, -1)))
        out.append(
            LinkUse(
                tier,
                int(np.count_nonzero(here)),
                float(flows[here].mean()),
                int(flows[busiest]),
                fabric.links.name(int(links[busiest])),
            )
        )
    return tuple(out)
