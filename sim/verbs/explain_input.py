"""What `explain` is asked about: a row of a table, or the plan of a scenario, as a training setup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exactmap.errors import ExactmapError, InvalidInputError, Place
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.planner.candidate import Candidate
from exactmap.sim.published.cells import number
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.scenario.scenario import Scenario
from exactmap.sim.step.notch_prices import memory_limit_bytes
from exactmap.sim.verbs.input_kind import InputKind, refuse_others
from exactmap.sim.verbs.plan import plan
from exactmap.sim.verbs.row_table import PUBLISHED, choose_row, rows_of
from exactmap.sim.workload.training import Batch, Precision, Software, Split

__all__ = ["Subject", "find_subject", "setup_of_plan"]

_PRECISIONS = {
    "fp32": Precision("fp32", "fp32", param_bytes=4, master_bytes=0, gather_bytes=4),
    "bf16": Precision(),
    "fp8": Precision("fp8", "fp8", "tensor"),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A training to explain.

    Parameters
    ----------
    source
        File, or `PUBLISHED`.
    name
        Of the row or scenario.
    setup
        What is run.
    measured_ns
        Its step as published; None: not known.
    limit_bytes
        Memory of a GPU that it may take.
    """

    source: str
    name: str
    setup: TrainingSetup
    measured_ns: float | None
    limit_bytes: int


def find_subject(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    id: str | None = None,  # noqa: A002 - the column's name
    row: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Subject:
    """Read what is to be explained; arguments as those of `exactmap.explain`."""
    if str(source) != PUBLISHED:
        kind = refuse_others(
            source,
            "a table of runs, or a scenario",
            InputKind.SCHEDULE,
            InputKind.SCENARIO,
            InputKind.OTHER,
        )
        if kind is InputKind.SCENARIO:
            if id is not None or row is not None:
                raise InvalidInputError("a scenario has no rows to choose from", where=str(source))
            return _of_scenario(source, overrides, progress)
    if overrides:
        raise InvalidInputError("only fields of a scenario can be overridden", where=str(source))
    chosen = choose_row(source, rows_of(source), id, row)
    setup = _setup(source, chosen)
    return Subject(
        str(source),
        chosen["id"] or f"line {chosen.line}",
        setup,
        _measured_ns(chosen),
        memory_limit_bytes(setup),
    )


def _setup(source: str | Path, row: Row) -> TrainingSetup:
    try:
        return setup_of(row)
    except ExactmapError as error:
        name = row["id"] or "this row"
        raise InvalidInputError(
            f"{name} is refused", where=Place(str(source), row.line), problems=[error]
        ) from None


def _measured_ns(row: Row) -> float | None:
    try:
        seconds = number(row, "step_time_s")
    except InvalidInputError:
        return None
    return seconds * 1e9 if seconds > 0 else None


def _of_scenario(
    source: str | Path, overrides: Sequence[str], progress: Callable[[float, str], None] | None
) -> Subject:
    outcome = plan(source, overrides, num_finalists=1, progress=progress)
    scenario = outcome.scenario
    if scenario.execution is not None:
        raise InvalidInputError(
            "steps of GPUs are explained, and this scenario runs on the cores of a host",
            where=str(source),
            hint="exactmap plan and exactmap simulate say what it is made of",
        )
    setup = setup_of_plan(scenario, outcome.ranking.winner.candidate)
    return Subject(str(source), scenario.name, setup, None, scenario.memory_budget_bytes)


def setup_of_plan(scenario: Scenario, candidate: Candidate) -> TrainingSetup:
    """Training of a scenario as a plan cuts it, run by exactmap's own engine.

    The engine moves messages and gradients beside its kernels; ranks of a tensor-parallel group split the
    tokens between products.
    """
    training = scenario.training
    split = Split(
        tp=candidate.tp,
        cp=candidate.cp,
        pp=candidate.pp,
        dp=candidate.dp,
        chunks=candidate.chunks,
        sequence_parallel=candidate.tp > 1,
        zero=candidate.zero,
    )
    return TrainingSetup(
        replace(scenario.model, positions=max(scenario.model.positions, training.sequence)),
        split,
        Batch(training.sequence, candidate.microbatch, candidate.num_microbatches),
        scenario.cluster,
        _PRECISIONS[training.precision],
        software=Software(overlap_grad=True, overlap_param=True, overlap_p2p=True),
        schedule=candidate.schedule if candidate.pp > 1 else "none",
    )
