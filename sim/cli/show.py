"""`exactmap show`: look at a plan, a result or a trace."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["show"]

MAX_ROWS = 24


@verb
def show(
    path: Annotated[Path, typer.Argument(help="A plan, a trace, a result, or the folder of a result.")],
    *,
    rank: Annotated[
        int | None, typer.Option(help="Of a plan: print the program of this pipeline rank.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say what a plan, a result or a trace holds."""
    from exactmap.sim.verbs.show import show as look

    found = look(path, rank=rank)
    if found.result is not None:
        from exactmap.sim.cli.simulate import result_tables

        emit(found.to_dict(), result_tables(found.result), as_json=as_json)
        return
    shown: list[RenderableType] = [facts(f"{found.kind} {found.path}", found.facts)]
    shown.append(table("", found.rank_columns, found.ranks[:MAX_ROWS]))
    if len(found.ranks) > MAX_ROWS:
        shown.append(f"(and {len(found.ranks) - MAX_ROWS} more; --json has all)")
    shown += found.program
    emit(found.to_dict(), shown, as_json=as_json)
