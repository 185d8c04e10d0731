"""`exactmap check`: the verdict on a scenario, a plan or a schedule of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, facts, note, verb

__all__ = ["check"]


@verb
def check(
    path: Annotated[Path, typer.Argument(help="A scenario (YAML), a plan, or a schedule of torch (CSV).")],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a scenario's field: a.b=c; may be repeated."),
    ] = None,
    effective: Annotated[
        bool, typer.Option("--print-config", help="Print the scenario with every default written out.")
    ] = False,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            help="For a schedule: whose messages share a queue: rank, pair (default), direction, class.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check a scenario, a plan or a schedule; refuse with line, field or op, and a remedy."""
    from exactmap.sim.verbs.check import check as examine

    report = examine(path, overrides or (), effective=effective, channels=channels)
    for text in report.notes:
        note(f"note: {text}")
    if effective and not as_json:
        print(report.config, end="")
        return
    rows = [*report.facts, ("sha256", report.sha256)]
    emit(report.to_dict(), [facts(f"{report.path}: accepted ({report.kind})", rows)], as_json=as_json)
