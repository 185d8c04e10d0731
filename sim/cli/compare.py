"""`exactmap compare`: two results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, table, verb

__all__ = ["compare"]


@verb
def compare(
    a: Annotated[Path, typer.Argument(help="Folder or JSON of a prediction or an execution.")],
    b: Annotated[Path, typer.Argument(help="The other one.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the comparison and its two-lane picture.")
    ] = None,
    fail_over: Annotated[
        float | None,
        typer.Option(min=0.0, help="Exit with 5 if the step times differ by more than this share."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare step time, bubble, time per op class and peak bytes of two results."""
    from exactmap.sim.verbs.compare import compare as put_together

    report = put_together(a, b, out=out)
    both = report.comparison
    plans = "the same plan" if both.same_plan else "two different plans"
    columns = ("quantity", both.a.kind, both.b.kind, "difference")
    rows = [row.shown() for row in both.rows]
    shown = [table(f"{both.a.source} against {both.b.source}, {plans}", columns, rows)]
    emit(report.to_dict(), [*shown, *(f"written: {path}" for path in report.files)], as_json=as_json)
    if fail_over is not None:
        report.require(fail_over)
