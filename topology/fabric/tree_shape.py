"""Sizes of a fat tree: how many GPUs hang on a leaf, leaves in a pod, spines above; and what a radix forbids.

A plane is a parallel-port generalised fat tree, PGFT(T; m; w; p) of Zahavi ("Fat-tree routing and node
ordering providing contention free traffic for MPI global collectives", JPDC 2012). A subtree of tier t holds
m_t subtrees of tier t - 1 (a leaf holds m_1 GPUs); each switch of tier t - 1 has w_t parents with p_t cables
to each. With W_t = w_2 x .. x w_t, a subtree of tier t has W_t switches, which use

    down ports  m_t p_t        up ports  w_(t+1) p_(t+1) = ceil(m_t p_t / oversubscription_t)

and fit if down + up <= radix. Equal splits give k^2/2 GPUs in two tiers and k^3/4 in three. A tree that is
not full has whole pods, the last one filled in part, and as few switches on top as carry the pods' uplinks:
where n pods leave room each has p cables to a top switch, n p <= radix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, prod

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.fabric.spec import FabricSpec, Switch

__all__ = ["MAX_TIERS", "TreeShape", "fit_tree", "tree_reach"]

MAX_TIERS = 4
_ROUNDING = 1e-9
# What a hint tries: usual ratios of rate down to rate up, usual numbers of ports.
_RATIOS = (2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0)
_PORTS = (64, 72, 96, 128, 144, 192, 256, 384, 512, 1024)


@dataclass(frozen=True, slots=True)
class TreeShape:
    """One plane of a fat tree; index 0 of each tuple is tier 1, the leaves.

    Parameters
    ----------
    num_gpus
        GPUs attached.
    gpus_per_host
        GPUs of one host.
    rails
        Leaves that a host's GPUs are spread over.
    hosts_per_leaf
        Hosts that a leaf has ports for.
    children
        m: GPUs per leaf, then subtrees of the tier below per subtree.
    parents, trunks
        w and p: switches above a switch of the tier below, and cables to each; 1 for the leaves.
    radix
        Ports of a switch of each tier at the rate of a cable.
    """

    num_gpus: int
    gpus_per_host: int
    rails: int
    hosts_per_leaf: int
    children: tuple[int, ...]
    parents: tuple[int, ...]
    trunks: tuple[int, ...]
    radix: tuple[int, ...]

    @property
    def num_tiers(self) -> int:
        """Tiers of switches."""
        return len(self.children)

    @property
    def num_leaves(self) -> int:
        """Leaves of one plane."""
        if self.num_tiers == 1:
            return 1
        return ceil(self.num_gpus / (self.gpus_per_host * self.hosts_per_leaf)) * self.rails

    def num_subtrees(self, tier: int) -> int:
        """Subtrees of a tier that are there."""
        return ceil(self.num_leaves / prod(self.children[1:tier]))

    def columns(self, tier: int) -> int:
        """Switches of one subtree of a tier."""
        return prod(self.parents[:tier])

    def num_switches(self, tier: int) -> int:
        """Switches of a tier in one plane."""
        return self.num_subtrees(tier) * self.columns(tier)

    def down_ports(self, tier: int) -> int:
        """Ports downwards that a switch of a full subtree uses."""
        return self.children[tier - 1] * self.trunks[tier - 1]

    def up_ports(self, tier: int) -> int:
        """Ports upwards that a switch uses; 0 on top."""
        return self.parents[tier] * self.trunks[tier] if tier < self.num_tiers else 0

    def num_up_links(self, tier: int) -> int:
        """Cables from the switches of a tier to the tier above."""
        return self.num_switches(tier) * self.up_ports(tier)

    @property
    def taper(self) -> float:
        """Share of its interface that each GPU has if all send across the top."""
        share = 1.0
        gpus = 1
        for tier in range(1, self.num_tiers):
            gpus *= self.children[tier - 1]
            share = min(share, self.columns(tier) * self.up_ports(tier) / gpus)
        return share


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


def tree_reach(gpus_per_host: int, spec: FabricSpec, port_bytes_per_s: float, num_tiers: int) -> int:
    """Most GPUs that a tree of a number of tiers can hold.

    Examples
    --------
    >>> sn5600 = Switch("SN5600", 64, 10**11, 256, 500, 940)
    >>> [tree_reach(8, FabricSpec(switches=(sn5600,)), 1e11, tiers) for tiers in (1, 2, 3, 4)]
    [64, 2048, 65536, 2097152]
    """
    radix = _radix(spec, port_bytes_per_s, num_tiers)
    if num_tiers == 1:
        return min(radix[0], spec.shape[0]) if spec.shape else radix[0]
    lower = _lower(gpus_per_host, spec, radix)
    if lower is None:
        return 0
    top = min(radix[-1], spec.shape[-1]) if spec.shape else radix[-1]
    leaves = prod(lower.children[1:]) * top
    # Leaves come in groups that take whole hosts: some ports may stay free.
    groups = leaves // lower.rails
    return groups * lower.hosts_per_leaf * gpus_per_host


@dataclass(frozen=True, slots=True)
class _Lower:
    """All tiers but the top."""

    rails: int
    hosts_per_leaf: int
    children: tuple[int, ...]
    trunks: tuple[int, ...]
    up_ports: tuple[int, ...]


def _tier_switch(spec: FabricSpec, tier: int) -> Switch:
    return spec.switches[min(tier, len(spec.switches)) - 1]


def _radix(spec: FabricSpec, port_bytes_per_s: float, num_tiers: int) -> tuple[int, ...]:
    return tuple(_tier_switch(spec, tier).radix(port_bytes_per_s) for tier in range(1, num_tiers + 1))


def _ratio(spec: FabricSpec, tier: int) -> float:
    return spec.oversubscription[tier - 1] if tier <= len(spec.oversubscription) else 1.0


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


def _uplinks(down: int, ratio: float) -> int:
    return ceil(down / ratio - _ROUNDING)


def _lower(gpus_per_host: int, spec: FabricSpec, radix: tuple[int, ...]) -> _Lower | None:
    """Sizes of all tiers but the top; None if a leaf has no room for a host."""
    rails = min(spec.rails, gpus_per_host)
    per_leaf = -(-gpus_per_host // rails)
    children: list[int] = []
    trunks: list[int] = []
    up_ports: list[int] = []
    for tier in range(1, len(radix)):
        ports, ratio = radix[tier - 1], _ratio(spec, tier)
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
                expected=f"at most {ports} ({_tier_switch(spec, tier).name})",
                hint=f"lower size {tier} of the shape, or raise oversubscription {tier}",
            )
        children.append(size)
        trunks.append(trunk)
        up_ports.append(up)
    return _Lower(rails, children[0] // per_leaf, tuple(children), tuple(trunks), tuple(up_ports))


def _shaped_trunk(size: int, up_ports: int, ports: int, ratio: float) -> int:
    """Cables to each child where the number of children is given: as many as the ports allow."""
    fitting = [
        trunk
        for trunk in range(1, up_ports + 1)
        if up_ports % trunk == 0 and size * trunk + _uplinks(size * trunk, ratio) <= ports
    ]
    return max(fitting, default=1)


def _try(
    num_gpus: int, gpus_per_host: int, spec: FabricSpec, port_bytes_per_s: float, num_tiers: int
) -> TreeShape | None:
    radix = _radix(spec, port_bytes_per_s, num_tiers)
    if num_gpus > tree_reach(gpus_per_host, spec, port_bytes_per_s, num_tiers):
        return None
    if num_tiers == 1:
        hosts = ceil(num_gpus / gpus_per_host)
        return TreeShape(num_gpus, gpus_per_host, 1, hosts, (num_gpus,), (1,), (1,), radix)
    lower = _lower(gpus_per_host, spec, radix)
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
    radix = _radix(spec, rate, num_tiers)
    reach = tree_reach(gpus_per_host, spec, rate, num_tiers)
    names = dict.fromkeys(_tier_switch(spec, tier).name for tier in range(1, num_tiers + 1))
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
    wider = [tuple(max(_ratio(spec, at + 1), ratio) for at, ratio in enumerate(taper)) for taper in tapers]
    larger = [
        replace(_tier_switch(spec, 1), num_ports=ports, max_ports=ports, port_bytes_per_s=ceil(rate))
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
