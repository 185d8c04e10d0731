"""What a candidate's pieces cost on a host that `exactmap calibrate` has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.host import HostProfile
from exactmap.sim.cost.price_host import (
    all_reduce_on_host_ns,
    hop_time_on_host_ns,
    norm_on_host_ns,
    price_on_host,
    stage_time_on_host_ns,
    update_on_host_ns,
)

if TYPE_CHECKING:
    from exactmap.sim.cost.profile import Profile
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.workload.model import ModelConfig, StageLike
    from exactmap.topology.mapping import Mesh

__all__ = ["MEASURED_BAND", "HostPricing"]

# Fifteen percent to either side: nine of ten plans stayed within it in the measurements of docs/accuracy.md.
MEASURED_BAND = (-0.15, 0.15)


@dataclass(frozen=True, slots=True)
class HostPricing:
    """Cores of a calibrated host, one rank each; the same protocol as `ClusterPricing`."""

    host: HostProfile
    band: tuple[float, float] | None = MEASURED_BAND
    _known: dict[object, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def basis(self) -> str:
        """Processor and matrix library."""
        return f"host,{self.host.host.cpu},{self.host.host.blas}"

    @property
    def peak_flop_per_s(self) -> float:
        """Unknown: a profile holds times of passes, no peak."""
        return 0.0

    def work_ns(
        self, model: ModelConfig, stages: Sequence[StageLike], microbatch: int, seq: int, mesh: Mesh
    ) -> dict[tuple[str, int], int]:
        """(op, stage) -> ns for F, I, W and B; B is measured as a pass of its own.

        Raises
        ------
        InvalidInputError
            If the mesh cuts inside a layer, or the profile lacks a pass of this kind of model.
        """
        inner = mesh.tp * mesh.cp * mesh.ep
        if inner > 1:
            raise InvalidInputError(
                "a hardware profile of a host knows pipeline and data parallelism",
                got=f"tp={mesh.tp} cp={mesh.cp} ep={mesh.ep}",
                expected="1 each",
            )
        return {
            (op, number): self._stage_ns(model, stage, op, microbatch, seq)
            for number, stage in enumerate(stages)
            for op in "FIWB"
        }

    def _stage_ns(self, model: ModelConfig, stage: StageLike, op: str, microbatch: int, seq: int) -> int:
        key = (model, stage.num_layers, stage.embedding, stage.head, op, microbatch, seq)
        if key not in self._known:
            self._known[key] = stage_time_on_host_ns(model, stage, op, microbatch, seq, self.host)
        return self._known[key]

    def hop_ns(self, num_bytes: int, mesh: Mesh) -> int:
        """One message to a neighbour that is awake: post, wake-up, copy."""
        del mesh  # all ranks are threads of one process
        return hop_time_on_host_ns(num_bytes, self.host)

    def reduce_ns(self, op: str, elements: int, mesh: Mesh) -> int:
        """A sum over the replicas; half of it where it is only scattered or gathered."""
        summed_ns = all_reduce_on_host_ns(self.host, mesh.dp, elements * 4)
        return summed_ns if op == "AR" else summed_ns // 2

    def update_ns(self, elements: int) -> int:
        """As measured, by elements."""
        return update_on_host_ns(elements, self.host)

    def norm_ns(self, elements: int, mesh: Mesh, *, sharded: bool) -> int:
        """Squares summed, then a meeting of the ranks."""
        members = mesh.pp * (mesh.dp if sharded else 1)
        return norm_on_host_ns(elements, members, self.host)

    def profile(self, plan: Plan, mesh: Mesh, work_ns: dict[tuple[str, int], int]) -> Profile:
        """All durations of a plan; passes come from the profile again, as `work_ns` had them."""
        del mesh, work_ns
        return price_on_host(plan, self.host)
