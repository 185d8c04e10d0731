"""Whether the sections of a scenario fit each other; what only a search can find out is left to it."""

from __future__ import annotations

from typing import Protocol

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.sim.scenario.document import Problems
from exactmap.sim.scenario.resolved import Scenario
from exactmap.sim.scenario.strict_yaml import KeyPath, Marked
from exactmap.sim.scenario.types import Engine, Precision
from exactmap.sim.workload.plain import special_features
from exactmap.topology.fabric.build import build_fabric

__all__ = ["find_conflicts"]


def find_conflicts(scenario: Scenario, document: Marked, problems: Problems) -> None:
    """Collect every conflict between sections, each under the field that is easiest to change."""

    def conflict(path: KeyPath, what: str, got: str, expected: str, hint: str | None = None) -> None:
        problems.add(
            InvalidInputError(what, where=document.place(path), got=got, expected=expected, hint=hint)
        )

    try:
        _ = scenario.cluster.usable_gpus
    except InvalidInputError as error:
        field = error.where.field if isinstance(error.where, Place) else None
        problems.add(error, document.place(tuple((field or "map").split("."))))
        return
    _check_training(scenario, conflict)
    _check_parallel(scenario, conflict)
    _check_machine(scenario, conflict)
    _check_fabric(scenario, document, problems)


class _Conflict(Protocol):
    def __call__(
        self, path: KeyPath, what: str, got: str, expected: str, hint: str | None = None
    ) -> None: ...


def _check_training(scenario: Scenario, conflict: _Conflict) -> None:
    model, training = scenario.model, scenario.training
    if training.sequence > model.positions:
        conflict(
            ("training", "sequence"),
            "the sequence is longer than the model's positions",
            f"{training.sequence} tokens",
            f"at most {model.positions}",
            "set model.positions or shorten the sequence",
        )
    if training.batch_sequences < 1:
        conflict(("training", "batch"), "the batch is empty", "0 sequences", "at least 1")
    optimizer = training.optimizer
    if optimizer.min_lr > optimizer.lr:
        conflict(
            ("training", "optimizer", "min_lr"),
            "the learning rate would rise",
            f"{optimizer.min_lr}",
            f"at most lr = {optimizer.lr}",
        )
    if optimizer.warmup_steps > training.steps:
        conflict(
            ("training", "optimizer", "warmup_steps"),
            "the warm-up is longer than the run",
            f"{optimizer.warmup_steps}",
            f"at most steps = {training.steps}",
        )


def _check_parallel(scenario: Scenario, conflict: _Conflict) -> None:
    model, training, space = scenario.model, scenario.training, scenario.parallel
    if space.tp is not None and all(model.heads % tp or model.ffn % tp for tp in space.tp):
        conflict(
            ("parallel", "tp"),
            "no tensor-parallel size divides the model",
            _listed(space.tp),
            f"a divisor of {model.heads} heads and of ffn {model.ffn}",
        )
    if space.cp is not None and all(training.sequence % cp for cp in space.cp):
        conflict(
            ("parallel", "cp"),
            "no context-parallel size divides the sequence",
            _listed(space.cp),
            f"a divisor of {training.sequence} tokens",
        )
    num_experts = 1 if model.experts is None else model.experts.num_experts
    if space.ep is not None and all(num_experts % ep for ep in space.ep):
        what = "no expert-parallel size divides the experts" if model.experts else "the model has no experts"
        conflict(
            ("parallel", "ep"),
            what,
            _listed(space.ep),
            f"a divisor of {num_experts}" if model.experts else "1",
        )
    # A stage with the head alone, or the embedding alone, needs no layer.
    if space.pp is not None and min(space.pp) * min(space.chunks or (1,)) > model.layers + 2:
        conflict(
            ("parallel", "pp"),
            "more stages than layers",
            f"{min(space.pp) * min(space.chunks or (1,))} stages",
            f"at most {model.layers + 2}: {model.layers} layers, embedding and head",
        )
    if space.microbatch is not None and all(training.batch_sequences % size for size in space.microbatch):
        conflict(
            ("parallel", "microbatch"),
            "no microbatch divides the batch",
            _listed(space.microbatch),
            f"a divisor of {training.batch_sequences} sequences",
        )
    if space.replicas and all(training.batch_sequences % dp for dp in space.replicas):
        conflict(
            ("parallel", "dp"),
            "no number of replicas divides the batch",
            _listed(space.replicas),
            f"a divisor of {training.batch_sequences} sequences",
        )


def _check_machine(scenario: Scenario, conflict: _Conflict) -> None:
    space, cluster = scenario.parallel, scenario.cluster
    num_gpus = 1
    for sizes in (space.tp, space.cp, space.ep, space.pp, space.replicas):
        num_gpus *= min(sizes) if sizes else 1
    if num_gpus > scenario.max_gpus:
        conflict(
            ("parallel",),
            "the smallest layout does not fit the cluster",
            f"{num_gpus} GPUs",
            f"at most {scenario.max_gpus}",
            "raise cluster.num_gpus or limits.gpus, or allow smaller axes",
        )
    if scenario.limits.gpus is not None and scenario.limits.gpus > cluster.num_gpus:
        conflict(
            ("limits", "gpus"),
            "more GPUs than there are",
            str(scenario.limits.gpus),
            f"at most cluster.num_gpus = {cluster.num_gpus}",
        )
    if cluster.gpu.reserved_bytes >= cluster.gpu.memory_bytes:
        conflict(
            ("cluster", "gpu", "reserved_memory"),
            "all memory is reserved",
            f"{cluster.gpu.reserved_bytes} bytes",
            f"less than {cluster.gpu.memory_bytes}",
        )
    precision = scenario.training.precision
    if precision.value not in cluster.gpu.peak_flop_per_s:
        conflict(
            ("training", "precision"),
            f"{cluster.gpu.name} has no {precision} peak",
            precision,
            " or ".join(cluster.gpu.peak_flop_per_s) or "a peak in cluster.gpu.peak",
        )
    special = special_features(scenario.model)
    if scenario.execution is Engine.CPU and special:
        conflict(
            ("model",),
            "the C engine runs layers that are alike, with a dense MLP",
            f"{scenario.model.name} with {', '.join(special)}",
            "a plain gpt or llama",
            "leave execution out",
        )
    if scenario.execution is Engine.CPU and precision is not Precision.FP32:
        conflict(
            ("training", "precision"),
            "the C engine computes in single precision",
            precision,
            "fp32",
            "set precision: fp32",
        )


def _check_fabric(scenario: Scenario, document: Marked, problems: Problems) -> None:
    """Whether the switches can join so many GPUs."""
    try:
        build_fabric(scenario.cluster)
    except (InvalidInputError, InfeasibleError) as error:
        field = error.where.field if isinstance(error.where, Place) else None
        problems.add(error, document.place(tuple((field or "cluster.fabric").split("."))))


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
