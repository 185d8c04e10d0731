"""Time of one training step in closed form: layers, stages, pipeline, gradients, optimizer, host."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from exactmap.sim.cost.groups import pipeline_hop
from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.cost.spread import largest_of
from exactmap.sim.step.data_parallel import DataParallel
from exactmap.sim.step.interval import interval_of
from exactmap.sim.step.memory import StepMemory, predict_memory
from exactmap.sim.step.optimizer import optimizer_ns
from exactmap.sim.step.parts import PartGroup, group_of
from exactmap.sim.step.pipeline import PipelineTime, pipeline_time
from exactmap.sim.step.stages import Stage, StagePlan, price_stages

__all__ = ["StepPrediction", "message_bytes", "predict_step"]


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """A step's predicted time.

    Parameters
    ----------
    step_ns, low_ns, high_ns
        Time of a step, and the ends of the 80 % interval.
    parts_ns
        What it is made of; the parts sum to `step_ns`. `exactmap.sim.step.parts` groups them.
    memory_bytes
        Peak of the fullest rank.
    memory
        What it is made of, and when it happens.
    warnings
        Where the case lies outside what was checked.
    busiest
        Pipeline rank whose passes the parts are of.
    """

    step_ns: float
    low_ns: float
    high_ns: float
    parts_ns: dict[str, float] = field(default_factory=dict)
    memory_bytes: float = 0.0
    memory: StepMemory | None = None
    warnings: tuple[str, ...] = ()
    busiest: int = 0


def predict_step(setup: TrainingSetup, kernels: KernelClock | None = None) -> StepPrediction:
    """Predict the time of one training step, with the GPU's kernels or those of another clock (a what-if)."""
    clock = LayerClock(setup, kernels)
    plan = price_stages(clock)
    data = DataParallel(clock)
    data.shard_layers(plan)
    pipeline, hop_tier = _passes(clock, plan)
    parts: defaultdict[str, float] = defaultdict(float)
    m = setup.batch.num_microbatches
    for stage, share in plan.held[pipeline.busiest]:
        for name, time in stage.parts_ns.items():
            parts[name] += m * share * time
    parts["bubble"] += pipeline.bubble_ns
    parts[f"pp {hop_tier}"] += pipeline.hop_ns
    parts["host"] += pipeline.host_ns
    spread = clock.clock.hardware.spread * (2.0 if setup.precision.narrow else 1.0)
    computed = sum(time for name, time in parts.items() if group_of(name) is PartGroup.COMPUTE)
    parts["slowest rank"] += spread * largest_of(setup.split.num_ranks) * (computed + pipeline.bubble_ns)
    tail = data.tails(plan, pipeline.early_ns)
    parts[data.part] += tail.reduce_ns + tail.gather_ns
    parts["overlap slowdown"] += tail.slowdown_ns
    parts["embedding"] += data.embedding_ns(plan)
    if not setup.no_optimizer:
        parts["optimizer"] += max(
            optimizer_ns(clock, [stage for stage, _ in held]) for held in _distinct(plan.held)
        )
        release = clock.clock.release
        tensors = max(sum(stage.matrices for stage, _ in held) for held in plan.held)
        parts["step overhead"] += release.step_ns + release.tensor_ns * tensors
    total = float(sum(parts.values()))
    interval = interval_of(setup)
    named = {name: float(time) for name, time in parts.items() if time}
    memory = predict_memory(setup, plan)
    return StepPrediction(
        total,
        total * interval.low,
        total * interval.high,
        named,
        memory_bytes=memory.peak_bytes,
        memory=memory,
        warnings=interval.warnings + clock.clock.warnings(),
        busiest=pipeline.busiest,
    )


def message_bytes(setup: TrainingSetup) -> float:
    """Bytes that a rank sends to the next stage for one microbatch.

    Ranks of a tensor-parallel group hold a slice of the tokens each (sequence parallel), or the same.
    Megatron of 2021 and 2022 sent a slice nevertheless and gathered it on the other side (arXiv:2104.04473).
    """
    split, software = setup.split, setup.software
    size = (
        setup.batch.microbatch * setup.batch.seq / split.cp * setup.model.hidden * setup.precision.act_bytes
    )
    sliced = software.family == "megatron-deepspeed" or (
        software.family == "megatron" and software.release.startswith(("2021", "2022"))
    )
    return size / split.tp if split.sequence_parallel or sliced else size


def _distinct(held: tuple[tuple[tuple[Stage, float], ...], ...]) -> list[tuple[tuple[Stage, float], ...]]:
    """Ranks that hold something else than those before."""
    return list({tuple(id(stage) for stage, _ in each): each for each in held}.values())


def _passes(clock: LayerClock, plan: StagePlan) -> tuple[PipelineTime, str]:
    """Passes through the pipeline, and the furthest network that its messages cross."""
    setup = clock.setup
    split = setup.split
    size = message_bytes(setup)
    pairs = [(source[0], target[0]) for source, target in pairwise(plan.ranks_of)]
    # Chunks go the same ways again.
    known = {pair: pipeline_hop(setup.cluster, split, *pair, size) for pair in set(pairs)}
    hops = [known[pair] for pair in pairs]
    tier = max((hop.tier.value for hop in hops), default="self")
    time = pipeline_time(
        plan.schedule,
        plan.times(),
        plan.ranks_of,
        num_microbatches=setup.batch.num_microbatches,
        hops_ns=[hop.total_ns for hop in hops],
        blocking=not setup.software.overlap_p2p,
        handover_ns=clock.clock.release.handover_ns,
    )
    return time, tier
