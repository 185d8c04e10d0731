"""Megatron's arguments for the mesh, the stages and the order of passes."""

from __future__ import annotations

from exactmap.sim.handover.axis_order import OTHER_NUMBERING, same_numbering
from exactmap.sim.handover.handover import Job
from exactmap.sim.handover.megatron_layout import write_layout
from exactmap.sim.handover.megatron_order import group_sizes, megatron_order
from exactmap.sim.handover.text import Value
from exactmap.sim.handover.verdict import Ledger

__all__ = ["gradient_arguments", "mesh_arguments", "pipeline_arguments"]

_ORDERS = {
    (): ("tp", "cp", "ep", "dp", "pp"),
    ("--use-tp-pp-dp-mapping",): ("tp", "cp", "ep", "pp", "dp"),
}
"""Argument -> order of axes onto ranks, fastest first."""


def mesh_arguments(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Sizes of the axes and how ranks are numbered."""
    mesh = job.plan.mesh
    out: dict[str, Value] = {
        "--tensor-model-parallel-size": mesh.tp,
        "--pipeline-model-parallel-size": mesh.pp,
        "--context-parallel-size": mesh.cp,
    }
    if mesh.tp > 1:
        out["--sequence-parallel"] = None
    ledger.exact("--tensor-model-parallel-size, with --sequence-parallel", "mesh.tp")
    ledger.exact("--pipeline-model-parallel-size", "mesh.pp")
    ledger.exact("--context-parallel-size", "mesh.cp")
    ledger.exact("what is left of the world size", "mesh.dp")
    if mesh.ep > 1:
        ledger.refuse("the plan's model has no experts to spread, and Megatron takes ep out of dp", "mesh.ep")
    else:
        ledger.exact("no expert parallelism", "mesh.ep")
    for names, order in _ORDERS.items():
        if same_numbering(mesh, order):
            ledger.exact(" ".join(names) or "its order without an option", "mesh.order")
            return out | dict.fromkeys(names)
    ledger.instead(f"ranks are numbered {', '.join(_ORDERS[()])}: {OTHER_NUMBERING}", "mesh.order")
    return out


def pipeline_arguments(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Layers of the stages, the schedule, recomputation."""
    out: dict[str, Value] = {}
    pp, chunks, order = job.plan.mesh.pp, job.order.num_chunks, job.order
    layers = [stage.num_layers for stage in job.plan.stages]
    if order.placement == "two":
        ledger.refuse("each stage has one rank", "place")
        chunks = 1
    elif pp > 1 and not chunks:
        ledger.refuse("all ranks hold equally many stages", "place")
    elif order.placement == "loop":
        ledger.exact("stage s on rank s mod p", "place")
    else:
        ledger.instead("stage s on rank s mod p, so the turn at the ends crosses ranks", "place")
    if pp == 1:
        ledger.exact("one rank holds all layers", "stages.layers")
    elif len(set(layers)) == 1:
        if chunks > 1:
            out["--num-virtual-stages-per-pipeline-rank"] = chunks
        ledger.exact("even stages, embedding and head at the ends", "stages.layers")
    else:
        out["--pipeline-model-parallel-layout"] = write_layout(job.plan.stages)
        ledger.exact("--pipeline-model-parallel-layout", "stages.layers")
    ledger.own("it places traffic inside passes itself", "stages.parts")
    out |= _schedule(job, chunks, ledger)
    return out | _recomputation(job, max(layers), ledger)


def _schedule(job: Job, chunks: int, ledger: Ledger) -> dict[str, Value]:
    """1F1B or its interleaved form; which groups of microbatches it takes."""
    pp, m = job.plan.mesh.pp, job.plan.train.m
    out: dict[str, Value] = {}
    sizes = group_sizes(pp, m) if pp > 1 < chunks else [0]
    if not sizes:
        ledger.refuse(f"interleaved needs at least p microbatches: {m} on {pp} ranks", "passes.order")
        return out
    wanted = job.order.leading_microbatches()
    group = wanted if wanted in sizes else sizes[0]
    name = (
        f"interleaved 1F1B, {chunks} chunks" if pp > 1 < chunks else "1F1B" if pp > 1 else "F and B in turn"
    )
    if pp > 1 < chunks and group != pp:
        out["--microbatch-group-size-per-virtual-pipeline-stage"] = group
        name += f", groups of {group}"
    own = megatron_order(pp, m, chunks if pp > 1 else 1, group)
    if job.order.same_passes(own):
        ledger.exact(f"{name}, pass for pass", "passes.order")
    else:
        ledger.instead(f"{name}: no other order can be named", "passes.order")
    ledger.instead("both gradients at once (B): nothing fills the bubble", "passes.split")
    ledger.instead("passes one after the other", "passes.braids")
    return out


def _recomputation(job: Job, most_layers: int, ledger: Ledger) -> dict[str, Value]:
    order = job.order
    ledger.instead("stashes stay on the GPU: the memory that this takes must be there", "passes.offloaded")
    if not order.recomputed:
        return {}
    if order.recomputed == order.num_items:
        ledger.exact("--recompute-granularity full, a chunk at a time", "passes.recomputed")
    else:
        ledger.instead("--recompute-granularity full: every microbatch, F more for each", "passes.recomputed")
    return {
        "--recompute-granularity": "full",
        "--recompute-method": "uniform",
        "--recompute-num-layers": max(1, most_layers),
    }


def gradient_arguments(job: Job, ledger: Ledger) -> dict[str, Value]:
    """Who holds what of parameters and moments, and when gradients are reduced."""
    mesh = job.plan.mesh
    out: dict[str, Value] = {}
    sharded = any(bucket.shard for bucket in job.plan.buckets)
    if mesh.dp * mesh.cp > 1 or sharded:
        out["--overlap-grad-reduce"] = None
    ledger.own("reduced bucket by bucket behind the last backward passes, buckets of its own size", "buckets")
    if sharded:
        out |= {"--use-distributed-optimizer": None, "--overlap-param-gather": None}
        ledger.exact("--use-distributed-optimizer, --overlap-param-gather", "buckets.shard")
    if job.plan.clock == "free":
        ledger.instead("every step ends with a norm over all ranks", "clock", "passes.late_norm")
    else:
        ledger.exact("every step ends with a norm over all ranks", "clock")
    ledger.instead("all replicas run alike", "maps")
    return out
