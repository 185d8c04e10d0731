"""`exactmap sweep`: plan a scenario at every combination of some settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.cli.console import emit, facts, progress, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.sweep import Sweep

__all__ = ["sweep"]


@verb
def sweep(
    scenario: Annotated[Path, typer.Argument(help="A scenario (YAML).")],
    *,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Values of a setting: pp=8,16 or a.b=c,d; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the table and the finished points.")
    ] = None,
    finalists: Annotated[int, typer.Option(min=1, help="Candidates that are simulated at each point.")] = 1,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; one for each core.")] = None,
    keep_plans: Annotated[bool, typer.Option("--keep-plans", help="Write each point's plan, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Plan a scenario at every combination of some settings; finished points are kept."""
    from exactmap.sim.verbs.sweep import sweep as plan_all

    with progress("sweeping", quiet=quiet) as tell:
        outcome = plan_all(
            scenario,
            settings or (),
            out=out,
            num_finalists=finalists,
            jobs=jobs,
            keep_plans=keep_plans,
            progress=tell,
        )
    emit(outcome.to_dict(), _shown(outcome), as_json=as_json, out=out)
    if outcome.best is None:
        refused = all(row["status"] == "refused" for row in outcome.rows)
        raise typer.Exit(InvalidInputError.exit_code if refused else InfeasibleError.exit_code)


def _shown(outcome: Sweep) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_share, show_time

    best = outcome.best
    names = [setting.name for setting in outcome.settings]
    rows: list[tuple[str, ...]] = []
    failed: list[str] = []
    for row in outcome.rows:
        swept = [str(row[name]) for name in names]
        if row["status"] != "done":
            rows.append((*swept, f"{row['status']}", "", "", "", ""))
            failed.append(f"{', '.join(swept)}: {row['reason']}")
            continue
        rows.append(
            (
                *swept,
                str(row["layout"]),
                f"{row['num_gpus']:,}",
                show_time(round(1e9 * float(row["step_s"] or 0))),
                f"{float(row['tokens_per_s'] or 0):,.4g}",
                show_share(float(row["bubble"] or 0)) + (" *" if row is best else ""),
            )
        )
    kept = f", {outcome.num_kept:,} of them kept from before" if outcome.num_kept else ""
    points = "1 point" if len(outcome.rows) == 1 else f"{len(outcome.rows):,} points"
    title = f"{points}{kept}"
    shown: list[RenderableType] = [
        table(title, (*names, "layout", "GPUs", "step", "tokens/s", "bubble"), rows)
    ]
    if best is not None:
        shown.append("* most tokens per second")
    shown += failed
    if outcome.path is not None:
        shown.append(facts("", [("table", str(outcome.path))]))
    return shown
