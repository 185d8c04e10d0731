"""The layers of one pipeline rank as work, each with how often a step does it."""

from __future__ import annotations

from collections import Counter

from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.stages import StagePlan
from exactmap.sim.workload.flops import kernel_model_flop
from exactmap.sim.workload.layer_work import LayerWork, head_work, layer_work, prediction_work

__all__ = ["model_flop_per_gpu", "rank_work"]


def rank_work(setup: TrainingSetup, plan: StagePlan, rank: int) -> tuple[tuple[LayerWork, float], ...]:
    """Kinds of layers, and head with loss, that a rank holds, with their number over all microbatches."""
    model, args = setup.model, (setup.split, setup.batch, setup.precision, setup.software)
    kinds = model.layer_kinds()
    counts: Counter[LayerWork] = Counter()
    for layout, ranks in zip(plan.layouts, plan.ranks_of, strict=True):
        if rank not in ranks:
            continue
        # A stage on two ranks sees half of the microbatches on each.
        each = setup.batch.num_microbatches / len(ranks)
        for kind in kinds[layout.first : layout.last]:
            counts[layer_work(model, kind, *args)] += each  # type: ignore[assignment]
        if layout.mtp:
            for work in prediction_work(model, *args):
                counts[work] += each * layout.mtp  # type: ignore[assignment]
        if not setup.layers_only and layout.head + layout.mtp:
            counts[head_work(model, *args)] += each * (layout.head + layout.mtp)  # type: ignore[assignment]
    return tuple(counts.items())


def model_flop_per_gpu(setup: TrainingSetup, plan: StagePlan) -> float:
    """Model FLOPs of a GPU in a step, the mean of all: what training needs, nothing computed again.

    Backward of fused attention and of scans counts twice their forward, not the 2.5 or 3 times that it does.
    """
    ranks = range(setup.split.pp)
    total = sum(
        count * kernel_model_flop(kernel)
        for rank in ranks
        for layer, count in rank_work(setup, plan, rank)
        for kernel in layer.kernels
    )
    return total / len(ranks)
