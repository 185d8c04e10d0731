"""`exactmap plan`: choose the best plan for a scenario and say why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, note, progress, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.planner.front import FrontPoint
    from exactmap.sim.planner.search import Ranking
    from exactmap.sim.verbs.plan import PlanOutcome

__all__ = ["plan"]

MAX_LOST_ROWS = 16
MAX_FRONT_ROWS = 16


@verb
def plan(
    scenario: Annotated[Path, typer.Argument(help="A scenario (YAML).")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the plan here.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override of a field: a.b=c; may be repeated.")
    ] = None,
    host: Annotated[
        Path | None,
        typer.Option("--host", help="What `exactmap calibrate` measured, for plans of this host."),
    ] = None,
    finalists: Annotated[int, typer.Option(min=1, help="Candidates that are lowered and simulated.")] = 4,
    budget: Annotated[
        str | None,
        typer.Option(help="Time to search for, such as 10s: the best so far, and what was missed."),
    ] = None,
    sensitive: Annotated[
        bool, typer.Option("--sensitivity", help="Does the winner still win on another network?")
    ] = False,
    front: Annotated[
        bool, typer.Option("--front", help="What fewer GPUs or less memory would cost in time.")
    ] = False,
    explain: Annotated[bool, typer.Option(help="Say why the others lost.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no notes.")] = False,
) -> None:
    """Search the candidates of a scenario, explain the choice, and write one plan file."""
    from exactmap.sim.verbs.plan import plan as choose

    with progress("searching", quiet=quiet) as tell:
        outcome = choose(
            scenario,
            overrides or (),
            out=out,
            host=host,
            num_finalists=finalists,
            sensitive=sensitive,
            front=front,
            budget_s=None if budget is None else _seconds(budget),
            progress=tell,
        )
    for text in outcome.scenario.notes:
        note(f"note: {text}", quiet=quiet)
    emit(outcome.to_dict(), _shown(outcome, explain=explain), as_json=as_json, out=out)


def _seconds(text: str) -> float:
    from exactmap.errors import InvalidInputError
    from exactmap.sim.scenario.units import parse_ns

    try:
        found = parse_ns(text)
    except InvalidInputError as error:
        raise InvalidInputError(
            error.what, where="--budget", got=error.got, expected=error.expected, hint=error.hint
        ) from None
    if not found:
        raise InvalidInputError("no time to search", where="--budget", got=text, expected="more than 0 s")
    return found / 1e9


def _shown(outcome: PlanOutcome, *, explain: bool) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_bytes, show_count, show_share, show_time

    ranking = outcome.ranking
    loaded = outcome.scenario
    model = f"{loaded.model.name}, {show_count(loaded.model.num_parameters())} parameters"
    batch = f"{loaded.training.batch_sequences:,} x {loaded.training.sequence:,} tokens a step"
    rows = [
        (
            finalist.candidate.label,
            f"{finalist.candidate.num_gpus:,}",
            show_time(finalist.step_ns),
            show_share(finalist.summary.bubble),
            show_bytes(finalist.peak_bytes),
            f"+{100 * (finalist.step_ns / ranking.winner.step_ns - 1):.1f} %",
        )
        for finalist in ranking.finalists
    ]
    unit = "cores" if loaded.execution == "cpu" else "GPUs"
    columns = ("layout", unit, "step", "bubble", "arena", "slower")
    counts = (
        f"{ranking.num_candidates:,} candidates, {ranking.survey.num_refused:,} refused, "
        f"{len(ranking.finalists)} simulated as whole plans"
    )
    shown: list[RenderableType] = [
        f"{loaded.name}: {model}, {batch}",
        f"{loaded.cluster.name}: {loaded.cluster.num_gpus:,} {unit} installed, {loaded.max_gpus:,} to use",
        table(counts, columns, rows),
    ]
    if ranking.survey.num_unseen:
        shown.append(
            f"out of time: {ranking.survey.num_unseen:,} candidates were not looked at; none of them is more "
            f"than {100 * ranking.gap:.1f} % faster (by the bound of their passes alone)"
        )
    if explain:
        shown += _reasons(ranking)
    if ranking.survey.front is not None:
        shown.append(_front(outcome))
    if outcome.shifts:
        shown.append(_shifts(outcome))
    shown.append(_last_lines(outcome))
    return shown


def _reasons(ranking: Ranking) -> list[RenderableType]:
    from exactmap.sim.planner.explain import family_bests, rejection_counts, step_parts
    from exactmap.sim.report.quantity import show_share, show_time

    winner = ranking.winner
    parts = step_parts(winner)
    of_step = [
        ("passes, with communication inside layers", parts.passes_ns),
        ("bubble and exposed messages", parts.exposed_messages_ns),
        ("gradient reduction not hidden", parts.exposed_collectives_ns),
        ("optimizer", parts.optimizer_ns),
        ("after its end", parts.idle_ns),
    ]
    rows = [(what, show_time(ns), show_share(ns / winner.step_ns)) for what, ns in of_step]
    out: list[RenderableType] = [
        table("The winner's busiest rank", ("part of the step", "time", "share"), rows)
    ]
    lost = [
        (
            ", ".join(entry.choices),
            "-" if entry.best is None else f"{100 * entry.slower:+.1f} %",
            entry.why if entry.best is None else f"{entry.best.candidate.label}: {entry.why}",
        )
        for entry in family_bests(ranking)
    ]
    if lost:
        out.append(
            _why_table(
                "Why not another? The best layout with each choice, by estimate",
                "choice",
                lost[:MAX_LOST_ROWS],
            )
        )
    refused = [(count.rule, f"{count.num:,}", count.example) for count in rejection_counts(ranking)]
    if refused:
        out.append(_why_table("Refused, with the nearest miss", "rule", refused))
    return out


def _front(outcome: PlanOutcome) -> RenderableType:
    """Of the front the fastest with each number of GPUs; what saves memory on as many is left to JSON."""
    from exactmap.sim.report.quantity import show_bytes, show_time

    assert outcome.ranking.survey.front is not None, "a front that nobody asked for"
    points = outcome.ranking.survey.front.points
    fewest: list[FrontPoint] = []
    for point in points:
        if not fewest or point.num_gpus < fewest[-1].num_gpus:
            fewest.append(point)
    rows = [
        (
            point.candidate.label,
            f"{point.num_gpus:,}",
            show_time(round(point.step_ns)),
            f"{point.num_gpus * point.step_ns / 3.6e12:,.3g}",
            show_bytes(round(point.memory_bytes)),
        )
        for point in fewest[:MAX_FRONT_ROWS]
    ]
    title = (
        f"Fewer GPUs, by closed form: {len(fewest):,} of {len(points):,} layouts that none beats in "
        "time, GPUs and memory"
    )
    return table(title, ("layout", "GPUs", "step", "GPU-h a step", "memory"), rows)


def _shifts(outcome: PlanOutcome) -> RenderableType:
    from rich import box
    from rich.table import Table

    out = Table(
        title="On another machine, by closed form", box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    out.add_column("machine", ratio=1, overflow="fold")
    out.add_column("the winner", justify="right", no_wrap=True)
    out.add_column("the best there", ratio=1, overflow="fold")
    for shift in outcome.shifts:
        best = "the winner still"
        if shift.faster:
            best = f"{shift.best.label}, {100 * shift.faster:.1f} % faster than the winner"
        out.add_row(shift.change, f"{100 * shift.longer:+.1f} %", best)
    return out


def _why_table(title: str, what: str, rows: list[tuple[str, str, str]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    out = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    out.add_column(what, max_width=30, overflow="fold")
    out.add_column("count" if what == "rule" else "slower", justify="right", no_wrap=True)
    out.add_column("why", ratio=1, overflow="fold")
    for row in rows:
        out.add_row(*row)
    return out


def _last_lines(outcome: PlanOutcome) -> str:
    where = (
        "not written (give -o FILE)"
        if outcome.path is None
        else f"{outcome.path} ({len(outcome.content):,} bytes)"
    )
    return f"plan: {where}\nsha256: {outcome.sha256}"
