"""Write a scenario out in full: resolved, with every default, in the form that it is read in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from exactmap.sim.scenario.cluster_document import cluster_document
from exactmap.sim.scenario.map_section import map_document
from exactmap.sim.scenario.state_section import effective_state
from exactmap.sim.scenario.types import Engine, Goal, Limits, ParallelSpace, Training
from exactmap.sim.workload.model import ModelConfig
from exactmap.topology.hardware import Cluster
from exactmap.topology.state.spec import StateSpec

__all__ = ["effective_document"]

_ALWAYS = frozenset({"norm_eps", "rope_theta", "name"})


def effective_document(
    *,
    name: str,
    model: ModelConfig,
    cluster: Cluster,
    training: Training,
    space: ParallelSpace,
    goal: Goal,
    limits: Limits,
    data_path: Path | None,
    execution: Engine | None,
    state: StateSpec,
) -> dict[str, object]:
    """The sections of a scenario as plain data, ready to be written as YAML."""
    sizes = _sizes(model)
    return {
        "exactmap": 1,
        "name": name,
        "cluster": cluster_document(cluster),
        "model": {"name": sizes.pop("name"), **sizes},
        "training": {
            "sequence": f"{training.sequence} tokens",
            "batch": f"{training.batch_sequences} sequences",
            "steps": training.steps,
            "seed": training.seed,
            "precision": training.precision.value,
            "recompute": training.recompute,
            "optimizer": asdict(training.optimizer),
        },
        "data": {"path": None if data_path is None else str(data_path.resolve())},
        "parallel": {
            axis: _choice(choice)
            for axis, choice in (
                ("tp", space.tp),
                ("cp", space.cp),
                ("ep", space.ep),
                ("pp", space.pp),
                ("dp", space.dp),
                ("chunks", space.chunks),
                ("microbatch", space.microbatch),
                ("schedule", space.schedule),
                ("zero", space.zero),
            )
        },
        "goal": goal.value,
        "limits": {"memory_headroom": limits.memory_headroom, "gpus": limits.gpus},
        "map": map_document(cluster.map_request),
        "state": effective_state(state),
        "execution": None if execution is None else {"engine": execution.value},
    }


def _sizes(model: ModelConfig) -> dict[str, object]:
    """What a model is made of; of what not every model has, only that which this one has."""
    sizes: dict[str, object] = {**asdict(model), "kind": model.kind.value}
    return {
        field.name: sizes[field.name]
        for field in fields(model)
        if field.name in _ALWAYS or sizes[field.name] != field.default
    }


def _choice(choice: Sequence[int] | Sequence[str] | None) -> object:
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        return choice
    return choice[0] if len(choice) == 1 else list(choice)
