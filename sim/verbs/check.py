"""The verdict on a scenario, a plan or a schedule of torch: whether it is right, and whether it would run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exactmap.errors import InvalidInputError
from exactmap.files import read_bytes
from exactmap.sim.verbs.input_kind import InputKind, refuse_others

__all__ = ["CheckReport", "check"]


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was accepted: `kind` is ``plan``, ``scenario`` or ``schedule``.

    `facts` are (name, value) pairs worth a look, `notes` what is odd but no reason to refuse it. `config` is
    the scenario with every default written out, as YAML; None unless it was asked for.
    """

    kind: str
    path: str
    sha256: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    config: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        return {
            "schema_version": 1,
            "kind": "check",
            "accepted": True,
            "input": self.kind,
            "path": self.path,
            "sha256": self.sha256,
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "config": self.config,
        }


def check(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    effective: bool = False,
    channels: str | None = None,
) -> CheckReport:
    """Check a plan, a scenario or a schedule of torch (.csv) and say what it holds.

    Parameters
    ----------
    path
        The file.
    overrides
        ``a.b=c``, for a scenario.
    effective
        Also give the scenario with every default written out.
    channels
        For a schedule: the model under which messages must get through (``rank``, ``pair``, ``direction``,
        ``class``); pair if None.

    Raises
    ------
    PlanError
        If it is a plan that is refused: code, line, rank and op, for a deadlock the cycle.
    InvalidInputError
        If it is a scenario or a schedule with problems; all of them are listed.
    """
    kind = refuse_others(
        path, "a scenario, a plan or a schedule", InputKind.PLAN, InputKind.SCENARIO, InputKind.SCHEDULE
    )
    is_plan = kind is InputKind.PLAN or Path(path).suffix == ".plan"
    if is_plan or kind is InputKind.SCHEDULE:
        what = "plan" if is_plan else "schedule"
        if overrides:
            raise InvalidInputError("overrides are for scenarios", where=str(path), got=" ".join(overrides))
        if effective:
            raise InvalidInputError(f"a {what} has no defaults to write out", where=str(path))
    if channels is not None and kind is not InputKind.SCHEDULE:
        raise InvalidInputError("only a schedule of torch leaves its channels open", where=str(path))
    if is_plan:
        return _check_plan(Path(path))
    if kind is InputKind.SCHEDULE:
        return _check_schedule(Path(path), channels)
    return _check_scenario(Path(path), overrides, effective=effective)


def _check_plan(path: Path) -> CheckReport:
    from exactmap.sim.plan.check import load_plan

    plan, sha256 = load_plan(path)
    mesh = plan.mesh
    num_instructions = sum(len(program.instructions) for program in plan.programs)
    facts = (
        ("model", f"{plan.model.kind}, {plan.model.layers} layers, hidden {plan.model.hidden}"),
        ("mesh", " ".join(f"{axis}={getattr(mesh, axis)}" for axis in mesh.order)),
        ("stages", str(len(plan.stages))),
        ("microbatches", f"{plan.train.m} of {plan.train.microbatch} x {plan.train.seq} tokens"),
        ("instructions", f"{num_instructions:,} in {len(plan.programs)} programs"),
        ("largest arena", f"{max(arena.bytes for arena in plan.arenas):,} bytes"),
    )
    return CheckReport("plan", str(path), sha256, facts)


def _check_schedule(path: Path, channels: str | None) -> CheckReport:
    from hashlib import sha256

    from exactmap.sim.schedules.torch_csv.channels import ChannelModel
    from exactmap.sim.schedules.torch_csv.check import check_torch
    from exactmap.sim.schedules.torch_csv.file import MAX_SIZE_BYTES, read_torch_csv

    models = [str(model) for model in ChannelModel]
    if channels is not None and channels not in models:
        raise InvalidInputError("unknown model of channels", got=repr(channels), expected=", ".join(models))
    schedule = read_torch_csv(path)
    verdict = check_torch(schedule, channels=ChannelModel(channels or ChannelModel.PAIR))
    if not verdict.accepted:
        ends = ", ".join(run.model for run in verdict.channels if run.makespan is not None)
        raise schedule.refusal(
            "the schedule is refused",
            [finding for finding in verdict.findings if finding.error],
            hint=f"it ends if messages share queues like this: --channels {ends}" if ends else None,
        )
    stages = [sum(held == (rank,) for held in schedule.placement) for rank in range(schedule.num_ranks)]
    per_rank = f"{min(stages)}" if min(stages) == max(stages) else f"{min(stages)} to {max(stages)}"
    facts = (
        ("form", schedule.form),
        ("stages", f"{schedule.num_stages} on {schedule.num_ranks} ranks, {per_rank} each"),
        ("microbatches", str(schedule.num_microbatches)),
        ("actions", f"{sum(len(actions) for actions in schedule.ranks):,}"),
        (
            "step",
            f"{verdict.makespan:.4g} (F = I = W = 1 for all stages of a rank, no latency)",
        ),
        ("bubble", f"{verdict.bubble:.4f}"),
        *(
            (f"step, queue per {run.model}", "never ends" if run.makespan is None else f"{run.makespan:.4g}")
            for run in verdict.channels
        ),
    )
    notes = tuple(
        f"{schedule.place(finding.rank, finding.cell)}: {finding.action} {finding.why}"
        for finding in verdict.findings
    )
    data = read_bytes(path, MAX_SIZE_BYTES, "schedule")
    return CheckReport("schedule", str(path), sha256(data).hexdigest(), facts, notes)


def _check_scenario(path: Path, overrides: Sequence[str], *, effective: bool) -> CheckReport:
    from hashlib import sha256

    from exactmap.sim.scenario.scenario import load_scenario
    from exactmap.sim.scenario.strict_yaml import MAX_SIZE_BYTES

    scenario = load_scenario(path, overrides)
    data = read_bytes(path, MAX_SIZE_BYTES, "scenario")
    unit = "core" if scenario.execution == "cpu" else "GPU"
    model = scenario.model
    counted = f"{model.name}, {model.num_parameters():,} parameters"
    if model.experts is not None:
        counted += f", {model.num_active_parameters():,} of them active"
    facts = (
        ("name", scenario.name),
        ("model", counted),
        ("cluster", f"{scenario.cluster.name}, {scenario.max_gpus:,} {unit}s to use"),
        ("batch", f"{scenario.training.batch_sequences:,} sequences x {scenario.training.sequence:,} tokens"),
        ("memory for a plan", f"{scenario.memory_budget_bytes:,} bytes per {unit}"),
    )
    return CheckReport(
        "scenario",
        str(path),
        sha256(data).hexdigest(),
        facts,
        scenario.notes,
        scenario.effective() if effective else None,
    )
