"""`exactmap collective`: the time of a collective on a cluster, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.collective import CollectiveReport, Priced

__all__ = ["collective"]


@verb
def collective(
    op: Annotated[
        str, typer.Argument(help="all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, ...")
    ],
    *,
    cluster: Annotated[str, typer.Option(help="A cluster of the catalog, a cluster file, or a scenario.")],
    ranks: Annotated[int, typer.Option(help="Members of the group.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a field, fabric.planes=4; may be repeated."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="Full buffer, such as 1GiB.")] = None,
    sizes: Annotated[str | None, typer.Option(help="Instead of one size: 1KiB..8GiB, doubling.")] = None,
    per_domain: Annotated[
        int | None, typer.Option(help="Members in each scale-up domain; default: all that it has.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs of the cluster, instead of its own.")] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="Instead of what the library would take: ring, tree, nvls, ...")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time of a collective: by size, group and tier, with every algorithm that was weighed."""
    from exactmap.sim.verbs.collective import collective as price

    report = price(
        op,
        cluster=cluster,
        ranks=ranks,
        overrides=overrides or (),
        size=size,
        sizes=sizes,
        per_domain=per_domain,
        gpus=gpus,
        algorithm=algorithm,
    )
    shown = _one(report, report.sizes[0]) if sizes is None else [_sweep(report)]
    emit(report.to_dict(), shown, as_json=as_json)


def _title(report: CollectiveReport) -> str:
    shape = report.shape
    where = "one domain" if shape.num_domains == 1 else f"{shape.num_domains} domains of {shape.per_domain}"
    return f"{report.op.value} over {shape.num_members} {report.cluster.gpu.name} in {where}"


def _known(priced: Priced) -> str:
    time = priced.time
    if not priced.candidates:
        return "one member: nothing moves"
    if not time.extrapolated:
        return "measured"
    return {
        "fitted": "model fitted on this GPU's measurements, outside of them",
        "borrowed": "model with another GPU's constants, rates scaled with the link",
        "assumed": "latency and rate of the cluster file",
    }[time.confidence.value]


def _one(report: CollectiveReport, priced: Priced) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_bytes, show_time

    time = priced.time
    rows = [
        ("buffer", f"{show_bytes(priced.num_bytes)} ({priced.num_bytes:,} bytes)"),
        ("algorithm", time.algorithm.value),
        ("time", show_time(time.time_ns)),
        ("bus bandwidth", f"{time.bus_bytes_per_s / 1e9:.1f} GB/s"),
        ("without bytes", show_time(time.latency_ns)),
        *((f"links busy: {name.replace('_', '-')}", show_time(ns)) for name, ns in time.tier_ns.items()),
        ("known from", _known(priced)),
        *([("measured with", report.release)] if report.release else []),
    ]
    ways = [
        (
            ("> " if way.chosen else "  ") + way.algorithm.value,
            way.why if way.time_ns is None else f"{show_time(way.time_ns)}, bound by {way.bound}: {way.why}",
        )
        for way in priced.candidates
    ]
    shown: list[RenderableType] = [facts(_title(report), rows)]
    return [*shown, facts("How it could be carried out", ways)] if ways else shown


def _sweep(report: CollectiveReport) -> RenderableType:
    from exactmap.sim.report.quantity import show_bytes, show_time

    rows = [
        (
            show_bytes(priced.num_bytes),
            priced.time.algorithm.value,
            show_time(priced.time.time_ns),
            f"{priced.time.bus_bytes_per_s / 1e9:.2f}",
            next(way.bound for way in priced.candidates if way.chosen) if priced.candidates else "",
        )
        for priced in report.sizes
    ]
    columns = ("size", "algorithm", "time", "bus GB/s", "bound by")
    return table(_title(report), columns, rows, whole_numbers=True)
