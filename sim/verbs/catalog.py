"""What hardware exactmap knows: clusters, the parts they are made of, and where each number comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import cast

from exactmap.errors import InvalidInputError
from exactmap.sim.report.quantity import show_bytes
from exactmap.sim.scenario.cluster_document import cluster_document
from exactmap.sim.scenario.cluster_source import read_cluster
from exactmap.sim.scenario.document import Problems, as_mapping, take_facts
from exactmap.sim.scenario.parts import part_document, part_names
from exactmap.sim.scenario.units import parse_bytes
from exactmap.topology.catalog import PART_KINDS, catalog_names
from exactmap.topology.hardware import Cluster
from exactmap.topology.power import ClusterPower, cluster_power

__all__ = ["CatalogEntry", "CatalogReport", "Number", "catalog"]

CLUSTER = "clusters"
_UNSAID = frozenset(
    {("gpu.gemm_efficiency", "1.0"), ("gpu.attention_efficiency", "0.4"), ("gpu.idle_power", "0 W")}
    | {("gpu.exp_rate", "0 exp/s"), ("scale_out.power", "0 W"), ("rack.power", "0 W")}
    | {("fabric.planes", "1"), ("fabric.rails", "1"), ("fabric.cable", "0 ns")}
)
"""What stands where nothing is said: no number that anyone gave."""
_TEXTS = frozenset({"name", "cpu", "curves", "kernels", "link", "reduction", "kind", "gemm"})


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the catalog: its dotted field, its value with the unit, its source and confidence."""

    field: str
    value: str
    source: str
    confidence: str


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A cluster or a part.

    Parameters
    ----------
    name
        What a scenario calls it.
    kind
        ``clusters``, or the kind of part: ``gpus``, ``hosts``, ...
    about
        Its main numbers in one line.
    numbers
        All of its numbers; empty in the list of everything.
    rack_power, total_power
        Of a cluster: what one rack (or host) of it draws, and all of it.
    """

    name: str
    kind: str
    about: str
    numbers: tuple[Number, ...] = ()
    rack_power: ClusterPower | None = None
    total_power: ClusterPower | None = None


@dataclass(frozen=True, slots=True)
class CatalogReport:
    """Entries of the catalog: all of them, or the one that was asked for."""

    entries: tuple[CatalogEntry, ...]

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        return {
            "schema_version": 1,
            "kind": "catalog",
            "entries": [
                {
                    "name": entry.name,
                    "of": entry.kind,
                    "about": entry.about,
                    "numbers": [asdict(number) for number in entry.numbers],
                    "rack_power": _power(entry.rack_power),
                    "total_power": _power(entry.total_power),
                }
                for entry in self.entries
            ],
        }


def catalog(name: str | Path | None = None) -> CatalogReport:
    """List the clusters and parts of the catalog, or all numbers of one of them.

    Parameters
    ----------
    name
        A cluster or part of the catalog, a cluster file of one's own or a scenario (``.yaml``); None: list
        everything.

    Raises
    ------
    InvalidInputError
        If there is nothing of that name, or the file is no whole cluster.

    Examples
    --------
    >>> entry = catalog("GB300").entries[0]
    >>> [number.value for number in entry.numbers if number.field == "peak.bf16"]
    ['2500 TFLOP/s']
    """
    if name is None:
        clusters = [_cluster_entry(cluster, whole=False) for cluster in catalog_names()]
        parts = [_part_entry(kind, part, whole=False) for kind in PART_KINDS for part in part_names(kind)]
        return CatalogReport((*clusters, *parts))
    text = str(name)
    if text in catalog_names() or text.endswith((".yaml", ".yml")):
        return CatalogReport((_cluster_entry(text, whole=True),))
    for kind in PART_KINDS:
        if text in part_names(kind):
            return CatalogReport((_part_entry(kind, text, whole=True),))
    known = [*catalog_names(), *(part for kind in PART_KINDS for part in part_names(kind))]
    by_lower = {entry.lower(): entry for entry in known}
    near = [by_lower[entry] for entry in get_close_matches(text.lower(), by_lower, 3)]
    raise InvalidInputError(
        "neither a cluster nor a part of the catalog",
        got=repr(text),
        expected="a name that exactmap catalog lists, or a cluster file",
        hint=f"did you mean {' or '.join(map(repr, near))}?" if near else None,
    )


def _cluster_entry(name: str, *, whole: bool) -> CatalogEntry:
    cluster = read_cluster(name)
    parts = [
        f"{cluster.num_gpus} x {cluster.gpu.name}",
        f"{cluster.scale_up.name} over {cluster.scale_up.domain_size}",
        cluster.scale_out.name,
        *dict.fromkeys(switch.name for switch in cluster.fabric.switches),
        *([f"{cluster.fabric.planes} planes"] if cluster.fabric.planes > 1 else []),
    ]
    about = ", ".join(parts)
    if not whole:
        return CatalogEntry(name, CLUSTER, about)
    return CatalogEntry(
        cluster.name,
        CLUSTER,
        about,
        tuple(_cluster_numbers(cluster)),
        cluster_power(cluster, per_rack=True),
        cluster_power(cluster),
    )


def _cluster_numbers(cluster: Cluster) -> Iterator[Number]:
    for field, value in _leaves(cluster_document(cluster), ""):
        fact = cluster.facts.get(field)
        if fact is not None:
            yield Number(field, fact.value, fact.source, fact.confidence)
        elif (field, value) not in _UNSAID and field.rpartition(".")[2] not in _TEXTS:
            yield Number(field, value, "", "given")


def _leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Dotted field and text of every value below one."""
    mapping = as_mapping(value)
    if mapping is not None or isinstance(value, list):
        pairs = mapping.items() if mapping is not None else enumerate(cast(list[object], value))
        for key, entry in pairs:
            yield from _leaves(entry, f"{path}.{key}" if path else str(key))
    else:
        yield path, str(value)


def _part_entry(kind: str, name: str, *, whole: bool) -> CatalogEntry:
    document, facts = take_facts(part_document(kind, name), Problems())
    numbers = tuple(Number(field, fact.value, fact.source, fact.confidence) for field, fact in facts.items())
    about = _about_part(kind, {key: str(value) for key, value in _all_leaves(document.value, "")})
    return CatalogEntry(name, kind, about, numbers if whole else ())


def _all_leaves(value: object, path: str) -> Iterator[tuple[str, object]]:
    for key, entry in (as_mapping(value) or {}).items():
        inside = f"{path}.{key}" if path else key
        if as_mapping(entry) is None:
            yield inside, entry
        else:
            yield from _all_leaves(entry, inside)


def _about_part(kind: str, of: dict[str, str]) -> str:
    """A part's main numbers in one line."""
    reduction = f", {of['reduction']}" if "reduction" in of else ""
    match kind:
        case "gpus":
            memory = show_bytes(parse_bytes(of["memory"]))
            return f"bf16 {of['peak.bf16']}, {memory} at {of['memory_bandwidth']}, {of['power']}"
        case "hosts":
            return f"{of['cpus']} x {of['cpu']}, {of['cores']} cores, {of['link']}: {of['to_gpu']} to a GPU"
        case "racks":
            trays = f", {of['switch_trays']} NVLink switch trays" if of["switch_trays"] != "0" else ""
            return f"{of['hosts']} hosts{trays}" + (f", up to {of['power']}" if "power" in of else "")
        case "scale-up":
            return f"{of['bandwidth']} per GPU and direction{reduction}"
        case "interfaces":
            return f"{of['bandwidth']}{_split(of, '1')}, {of['power']}"
        case "switches":
            return f"{of['ports']} x {of['port_rate']}{_split(of, of['ports'])}{reduction}"
        case _:
            return f"{of['bandwidth']}, {of['power']}, up to {of['reach_m']} m"


def _split(of: dict[str, str], whole: str) -> str:
    return "" if of["max_ports"] == whole else f", split into up to {of['max_ports']} ports"


def _power(power: ClusterPower | None) -> dict[str, object] | None:
    if power is None:
        return None
    return {
        "components": [
            {"component": draw.name, "num": draw.num, "idle_w": draw.idle_w, "rated_w": draw.rated_w}
            for draw in power.draws
        ],
        "idle_w": power.idle_w,
        "rated_w": power.rated_w,
    }
