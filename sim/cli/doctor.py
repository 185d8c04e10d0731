"""`exactmap doctor`: what this machine offers."""

from __future__ import annotations

from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, table, verb

__all__ = ["doctor"]

MISSING_REQUIREMENT = 8


@verb
def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Look at this machine and at the installation."""
    from exactmap.sim.verbs.doctor import doctor as examine

    report = examine()
    rows = [(found.name, found.value, found.problem or "ok") for found in report.findings]
    emit(report.to_dict(), [table("exactmap doctor", ("what", "found", ""), rows)], as_json=as_json)
    if not report.ok:
        raise typer.Exit(MISSING_REQUIREMENT)
