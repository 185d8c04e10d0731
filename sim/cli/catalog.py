"""`exactmap catalog`: clusters and parts, with the source of every number."""

from __future__ import annotations

from itertools import groupby
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated

import typer

from exactmap.sim.cli.console import UNLIMITED_WIDTH, emit, facts, table, verb

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.verbs.catalog import CatalogEntry, CatalogReport

__all__ = ["catalog"]

_TITLES = {
    "clusters": "Clusters: cluster: NAME",
    "gpus": "GPUs: gpu: {part: NAME}",
    "hosts": "Hosts: host: {part: NAME}",
    "racks": "Racks: rack: {part: NAME}",
    "scale-up": "Inside a domain: scale_up: {part: NAME}",
    "interfaces": "Interfaces: scale_out: {part: NAME}",
    "switches": "Switches: fabric.switches: [{part: NAME}]",
    "cables": "Cables: fabric.cables: [{part: NAME}]",
}


@verb
def catalog(
    name: Annotated[
        str | None,
        typer.Argument(help="A cluster, a part, or a cluster file. None: list the catalog."),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the hardware that comes with exactmap, each number with its source."""
    from exactmap.sim.verbs.catalog import catalog as look_up

    report = look_up(name)
    shown = _list(report) if name is None else _entry(report.entries[0])
    emit(report.to_dict(), shown, as_json=as_json)


def _list(report: CatalogReport) -> list[RenderableType]:
    groups = groupby(report.entries, key=lambda entry: entry.kind)
    return [
        facts(_TITLES[kind], [(entry.name, entry.about) for entry in entries]) for kind, entries in groups
    ]


def _entry(entry: CatalogEntry) -> list[RenderableType]:
    width = min(get_terminal_size((UNLIMITED_WIDTH, 0)).columns, UNLIMITED_WIDTH)
    shown: list[RenderableType] = [
        *wrap(f"{entry.name} ({entry.kind}): {entry.about}", width, break_on_hyphens=False),
        "",
    ]
    fields = max(len(number.field) for number in entry.numbers)
    values = max(len(number.value) for number in entry.numbers)
    for number in entry.numbers:
        shown.append(f"{number.field:<{fields}}  {number.value:>{values}}  {number.confidence}")
        shown += wrap(
            number.source, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )
    for title, power in (("one rack", entry.rack_power), ("all of it", entry.total_power)):
        if power is not None and not (power is entry.total_power and power == entry.rack_power):
            rows = [
                *(
                    (draw.name, f"{draw.num:,}", _watts(draw.idle_w), _watts(draw.rated_w))
                    for draw in power.draws
                ),
                ("together", "", _watts(power.idle_w), _watts(power.rated_w)),
            ]
            columns = (f"power of {title}", "pieces", "idle", "rated")
            shown += ["", table("", columns, rows, whole_numbers=True)]
    return shown


def _watts(power_w: int) -> str:
    for unit, scale in (("GW", 10**9), ("MW", 10**6), ("kW", 10**3)):
        if power_w >= scale:
            return f"{power_w / scale:.4g} {unit}"
    return f"{power_w} W"
