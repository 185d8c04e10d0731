"""Time of a plan's stage from the kernels that published runs were checked with.

The layers and the head of `exactmap.sim.workload.layer_work` are priced by the GPU's `KernelClock`, as
predictions of published runs are, under this project's own software: no framework's release, no host time
per launch. The engine forms the head's input gradient in the forward pass, so that logits are never kept.
"""

from __future__ import annotations

from exactmap.sim.cost.formats import Formats
from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.kernels.gemm import product_model
from exactmap.sim.workload.kernel import KernelKind
from exactmap.sim.workload.layer_work import LayerWork, head_work, layer_work
from exactmap.sim.workload.model import ModelConfig, StageLike
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Precision, Software, Split
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Mesh

__all__ = ["has_kernels", "layers_and_head_ns"]

_SOFTWARE = Software("exactmap")
_MICROBATCHES = 1024
"""Narrow weights are cast once a step, by whoever updates them: over many microbatches that is nothing."""


def has_kernels(cluster: Cluster, compute: str) -> bool:
    """Whether the GPU's products in a number format were measured."""
    return product_model(cluster.gpu.kernels or cluster.gpu.curves, compute) is not None


def layers_and_head_ns(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
) -> tuple[float, float]:
    """Time of a pass's kernels outside the embedding, in ns: of all, and of attention alone.

    Parameters are those of `exactmap.sim.cost.stages.compute_ns`.
    """
    clock = _clock(cluster, formats)
    split = Split(tp=mesh.tp, cp=mesh.cp, sequence_parallel=mesh.tp > 1)
    args = (split, Batch(seq, microbatch, _MICROBATCHES), clock.precision, _SOFTWARE)
    total = attention = 0.0
    if stage.num_layers:
        for kind in model.layer_kinds()[:1]:
            time, core = _pass_ns(clock, layer_work(model, kind, *args), (step,))
            total, attention = stage.num_layers * time, stage.num_layers * core
    if stage.head:
        steps = {Pass.F: (Pass.F, Pass.I), Pass.I: (), Pass.W: (Pass.W,)}[step]
        total += _pass_ns(clock, head_work(model, *args), steps)[0]
    return total, attention


def _pass_ns(clock: KernelClock, work: LayerWork, steps: tuple[Pass, ...]) -> tuple[float, float]:
    total = attention = 0.0
    for kernel in work.kernels:
        if kernel.step in steps:
            time = clock.time_ns(kernel)
            total += time
            attention += time if kernel.kind is KernelKind.ATTENTION else 0.0
    return total, attention


def _clock(cluster: Cluster, formats: Formats) -> KernelClock:
    key = ("stage clock", formats)
    known = cluster.memo.get(key)
    if known is None:
        precision = Precision(
            formats.compute,
            formats.compute,
            "tensor" if formats.compute == "fp8" else "",
            param_bytes=formats.param_bytes,
            grad_bytes=formats.grad_bytes,
            reduce_bytes=formats.grad_bytes,
            master_bytes=formats.master_bytes,
            moment_bytes=formats.moment_bytes,
        )
        known = cluster.memo[key] = KernelClock.of(cluster.gpu, _SOFTWARE, precision)
    assert isinstance(known, KernelClock)
    return known
