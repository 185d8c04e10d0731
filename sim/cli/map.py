"""`exactmap map`: put ranks on GPUs, say what that crosses, and write the map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, table, verb
from exactmap.sim.report.quantity import show_number

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.map import MapOutcome
    from exactmap.topology.fabric.spec import FabricKind

__all__ = ["map"]

MAX_ROWS = 12
MAX_HOST_CHARS = 200


@verb
def map(  # noqa: A001 - the verb's name
    path: Annotated[Path, typer.Argument(help="A plan, or a scenario.")],
    *,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="For a plan: a name of the catalog, a cluster file, or a scenario (its cluster and map)."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a field, map.spares=trays; may be repeated."),
    ] = None,
    read: Annotated[
        Path | None,
        typer.Option(
            help="Take the map from a map file, rank file, host file or list of a host per task; check it."
        ),
    ] = None,
    hosts: Annotated[
        str | None,
        typer.Option(help="Names of the cluster's hosts: node[0001-0018], or a file with one a line."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the map here.")] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="In it, a line for each rank instead of ranges.")
    ] = False,
    hostfile: Annotated[Path | None, typer.Option(help="Write Open MPI's host file.")] = None,
    rankfile: Annotated[Path | None, typer.Option(help="Write Open MPI's rank file.")] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(help="Write a host per task, for SLURM_HOSTFILE and --distribution=arbitrary."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the paths that flows choose in the fabric.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Put ranks on physical GPUs; say what that crosses, what stays spare, and why."""
    from exactmap.sim.verbs.map import map as lay

    outcome = lay(
        path,
        overrides or (),
        cluster=cluster,
        read=read,
        hosts=hosts,
        out=out,
        rows=rows,
        hostfile=hostfile,
        rankfile=rankfile,
        slurm=slurm,
        seed=seed,
    )
    first = out or hostfile or rankfile or slurm
    emit(outcome.to_dict(), _shown(outcome), as_json=as_json, out=first)


def _shown(outcome: MapOutcome) -> list[RenderableType]:
    laid = outcome.exact_map
    word = laid.machine.rack_word
    shown: list[RenderableType] = [_head(outcome), _budget(outcome)]
    shown.append(
        table(
            "",
            (f"{word}s", "used", "spare", "excluded"),
            [
                (f"{each.num_racks:,}", str(each.used), str(each.spare), str(each.excluded))
                for each in outcome.budget.racks[:MAX_ROWS]
            ],
        )
    )
    if len(outcome.budget.racks) > MAX_ROWS:
        shown.append(f"(and {len(outcome.budget.racks) - MAX_ROWS} more kinds; --json has all)")
    shown += _crossings(outcome)
    shown.append(_groups(outcome))
    hosts = outcome.hosts
    if len(hosts) > MAX_HOST_CHARS:
        hosts = f"{hosts[:MAX_HOST_CHARS].rpartition(',')[0]},.. (--json has all)"
    shown.append(f"hosts: {hosts}")
    shown += [f"written: {path} ({path.stat().st_size:,} bytes)" for path in outcome.files if path.is_file()]
    return shown


def _head(outcome: MapOutcome) -> str:
    mesh = outcome.exact_map.mesh
    sizes = " ".join(f"{axis}{mesh.size(axis)}" for axis in mesh.order)
    request = outcome.exact_map.request
    lines = [f"{outcome.path} on {outcome.cluster.name}: {sizes}, the innermost axis first"]
    if outcome.plan_sha256 is not None:
        lines.append(f"plan sha256: {outcome.plan_sha256}")
    if request.require:
        lines.append(f"kept: {', '.join(str(each) for each in request.require)}")
    return "\n".join(lines)


def _budget(outcome: MapOutcome) -> RenderableType:
    budget, word = outcome.budget, outcome.exact_map.machine.rack_word
    rows = [
        ("installed", f"{budget.installed:,}"),
        ("excluded", f"{budget.excluded:,}"),
        ("usable", f"{budget.usable:,}"),
        ("used", f"{budget.used:,} in {show_number(budget.num_racks_at_work, word)}"),
        ("spare there", f"{budget.spare:,}"),
        ("idle", f"{budget.idle:,} in {show_number(budget.num_idle_racks, f'other {word}')}"),
        *(("why" if number == 0 else "", reason) for number, reason in enumerate(budget.reasons)),
    ]
    return facts("GPUs", rows)


def _crossings(outcome: MapOutcome) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_share, show_time
    from exactmap.topology.exact_map.crossing import tier_name

    kind = outcome.cluster.fabric.kind
    num_tiers = max((len(each.by_tier) for each in outcome.traffic), default=0)
    tiers = [tier_name(kind, tier + 1) for tier in range(num_tiers)]
    word = outcome.exact_map.machine.rack_word
    has_rails = outcome.exact_map.machine.num_rails > 1
    rows: list[tuple[str, ...]] = []
    for each in outcome.traffic:
        counts = [*each.by_tier, *[0] * (num_tiers - len(each.by_tier))]
        rows.append(
            (
                f"{each.axis} {each.size}",
                f"{each.inside:,}" if each.size > 1 else "self",
                *(f"{count:,}" if count else "-" for count in counts),
                *((show_share(each.on_rail / each.outside) if each.outside else "-",) if has_rails else ()),
            )
        )
    columns = ("axis", f"in {word}", *tiers, *(("on rail",) if has_rails else ()))
    title = "Hops of each axis by the network that they cross"
    out: list[RenderableType] = [table(title, columns, rows, whole_numbers=True)]
    paths = [
        f"{each.axis} {show_time(each.most_latency_ns)}" for each in outcome.traffic if each.most_latency_ns
    ]
    if paths:
        out.append(f"longest path, switches and cables: {', '.join(paths)}")
    links = [
        (
            f"{each.axis}, {_link_name(kind, use.tier)}",
            f"{use.num_links:,}",
            f"{use.mean_flows:.2f}",
            str(use.most_flows),
            use.busiest,
        )
        for each in outcome.traffic
        for use in each.links
    ]
    if links:
        out.append(
            table(
                "Links of the fabric that they take, each hop one flow on one path",
                ("axis, tier", "links", "flows", "most", "busiest"),
                links,
            )
        )
    return out


def _link_name(kind: FabricKind, tier: int) -> str:
    from exactmap.topology.exact_map.crossing import tier_name

    above = tier_name(kind, tier + 1)
    return f"GPU to {above}" if tier == 0 else f"{tier_name(kind, tier)} to {above}"


def _groups(outcome: MapOutcome) -> RenderableType:
    from exactmap.topology.exact_map.crossing import tier_name

    kind, word = outcome.cluster.fabric.kind, outcome.exact_map.machine.rack_word
    rows = [
        (
            ",".join(axes) if number == 0 else "",
            f"{shape.num_groups:,}",
            str(shape.num_members),
            str(shape.num_racks),
            str(shape.fewest) if shape.fewest == shape.most else f"{shape.fewest} to {shape.most}",
            tier_name(kind, shape.fabric_tier) if shape.fabric_tier else f"in {word}",
        )
        for axes, shapes in outcome.shapes
        for number, shape in enumerate(shapes[:MAX_ROWS])
    ]
    return table(
        "Groups by their shape", ("axes", "groups", "members", f"{word}s", f"in each {word}", "crosses"), rows
    )
