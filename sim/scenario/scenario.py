"""A scenario, read and resolved: what to train, on which machine, within which limits.

`load_scenario` reads strictly and reports every problem at once, each with its place. The result is plain
and frozen: the model and the cluster are resolved, all quantities are whole numbers of their base unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exactmap.errors import ExactmapError, InvalidInputError, Place
from exactmap.sim.scenario.cluster_file import resolve_cluster
from exactmap.sim.scenario.consistency import find_conflicts
from exactmap.sim.scenario.document import Problems, apply_override, as_mapping, expand_shorthand, validate
from exactmap.sim.scenario.map_section import map_request
from exactmap.sim.scenario.model_section import resolve_model
from exactmap.sim.scenario.resolved import Scenario
from exactmap.sim.scenario.schema import ScenarioFile
from exactmap.sim.scenario.state_section import resolve_state
from exactmap.sim.scenario.strict_yaml import Marked, raise_together, read_yaml_file
from exactmap.sim.scenario.types import (
    Engine,
    Goal,
    Limits,
    Optimizer,
    ParallelSpace,
    Precision,
    Training,
)
from exactmap.sim.scenario.units import BatchUnit

__all__ = ["Scenario", "load_scenario"]

_SHORTHANDS = (("model", "preset"), ("data", "path"), ("state", "use"))


def load_scenario(path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario file.

    Parameters
    ----------
    path
        The YAML file.
    overrides
        Values to set first, as ``a.b=c``, in order.

    Raises
    ------
    InvalidInputError
        If anything is wrong; all problems are listed, each with file, line and field, or the override at
        fault.
    """
    path = Path(path)
    problems = Problems()
    document = _expand(read_yaml_file(path))
    if as_mapping(document.value) is None:
        raise InvalidInputError(
            "not a scenario", where=Place(path, 1), expected="fields, such as exactmap: 1"
        )
    if "exactmap-cluster" in (as_mapping(document.value) or {}):
        raise InvalidInputError(
            "a cluster file is no scenario",
            where=Place(path, 1),
            hint=f"a scenario names it, cluster: {path.name}; exactmap cluster shows what is in it",
        )
    for text in overrides:
        try:
            document = _expand(apply_override(document, text))
        except ExactmapError as error:
            problems.add(error)
    spec = validate(_without_cluster(document), ScenarioFile, problems)
    cluster = (
        resolve_cluster(_section(document, "cluster"), path.parent, problems)
        if spec or _has(document)
        else None
    )
    if spec is None:
        raise_together(problems.found, f"problems in {path}")
    model, notes = resolve_model(spec.model, path.parent, document, problems)
    if model is None or cluster is None:
        raise_together(problems.found, f"problems in {path}")
    scenario = Scenario(
        name=spec.name or path.stem,
        path=path,
        model=model,
        cluster=replace(cluster, map_request=map_request(spec.map)),
        training=_training(spec, document, problems),
        parallel=ParallelSpace(**spec.parallel.model_dump()),
        goal=Goal(spec.goal),
        limits=Limits(spec.limits.memory_headroom, spec.limits.gpus),
        data_path=None if spec.data.path is None else path.parent / spec.data.path,
        execution=None if spec.execution is None else Engine(spec.execution.engine),
        state=resolve_state(spec.state, cluster, document, problems),
        notes=notes,
    )
    if not problems.found:
        find_conflicts(scenario, document, problems)
    if problems.found:
        raise_together(problems.found, f"problems in {path}")
    return scenario


def _has(document: Marked) -> bool:
    """Whether there is a cluster section worth resolving beside the schema's own complaints."""
    root = as_mapping(document.value) or {}
    return as_mapping(root.get("cluster")) is not None


def _without_cluster(document: Marked) -> Marked:
    """The document for the schema; the cluster section is checked where it has been put together."""
    root = as_mapping(document.value) or {}
    return Marked({**root, "cluster": {}}, document.places, document.prefix) if _has(document) else document


def _expand(document: Marked) -> Marked:
    """Let ``cluster: name`` and the like stand for their sections."""
    for section, key in _SHORTHANDS:
        document = expand_shorthand(document, section, key)
    root = as_mapping(document.value) or {}
    cluster = root.get("cluster")
    is_file = isinstance(cluster, str) and cluster.endswith((".yaml", ".yml"))
    return expand_shorthand(document, "cluster", "file" if is_file else "catalog")


def _section(document: Marked, name: str) -> Marked:
    """One section of the document, its places counted from the section."""
    root = as_mapping(document.value) or {}
    places = {path[1:]: place for path, place in document.places.items() if path[:1] == (name,)}
    return Marked(root.get(name), places, prefix=(*document.prefix, name))


def _training(spec: ScenarioFile, document: Marked, problems: Problems) -> Training:
    section = spec.training
    batch = section.batch.count
    if section.batch.unit is BatchUnit.TOKENS:
        batch, rest = divmod(section.batch.count, section.sequence)
        if rest:
            problems.add(
                InvalidInputError(
                    "the batch is no whole number of sequences",
                    where=document.place(("training", "batch")),
                    got=f"{section.batch.count} tokens",
                    expected=f"a multiple of {section.sequence} tokens",
                )
            )
    optimizer = section.optimizer
    min_lr = optimizer.lr / 10 if optimizer.min_lr is None else optimizer.min_lr
    return Training(
        sequence=section.sequence,
        batch_sequences=batch,
        steps=section.steps,
        seed=section.seed,
        precision=Precision(section.precision),
        recompute=section.recompute,
        optimizer=Optimizer(
            name=optimizer.name,
            lr=optimizer.lr,
            min_lr=min_lr,
            warmup_steps=optimizer.warmup_steps,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            clip=optimizer.clip,
        ),
    )
