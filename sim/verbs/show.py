"""Look at a plan, a result or a trace: what is in it, in words, and as a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.sim.verbs.input_kind import InputKind, input_kind

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.report.result import StepResult

__all__ = ["Shown", "show"]

MAX_CHANNELS = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """What was found: `kind` is ``plan``, ``trace``, ``prediction`` or ``execution``."""

    kind: str
    path: str
    facts: tuple[tuple[str, str], ...]
    rank_columns: tuple[str, ...] = ()
    ranks: tuple[tuple[str, ...], ...] = ()
    program: tuple[str, ...] = ()
    result: StepResult | None = None

    def to_dict(self) -> dict[str, object]:
        """What was found as a JSON-ready document."""
        if self.result is not None:
            return self.result.to_dict()
        return {
            "schema_version": 1,
            "kind": f"show-{self.kind}",
            "path": self.path,
            "facts": dict(self.facts),
            "ranks": [dict(zip(self.rank_columns, rank, strict=True)) for rank in self.ranks],
            "program": list(self.program),
        }


def show(path: str | Path, *, rank: int | None = None) -> Shown:
    """Look at a plan, a result (or the folder it lies in), or a trace.

    Parameters
    ----------
    path
        The file or folder.
    rank
        For a plan: also give the program of this pipeline rank.

    Raises
    ------
    InvalidInputError
        If it is none of them, or not valid.
    """
    here = Path(path)
    if here.is_dir() or here.suffix == ".json":
        from exactmap.sim.report.result import read_result
        from exactmap.sim.verbs.compare import find_result

        if rank is not None:
            raise InvalidInputError("only a plan has programs to print", where=str(path), got=f"rank {rank}")
        result = read_result(find_result(here))
        return Shown(result.kind, str(path), (), result=result)
    kind = input_kind(here)
    if kind is InputKind.PLAN:
        return _show_plan(here, rank)
    if kind is InputKind.TRACE:
        if rank is not None:
            raise InvalidInputError("only a plan has programs to print", where=str(path), got=f"rank {rank}")
        return _show_trace(here)
    raise InvalidInputError(
        "neither a plan, nor a result, nor a trace",
        where=str(path),
        hint="a scenario is checked with: exactmap check",
    )


def _show_plan(path: Path, rank: int | None) -> Shown:
    from exactmap.sim.plan.check import load_plan
    from exactmap.sim.plan.text import format_instruction

    plan, sha256 = load_plan(path)
    mesh, train, model = plan.mesh, plan.train, plan.model
    serial = "yes" if plan.serial else "no"
    replicas = f"{mesh.dp} replica{'s' if mesh.dp > 1 else ''}"
    channels = [f"{c.name} {c.src}>{c.dst} {c.cls} {c.bytes:,} B" for c in plan.channels[:MAX_CHANNELS]]
    if len(plan.channels) > MAX_CHANNELS:
        channels.append(f"and {len(plan.channels) - MAX_CHANNELS} more")
    facts = (
        ("sha256", sha256),
        (
            "model",
            f"{model.kind}, {model.layers} layers, hidden {model.hidden}, vocabulary {model.vocab}",
        ),
        ("step", f"{train.m} microbatches of {train.microbatch} x {train.seq} tokens, {replicas}"),
        ("mesh", " ".join(f"{axis}={getattr(mesh, axis)}" for axis in mesh.order)),
        (
            "stages",
            f"{len(plan.stages)} on {mesh.pp} ranks, clock {plan.clock}, serial {serial}",
        ),
        ("channels", ", ".join(channels) or "none"),
        ("groups", ", ".join(f"{group.name} over {','.join(group.axes)}" for group in plan.groups) or "none"),
        *((f"made: {key}", value) for key, value in plan.made),
        *((f"predicted: {key}", value) for key, value in plan.pred),
    )
    program: tuple[str, ...] = ()
    if rank is not None:
        if not 0 <= rank < mesh.pp:
            raise InvalidInputError("no such rank", got=str(rank), expected=f"0 to {mesh.pp - 1}")
        program = tuple(format_instruction(each) for each in plan.program(rank).instructions)
    columns = ("rank", "stages", "instructions", "F", "B or I", "slots h a w g", "arena bytes")
    return Shown(
        "plan", str(path), facts, columns, tuple(_rank_row(plan, pp) for pp in range(mesh.pp)), program
    )


def _rank_row(plan: Plan, pp: int) -> tuple[str, ...]:
    program = plan.program(pp)
    counts = Counter(each.op.value for each in program.instructions)
    stages = [str(stage) for stage, ranks in enumerate(plan.place) if pp in ranks]
    pools = {pool.letter: pool.num for pool in plan.pools if pool.pp == pp}
    slots = " ".join(str(pools.get(letter, 0)) for letter in "hawg")
    arena = next(arena.bytes for arena in plan.arenas if arena.pp == pp)
    backward = counts["B"] + counts["I"]
    return (
        str(pp),
        ",".join(stages),
        str(len(program.instructions)),
        str(counts["F"]),
        str(backward),
        slots,
        f"{arena:,}",
    )


def _show_trace(path: Path) -> Shown:
    from exactmap.sim.engine.trace_file import read_trace
    from exactmap.sim.report.quantity import show_share, show_time

    trace = read_trace(path)
    facts = (
        ("source", trace.source),
        ("plan sha256", trace.plan_sha256 or "-"),
        ("mover", trace.mover),
        ("rows", f"{len(trace):,}"),
    )
    rows = tuple(
        (
            str(step),
            show_time(summary.makespan_ns),
            show_time(summary.period_ns),
            show_share(summary.bubble),
            show_time(sum(summary.exposed_ns.values())),
        )
        for step in trace.steps
        for summary in [trace.of_step(step).summary()]
    )
    return Shown(
        "trace", str(path), facts, ("step", "makespan", "period", "bubble", "waiting, all ranks"), rows
    )
