"""What a fabric is asked to be: its shape, its switches, how many tiers, planes and rails.

A network interface of rate r may be split over p *planes*, each a fabric of its own with ports of r/p.
With r *rails* the GPUs of a host go to r different leaves (GPU i of its host to rail i mod r), so that
equal places of neighbouring hosts share a leaf; with one rail a host's GPUs share a leaf. Tiers count
from 1, the leaves; the tier of a pair of GPUs is the highest that a packet between them climbs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import prod

from exactmap.errors import InvalidInputError, Place

__all__ = ["Cable", "FabricKind", "FabricSpec", "Switch"]


class FabricKind(StrEnum):
    """Shapes of a fabric."""

    IDEAL = "ideal"
    """One switch with as many ports as it takes: where only rate and latency are known."""
    FAT_TREE = "fat_tree"
    """Folded Clos of 2 to 4 tiers; rail-optimised if `FabricSpec.rails` is over 1."""
    DUAL_TOR = "dual_tor"
    """Fat tree whose interfaces have two ports on two leaves of one segment, a plane each."""
    RAIL_ONLY = "rail_only"
    """A fat tree for each GPU of a host, which never meet: a message changes rails inside its host."""
    DRAGONFLY = "dragonfly"
    """Groups of fully connected routers, each group with links to each other group."""
    TORUS = "torus"
    """A grid that is closed in each direction."""
    GRAPH = "graph"
    """Whatever a user's edge list says."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A packet switch.

    Parameters
    ----------
    name
        What it is called.
    num_ports, port_bytes_per_s
        Ports at full rate, one direction.
    max_ports
        Ports when each is split as far as the switch allows.
    hop_ns
        Time of a packet through it.
    power_w
        Rated power, without optics.
    reduction
        What sums in the switch (``SHARPv4``); empty: nothing.
    """

    name: str
    num_ports: int
    port_bytes_per_s: int
    max_ports: int
    hop_ns: int
    power_w: int
    reduction: str = ""

    def radix(self, port_bytes_per_s: float) -> int:
        """Ports at a rate: split ones if that is lower than a full port's; 0 if it is higher.

        Examples
        --------
        >>> sn5600 = Switch("SN5600", 64, 10**11, 256, 500, 940)
        >>> sn5600.radix(10**11), sn5600.radix(2.5e10), sn5600.radix(1.25e10), sn5600.radix(2e11)
        (64, 256, 256, 0)
        """
        if port_bytes_per_s > self.port_bytes_per_s:
            return 0
        return min(self.max_ports, int(self.num_ports * self.port_bytes_per_s / port_bytes_per_s))


@dataclass(frozen=True, slots=True)
class Cable:
    """A cable with what is at its two ends.

    Parameters
    ----------
    name
        What it is called.
    bytes_per_s
        Its rate, one direction.
    power_w
        Power of both ends together; 0 for passive copper.
    ns_per_m
        Delay of a metre.
    reach_m
        The longest there is.
    """

    name: str
    bytes_per_s: int
    power_w: int
    ns_per_m: float
    reach_m: int


@dataclass(frozen=True, slots=True)
class FabricSpec:
    """A fabric as asked for; `exactmap.topology.fabric.build` makes one for a number of GPUs.

    Parameters
    ----------
    kind
        Its shape.
    switches
        The switch of each tier from the leaves up; the last stands for all further tiers. Empty: unknown.
    num_tiers
        Tiers; 0 for the fewest that reach all GPUs.
    planes
        Ports that an interface is split into, each on a fabric of its own.
    rails
        Leaves that a host's GPUs are spread over; 1 for a plain fabric.
    oversubscription
        By tier from the leaves up: rate down over rate up at its switches; tiers not named have 1.
    cable_ns
        Time in one cable between switches, 5 ns per metre.
    shape
        Torus: its sizes. Dragonfly: endpoints per router, routers per group, global links per router. Fat
        trees: GPUs per leaf, leaves per pod, pods, ... if they are not to fill the switches.
    graph
        Edges of a user's graph: (node, node, bytes/s one direction, tier).
    cables
        Cables that it is made of, the shortest reach first; a link takes the first that reaches far enough.

    Raises
    ------
    InvalidInputError
        If a number is out of range.
    """

    kind: FabricKind = FabricKind.IDEAL
    switches: tuple[Switch, ...] = ()
    num_tiers: int = 0
    planes: int = 1
    rails: int = 1
    oversubscription: tuple[float, ...] = ()
    cable_ns: int = 0
    shape: tuple[int, ...] = ()
    graph: tuple[tuple[str, str, float, int], ...] = ()
    cables: tuple[Cable, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field, got, low, high in (
            ("tiers", self.num_tiers, 0, 4),
            ("planes", self.planes, 1, 16),
            ("rails", self.rails, 1, 1024),
        ):
            if not low <= got <= high:
                raise InvalidInputError(
                    "out of range",
                    where=Place(field=f"cluster.fabric.{field}"),
                    got=str(got),
                    expected=f"{low} to {high}",
                )
        if any(ratio < 1.0 for ratio in self.oversubscription):
            raise InvalidInputError(
                "a tier cannot have more rate up than down",
                where=Place(field="cluster.fabric.oversubscription"),
                got=", ".join(f"{ratio:g}" for ratio in self.oversubscription),
                expected="1 or more, by tier",
            )

    def taper(self, tier: int) -> float:
        """Share of an interface's rate that each GPU has when all send through switches of a tier.

        Examples
        --------
        >>> spec = FabricSpec(oversubscription=(1.0, 7.0))
        >>> spec.taper(1), spec.taper(2), spec.taper(3) == 1 / 7
        (1.0, 1.0, True)
        """
        return 1.0 / prod(self.oversubscription[: max(tier - 1, 0)])

    def hop_ns(self, tier: int) -> int:
        """Time of a packet through a switch of a tier; 0 where switches are not known."""
        return self.switches[min(tier, len(self.switches)) - 1].hop_ns if self.switches else 0

    def path_ns(self, tier: int) -> int:
        """Switches and cables of a path up to a tier and down again, without the interfaces at its ends.

        Examples
        --------
        >>> spec = FabricSpec(switches=(Switch("S", 64, 10**11, 64, 500, 940),), cable_ns=150)
        >>> spec.path_ns(1), spec.path_ns(2), spec.path_ns(3)
        (500, 1800, 3100)
        """
        sides = sum(self.hop_ns(below) + self.cable_ns for below in range(1, tier))
        return 2 * sides + self.hop_ns(tier) if self.switches else 0

    def extra_latency_ns(self, tier: int) -> int:
        """What a packet needs beyond a path through one leaf: two switches, two cables per further tier."""
        return self.path_ns(max(tier, 1)) - self.path_ns(1)
