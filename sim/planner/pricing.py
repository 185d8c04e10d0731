"""What a candidate's pieces cost on the machine at hand: a cluster of the catalog, or a measured host.

`Pricing` is all that the search knows of a machine; the numbers come from `exactmap.sim.cost`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from exactmap.sim.cost.formats import Formats
from exactmap.sim.cost.host_copies import price_copies
from exactmap.sim.cost.links import (
    COLLECTIVES,
    norm_time_ns,
    price_buckets,
    price_channels,
    price_groups,
    update_time_ns,
)
from exactmap.sim.cost.profile import Mover, Profile
from exactmap.sim.cost.stages import price_stages
from exactmap.topology.collectives import collective_time, hop_time
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, GroupShape, Mesh

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.workload.model import ModelConfig, StageLike

__all__ = ["ClusterPricing", "Pricing"]


class Pricing(Protocol):
    """A machine as the planner sees it."""

    @property
    def basis(self) -> str:
        """What the numbers come from, in one line."""
        ...

    @property
    def peak_flop_per_s(self) -> float:
        """Peak of one rank in the run's number format; 0 where unknown."""
        ...

    @property
    def band(self) -> tuple[float, float] | None:
        """Error band of a step time, as factors minus 1."""
        ...

    def work_ns(
        self, model: ModelConfig, stages: Sequence[StageLike], microbatch: int, seq: int, mesh: Mesh
    ) -> dict[tuple[str, int], int]:
        """(op, stage) -> ns for F, I and W, and B where it is not I + W."""
        ...

    def hop_ns(self, num_bytes: int, mesh: Mesh) -> int:
        """One message between neighbouring pipeline ranks, wire and latency, in ns."""
        ...

    def reduce_ns(self, op: str, elements: int, mesh: Mesh) -> int:
        """``AR``, ``RS`` or ``AG`` of a bucket of so many elements over the replicas, in ns."""
        ...

    def update_ns(self, elements: int) -> int:
        """Optimizer on so many elements of one bucket, in ns."""
        ...

    def norm_ns(self, elements: int, mesh: Mesh, *, sharded: bool) -> int:
        """Norm of the gradients, of which a rank holds so many elements, in ns."""
        ...

    def profile(self, plan: Plan, mesh: Mesh, work_ns: dict[tuple[str, int], int]) -> Profile:
        """All durations of a plan; `work_ns` is what `work_ns` said of its stages."""
        ...


@dataclass(frozen=True, slots=True)
class ClusterPricing:
    """GPUs of the catalog: rooflines, measured kernels, collectives."""

    cluster: Cluster
    formats: Formats
    band: tuple[float, float] | None = None
    _known: dict[object, dict[str, int]] = field(default_factory=dict, compare=False, repr=False)
    _shapes: dict[tuple[Mesh, tuple[Axis, ...]], GroupShape] = field(
        default_factory=dict, compare=False, repr=False
    )
    _times: dict[object, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def basis(self) -> str:
        """Catalog name and number format."""
        return f"{self.cluster.name},{self.formats.compute}"

    @property
    def peak_flop_per_s(self) -> float:
        """Dense peak of one GPU."""
        return float(self.cluster.gpu.peak(self.formats.compute))

    def work_ns(
        self, model: ModelConfig, stages: Sequence[StageLike], microbatch: int, seq: int, mesh: Mesh
    ) -> dict[tuple[str, int], int]:
        """Equal stages whose tp and cp groups have one shape cost the same, so each is priced once."""
        out: dict[tuple[str, int], int] = {}
        placement = self.cluster.place(mesh)
        inner = (placement.group_shape([Axis.TP]), placement.group_shape([Axis.CP]))
        for number, stage in enumerate(stages):
            key = (
                model,
                stage.num_layers,
                stage.embedding,
                stage.head,
                microbatch,
                seq,
                mesh.tp,
                mesh.cp,
                inner,
            )
            times = self._known.get(key)
            if times is None:
                priced = price_stages(model, [stage], microbatch, seq, mesh, self.cluster, self.formats)
                times = self._known[key] = {op: ns for (op, _), ns in priced.items()}
            out |= {(op, number): ns for op, ns in times.items()}
        return out

    def hop_ns(self, num_bytes: int, mesh: Mesh) -> int:
        """Over the furthest network that neighbours on the pipeline axis cross."""
        placement = self.cluster.place(mesh)
        hop = hop_time(
            self.cluster, placement.hop_tier(Axis.PP), num_bytes, placement.hop_fabric_tier(Axis.PP)
        )
        return hop.wire_ns + hop.lat_ns

    def reduce_ns(self, op: str, elements: int, mesh: Mesh) -> int:
        """Over the group of the axes context and data, as the plan's group of replicas."""
        if mesh.cp * mesh.ep * mesh.dp == 1:
            return 0
        width = self.formats.param_bytes if op == "AG" else self.formats.grad_bytes
        shape = self._shape(mesh, (Axis.CP, Axis.EP, Axis.DP))
        key = (op, elements * width, shape)
        if key not in self._times:
            time = collective_time(self.cluster, COLLECTIVES[op], shape, elements * width)
            self._times[key] = int(time.time_ns)
        return self._times[key]

    def update_ns(self, elements: int) -> int:
        """Bound by memory."""
        return update_time_ns(elements, self.cluster, self.formats)

    def norm_ns(self, elements: int, mesh: Mesh, *, sharded: bool) -> int:
        """A sum of one number over the ranks that hold other parameters."""
        del elements
        names = (Axis.TP, Axis.CP, Axis.EP, Axis.PP, Axis.DP) if sharded else (Axis.TP, Axis.PP)
        if all(getattr(mesh, axis.value) == 1 for axis in names):
            return 0
        shape = self._shape(mesh, names)
        if shape not in self._times:
            self._times[shape] = norm_time_ns(self.cluster, shape)
        return self._times[shape]

    def _shape(self, mesh: Mesh, names: tuple[Axis, ...]) -> GroupShape:
        """Shape of the group over those of some axes that are not 1."""
        key = (mesh, names)
        if key not in self._shapes:
            axes = [axis for axis in names if getattr(mesh, axis.value) > 1]
            self._shapes[key] = self.cluster.place(mesh).group_shape(axes)
        return self._shapes[key]

    def profile(self, plan: Plan, mesh: Mesh, work_ns: dict[tuple[str, int], int]) -> Profile:
        """Prices of the plan's own channels, groups and buckets."""
        return Profile(
            Mover.ENGINE,
            work_ns=work_ns,
            bucket_ns=price_buckets(plan.buckets, self.cluster, self.formats, mesh.cp * mesh.ep * mesh.dp),
            channel=price_channels(plan.channels, mesh, self.cluster),
            group_ns=price_groups(plan.groups, plan.buckets, mesh, self.cluster, self.formats),
            copy_ns=price_copies(plan, self.cluster),
        )
