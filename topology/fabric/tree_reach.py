"""How far a fat tree reaches: its tiers below the top from radix and oversubscription, with whole ports.

A switch of k ports and ratio o has u = ceil(k / (1 + o)) ports up and min(k - u, o u) down, so that the rate
down over the rate up never passes what was asked for. On a leaf the ports down are rounded to whole hosts, in
a pod the leaves to whole groups of rails.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, prod

from exactmap.errors import InfeasibleError, Place
from exactmap.topology.fabric.spec import FabricSpec, Switch

__all__ = ["LowerTiers", "lower_tiers", "oversubscription", "radix_by_tier", "tier_switch", "tree_reach"]

_ROUNDING = 1e-9


def tree_reach(gpus_per_host: int, spec: FabricSpec, port_bytes_per_s: float, num_tiers: int) -> int:
    """Most GPUs that a tree of a number of tiers can hold.

    Examples
    --------
    >>> sn5600 = Switch("SN5600", 64, 10**11, 256, 500, 940)
    >>> [tree_reach(8, FabricSpec(switches=(sn5600,)), 1e11, tiers) for tiers in (1, 2, 3, 4)]
    [64, 2048, 65536, 2097152]
    """
    radix = radix_by_tier(spec, port_bytes_per_s, num_tiers)
    if num_tiers == 1:
        return min(radix[0], spec.shape[0]) if spec.shape else radix[0]
    lower = lower_tiers(gpus_per_host, spec, radix)
    if lower is None:
        return 0
    top = min(radix[-1], spec.shape[-1]) if spec.shape else radix[-1]
    leaves = prod(lower.children[1:]) * top
    # Leaves come in groups that take whole hosts: some ports may stay free.
    groups = leaves // lower.rails
    return groups * lower.hosts_per_leaf * gpus_per_host


@dataclass(frozen=True, slots=True)
class LowerTiers:
    """All tiers but the top."""

    rails: int
    hosts_per_leaf: int
    children: tuple[int, ...]
    trunks: tuple[int, ...]
    up_ports: tuple[int, ...]


def tier_switch(spec: FabricSpec, tier: int) -> Switch:
    """The switch of a tier."""
    return spec.switches[min(tier, len(spec.switches)) - 1]


def radix_by_tier(spec: FabricSpec, port_bytes_per_s: float, num_tiers: int) -> tuple[int, ...]:
    """Ports of the switches of each tier at a rate."""
    return tuple(tier_switch(spec, tier).radix(port_bytes_per_s) for tier in range(1, num_tiers + 1))


def oversubscription(spec: FabricSpec, tier: int) -> float:
    """Rate down over rate up that is asked for at a tier."""
    return spec.oversubscription[tier - 1] if tier <= len(spec.oversubscription) else 1.0


def lower_tiers(gpus_per_host: int, spec: FabricSpec, radix: tuple[int, ...]) -> LowerTiers | None:
    """Sizes of all tiers but the top; None if a leaf has no room for a host."""
    rails = min(spec.rails, gpus_per_host)
    per_leaf = -(-gpus_per_host // rails)
    children: list[int] = []
    trunks: list[int] = []
    up_ports: list[int] = []
    for tier in range(1, len(radix)):
        ports, ratio = radix[tier - 1], oversubscription(spec, tier)
        up = ceil(ports / (1.0 + ratio) - _ROUNDING)
        size = min(ports - up, floor(ratio * up + _ROUNDING))
        trunk = 1
        if spec.shape:
            size = spec.shape[tier - 1]
            if tier > 1:
                trunk = _shaped_trunk(size, up_ports[-1], ports, ratio)
        elif tier == 2 and size > rails:
            # Whole groups of leaves, so that no host is cut by the end of a pod.
            size -= size % rails
        if tier == 1:
            size -= size % per_leaf
        if size < 1:
            return None
        up = _uplinks(size * trunk, ratio)
        if size * trunk + up > ports:
            raise InfeasibleError(
                f"a switch of tier {tier} has too few ports",
                where=Place(field="cluster.fabric.shape"),
                got=f"{size * trunk} down and {up} up",
                expected=f"at most {ports} ({tier_switch(spec, tier).name})",
                hint=f"lower size {tier} of the shape, or raise oversubscription {tier}",
            )
        children.append(size)
        trunks.append(trunk)
        up_ports.append(up)
    return LowerTiers(rails, children[0] // per_leaf, tuple(children), tuple(trunks), tuple(up_ports))


def _shaped_trunk(size: int, up_ports: int, ports: int, ratio: float) -> int:
    """Cables to each child where the number of children is given: as many as the ports allow."""
    fitting = [
        trunk
        for trunk in range(1, up_ports + 1)
        if up_ports % trunk == 0 and size * trunk + _uplinks(size * trunk, ratio) <= ports
    ]
    return max(fitting, default=1)


def _uplinks(down: int, ratio: float) -> int:
    return ceil(down / ratio - _ROUNDING)
