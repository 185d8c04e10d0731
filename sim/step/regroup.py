"""The same training on the same GPUs with the same batch, cut otherwise: the rules that a cut must keep.

The data-parallel degree follows from the others, and the number of microbatches from the batch.
"""

from __future__ import annotations

from dataclasses import replace

from exactmap.errors import InfeasibleError
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.pipeline import schedule_name
from exactmap.sim.workload.training import Batch, Split

__all__ = ["check_cut", "regrouped"]

_ENDS = 2
"""Embedding and head may have stages of their own."""


def regrouped(setup: TrainingSetup, *, microbatch: int = 0, **degrees: int) -> TrainingSetup:
    """Cut a training otherwise.

    Parameters
    ----------
    setup
        What is run now.
    microbatch
        Sequences of a microbatch; 0: as now.
    degrees
        Fields of the split that change: ``tp``, ``cp``, ``pp``, ``ep``, ``chunks``.

    Raises
    ------
    InfeasibleError
        If it cannot be cut so: why not.
    """
    old = setup.split
    split: Split = replace(old, **degrees)  # type: ignore[arg-type]
    inner = split.tp * split.cp * split.pp
    if old.num_ranks % inner:
        raise InfeasibleError(f"tp x cp x pp = {inner} does not divide {old.num_ranks} GPUs")
    if setup.model.experts and old.etp == old.tp:
        # Experts are split as the rest is.
        split = replace(split, etp=split.tp)
    split = replace(split, dp=old.num_ranks // inner)
    if split.tp != old.tp:
        # The first step to tensor parallelism splits the tokens between products too, as recipes do.
        split = replace(split, sequence_parallel=split.tp > 1 and (old.sequence_parallel or old.tp == 1))
    if old.shards and (old.shards >= split.data_ranks or split.data_ranks % old.shards):
        split = replace(split, shards=0)
    schedule = setup.schedule
    moved = (split.pp, split.chunks) != (old.pp, old.chunks)
    if split.pp == 1:
        split, schedule = replace(split, chunks=1), "none"
    elif old.pp == 1:
        schedule = "1F1B"
    elif moved and schedule_name(schedule, old.pp, old.chunks) in ("1f1b", "interleaved-1f1b"):
        schedule = "interleaved-1F1B" if split.chunks > 1 else "1F1B"
    out = replace(
        setup,
        split=split,
        batch=_batch(setup, split, microbatch or setup.batch.microbatch),
        schedule=schedule,
        # Stages that were laid out by hand were laid out for another pipeline.
        stage_layers=() if moved else setup.stage_layers,
        layout="" if moved else setup.layout,
    )
    check_cut(out)
    return out


def _batch(setup: TrainingSetup, split: Split, microbatch: int) -> Batch:
    old = setup.batch
    sequences = old.microbatch * old.num_microbatches * setup.split.dp
    if sequences % (split.dp * microbatch):
        raise InfeasibleError(
            f"dp {split.dp} x microbatch {microbatch} does not divide the batch of {sequences} sequences"
        )
    return Batch(old.seq, microbatch, sequences // (split.dp * microbatch))


def check_cut(setup: TrainingSetup) -> None:
    """Refuse what no framework can run.

    Raises
    ------
    InfeasibleError
        If a degree does not divide what it splits.
    """
    model, split, batch = setup.model, setup.split, setup.batch
    layers, stages = len(model.layer_kinds()), split.pp * split.chunks
    ranks = split.tp * split.cp * split.dp
    schedule = schedule_name(setup.schedule, split.pp, split.chunks)
    heads = model.heads // split.tp
    problems = (
        (model.heads % split.tp, f"tp {split.tp} does not divide {model.heads} heads"),
        (
            model.kv_heads % split.tp and split.tp % model.kv_heads,
            f"tp {split.tp} and {model.kv_heads} key/value heads do not divide each other",
        ),
        (batch.seq % split.cp, f"cp {split.cp} does not divide {batch.seq} tokens"),
        (
            split.sequence_parallel and batch.seq // split.cp % split.tp,
            f"tp {split.tp} does not divide the tokens of a rank",
        ),
        (
            split.cp > 1 and split.cp_exchange == "all_to_all" and heads % split.cp,
            f"cp {split.cp} does not divide the {heads} heads of a rank",
        ),
        (
            stages > layers + _ENDS + model.mtp_layers and not setup.layout,
            f"{stages} stages for {layers} layers",
        ),
        (
            schedule == "interleaved-1f1b" and batch.num_microbatches % split.pp,
            f"interleaving needs a multiple of {split.pp} microbatches, not {batch.num_microbatches}",
        ),
        (schedule == "dualpipe" and split.pp % 2, f"DualPipe needs an even number of ranks, not {split.pp}"),
        (
            model.experts is not None and ranks % (split.ep * split.etp),
            f"ep x expert-tp = {split.ep * split.etp} does not divide tp x cp x dp = {ranks}",
        ),
        (
            model.experts is not None and model.experts.num_experts % split.ep,
            f"ep {split.ep} does not divide {model.experts.num_experts if model.experts else 0} experts",
        ),
    )
    for broken, why in problems:
        if broken:
            raise InfeasibleError(why)
