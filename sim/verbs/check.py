"""The verdict on a scenario or a plan: whether it says what it may, and whether it would run."""

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
    """What was accepted: `kind` is ``plan`` or ``scenario``, `facts` are (name, value) pairs worth a look.

    `config` is the scenario with every default written out, as YAML; None unless it was asked for.
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


def check(path: str | Path, overrides: Sequence[str] = (), *, effective: bool = False) -> CheckReport:
    """Check a plan or a scenario and say what it holds.

    Parameters
    ----------
    path
        The file.
    overrides
        ``a.b=c``, for a scenario.
    effective
        Also give the scenario with every default written out.

    Raises
    ------
    PlanError
        If it is a plan that is refused: code, line, rank and op, for a deadlock the cycle.
    InvalidInputError
        If it is a scenario with problems; all of them are listed.
    """
    kind = refuse_others(path, "a scenario or a plan", InputKind.PLAN, InputKind.SCENARIO)
    if kind is InputKind.PLAN or Path(path).suffix == ".plan":
        if overrides:
            raise InvalidInputError("overrides are for scenarios", where=str(path), got=" ".join(overrides))
        if effective:
            raise InvalidInputError("a plan has no defaults to write out", where=str(path))
        return _check_plan(Path(path))
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


def _check_scenario(path: Path, overrides: Sequence[str], *, effective: bool) -> CheckReport:
    from hashlib import sha256

    from exactmap.sim.scenario.scenario import load_scenario
    from exactmap.sim.scenario.strict_yaml import MAX_SIZE_BYTES

    scenario = load_scenario(path, overrides)
    data = read_bytes(path, MAX_SIZE_BYTES, "scenario")
    unit = "core" if scenario.execution == "cpu" else "GPU"
    facts = (
        ("name", scenario.name),
        ("model", f"{scenario.model.name}, {scenario.model.num_parameters():,} parameters"),
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
