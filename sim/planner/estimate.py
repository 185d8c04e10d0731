"""A candidate's price before it is a plan: memory of its fullest rank and its step time, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from exactmap.errors import ExactmapError, InfeasibleError, Place
from exactmap.sim.cost.memory import RankMemory, price_memory
from exactmap.sim.planner.candidate import Candidate, Rejection
from exactmap.sim.planner.closed_form import (
    CLOSED_FORMS,
    peak_stash_chunks,
    pipeline_time_ns,
    rank_times_ns,
)
from exactmap.sim.planner.order_form import OrderForm, order_form, walked_time_ns
from exactmap.sim.schedules.order import loop_placement
from exactmap.sim.schedules.partition import balance_layers, stages_of
from exactmap.sim.schedules.registry import find_schedule
from exactmap.sim.workload.model import StageShape
from exactmap.sim.workload.plain import require_plain
from exactmap.topology.mapping import DEFAULT_ORDER, Axis, Mesh

if TYPE_CHECKING:
    from exactmap.sim.cost.formats import Formats
    from exactmap.sim.plan.plan import PlanStage
    from exactmap.sim.planner.pricing import Pricing
    from exactmap.sim.workload.model import ModelConfig

__all__ = ["Estimate", "Estimator"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A candidate that fits, with its closed-form step time and what that is made of.

    Attributes
    ----------
    step_ns
        Passes, bubble and hops of the schedule; what the finalists' plans add is gradient reduction and
        optimizer.
    busy_ns
        Passes of the busiest rank, all microbatches.
    memory
        The fullest rank's bytes by what they are for, and `memory_rank`, which one it is.
    """

    candidate: Candidate
    stages: tuple[PlanStage, ...]
    work_ns: dict[tuple[str, int], int]
    hop_ns: int
    step_ns: int
    busy_ns: int
    memory: RankMemory
    memory_rank: int


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
        self._weights: dict[tuple[int, int, int], tuple[float, float]] = {}

    def mesh(self, candidate: Candidate) -> Mesh:
        """The candidate's mesh, its axes in the order of the map."""
        return Mesh(tp=candidate.tp, cp=candidate.cp, pp=candidate.pp, dp=candidate.dp, order=self.order)

    def price(self, candidate: Candidate) -> Estimate | Rejection:
        """Estimate a candidate, or say why it cannot be."""
        try:
            return self._price(candidate)
        except InfeasibleError as error:
            if not isinstance(error.where, Place) or error.where.field != "map.require":
                raise
            why = f"{error.what}: {error.got}"
            return Rejection(candidate, "map", f"{why}, expected {error.expected}" if error.expected else why)

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
        rank_ns, weight_ns = rank_times_ns(work_ns, self._placement(candidate), candidate.pp)
        hop_ns = self.pricing.hop_ns(self._message_bytes(candidate), mesh) if candidate.pp > 1 else 0
        if candidate.schedule in CLOSED_FORMS:
            passes_ns = pipeline_time_ns(
                candidate.schedule,
                rank_ns,
                weight_ns,
                num_microbatches=candidate.num_microbatches,
                chunks=candidate.chunks,
                hop_ns=hop_ns,
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
        busy_ns = candidate.num_microbatches * max(rank_ns)
        return Estimate(candidate, stages, work_ns, hop_ns, passes_ns, busy_ns, memory, rank)

    def stages(self, candidate: Candidate, mesh: Mesh) -> tuple[PlanStage, ...]:
        """Layers cut so that embedding and head weigh what they cost, in layers."""
        key = (candidate.tp, candidate.cp, candidate.microbatch)
        if key not in self._weights:
            self._weights[key] = self._extra_layers(candidate.microbatch, mesh)
        embedding, head = self._weights[key]
        placement = self._placement(candidate)
        counts = balance_layers(self.model.layers, len(placement), embedding, head, placement=placement)
        return stages_of(counts)

    def _extra_layers(self, microbatch: int, mesh: Mesh) -> tuple[float, float]:
        shapes = (StageShape(1), StageShape(0, embedding=True), StageShape(0, head=True))
        work_ns = self.pricing.work_ns(self.model, shapes, microbatch, self.seq, mesh)
        layer, embedding, head = (sum(work_ns[op, number] for op in "FIW") for number in range(3))
        return embedding / layer, head / layer

    def _message_bytes(self, candidate: Candidate) -> int:
        tokens = candidate.microbatch * -(-self.seq // candidate.cp)
        return -(-tokens * self.model.hidden * self.formats.act_bytes // candidate.tp)

    def _fullest(self, candidate: Candidate, stages: tuple[PlanStage, ...]) -> tuple[RankMemory, int]:
        best: tuple[RankMemory, int] | None = None
        p = candidate.pp
        placement = self._placement(candidate)
        # The first has the embedding, the last the head; in between stashes fall and what waits for W grows.
        for rank in sorted({0, min(1, p - 1), p // 2, p - 1}):
            mine = [stage for stage, ranks in zip(stages, placement, strict=True) if rank in ranks]
            shapes = tuple(StageShape(s.num_layers, s.embedding, s.head) for s in mine)
            memory = self._memory(
                shapes, candidate.microbatch, candidate.tp, candidate.cp, *_stash(candidate, rank)
            )
            if best is None or memory.total_bytes > best[0].total_bytes:
                best = memory, rank
        assert best is not None
        return best

    def _placement(self, candidate: Candidate) -> tuple[tuple[int, ...], ...]:
        if candidate.schedule in CLOSED_FORMS:
            return loop_placement(candidate.pp, candidate.chunks)
        return _form(candidate).placement

    def _rank_memory(
        self,
        shapes: tuple[StageShape, ...],
        microbatch: int,
        tp: int,
        cp: int,
        stash: int,
        stash_until_i: int,
        num_left_to_w: int,
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
            tp=tp,
            cp=cp,
        )


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
