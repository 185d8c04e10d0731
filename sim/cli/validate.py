"""`exactmap validate`: how right predictions are on all published runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, note, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.published.statistics import ErrorStatistics
    from exactmap.sim.verbs.validate import ValidateReport

__all__ = ["validate"]


@verb
def validate(
    *,
    gate: Annotated[
        Path | None, typer.Option(help="Fail if a part got worse than this record by a tenth.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Write such a record.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write the tables into this page.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw predicted against measured.")] = None,
    fit: Annotated[
        Path | None, typer.Option(help="First fit the constants, and write them into this folder.")
    ] = None,
    only: Annotated[str, typer.Option(help="With --fit: scopes, such as gpu:H100,software:nemo.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Predict every published run that the inputs cover, and say how right that is."""
    from exactmap.sim.verbs.validate import fit_constants
    from exactmap.sim.verbs.validate import validate as judge

    if fit is not None:
        fit_constants(fit, only=only, report=note)
    report = judge(gate=gate, record=record, page=page, picture=picture)
    emit(report.to_dict(), _shown(report), as_json=as_json)


_COLUMNS = ("", "n", "mean", "median", "p90", "worst", "bias", "covered", "width")


def _line(name: str, found: ErrorStatistics) -> tuple[str, ...]:
    return (
        name,
        f"{found.n:,}",
        f"{found.mape:.1%}",
        f"{found.median:.1%}",
        f"{found.p90:.1%}",
        f"{found.worst:.1%}",
        f"{found.bias:+.1%}",
        f"{found.coverage:.0%}",
        f"{found.width:.2f}",
    )


def _shown(report: ValidateReport) -> list[RenderableType]:
    accuracy = report.accuracy
    held = accuracy.held_out()
    by_gpu = sorted(accuracy.by(held, lambda row: f"{row.gpu}, {row.kind}").items())
    by_set = accuracy.by(held, lambda row: row.set_name).items()
    bars = [
        (
            bar.what,
            f"{'>=' if bar.at_least else '<='} {bar.limit:.3g}",
            f"{bar.found:.3f}",
            "yes" if bar.reached else "no",
        )
        for bar in report.bars
    ]
    reasons = [(refused.id, refused.reason) for refused in accuracy.refused]
    return [
        table("Rows that no constant was fitted on, by GPU", _COLUMNS, [_line(*pair) for pair in by_gpu]),
        table("By set", _COLUMNS, [_line(*pair) for pair in by_set]),
        table("Bars", ("what", "bar", "found", "reached"), bars),
        *([table("Not predicted", ("row", "why"), reasons)] if reasons else []),
    ]
