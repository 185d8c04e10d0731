"""Everything that one training step depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from exactmap.sim.workload.model import ModelConfig
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split
from exactmap.topology.hardware import Cluster

__all__ = ["TrainingSetup"]


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """A training run, down to what moves time and memory.

    Parameters
    ----------
    model, split, batch, precision, recompute, software
        What is trained, and how.
    cluster
        On what machine.
    schedule
        Name of the pipeline schedule (`exactmap.sim.schedules.registry`); ``none`` without a pipeline.
    stage_layers
        Layers of each pipeline rank, chunks of a rank together, where they are not even; empty: even.
    layout
        What each stage holds, in Megatron's notation, where it is stated: ``E`` embedding, ``t`` a layer,
        ``m`` one of multi-token prediction, ``L`` head and loss, ``|`` between stages, ``*n`` and ``( )*n``
        repeat.
    layers_only, no_optimizer
        What is left out: embedding, head and loss (a benchmark of layers); the optimizer and what a step has
        outside its passes.
    assumed
        Fields that the input left out, with what was taken for each.
    """

    model: ModelConfig
    split: Split
    batch: Batch
    cluster: Cluster
    precision: Precision = field(default_factory=Precision)
    recompute: Recompute = field(default_factory=Recompute)
    software: Software = field(default_factory=Software)
    schedule: str = "none"
    stage_layers: tuple[int, ...] = ()
    layout: str = ""
    layers_only: bool = False
    no_optimizer: bool = False
    assumed: tuple[str, ...] = ()
