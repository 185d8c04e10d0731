"""A user's own network: what an edge list or a networkx graph says, checked.

Nodes named ``gpu 0``, ``gpu 1``, ... are the GPUs, all others are switches. Each edge is a cable with a rate
in each direction and a tier: 0 at a GPU, t between tiers t and t + 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exactmap.errors import ExactmapError, InfeasibleError, InvalidInputError, Place
from exactmap.topology.fabric.spec import Switch

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["MAX_GRAPH_ENDPOINTS", "Edge", "NodeList", "check_edges", "graph_edges"]

MAX_GRAPH_ENDPOINTS = 20_000
_GPU = re.compile(r"gpu[ _-]?0*(\d+)", re.IGNORECASE)
_FIELD = Place(field="cluster.fabric.graph")

Edge = tuple[str, str, float, int]
"""Node, node, bytes/s in each direction, tier."""

_MAX_TIER = 16


@dataclass(frozen=True, slots=True)
class NodeList:
    """Nodes of a checked graph: GPUs by number, then switches in the order in which they are named.

    Parameters
    ----------
    number
        Number of each name.
    switches
        Names of the switches.
    num_gpus
        GPUs.
    """

    number: dict[str, int]
    switches: tuple[str, ...]
    num_gpus: int


def check_edges(edges: Sequence[Edge], num_gpus: int, switches: Sequence[Switch] = ()) -> NodeList:
    """Refuse a graph that is no network of a number of GPUs, with the reason.

    Parameters
    ----------
    edges
        The cables.
    num_gpus
        GPUs that must be there, numbered from 0.
    switches
        The first bounds the ports and the rate of each switch of the graph; none: not bounded.

    Raises
    ------
    InvalidInputError
        If an edge makes no sense, a GPU is missing or named twice, or there are parts that do not meet.
    InfeasibleError
        If a switch has more cables than ports.

    Examples
    --------
    >>> edges = [("gpu 0", "a", 5e10, 0), ("gpu 1", "b", 5e10, 0), ("a", "b", 1e11, 1)]
    >>> check_edges(edges, 2).switches
    ('a', 'b')
    """
    if num_gpus > MAX_GRAPH_ENDPOINTS:
        raise InvalidInputError(
            "the cluster is too large for a graph of one's own",
            where=_FIELD,
            got=f"{num_gpus} GPUs",
            expected=f"at most {MAX_GRAPH_ENDPOINTS}",
            hint="fat trees, dragonflies and tori have any size: cluster.fabric.kind",
        )
    problems: list[ExactmapError] = []
    gpus: dict[int, str] = {}
    number: dict[str, int] = {}
    names: list[str] = []
    seen: set[frozenset[str]] = set()
    for at, (first, second, rate, tier) in enumerate(edges):
        where = Place(field=f"cluster.fabric.graph.{at}")
        wrong = _wrong(first, second, rate, tier)
        if frozenset((first, second)) in seen:
            wrong = "two nodes are joined twice: write one edge with the rate of both"
        seen.add(frozenset((first, second)))
        if wrong:
            got = f"{first}, {second}, {rate / 1e9:g} GB/s, {tier}"
            problems.append(InvalidInputError(wrong, where=where, got=got))
        for name in (first, second):
            if name in number:
                continue
            gpu = _gpu(name)
            number[name] = len(names) if gpu is None else gpu
            if gpu is None:
                names.append(name)
            elif gpu in gpus:
                what = f"GPU {gpu} is named twice"
                problems.append(InvalidInputError(what, where=where, got=f"{gpus[gpu]!r} and {name!r}"))
            elif gpu >= num_gpus:
                problems.append(
                    InvalidInputError(
                        "no such GPU", where=where, got=name, expected=f"gpu 0 to gpu {num_gpus - 1}"
                    )
                )
            if gpu is not None:
                gpus.setdefault(gpu, name)
    missing = [gpu for gpu in range(num_gpus) if gpu not in gpus]
    if missing:
        shown = ", ".join(f"gpu {gpu}" for gpu in missing[:5]) + (", ..." if len(missing) > 5 else "")
        problems.append(
            InvalidInputError(f"{len(missing)} of {num_gpus} GPUs have no cable", where=_FIELD, got=shown)
        )
    if not problems:
        number = {name: at + (0 if _gpu(name) is not None else num_gpus) for name, at in number.items()}
        problems.extend(_apart(edges, number, num_gpus + len(names)))
        problems.extend(_overfull(edges, names, switches))
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InvalidInputError("problems in the graph of the fabric", problems=problems[:20])
    return NodeList(number, tuple(names), num_gpus)


def graph_edges(graph: nx.Graph[object]) -> tuple[Edge, ...]:
    """Edges of a networkx graph: attribute ``bytes_per_s``, and ``tier`` (0 at a GPU, else 1, if left out).

    Nodes are names, or whole numbers for GPUs.

    Raises
    ------
    InvalidInputError
        If an edge has no rate.
    """
    edges: list[Edge] = []
    for first, second, facts in graph.edges(data=True):
        names = [f"gpu {node}" if isinstance(node, int) else str(node) for node in (first, second)]
        rate: object = facts.get("bytes_per_s")
        if not isinstance(rate, int | float):
            raise InvalidInputError(
                "an edge has no rate", where=_FIELD, got=f"{names[0]}, {names[1]}", expected="bytes_per_s=..."
            )
        at_gpu = any(_gpu(name) is not None for name in names)
        edges.append((names[0], names[1], float(rate), int(facts.get("tier", 0 if at_gpu else 1))))
    return tuple(edges)


def _gpu(name: str) -> int | None:
    match = _GPU.fullmatch(name.strip())
    return None if match is None else int(match[1])


def _wrong(first: str, second: str, rate: float, tier: int) -> str:
    num_gpus = sum(_gpu(name) is not None for name in (first, second))
    if first == second:
        return "an edge joins a node to itself"
    if num_gpus == 2:
        return "two GPUs are joined without a switch"
    if not 0.0 < rate < float("inf"):
        return "an edge needs a rate"
    if (tier == 0) != (num_gpus == 1) or tier < 0:
        return "tier 0 is for edges at a GPU, 1 and more for edges between switches"
    if tier > _MAX_TIER:
        return f"tiers go up to {_MAX_TIER}"
    return ""


def _apart(edges: Sequence[Edge], number: dict[str, int], num_nodes: int) -> Iterable[ExactmapError]:
    """Whether all nodes meet; GPUs forward nothing, so that paths go through switches only."""
    root = list(range(num_nodes))

    def find(node: int) -> int:
        while root[node] != node:
            root[node] = root[root[node]]
            node = root[node]
        return node

    gpus = num_nodes - sum(1 for name in number if _gpu(name) is None)
    for first, second, _, _ in edges:
        a, b = number[first], number[second]
        if a >= gpus and b >= gpus:
            root[find(a)] = find(b)
    parts: dict[int, list[str]] = {}
    for name, at in number.items():
        if at >= gpus:
            parts.setdefault(find(at), []).append(name)
    reached: dict[str, set[int]] = {}
    for first, second, _, _ in edges:
        for gpu, switch in ((first, second), (second, first)):
            if number[gpu] < gpus:
                reached.setdefault(gpu, set()).add(find(number[switch]))
    # Planes may be apart, if each GPU is in each of them.
    common = set.intersection(*reached.values()) if reached else set[int]()
    if not common:
        shown = "; ".join(
            f"{', '.join(part[:3])} ..." if len(part) > 3 else ", ".join(part)
            for part in list(parts.values())[:3]
        )
        yield InvalidInputError(
            "the graph is disconnected",
            where=_FIELD,
            got=f"{len(parts)} parts: {shown}",
            expected="a path between all GPUs",
        )
    lost = [part[0] for at, part in parts.items() if not any(at in places for places in reached.values())]
    if lost and common:
        yield InvalidInputError("a switch reaches no GPU", where=_FIELD, got=", ".join(lost[:5]))


def _overfull(
    edges: Sequence[Edge], names: Sequence[str], switches: Sequence[Switch]
) -> Iterable[ExactmapError]:
    if not switches:
        return
    known = switches[0]
    num_cables = dict.fromkeys(names, 0)
    total = dict.fromkeys(names, 0.0)
    for first, second, rate, _ in edges:
        for name in (first, second):
            if name in total:
                num_cables[name] += max(1, -int(-rate // known.port_bytes_per_s))
                total[name] += rate
    for name in names:
        most = known.num_ports * known.port_bytes_per_s
        if num_cables[name] > known.max_ports or total[name] > most:
            yield InfeasibleError(
                f"switch {name!r} has more cables than {known.name} has ports",
                where=_FIELD,
                got=f"{num_cables[name]} cables, {total[name] * 8 / 1e9:g} Gb/s",
                expected=f"at most {known.max_ports} cables, {most * 8 / 1e9:g} Gb/s",
            )
