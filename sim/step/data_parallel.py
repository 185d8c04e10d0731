"""What data parallelism adds to a step: gradients reduced, parameters gathered, hidden or not.

ZeRO 0 reduces gradients once per step with an all-reduce; stages 1 and 2 scatter them and gather parameters
after the update. With overlap, reduction runs behind the last microbatch's backward of the rank's own chunks
and behind what the rank still waits for in the pipeline, gathering behind the first microbatch's forward;
the last bucket to be ready has nothing to hide behind. ZeRO 3 (FSDP) gathers every layer for every forward
and backward and scatters its gradient, each behind the neighbouring layer's kernels; in a pipeline (torch)
parameters stay gathered and gradients are scattered once a step. Where shards spread over part of the data
ranks (HSDP), the rest is an all-reduce of the shard. Experts go over the ranks that hold the same experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exactmap.sim.cost.groups import collective_ns
from exactmap.sim.cost.layers import LayerClock, LayerPrice
from exactmap.sim.step.stages import Stage, StagePlan
from exactmap.sim.workload.operators import Pass

__all__ = ["DataParallel", "DataTail"]

_BUCKET_ELEMENTS = 40e6
"""Elements of a bucket of gradients in Megatron: at least that many."""


_BUCKET_PER_RANK = 1e6
"""And at least that many for each data rank."""


@dataclass(frozen=True, slots=True)
class DataTail:
    """What gradients and parameters add: reduction after the passes, gathering before, kernels slowed."""

    reduce_ns: float
    gather_ns: float
    slowdown_ns: float


class DataParallel:
    """Prices the gradients and parameters of one setup."""

    def __init__(self, clock: LayerClock) -> None:
        self.clock = clock
        self.setup = clock.setup
        self.groups = clock.groups
        self.known: dict[tuple[str, float, float], float] = {}

    @property
    def part(self) -> str:
        """Name of the part: axis and network."""
        return f"dp {self.groups['dp'].tier.value}"

    def _time(self, collective: str, dense: float, expert: float, each: float) -> float:
        """Time of a collective over dense and expert elements of `each` bytes."""
        key = (collective, dense * each, expert * each)
        known = self.known.get(key)
        if known is None:
            cluster, groups = self.setup.cluster, self.groups
            sharded = collective != "all_reduce"
            names = ("shard", "expert_shard") if sharded else ("dp", "expert_dp")
            known = sum(
                collective_ns(cluster, collective, groups[name], elements * each)
                for name, elements in zip(names, (dense, expert), strict=True)
            )
            if sharded and self.setup.split.zero == 3:
                known *= self.clock.clock.release.shard_wire
            self.known[key] = known
        return known

    def _reduce_ns(self, dense: float, expert: float) -> float:
        """Reduction of gradients over all data ranks."""
        split, each = self.setup.split, self.setup.precision.reduce_bytes
        if split.zero == 0:
            return self._time("all_reduce", dense, expert, each)
        time = self._time("reduce_scatter", dense, expert, each)
        cluster, groups = self.setup.cluster, self.groups
        for replica, shard, elements in (
            ("replica", "shard", dense),
            ("expert_replica", "expert_shard", expert),
        ):
            size = elements * each / groups[shard].num_members
            time += collective_ns(cluster, "all_reduce", groups[replica], size)
        return time

    def _gather_ns(self, dense: float, expert: float) -> float:
        if self.setup.split.zero == 0:
            return 0.0
        return self._time("all_gather", dense, expert, self.setup.precision.gather_bytes)

    def shard_layers(self, plan: StagePlan) -> None:
        """Add to the passes of each stage what ZeRO 3 leaves exposed in them."""
        split = self.setup.split
        if split.zero != 3 or split.data_ranks == 1 or split.pp > 1:
            return
        for stage in plan.stages:
            for price, count in stage.layers:
                self._shard_layer(stage, price, count)
            head = stage.dense - sum(count * price.weights for price, count in stage.layers)
            ends = head + stage.embedding
            first = stage.layers[0][0] if stage.layers else None
            gather = self._gather_ns(stage.embedding, 0.0)
            if first is not None:
                gather += self._gather_ns(first.weights, first.expert_weights)
            # Nothing comes before the first gather, nothing after the last scatter.
            stage.add(Pass.F, self.part, gather)
            ends_ns = self._gather_ns(ends, 0.0) + self._reduce_ns(ends, 0.0)
            price, count = stage.head
            stage.add(Pass.I, self.part, max(0.0, ends_ns - count * price.total_ns))

    def _shard_layer(self, stage: Stage, price: LayerPrice, count: int) -> None:
        gather = self._gather_ns(price.weights, price.expert_weights)
        reduce = self._reduce_ns(price.weights, price.expert_weights)
        again = 0.0 if "SHARD_GRAD_OP" in self.setup.software.flags else gather
        slowdown = self.clock.clock.hardware.overlap_slowdown
        self._copies(stage, price, count)
        for step, wire, beside in (
            (Pass.F, gather, price.pass_ns[Pass.F]),
            (Pass.I, again + reduce, price.backward_ns),
        ):
            hidden = min(wire, beside)
            stage.add(step, self.part, count * (wire - hidden))
            stage.add(step, "overlap slowdown", count * hidden * slowdown)

    def _copies(self, stage: Stage, price: LayerPrice, count: int) -> None:
        """FSDP2 keeps parameters apart: what is gathered is copied out of one buffer, gradients into one."""
        if self.setup.software.family != "torchtitan":
            return
        precision, clock = self.setup.precision, self.clock.clock
        each = 1e9 / (clock.gpu.memory_bytes_per_s * clock.hardware.memory)
        elements = count * (price.weights + price.expert_weights)
        stage.add(Pass.F, "shard copies", 2 * precision.gather_bytes * elements * each)
        backward = 2 * precision.gather_bytes + precision.param_bytes + precision.reduce_bytes
        stage.add(Pass.I, "shard copies", backward * elements * each)

    def wire_ns(self, plan: StagePlan) -> float:
        """Time of a step's gathers and reductions on the rank with most of them, hidden or not."""
        return max(self._wire_ns([stage for stage, _ in held]) for held in plan.held)

    def _wire_ns(self, stages: list[Stage]) -> float:
        setup = self.setup
        dense = sum(stage.dense + stage.embedding for stage in stages)
        expert = sum(stage.expert for stage in stages)
        if setup.split.zero != 3 or setup.split.pp > 1:
            return self._reduce_ns(dense, expert) + self._gather_ns(dense, expert)
        gathers = 1 if "SHARD_GRAD_OP" in setup.software.flags else 2
        inside = [(price, count) for stage in stages for price, count in stage.layers]
        ends = dense - sum(count * price.weights for price, count in inside)
        time = gathers * self._gather_ns(ends, 0.0) + self._reduce_ns(ends, 0.0)
        for price, count in inside:
            sizes = (price.weights, price.expert_weights)
            time += count * (gathers * self._gather_ns(*sizes) + self._reduce_ns(*sizes))
        return setup.batch.num_microbatches * time

    def tails(self, plan: StagePlan, early_ns: Sequence[float]) -> DataTail:
        """What follows and precedes the passes; `early_ns`: how long before the end each rank is through.

        A rank that is through early reduces while others still compute, and one that starts late gathers
        while others already do. What stays is that of the rank where most stays.
        """
        if self.setup.split.zero == 3 and self.setup.split.pp == 1:
            return DataTail(0.0, 0.0, 0.0)
        known: dict[tuple[int, ...], tuple[float, float, float]] = {}
        reduce = gather = slowdown = lead = 0.0
        for held, early in zip(plan.held, early_ns, strict=True):
            key = tuple(id(stage) for stage, _ in held)
            exposed = known.get(key)
            if exposed is None:
                exposed = known[key] = self._exposed([stage for stage, _ in held])
            reduce = max(reduce, exposed[0] - early)
            gather = max(gather, exposed[1] - lead)
            slowdown = max(slowdown, exposed[2] - early)
            lead += held[0][0].forward_ns
        return DataTail(reduce, gather, slowdown)

    def _exposed(self, stages: list[Stage]) -> tuple[float, float, float]:
        """Reduction and gathering that a rank's own passes do not hide, and what they slow those down."""
        split, software, release = self.setup.split, self.setup.software, self.clock.clock.release
        dense = sum(stage.dense + stage.embedding for stage in stages)
        expert = sum(stage.expert for stage in stages)
        bucket = min(
            1.0, max(_BUCKET_ELEMENTS, _BUCKET_PER_RANK * split.data_ranks) / max(1.0, dense + expert)
        )
        # Chunks become ready one after the other, a round of the pipeline apart.
        backward = stages[0].backward_ns + (len(stages) - 1) * split.pp * stages[-1].backward_ns
        sharded, slowed = split.zero == 3, 0.0
        exposed = []
        for time, overlap, share, window in (
            (self._reduce_ns(dense, expert), software.overlap_grad, release.exposed_grad, backward),
            (
                self._gather_ns(dense, expert),
                software.overlap_param,
                release.exposed_param,
                stages[0].forward_ns,
            ),
        ):
            left = time
            if overlap or sharded:
                left = max(time * max(share, bucket), time - window)
            exposed.append(left)
            slowed += (time - left) * self.clock.clock.hardware.overlap_slowdown
        return exposed[0], exposed[1], slowed

    def embedding_ns(self, plan: StagePlan) -> float:
        """A tied embedding's gradient is summed over the first and the last stage."""
        first, last = plan.stages[0], plan.stages[-1]
        if not self.setup.model.tied or self.setup.split.pp == 1 or not last.head[1]:
            return 0.0
        size = first.embedding * self.setup.precision.grad_bytes
        return collective_ns(self.setup.cluster, "all_reduce", self.groups["embedding"], size)
