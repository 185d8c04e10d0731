"""A candidate's price before it is a plan: memory of its fullest rank and its step time, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING

from exactmap.errors import ExactmapError, InfeasibleError, Place
from exactmap.sim.cost.memory import RankMemory, price_memory
from exactmap.sim.planner.candidate import Candidate, Rejection
from exactmap.sim.planner.closed_form import (
    CLOSED_FORMS,
    fused_times_ns,
    peak_stash_chunks,
    pipeline_time_ns,
    rank_times_ns,
)
from exactmap.sim.planner.order_form import OrderForm, order_form, walked_time_ns
from exactmap.sim.planner.pipelines import StageBytes, probed_ranks
from exactmap.sim.schedules.order import loop_placement
from exactmap.sim.schedules.partition import balance_layers, stages_of
from exactmap.sim.schedules.registry import find_schedule
from exactmap.sim.workload.footprint import PrecisionBytes, bucket_elements, stage_footprint
from exactmap.sim.workload.model import Part, StageShape, stage_parts
from exactmap.sim.workload.plain import require_plain
from exactmap.topology.mapping import DEFAULT_ORDER, Axis, Mesh

if TYPE_CHECKING:
    from exactmap.sim.cost.formats import Formats
    from exactmap.sim.plan.plan import PlanStage
    from exactmap.sim.planner.candidate import SearchSpace
    from exactmap.sim.planner.pricing import Pricing
    from exactmap.sim.workload.model import ModelConfig, StageLike

__all__ = ["Estimate", "Estimator", "layers_of_stages", "map_refusal"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A candidate that fits, with its closed-form step time and what that is made of.

    Attributes
    ----------
    step_ns
        All of it: `passes_ns` and `tail_ns`.
    passes_ns, tail_ns
        Passes, bubble and hops of the schedule; gradients that nothing hides, norm and optimizer.
    busy_ns
        Passes of the busiest rank, all microbatches.
    memory
        The fullest rank's bytes by what they are for, and `memory_rank`, which one it is.
    """

    candidate: Candidate
    stages: tuple[PlanStage, ...]
    work_ns: dict[tuple[str, int], int]
    hop_ns: int
    passes_ns: int
    tail_ns: int
    busy_ns: int
    memory: RankMemory
    memory_rank: int

    @property
    def step_ns(self) -> int:
        """Step time by closed form, or with `passes_ns` walked."""
        return self.passes_ns + self.tail_ns


class Estimator:
    """Prices candidates of one scenario; what candidates share is computed once."""

    def __init__(
        self,
        model: ModelConfig,
        seq: int,
        formats: Formats,
        pricing: Pricing,
        budget_bytes: int,
        order: tuple[Axis, ...] = DEFAULT_ORDER,
    ) -> None:
        require_plain(model)
        self.model = model
        self.seq = seq
        self.formats = formats
        self.pricing = pricing
        self.budget_bytes = budget_bytes
        self.order = order
        self._memory = lru_cache(maxsize=None)(self._rank_memory)
        self.shape_bytes = lru_cache(maxsize=None)(self._shape_bytes)

    def mesh(self, candidate: Candidate) -> Mesh:
        """The candidate's mesh, its axes in the order of the map."""
        return Mesh(tp=candidate.tp, cp=candidate.cp, pp=candidate.pp, dp=candidate.dp, order=self.order)

    def price(self, candidate: Candidate) -> Estimate | Rejection:
        """Estimate a candidate, or say why it cannot be."""
        try:
            return self._price(candidate)
        except InfeasibleError as error:
            return Rejection(candidate, "map", map_refusal(error))

    def _price(self, candidate: Candidate) -> Estimate | Rejection:
        mesh = self.mesh(candidate)
        try:
            stages = self.stages(candidate, mesh)
        except ExactmapError as error:
            if isinstance(error.where, Place) and error.where.field == "map.require":
                raise
            return Rejection(candidate, "too few layers", str(error.what))
        memory, rank = self._fullest(candidate, stages)
        if memory.total_bytes > self.budget_bytes:
            over = memory.total_bytes - self.budget_bytes
            why = (
                f"rank {rank} needs {memory.total_bytes / 2**30:.1f} GiB, {over / 2**30:.1f} GiB over the "
                f"{self.budget_bytes / 2**30:.1f} GiB to use "
                f"(activations {memory.activation_bytes / 2**30:.1f})"
            )
            return Rejection(candidate, "memory", why, over)
        work_ns = self.pricing.work_ns(self.model, stages, candidate.microbatch, self.seq, mesh)
        placement = self._placement(candidate)
        rank_ns, weight_ns = rank_times_ns(work_ns, placement, candidate.pp)
        fused_ns, forward_ns = fused_times_ns(work_ns, placement, candidate.pp)
        if not find_schedule(candidate.schedule).splits_backward:
            rank_ns = fused_ns
        hop_ns = self.pricing.hop_ns(self.message_bytes(candidate), mesh) if candidate.pp > 1 else 0
        if candidate.schedule in CLOSED_FORMS:
            passes_ns = pipeline_time_ns(
                candidate.schedule,
                rank_ns,
                weight_ns,
                num_microbatches=candidate.num_microbatches,
                chunks=candidate.chunks,
                hop_ns=hop_ns,
                forward_ns=forward_ns,
            )
        else:
            passes_ns = walked_time_ns(
                candidate.schedule,
                work_ns,
                num_ranks=candidate.pp,
                num_microbatches=candidate.num_microbatches,
                chunks=candidate.chunks,
                hop_ns=hop_ns,
            )
        again_ns = forward_ns if find_schedule(candidate.schedule).recomputes else [0] * candidate.pp
        busy_ns = candidate.num_microbatches * max(map(sum, zip(rank_ns, again_ns, strict=True)))
        tail_ns = self._tail_ns(candidate, stages, work_ns, placement, mesh)
        return Estimate(candidate, stages, work_ns, hop_ns, passes_ns, tail_ns, busy_ns, memory, rank)

    def _tail_ns(
        self,
        candidate: Candidate,
        stages: tuple[PlanStage, ...],
        work_ns: dict[tuple[str, int], int],
        placement: tuple[tuple[int, ...], ...],
        mesh: Mesh,
    ) -> int:
        """Gradients that nothing hides, norm and optimizer; see `exactmap.sim.planner.array_form`."""
        pricing, shards = self.pricing, self.num_shards(candidate)
        elements = [self.stage_bytes(candidate, stage).elements for stage in stages]
        by_rank = [0] * candidate.pp
        for ranks, each in zip(placement, elements, strict=True):
            for rank in ranks:
                by_rank[rank] += each
        own = sum(0 in ranks for ranks in placement)
        backward_ns = work_ns.get(("B", 0), work_ns["I", 0] + work_ns["W", 0])
        op = "RS" if candidate.zero else "AR"
        reduced_ns = max(
            pricing.reduce_ns(op, elements[0], mesh),
            pricing.reduce_ns(op, by_rank[0], mesh) - (own - 1) * backward_ns * candidate.pp,
        )
        gathered_ns = pricing.reduce_ns("AG", elements[0], mesh) if candidate.zero else 0
        norm_ns = pricing.norm_ns(max(by_rank) // shards, mesh, sharded=candidate.zero > 0)
        return gathered_ns + reduced_ns + norm_ns + pricing.update_ns(max(by_rank) // shards)

    def least_ns(self, space: SearchSpace, tp: int, cp: int, microbatch: int) -> float:
        """No candidate of a space with these takes less: its passes, spread evenly over all GPUs, in ns."""
        try:
            unit_ns = self.unit_ns(microbatch, Mesh(tp=tp, cp=cp))
        except InfeasibleError:
            return 0.0
        split, fused = (
            self.model.layers * sum(unit_ns.get((op, 0), 0) for op in ops)
            + sum(unit_ns.get((op, part), 0) for op in ops for part in (1, 2))
            for ops in ("FIW", "FB")
        )
        passes = min(split, fused) if ("B", 0) in unit_ns else split
        return passes * (space.global_batch / microbatch) * (tp * cp / space.num_gpus)

    def num_shards(self, candidate: Candidate) -> int:
        """Ranks that share the optimizer's state."""
        return candidate.cp * candidate.dp if candidate.zero else 1

    def stage_bytes(self, candidate: Candidate, stage: StageLike) -> StageBytes:
        """Footprint of a stage for the candidate's microbatch, and the parameters of its buckets."""
        return self.shape_bytes(
            StageShape(stage.num_layers, stage.embedding, stage.head),
            candidate.microbatch,
            candidate.tp,
            candidate.cp,
            apart=candidate.pp > 1,
        )

    def _shape_bytes(
        self, stage: StageShape, microbatch: int, tp: int, cp: int, *, apart: bool
    ) -> StageBytes:
        formats = self.formats
        widths = PrecisionBytes(
            act_bytes=formats.act_bytes,
            param_bytes=formats.param_bytes,
            grad_bytes=formats.grad_bytes,
            moment_bytes=formats.moment_bytes,
        )
        size = stage_footprint(self.model, stage, microbatch, -(-self.seq // cp), precision=widths, tp=tp)
        parts = [part.value for part in stage_parts(self.model, stage)]
        # A tied embedding whose head lies on another rank is a bucket of its own on both.
        tied = [part for part in parts if apart and self.model.tied and part in {Part.WTE, Part.HEAD}]
        own = [part for part in parts if part not in tied]
        return StageBytes(size, tuple(bucket_elements(size, tuple(each)) for each in (tied, own) if each))

    def stages(self, candidate: Candidate, mesh: Mesh) -> tuple[PlanStage, ...]:
        """Layers cut so that embedding and head weigh what they cost, in layers."""
        unit_ns = self.unit_ns(candidate.microbatch, mesh)
        if candidate.schedule in CLOSED_FORMS:
            counts = layers_of_stages(self.model.layers, candidate.pp, candidate.chunks, unit_ns)
            return stages_of(counts)
        embedding, head = layers_worth(unit_ns)
        placement = self._placement(candidate)
        return stages_of(
            balance_layers(self.model.layers, len(placement), embedding, head, placement=placement)
        )

    def unit_ns(self, microbatch: int, mesh: Mesh) -> dict[tuple[str, int], int]:
        """(op, part) -> ns of one layer (part 0), the embedding (1) and the head (2) alone."""
        return self.pricing.work_ns(self.model, _UNITS, microbatch, self.seq, mesh)

    def message_bytes(self, candidate: Candidate) -> int:
        """What a rank sends to the next stage for one microbatch."""
        tokens = candidate.microbatch * -(-self.seq // candidate.cp)
        return -(-tokens * self.model.hidden * self.formats.act_bytes // candidate.tp)

    def _fullest(self, candidate: Candidate, stages: tuple[PlanStage, ...]) -> tuple[RankMemory, int]:
        best: tuple[RankMemory, int] | None = None
        p = candidate.pp
        placement = self._placement(candidate)
        for rank in sorted(set(probed_ranks(p))):
            mine = [stage for stage, ranks in zip(stages, placement, strict=True) if rank in ranks]
            shapes = tuple(StageShape(s.num_layers, s.embedding, s.head) for s in mine)
            memory = self._memory(
                shapes,
                candidate.microbatch,
                candidate.tp,
                candidate.cp,
                *_stash(candidate, rank),
                find_schedule(candidate.schedule).recomputes,
                self.num_shards(candidate),
                self._whole_elements(candidate, shapes),
            )
            if best is None or memory.total_bytes > best[0].total_bytes:
                best = memory, rank
        assert best is not None
        return best

    def _placement(self, candidate: Candidate) -> tuple[tuple[int, ...], ...]:
        if candidate.schedule in CLOSED_FORMS:
            return loop_placement(candidate.pp, candidate.chunks)
        return _form(candidate).placement

    def _whole_elements(self, candidate: Candidate, shapes: tuple[StageShape, ...]) -> int:
        """Of a sharded state: elements of the slots that hold a rank's buckets whole."""
        if not candidate.zero:
            return 0
        buckets = [size for shape in shapes for size in self.stage_bytes(candidate, shape).buckets]
        return len(buckets) * max(buckets)

    def _rank_memory(
        self,
        shapes: tuple[StageShape, ...],
        microbatch: int,
        tp: int,
        cp: int,
        stash: int,
        stash_until_i: int,
        num_left_to_w: int,
        recomputes: bool,
        num_shards: int,
        whole_elements: int,
    ) -> RankMemory:
        return price_memory(
            self.model,
            shapes,
            microbatch,
            self.seq,
            self.formats,
            stash=stash,
            split_backward=num_left_to_w > 0,
            stash_until_i=stash_until_i,
            num_left_to_w=num_left_to_w,
            recomputes=recomputes,
            num_shards=num_shards,
            whole_elements=whole_elements,
            tp=tp,
            cp=cp,
        )


_UNITS = (StageShape(1), StageShape(0, embedding=True), StageShape(0, head=True))


def map_refusal(error: InfeasibleError) -> str:
    """What a map refused, in words; any other error goes on its way."""
    if not isinstance(error.where, Place) or error.where.field != "map.require":
        raise error
    why = f"{error.what}: {error.got}"
    return f"{why}, expected {error.expected}" if error.expected else why


def layers_worth(unit_ns: Mapping[tuple[str, int], int]) -> tuple[float, float]:
    """What embedding and head cost, in layers, from `Estimator.unit_ns`; in steps of 1/32 of a layer."""
    layer, embedding, head = (sum(unit_ns[op, part] for op in "FIW") for part in range(3))
    return ceil(_STEPS * embedding / layer) / _STEPS, ceil(_STEPS * head / layer) / _STEPS


_STEPS = 32
"""Finer weights than this hardly move a layer, and cuts with the same weights are made once."""


def layers_of_stages(
    num_layers: int, num_ranks: int, chunks: int, unit_ns: Mapping[tuple[str, int], int]
) -> tuple[int, ...]:
    """Layers of each stage, round and round over the ranks, embedding and head weighed by their cost.

    Raises
    ------
    InvalidInputError
        If there are too few layers.
    """
    return _balanced(num_layers, num_ranks, chunks, *layers_worth(unit_ns))


@lru_cache(maxsize=1 << 16)
def _balanced(num_layers: int, num_ranks: int, chunks: int, embedding: float, head: float) -> tuple[int, ...]:
    placement = loop_placement(num_ranks, chunks)
    return balance_layers(num_layers, len(placement), embedding, head, placement=placement)


def _form(candidate: Candidate) -> OrderForm:
    return order_form(candidate.schedule, candidate.pp, candidate.num_microbatches, candidate.chunks)


def _stash(candidate: Candidate, rank: int) -> tuple[int, int, int]:
    """Most stashes of a rank from F to W or B, from F to I or B, and from I to W."""
    name, p, m = candidate.schedule, candidate.pp, candidate.num_microbatches
    if name not in CLOSED_FORMS:
        form = _form(candidate)
        return form.stash[rank], form.stash_until_i[rank], form.num_left_to_w[rank]
    stash = peak_stash_chunks(name, rank, p, m, candidate.chunks)
    if not find_schedule(name).splits_backward:
        return stash, stash, 0
    # With I and W apart rank r puts W off by r microbatches (ZB-H1).
    return stash, min(p - rank, m), min(rank + 1, m)
