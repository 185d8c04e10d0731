"""`exactmap export`: a plan for other frameworks and for launchers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.handover.verdict import Line
    from exactmap.sim.verbs.export import Export

__all__ = ["export"]


@verb
def export(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.")],
    *,
    to: Annotated[str, typer.Option(help="Targets, with commas: megatron, torchtitan, maxtext, slurm, mpi.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; each target gets one of its own in it.")],
    cluster: Annotated[
        str | None,
        typer.Option(help="Where ranks sit, for slurm and mpi: a name of the catalog, or a cluster file."),
    ] = None,
    scenario: Annotated[
        Path | None, typer.Option(help="Instead: a scenario, whose cluster and map are taken.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a field, map.exclude=[gpu 17]; may be repeated."),
    ] = None,
    hosts: Annotated[
        str | None,
        typer.Option(help="Names of the cluster's hosts: node[0001-0018], or a file with one a line."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Hand a plan over to other frameworks and launchers; say what they cannot be told."""
    from exactmap.sim.verbs.export import export as hand_over

    outcome = hand_over(path, to, out, overrides or (), cluster=cluster, scenario=scenario, hosts=hosts)
    emit(outcome.to_dict(), _shown(outcome), as_json=as_json)


def _shown(outcome: Export) -> list[RenderableType]:
    from exactmap.sim.handover.verdict import Grade

    on = f" on {outcome.cluster}" if outcome.cluster is not None else ""
    shown: list[RenderableType] = [f"{outcome.path}{on}\nplan sha256: {outcome.plan_sha256}"]
    rows = []
    for each in outcome.targets:
        counts = [len(each.verdict.of(grade)) for grade in Grade]
        rows.append((each.verdict.target, each.verdict.grade.value, *(str(count or "-") for count in counts)))
    columns = ("target", "verdict", "exactly", "its own way", "otherwise", "refused")
    shown.append(table("What the plan says, and how it fares", columns, rows))
    for each in outcome.targets:
        lines = [*each.verdict.of(Grade.REFUSED), *each.verdict.of(Grade.APPROXIMATE)]
        if lines:
            title = f"What {each.verdict.target} cannot be told"
            shown.append(facts(title, [(line.fact, _instead(line)) for line in lines]))
    for each in outcome.targets:
        names = " ".join(path.name for path in each.files)
        shown.append(f"written: {each.files[0].parent}: {names}")
    return shown


def _instead(line: Line) -> str:
    return f"refused: {line.how}" if line.grade == "refused" else line.how
