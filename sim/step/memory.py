"""Memory of one rank during a step: state, activations in flight, and what the fullest moment adds.

Moments::

    backward   the deepest: all microbatches in flight, and a gradient of the largest weight in 32 bits
    logits     on the last rank: logits in 16 and 32 bits, their softmax and gradient, ten bytes each
    gathered   sharded parameters (ZeRO 3): two layers gathered, a layer's gradients

State follows the precision and the ZeRO stage. This is what a framework's allocator would report as its peak;
`exactmap.sim.cost.memory` mirrors the arena of this project's own engine instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.activations import kept_bytes
from exactmap.sim.step.stages import StagePlan, layer_kinds
from exactmap.sim.workload.training import Recompute

__all__ = ["StepMemory", "predict_memory"]

_LOGIT_BYTES = 10.0
_ALWAYS_BYTES = 0.3 * 2**30
"""Buffers of libraries inside the allocator: workspaces of products, rotary tables, communication."""
_FSDP_LAYERS = 2


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Peak of the fullest rank.

    Parameters
    ----------
    peak_bytes
        All of it.
    rank, moment
        Pipeline rank that has it, and when: ``backward``, ``logits``.
    parts_bytes
        By category; they sum to the peak.
    ranks_bytes
        Peak of each pipeline rank.
    requirement_bytes
        What papers call the memory that a model requires: parameters, gradients and optimizer as the mean of
        the ranks, and the activations of the rank that keeps most; no workspaces, no moment.
    """

    peak_bytes: float
    rank: int
    moment: str
    parts_bytes: dict[str, float] = field(default_factory=dict)
    ranks_bytes: tuple[float, ...] = ()
    requirement_bytes: float = 0.0


def predict_memory(setup: TrainingSetup, plan: StagePlan) -> StepMemory:
    """Memory of the fullest rank of a setup whose stages are laid out."""
    chunks = _chunk_bytes(setup, plan)
    spare = 4.0 * _largest_weight(setup)
    if setup.recompute.kind == "full":
        spare += _one_layer_whole(setup)
    ranks = [_rank(setup, plan, rank, chunks, spare) for rank in range(setup.split.pp)]
    totals = tuple(sum(parts.values()) for parts, _ in ranks)
    fullest = totals.index(max(totals))
    parts, moment = ranks[fullest]
    state = sum(each[name] for each, _ in ranks for name in ("parameters", "gradients", "optimizer"))
    requirement = state / len(ranks) + max(each["activations"] for each, _ in ranks)
    return StepMemory(totals[fullest], fullest, moment, parts, totals, requirement)


def _in_flight(setup: TrainingSetup, schedule: str, rank: int) -> float:
    """Microbatches whose activations of all of a rank's layers are kept at once."""
    p, m, v = setup.split.pp, setup.batch.num_microbatches, setup.split.chunks
    if p == 1:
        return 1.0
    if schedule == "gpipe":
        return float(m)
    if schedule.startswith("interleaved"):
        return min(float(m), (2 * (p - 1 - rank) + (v - 1) * p + 1) / v)
    if schedule in ("dualpipe", "zb-v", "dualpipe-v"):
        return min(float(m), p + 1.0 if schedule == "dualpipe" else float(p))
    if schedule in ("zb-2p", "zb-h2"):
        return min(float(m), 2.0 * (p - rank) - 1)
    return min(float(m), float(p - rank) if schedule == "1f1b" else float(p))


def _chunk_bytes(setup: TrainingSetup, plan: StagePlan) -> list[float]:
    """What each stage keeps of one microbatch."""
    kinds = layer_kinds(setup.model)
    kept = {kind: kept_bytes(setup, kind) for kind in set(kinds)}
    further = (
        sum(kept_bytes(setup, kind) for kind in setup.model.mtp_kinds()) if setup.model.mtp_layers else 0.0
    )
    return [
        sum(count * kept[kind] for kind, count in Counter(kinds[layout.first : layout.last]).items())
        + layout.mtp * further
        for layout in plan.layouts
    ]


def _rank(
    setup: TrainingSetup, plan: StagePlan, rank: int, chunks: list[float], spare: float
) -> tuple[dict[str, float], str]:
    """Parts of a rank and its moment; `chunks`: what stages keep; `spare`: what backward needs besides."""
    precision, split, model = setup.precision, setup.split, setup.model
    held = [stage for stage, _ in plan.held[rank]]
    dense = float(sum(stage.dense + stage.embedding for stage in held))
    expert = float(sum(stage.expert for stage in held))
    out: defaultdict[str, float] = defaultdict(float)
    shards = split.shards or split.data_ranks
    for count, ranks in ((dense, shards), (expert, max(1, min(shards, split.expert_data_ranks)))):
        zero = split.zero
        out["parameters"] += count * precision.param_bytes / (ranks if zero == 3 else 1)
        out["gradients"] += count * precision.grad_bytes / (ranks if zero >= 2 else 1)
        state = precision.master_bytes + 2 * precision.moment_bytes
        kept = 1.0 - setup.software.optimizer_offload
        out["optimizer"] += count * state * kept / (ranks if zero >= 1 else 1)
    out["parameters"] += sum(stage.frozen for stage in held) * precision.param_bytes
    kept_here = sum(chunk for chunk, ranks in zip(chunks, plan.ranks_of, strict=True) if rank in ranks)
    out["activations"] = kept_here * _in_flight(setup, plan.schedule, rank)
    if setup.software.offloaded_layers:
        share = min(1.0, setup.software.offloaded_layers / max(1, len(layer_kinds(model)) // split.pp))
        out["activations"] *= 1.0 - share
    out["libraries"] = _ALWAYS_BYTES
    moments = {"backward": spare}
    if any(stage.head[1] for stage in held):
        tokens = setup.batch.microbatch * setup.batch.seq / split.cp
        moments["logits"] = _LOGIT_BYTES * tokens * model.vocab / split.tp
    moment = max(moments, key=lambda name: moments[name])
    out[f"at {moment}"] = moments[moment]
    if split.zero == 3:
        layers = max(1, sum(layout.last - layout.first for layout in plan.layouts))
        each = (dense + expert) / layers * split.pp
        out["gathered"] = _FSDP_LAYERS * each * precision.gather_bytes + each * precision.reduce_bytes
    return dict(out), moment


def _one_layer_whole(setup: TrainingSetup) -> float:
    """Everything that a layer keeps while it is computed again."""
    whole = replace(setup, recompute=Recompute())
    return max(kept_bytes(whole, kind) for kind in set(layer_kinds(setup.model)))


def _largest_weight(setup: TrainingSetup) -> float:
    """Elements of the largest matrix outside the head on a rank."""
    model, split = setup.model, setup.split
    gates = 2 if model.has_gate else 1
    sizes = [
        model.hidden * model.ffn * gates / split.tp if not model.experts or model.experts.first_dense else 0.0
    ]
    if model.experts is not None:
        local = max(1, model.experts.num_experts // split.ep)
        sizes.append(local * model.hidden * model.experts.ffn * gates / split.etp / 2)
    shards = split.shards or split.data_ranks
    return max(sizes) / (shards if split.zero == 3 else 1)
