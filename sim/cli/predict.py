"""`exactmap predict`: step times of many runs, from a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, facts, progress, table, verb

__all__ = ["predict"]

_SHOWN = 20


@verb
def predict(
    rows: Annotated[Path, typer.Argument(help="CSV table in the layout of the published runs.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the predictions here, as CSV.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Step time of each row of a table, with interval, memory, what it is made of, and what was assumed."""
    from exactmap.sim.verbs.predict import predict as price

    with progress("pricing rows") as told:
        report = price(rows, out=out, progress=told)
    refused = len(report.lines) - report.num_predicted
    summary = [
        ("rows", f"{len(report.lines):,}"),
        ("predicted", f"{report.num_predicted:,}"),
        ("refused", f"{refused:,}"),
    ]
    if out is not None:
        summary.append(("predictions", str(out)))
    shown = [
        (
            line["id"] or str(number),
            line["predicted_s"],
            line["low_s"],
            line["high_s"],
            line["mem_gib"],
            line["reason"] or line["warnings"],
        )
        for number, line in enumerate(report.lines[:_SHOWN], start=1)
    ]
    columns = ("row", "seconds", "low", "high", "GiB", "remarks")
    parts = [facts(str(rows), summary)]
    if out is None:
        parts.append(
            table(f"The first {len(shown)}" if len(report.lines) > _SHOWN else "Rows", columns, shown)
        )
    emit(report.to_dict(), parts, as_json=as_json, out=out)
