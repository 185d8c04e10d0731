"""The smallest fat tree that holds a cluster, or the reason why there is none and what would do instead."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.fabric.tree_reach import (
    lower_tiers,
    oversubscription,
    radix_by_tier,
    tier_switch,
    tree_reach,
)
from exactmap.topology.fabric.tree_shape import TreeShape

__all__ = ["MAX_TIERS", "fit_tree"]

MAX_TIERS = 4
# What a hint tries: usual ratios of rate down to rate up, usual numbers of ports.
_RATIOS = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0)
_PORTS = (64, 72, 96, 128, 144, 192, 256, 384, 512, 1024)


def fit_tree(num_gpus: int, gpus_per_host: int, spec: FabricSpec, port_bytes_per_s: float) -> TreeShape:
    """The smallest tree of the asked shape that holds a number of GPUs.

    Parameters
    ----------
    num_gpus, gpus_per_host
        The cluster.
    spec
        What is asked for; `num_tiers` 0 takes the fewest.
    port_bytes_per_s
        Rate of one port of an interface: its rate divided by the planes.

    Raises
    ------
    InfeasibleError
        If the radix of its switches forbids it: which radix, how many tiers, how far that reaches, what would
        do.

    Examples
    --------
    >>> from exactmap.topology.fabric.spec import Switch
    >>> q3400 = Switch("Q3400", 144, 10**11, 144, 150, 3700)
    >>> tree = fit_tree(220_000, 4, FabricSpec(switches=(q3400,), rails=4), 1e11)
    >>> tree.children, [tree.num_switches(tier) for tier in (1, 2, 3)]
    ((72, 72, 43), [3056, 3096, 1728])
    """
    _check_ports(spec, port_bytes_per_s)
    fixed = len(spec.shape)
    if spec.num_tiers and fixed and fixed != spec.num_tiers:
        raise InvalidInputError(
            "the shape of a fat tree has one size per tier",
            where=Place(field="cluster.fabric.shape"),
            got=f"{fixed} sizes, {spec.num_tiers} tiers",
            expected="GPUs per leaf, leaves per pod, pods, from the leaves up",
        )
    asked = spec.num_tiers or fixed
    for num_tiers in [asked] if asked else range(1, MAX_TIERS + 1):
        shape = _try(num_gpus, gpus_per_host, spec, port_bytes_per_s, num_tiers)
        if shape is not None:
            return shape
    raise _refusal(num_gpus, gpus_per_host, spec, port_bytes_per_s, asked or MAX_TIERS)


def _check_ports(spec: FabricSpec, port_bytes_per_s: float) -> None:
    if not spec.switches:
        raise InvalidInputError(
            "a fat tree needs switches", where=Place(field="cluster.fabric.switches"), expected="at least one"
        )
    for switch in spec.switches:
        if switch.radix(port_bytes_per_s) == 0:
            raise InfeasibleError(
                f"ports of {switch.name} are slower than an interface's",
                where=Place(field="cluster.fabric.switches"),
                got=_gbit(switch.port_bytes_per_s),
                expected=f"at least {_gbit(port_bytes_per_s)} ({spec.planes} planes)",
                hint="split the interface over more planes",
            )


def _largest_trunk(up_ports: int, most: int) -> int:
    """Most cables to one parent that share out all uplinks evenly."""
    return max(trunk for trunk in range(1, max(most, 1) + 1) if up_ports % trunk == 0)


def _try(
    num_gpus: int, gpus_per_host: int, spec: FabricSpec, port_bytes_per_s: float, num_tiers: int
) -> TreeShape | None:
    radix = radix_by_tier(spec, port_bytes_per_s, num_tiers)
    if num_gpus > tree_reach(gpus_per_host, spec, port_bytes_per_s, num_tiers):
        return None
    if num_tiers == 1:
        hosts = ceil(num_gpus / gpus_per_host)
        return TreeShape(num_gpus, gpus_per_host, 1, hosts, (num_gpus,), (1,), (1,), radix)
    lower = lower_tiers(gpus_per_host, spec, radix)
    if lower is None:
        return None
    groups = ceil(num_gpus / (gpus_per_host * lower.hosts_per_leaf))
    num_top = ceil(groups * lower.rails / prod(lower.children[1:]))
    if num_top > radix[-1]:
        return None
    trunk = _largest_trunk(lower.up_ports[-1], radix[-1] // num_top)
    trunks = (*lower.trunks, trunk)
    parents = (1, *(up // below for up, below in zip(lower.up_ports, trunks[1:], strict=True)))
    return TreeShape(
        num_gpus,
        gpus_per_host,
        lower.rails,
        lower.hosts_per_leaf,
        (*lower.children, num_top),
        parents,
        trunks,
        radix,
    )


def _gbit(bytes_per_s: float) -> str:
    return f"{bytes_per_s * 8 / 1e9:g} Gb/s"


def _refusal(
    num_gpus: int, gpus_per_host: int, spec: FabricSpec, rate: float, num_tiers: int
) -> InfeasibleError:
    """Say which radix stops where, and what would do instead."""
    radix = radix_by_tier(spec, rate, num_tiers)
    if num_tiers > 1 and lower_tiers(gpus_per_host, spec, radix) is None:
        return InfeasibleError(
            "a leaf has too few ports for the GPUs of a host",
            where=Place(field="cluster.fabric"),
            got=f"{gpus_per_host} GPUs on {min(spec.rails, gpus_per_host)} leaves of {radix[0]} ports",
            hint="spread a host over more leaves (rails), or take a larger switch",
        )
    reach = tree_reach(gpus_per_host, spec, rate, num_tiers)
    names = dict.fromkeys(tier_switch(spec, tier).name for tier in range(1, num_tiers + 1))
    ratios = spec.oversubscription[: num_tiers - 1]
    kind = f"oversubscription {_numbers(ratios)}" if max(ratios, default=1.0) > 1.0 else "non-blocking"
    ports = "/".join(map(str, dict.fromkeys(radix)))
    return InfeasibleError(
        f"{ports}-port switches at {_gbit(rate)} ({', '.join(names)}) in {num_tiers} "
        f"tier{'s' * (num_tiers > 1)} stop at {reach} GPUs ({kind})",
        where=Place(field="cluster.fabric"),
        got=f"{num_gpus} GPUs",
        expected=f"at most {reach}",
        hint="; or ".join([*_remedies(num_gpus, gpus_per_host, spec, rate, num_tiers), "fewer GPUs"]),
    )


def _remedies(num_gpus: int, gpus_per_host: int, spec: FabricSpec, rate: float, num_tiers: int) -> list[str]:
    """What would reach: one more tier, more planes, less rate on top, a larger switch."""
    if spec.shape:
        return ["raise the sizes of cluster.fabric.shape"]
    below = num_tiers - 1
    factors = [factor for factor in (2, 4, 8) if spec.planes * factor <= 16]
    tapers = [(*[1.0] * (below - 1), ratio) for ratio in _RATIOS] + [(ratio,) * below for ratio in _RATIOS]
    wider = [
        tuple(max(oversubscription(spec, at + 1), ratio) for at, ratio in enumerate(taper))
        for taper in tapers
    ]
    larger = [
        replace(tier_switch(spec, 1), num_ports=ports, max_ports=ports, port_bytes_per_s=ceil(rate))
        for ports in _PORTS
    ]
    tries: list[list[tuple[str, FabricSpec, float, int]]] = [
        [(f"tiers: {tiers}", spec, rate, tiers) for tiers in range(num_tiers + 1, MAX_TIERS + 1)],
        [(f"planes: {spec.planes * n} of {_gbit(rate / n)}", spec, rate / n, num_tiers) for n in factors],
        [
            (f"oversubscription: [{_numbers(taper)}]", replace(spec, oversubscription=taper), rate, num_tiers)
            for taper in wider
            if below
        ],
        [
            (f"switches with {it.num_ports} ports", replace(spec, switches=(it,)), rate, num_tiers)
            for it in larger
        ],
    ]
    found: list[str] = []
    for kind in tries:
        for text, other, port, tiers in kind:
            reach = tree_reach(gpus_per_host, other, port, tiers)
            if reach >= num_gpus:
                found.append(f"{text} (up to {reach})")
                break
    return found


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
