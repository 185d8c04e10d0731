"""What a cluster is made of: GPUs, scale-up domains, the network between them.

All sizes are bytes, all rates bytes/s or flop/s per GPU and direction, all times ns, all whole numbers.
Where each number comes from is kept beside it as a `Fact`. A CPU host is described with the same words: its
"GPUs" are cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.curves import Curves
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.place import count_usable, place_mesh
from exactmap.topology.exact_map.request import MapRequest
from exactmap.topology.fabric.spec import FabricSpec
from exactmap.topology.gemm_table import GemmTable
from exactmap.topology.group_shape import Tier
from exactmap.topology.host import Host, Rack
from exactmap.topology.mapping import Mesh, Placement

__all__ = ["GPU", "MAX_GPUS", "Cluster", "Fact", "Host", "Rack", "ScaleOut", "ScaleUp"]

MAX_GPUS = 10_000_000
"""Tables of links have some 600 bytes a GPU."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A number as its source states it.

    Parameters
    ----------
    value
        The value with its unit, as written.
    source
        Where it was read.
    confidence
        ``measured``, ``datasheet``, ``derived``, ``recalled`` or ``assumed``; ``given`` if a user's own
        number.
    """

    value: str
    source: str
    confidence: str


@dataclass(frozen=True, slots=True)
class GPU:
    """One accelerator (or, on a CPU host, one core).

    Parameters
    ----------
    name
        What it is called.
    curves
        Name of the measured curves (matrix products, attention, collectives) that describe it; empty: none.
    peak_flop_per_s
        Dense peak by number format: ``fp32``, ``bf16``, ``fp8``, ``fp4``.
    memory_bytes
        Memory that a program can have.
    memory_bytes_per_s
        Peak memory bandwidth.
    memory_efficiency
        Share of that bandwidth that long streams reach.
    launch_ns
        Least time of one kernel, launch included, when the host runs ahead.
    reserved_bytes
        Memory that context, libraries and communicators take.
    power_w, idle_power_w
        Rated power; power when nothing runs (0: unknown).
    exp_per_s
        Exponentials that its special-function units make (softmax); 0: unknown.
    recipe_peak_flop_per_s
        Dense peak by which the vendor's published recipes divide to state MFU, where it is not the peak.
    kernels
        Whose measured products and attention describe it; empty: those of `curves`.
    gemm_efficiency, attention_efficiency
        Shares of peak of products and attention where nothing measured describes it.
    gemm
        Products that a user has timed on it; they go before the measured ones.
    """

    name: str
    curves: str
    peak_flop_per_s: Mapping[str, int]
    memory_bytes: int
    memory_bytes_per_s: int
    memory_efficiency: float
    launch_ns: int
    reserved_bytes: int
    power_w: int
    idle_power_w: int = 0
    exp_per_s: int = 0
    recipe_peak_flop_per_s: Mapping[str, int] = field(default_factory=dict)
    kernels: str = ""
    gemm_efficiency: float = 1.0
    attention_efficiency: float = 0.4
    gemm: GemmTable | None = None

    def peak(self, dtype: str) -> int:
        """Dense peak in flop/s for a number format.

        Raises
        ------
        InvalidInputError
            If this GPU has no such format.
        """
        try:
            return self.peak_flop_per_s[dtype]
        except KeyError:
            raise InvalidInputError(
                f"{self.name} has no {dtype} arithmetic",
                where=Place(field="training.precision"),
                got=dtype,
                expected=" or ".join(self.peak_flop_per_s),
            ) from None

    def recipe_peak(self, dtype: str) -> int:
        """Dense peak that the vendor's recipes state MFU against; raises as `peak`."""
        return self.recipe_peak_flop_per_s.get(dtype) or self.peak(dtype)


@dataclass(frozen=True, slots=True)
class ScaleUp:
    """The network inside one domain (NVLink in a rack or host; shared memory in a CPU host).

    Parameters
    ----------
    name
        What it is called.
    domain_size
        GPUs in one domain.
    bytes_per_s
        Rate per GPU, one direction.
    efficiency
        Share of that rate that large transfers reach, where no measured curve says more.
    latency_ns
        Time of a small message from one GPU to another.
    reduction
        What sums in its switches (``NVLink SHARP``); empty: nothing.
    """

    name: str
    domain_size: int
    bytes_per_s: int
    efficiency: float
    latency_ns: int
    reduction: str = ""


@dataclass(frozen=True, slots=True)
class ScaleOut:
    """A GPU's interface to the network between domains.

    Parameters
    ----------
    name
        What it is called.
    bytes_per_s
        Rate of a GPU's network interface, one direction.
    efficiency
        Share of that rate that large transfers reach.
    latency_ns
        Time of a small message between GPUs of two domains that share a leaf switch.
    max_ports
        Ports that the interface can be split into; 0: unknown.
    power_w
        Rated power, for each GPU; 0: unknown.
    """

    name: str
    bytes_per_s: int
    efficiency: float
    latency_ns: int
    max_ports: int = 0
    power_w: int = 0

    @property
    def achieved_bytes_per_s(self) -> float:
        """Rate that a large transfer reaches where nothing but the interface bounds it."""
        return self.bytes_per_s * self.efficiency


@dataclass(frozen=True, slots=True)
class Cluster:
    """A homogeneous cluster.

    Parameters
    ----------
    name
        What it is called.
    num_gpus
        GPUs installed.
    gpus_per_host
        GPUs that share one host (a tray of an NVL72 rack has 4).
    used_per_domain
        GPUs of a scale-up domain that a plan may use; the others are spares.
    gpu, scale_up, scale_out
        The parts.
    fabric
        The network that the interfaces are attached to.
    host
        What the GPUs are plugged into; None: unknown, and nothing can be copied to it.
    rack
        What the hosts stand in; None: unknown.
    map_request
        What a map of a mesh onto it must leave out and keep together.
    facts
        Dotted name of a number (``gpu.memory``) -> where it comes from.
    collectives
        Collectives that a user has measured on it; they go before the GPU type's.
    ideal
        Networks that take no time, for a what-if: a group counts to the furthest one that it crosses.
    memo
        What others have worked out for this cluster and keep; no part of what it is.

    Raises
    ------
    InvalidInputError
        If a count is out of range.
    """

    name: str
    num_gpus: int
    gpus_per_host: int
    used_per_domain: int
    gpu: GPU
    scale_up: ScaleUp
    scale_out: ScaleOut
    fabric: FabricSpec = field(default_factory=FabricSpec)
    host: Host | None = None
    rack: Rack | None = None
    map_request: MapRequest = field(default_factory=MapRequest)
    facts: Mapping[str, Fact] = field(default_factory=dict, compare=False, repr=False)
    collectives: Curves | None = None
    ideal: frozenset[Tier] = frozenset()
    memo: dict[object, object] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Check the counts."""
        if not 1 <= self.num_gpus <= MAX_GPUS:
            raise InvalidInputError(
                "GPUs of a cluster are out of range",
                where=Place(field="cluster.num_gpus"),
                got=str(self.num_gpus),
                expected=f"1 to {MAX_GPUS}",
            )
        if not 1 <= self.used_per_domain <= self.scale_up.domain_size:
            raise InvalidInputError(
                "GPUs used per scale-up domain are out of range",
                where=Place(field="cluster.used_per_domain"),
                got=str(self.used_per_domain),
                expected=f"1 to {self.scale_up.domain_size}",
                hint="scale_up.domain_size and used_per_domain go together",
            )

    def place(self, mesh: Mesh) -> Placement | ExactMap:
        """Lay a mesh onto this cluster.

        Raises
        ------
        InfeasibleError
            If it does not fit, or what the map must keep cannot be kept.
        """
        return place_mesh(self, mesh)  # pyright: ignore[reportArgumentType]

    def scale_out_bytes_per_s(self, tier: int) -> float:
        """Rate of each GPU when all send large transfers through switches of a tier of the fabric."""
        return self.scale_out.achieved_bytes_per_s * self.fabric.taper(tier)

    def scale_out_latency_ns(self, tier: int) -> int:
        """Time of a small message that climbs to a tier of the fabric."""
        return self.scale_out.latency_ns + self.fabric.extra_latency_ns(tier)

    @property
    def num_hosts(self) -> int:
        """Hosts; the last may be partly filled."""
        return -(-self.num_gpus // self.gpus_per_host)

    @property
    def num_racks(self) -> int:
        """Racks, the last one maybe partly filled; 0 where nothing is known of racks."""
        return 0 if self.rack is None else -(-self.num_hosts // self.rack.num_hosts)

    @property
    def usable_gpus(self) -> int:
        """GPUs that a plan may use; a last, partly filled domain counts as far as it goes."""
        return count_usable(self)  # pyright: ignore[reportArgumentType]
