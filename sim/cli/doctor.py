"""`exactmap doctor`: what this machine offers."""

from __future__ import annotations

from typing import Annotated

import typer

from exactmap.sim.cli.console import emit, facts, verb

__all__ = ["doctor"]

MISSING_REQUIREMENT = 8


@verb
def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Look at this machine and at the installation."""
    from exactmap.sim.verbs.doctor import doctor as examine

    report = examine()
    rows = [(found.name, found.value) for found in report.findings]
    problems = [f"problem: {found.name}: {found.problem}" for found in report.findings if found.problem]
    shown = [facts("exactmap doctor", rows), *(problems or ["all is there"])]
    emit(report.to_dict(), shown, as_json=as_json)
    if not report.ok:
        raise typer.Exit(MISSING_REQUIREMENT)
