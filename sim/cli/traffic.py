"""`exactmap traffic`: flows that share a cluster's fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import emit, facts, table, verb
from exactmap.sim.report.quantity import show_number, show_rate

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.traffic import TrafficOutcome
    from exactmap.topology.flows.report import HotLink, Spreads, TrafficReport

__all__ = ["traffic"]


@verb
def traffic(
    cluster: Annotated[str, typer.Argument(help="A cluster of the catalog, a cluster file, or a scenario.")],
    *,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override of a field, fabric.planes=4; may be repeated."),
    ] = None,
    pattern: Annotated[
        str, typer.Option("--pattern", help="permutation, incast, all_to_all or ring.")
    ] = "permutation",
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, help="GPUs of the cluster.")] = None,
    senders: Annotated[
        int | None, typer.Option("--senders", min=1, help="GPUs that take part, the first ones.")
    ] = None,
    spread: Annotated[str, typer.Option("--spread", help="How flows choose paths: ecmp or spray.")] = "ecmp",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the permutation and of ECMP.")] = 0,
    paths: Annotated[
        int, typer.Option("--paths", min=1, max=64, help="Paths by ECMP that each flow is striped over.")
    ] = 1,
    shift: Annotated[
        int, typer.Option("--shift", min=0, help="Ring: places by which a hop changes; 0 stays on its rail.")
    ] = 0,
    size: Annotated[
        str | None, typer.Option("--size", help="Bytes of each flow: play them to the end.")
    ] = None,
    lost: Annotated[
        list[str] | None, typer.Option("--lost", help="A lost cable: 'leaf 3 > spine 1'.")
    ] = None,
    slow: Annotated[
        list[str] | None, typer.Option("--slow", help="A slow one: 'leaf 3 > spine 1=0.5'.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=0, help="Hot links to name.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Let GPUs send to each other, and show how they share the fabric's links."""
    from exactmap.sim.verbs.traffic import traffic as look

    outcome = look(
        cluster,
        overrides or (),
        pattern=pattern,
        gpus=gpus,
        senders=senders,
        spread=spread,
        seed=seed,
        paths=paths,
        shift=shift,
        size=size,
        lost=lost or (),
        slow=slow or (),
        top=top,
    )
    emit(outcome.to_dict(), _shown(outcome), as_json=as_json)


def _shown(outcome: TrafficOutcome) -> list[RenderableType]:
    from exactmap.sim.report.quantity import show_share, show_time

    report = outcome.report
    tiers = f", {show_number(outcome.num_tiers, 'tier')}" if outcome.num_tiers else ""
    inside = f", and {outcome.num_inside:,} inside scale-up domains" if outcome.num_inside else ""
    rows = [
        ("cluster", f"{outcome.cluster}: {show_number(outcome.num_gpus, 'GPU')}{tiers}"),
        ("traffic", f"{outcome.pattern} of {outcome.num_senders:,}: {report.num_flows:,} flows{inside}"),
        ("paths", _paths(report)),
        ("interface", show_rate(outcome.interface_bytes_per_s)),
        ("rate of a flow", _spread(report.bytes_per_s)),
        ("all flows", show_rate(report.total_bytes_per_s)),
    ]
    if outcome.lost:
        rows.append(("lost or slow", ", ".join(outcome.lost)))
    if outcome.out_of_leaf_bytes_per_s is not None:
        rows.append(("out of a leaf", _spread(outcome.out_of_leaf_bytes_per_s)))
    if report.most_into_one > 1:
        rows.append(("into one GPU", f"{report.most_into_one:,} flows"))
    met = report.collisions
    if met is not None and met.most_flows:
        what = "flows" if report.num_paths == 1 else "parts of flows"
        rows.append(("collisions", f"{met.most_flows} {what} on {met.name}; {show_share(met.slowed)} slowed"))
        if met.mean_if_sprayed is not None:
            rows.append(("if sprayed", f"mean {show_rate(met.mean_if_sprayed)}"))
    if report.arrive_ns is not None:
        rows.append(
            (
                "there after",
                f"median {show_time(report.arrive_ns.median)}, last {show_time(report.arrive_ns.most)}",
            )
        )
    shown: list[RenderableType] = [facts("exactmap traffic", rows)]
    shown.append(
        table(
            "Links by tier",
            ("tier", "links", "used", "full", "mean", "highest"),
            [
                (
                    _tier(use.tier),
                    f"{use.num_links:,}",
                    f"{use.num_used:,}",
                    f"{use.num_full:,}",
                    show_share(use.mean),
                    show_share(use.highest),
                )
                for use in report.tiers
            ],
        )
    )
    if report.hot:
        shown.append(table("Links that flows wait for", ("link", "flows", "wanted", "who"), _hot(report.hot)))
    return shown


def _hot(links: tuple[HotLink, ...]) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for hot in links:
        who = ", ".join(f"{first} > {second}" for first, second in hot.flows)
        more = ", ..." if hot.num_flows > len(hot.flows) else ""
        rows.append((hot.name, f"{hot.num_flows:,}", f"{hot.wanted:.2f} x", who + more))
    return rows


def _paths(report: TrafficReport) -> str:
    if report.spread == "spray":
        return "sprayed over all"
    many = f", {report.num_paths} a flow" if report.num_paths > 1 else ""
    return f"{report.spread}, seed {report.seed}{many}"


def _tier(tier: int) -> str:
    return "interfaces" if tier == 0 else f"{tier} to {tier + 1}"


def _spread(rates: Spreads) -> str:
    parts = (("least", rates.least), ("median", rates.median), ("mean", rates.mean), ("most", rates.most))
    return ", ".join(f"{name} {show_rate(value)}" for name, value in parts)
