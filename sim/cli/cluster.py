"""`exactmap cluster`: what a cluster's fabric takes and what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, table, verb
from exactmap.sim.report.quantity import show_number, show_rate

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.cluster import ClusterReport
    from exactmap.topology.fabric.needs import FabricNeeds

__all__ = ["cluster"]

_WITH_RAILS = frozenset({"fat_tree", "dual_tor", "rail_only"})


@verb
def cluster(
    source: Annotated[
        str,
        typer.Argument(metavar="CLUSTER", help="A cluster of the catalog, a cluster file, or a scenario."),
    ],
    *,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="GPUs installed.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a field, fabric.planes=4; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Build a cluster's fabric: switches, cables, power, bisection, or why it cannot be built."""
    from exactmap.sim.verbs.cluster import cluster as build

    report = build(source, overrides or (), num_gpus=gpus)
    emit(report.to_dict(), _shown(report), as_json=as_json)


def _shown(report: ClusterReport) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_time

    it, needs, fabric = report.cluster, report.needs, report.fabric
    spec = fabric.spec
    planes = fabric.links.num_planes
    racks = f" in {show_number(it.num_racks, 'rack')}" if it.num_racks else ""
    reach = f"{needs.reach_gpus:,} with these switches and tiers" if needs.reach_gpus else "not bounded"
    rows = [
        ("GPUs", f"{it.num_gpus:,} {it.gpu.name}, {it.usable_gpus:,} to use"),
        ("hosts", f"{it.num_hosts:,} of {it.gpus_per_host}{racks}"),
        (
            "fabric",
            f"{spec.kind.value}, {show_number(len(report.tiers), 'tier')}, {show_number(planes, 'plane')}"
            + (f", {show_number(spec.rails, 'rail')}" if spec.kind in _WITH_RAILS else ""),
        ),
        ("a port", show_rate(it.scale_out.bytes_per_s / spec.planes)),
        ("bisection", f"{show_rate(fabric.bisection_bytes_per_s)}, one direction"),
        ("could reach", reach),
        *(
            (f"refused: {show_number(tiers, 'tier')}", f"stop at {most:,} GPUs")
            for tiers, most in needs.refused
        ),
        ("switches", f"{needs.num_switches:,}"),
        ("cables", f"{needs.num_copper:,} copper, {needs.num_optical:,} optical"),
        ("optical modules", f"{needs.num_modules:,}"),
        ("power", _power(needs)),
    ]
    switches = [
        [
            f"{row.role} ({row.switch.name})" if row.switch else row.role,
            f"{row.num_switches:,}",
            f"{row.ports_used:,}",
            f"{row.ports_free:,}" if row.radix else "-",
            _watts(row.power_w) if row.switch else "-",
        ]
        for row in needs.tiers
    ]
    cables = [
        [
            _between(report, row.tier),
            f"{row.num_cables:,}",
            f"{row.length_m:g} m",
            row.cable.name if row.cable else "-",
            _watts(row.power_w) if row.cable else "-",
        ]
        for row in needs.cables
    ]
    tiers = [
        [str(row.tier), f"{row.num_gpus:,}", show_time(row.latency_ns), show_rate(row.bytes_per_s)]
        for row in report.tiers
    ]
    return [
        facts(it.name, rows),
        table("Switches", ("tier", "count", "ports used", "free", "power"), switches),
        table("Cables", ("between", "count", "length", "kind", "power"), cables),
        table("From the first GPU", ("up to tier", "GPUs", "latency", "rate if all send"), tiers),
    ]


def _between(report: ClusterReport, tier: int) -> str:
    roles = ["GPU", *(row.role for row in report.needs.tiers)]
    return f"{roles[min(tier, len(roles) - 1)]} - {roles[min(tier + 1, len(roles) - 1)]}"


def _power(needs: FabricNeeds) -> str:
    parts = f"{_watts(needs.switch_power_w)} switches, {_watts(needs.cable_power_w)} optics"
    return f"{_watts(needs.switch_power_w + needs.cable_power_w)} ({parts})"


def _watts(power_w: int) -> str:
    for unit, scale in (("MW", 10**6), ("kW", 10**3)):
        if power_w >= scale:
            return f"{power_w / scale:.4g} {unit}"
    return f"{power_w} W"
