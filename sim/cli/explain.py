"""`exactmap explain`: where the time of a step goes, what bounds it, what each knob would change."""

from __future__ import annotations

from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, progress, verb

__all__ = ["explain"]


@verb
def explain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="ROWS.csv | published | SCENARIO",
            help="A table of runs, the word published (the runs that come with exactmap), or a scenario.",
        ),
    ],
    *,
    row_id: Annotated[str | None, typer.Option("--id", help="Of a table: the row with this id.")] = None,
    row: Annotated[int | None, typer.Option("--row", help="Of a table: its number, from 1.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Of a scenario: override a.b=c; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Where the time of a training step goes, what bounds it, what each knob would change."""
    from exactmap.sim.cli.explain_tables import explain_tables
    from exactmap.sim.verbs.explain import explain as take_apart

    with progress("explaining", quiet=quiet) as tell:
        report = take_apart(source, overrides or (), id=row_id, row=row, progress=tell)
    emit(report.to_dict(), explain_tables(report), as_json=as_json)
