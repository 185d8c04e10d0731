"""A fabric after a user's own graph: shortest paths by breadth-first search, for up to 20,000 GPUs.

A packet takes a path with the fewest cables; GPUs forward nothing. Where several next switches are as near,
a flow by ECMP takes one by hash at each hop, a sprayed flow all of them evenly at each hop (so its shares are
those of routers which split equally, not those of all paths counted alike). Tier and latency of a pair
are the highest and the longest among its shortest paths.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.hashing import Chooser
from exactmap.topology.fabric.spec import FabricKind, FabricSpec
from exactmap.topology.fabric.user_graph import check_edges, graph_edges
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.links import Floats, Ints, Routes

if TYPE_CHECKING:
    import networkx as nx

    from exactmap.topology.fabric.spec import Switch

__all__ = ["GraphFabric", "GraphLinks", "graph_fabric"]

_FAR = np.iinfo(np.int64).max // 4


class GraphLinks(Wiring):
    """Links of a graph: edge i as link 2 i from its first node to its second, and 2 i + 1 back."""

    def __init__(self, spec: FabricSpec, num_gpus: int) -> None:
        nodes = check_edges(spec.graph, num_gpus, spec.switches)
        self._num_gpus = num_gpus
        self._switches = nodes.switches
        pairs = np.array(
            [(nodes.number[first], nodes.number[second]) for first, second, _, _ in spec.graph],
            dtype=np.int64,
        ).reshape(-1, 2)
        self._first = np.stack((pairs[:, 0], pairs[:, 1]), axis=1).ravel()
        self._second = np.stack((pairs[:, 1], pairs[:, 0]), axis=1).ravel()
        self._rate = np.repeat([rate for _, _, rate, _ in spec.graph], 2).astype(np.float64)
        self._tier = np.repeat([tier for _, _, _, tier in spec.graph], 2).astype(np.int64)

    @property
    def num_gpus(self) -> int:
        """GPUs: the first nodes."""
        return self._num_gpus

    @property
    def num_planes(self) -> int:
        """One: planes of a graph are not told apart."""
        return 1

    @property
    def plane_links(self) -> int:
        """All links."""
        return len(self._first)

    @property
    def plane_switches(self) -> int:
        """All switches."""
        return len(self._switches)

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each, as the graph says."""
        return self._rate[links]

    def tier(self, links: Ints) -> Ints:
        """Tier of each, as the graph says."""
        return self._tier[links]

    def ends(self, links: Ints) -> tuple[Ints, Ints]:
        """Nodes that each link leads from and to."""
        return self._first[links], self._second[links]

    @cached_property
    def _node_tier(self) -> Ints:
        tiers = np.full(self.num_nodes, _FAR)
        np.minimum.at(tiers, self._second, self._tier + 1)
        tiers[: self._num_gpus] = 0
        return tiers

    def node_tier(self, nodes: Ints) -> Ints:
        """0 for a GPU; of a switch one more than the lowest of its links."""
        return self._node_tier[nodes]

    def switch_name(self, switch: int) -> str:
        """Name of a switch in the graph."""
        return self._switches[switch]


class GraphFabric:
    """A built graph.

    Parameters
    ----------
    spec
        The graph, its switches and the time in a cable.
    num_gpus
        GPUs that must be in it.

    Raises
    ------
    InvalidInputError
        If the graph is no network of these GPUs.
    InfeasibleError
        If a switch has too many cables.
    """

    def __init__(self, spec: FabricSpec, num_gpus: int) -> None:
        self._links = GraphLinks(spec, num_gpus)
        every = np.arange(self._links.num_links)
        self._tail, self._head = self._links.ends(every)
        self._tier = self._links.tier(every)
        # Links out of each node, sorted, as rows.
        self._out = np.argsort(self._tail, kind="stable")
        self._row = np.searchsorted(self._tail[self._out], np.arange(self._links.num_nodes + 1))
        self._spec = replace(spec, num_tiers=0)
        self._found: dict[bytes, tuple[Ints, Ints, Ints]] = {}

    @property
    def spec(self) -> FabricSpec:
        """What was asked for; a graph of one's own has no number of tiers."""
        return self._spec

    @property
    def num_gpus(self) -> int:
        """GPUs attached."""
        return self._links.num_gpus

    @property
    def links(self) -> GraphLinks:
        """Its links."""
        return self._links

    @property
    def bisection_bytes_per_s(self) -> float:
        """Most rate from the lower half of the GPUs (by number) to the upper half, through all paths."""
        return self._bisection_bytes_per_s

    @cached_property
    def _bisection_bytes_per_s(self) -> float:
        import networkx as nx  # noqa: PLC0415 - slow to import, and only this needs it

        graph: nx.DiGraph[object] = nx.DiGraph()
        rates = self._links.capacity_bytes_per_s(np.arange(self._links.num_links))
        for tail, head, rate in zip(self._tail, self._head, rates, strict=True):
            graph.add_edge(int(tail), int(head), capacity=float(rate))
        half = self.num_gpus // 2
        if half == 0:
            return 0.0
        # GPUs forward nothing: those of the lower half only send, the others only receive.
        for gpu in range(self.num_gpus):
            ends = list(graph.in_edges(gpu)) if gpu < half else list(graph.out_edges(gpu))
            graph.remove_edges_from(ends)
            graph.add_edge("from", gpu) if gpu < half else graph.add_edge(gpu, "to")
        return float(nx.maximum_flow_value(graph, "from", "to"))

    def tier_between(self, first: Ints, second: Ints) -> Ints:
        """Highest tier on the shortest paths of each pair: 0 for a GPU and itself, 1 at one switch."""
        return self._measured(first, second, 1)

    def latency_ns(self, first: Ints, second: Ints) -> Ints:
        """Switches and cables on the longest of the shortest paths of each pair."""
        return self._measured(first, second, 2)

    def leaf(self, gpu: Ints) -> Ints:
        """First switch of each GPU, counted among the switches."""
        return self._head[self._out[self._row[gpu]]] - self.num_gpus

    def routes(self, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> Routes:
        """Links of a flow between each pair; with ECMP the path hangs on pair, place in the list, seed."""
        chooser = Chooser(first, second, seed)
        num_hops = int(self._measured(first, second, 0).max(initial=0))
        words = [chooser.word(hop) for hop in range(num_hops)]
        links: list[Ints] = []
        shares: list[Floats] = []
        for at, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            if a == b:
                links.append(np.zeros(0, dtype=np.int64))
                shares.append(np.zeros(0))
            elif spread is Spread.ECMP:
                path = self._one_path(a, b, [int(word[at]) for word in words])
                links.append(np.array(path, dtype=np.int64))
                shares.append(np.ones(len(path)))
            else:
                every = self._all_paths(a, b)
                links.append(np.array(list(every), dtype=np.int64))
                shares.append(np.array(list(every.values())))
        start = np.concatenate(([0], np.cumsum([len(path) for path in links]))).astype(np.int64)
        if not links:
            return Routes(start, np.zeros(0, dtype=np.int64), np.zeros(0))
        return Routes(start, np.concatenate(links), np.concatenate(shares))

    def _one_path(self, source: int, target: int, words: list[int]) -> list[int]:
        path: list[int] = []
        node = source
        while node != target:
            nearer = self._nearer(node, target)
            path.append(nearer[words[len(path)] % len(nearer)])
            node = int(self._head[path[-1]])
        return path

    def _all_paths(self, source: int, target: int) -> dict[int, float]:
        """Share of a flow on each link that it takes, in the order of hops."""
        shares: dict[int, float] = {}
        front = {source: 1.0}
        while target not in front:
            following: dict[int, float] = {}
            for node, amount in front.items():
                nearer = self._nearer(node, target)
                for link in nearer:
                    shares[link] = amount / len(nearer)
                    head = int(self._head[link])
                    following[head] = following.get(head, 0.0) + amount / len(nearer)
            front = following
        return shares

    def _nearer(self, node: int, target: int) -> list[int]:
        """Links out of a node that bring a packet one hop nearer to a GPU."""
        hops = self._search(target)[0]
        links = self._out[self._row[node] : self._row[node + 1]]
        heads = self._head[links]
        left = np.where(heads == target, 0, np.where(heads < self.num_gpus, _FAR, hops[heads]))
        return [int(link) for link in links[left == left.min()]]

    def _measured(self, first: Ints, second: Ints, what: int) -> Ints:
        """Hops (0), tier (1) or latency (2) of each pair, destination by destination."""
        out = np.zeros(len(first), dtype=np.int64)
        order = np.argsort(second, kind="stable")
        targets, starts = np.unique(second[order], return_index=True)
        for target, pairs in zip(targets.tolist(), np.split(order, starts[1:]), strict=False):
            moving = pairs[first[pairs] != target]
            out[moving] = self._search(target)[what][first[moving]]
        return out

    def _search(self, target: int) -> tuple[Ints, Ints, Ints]:
        """Hops, highest tier and latency from each node to a GPU; those at the same switches share it."""
        gates = self._head[self._out[self._row[target] : self._row[target + 1]]]
        key = gates.tobytes()
        if key not in self._found:
            self._found[key] = self._breadth_first(gates)
        return self._found[key]

    def _breadth_first(self, gates: Ints) -> tuple[Ints, Ints, Ints]:
        gpus, count = self.num_gpus, self._links.num_nodes
        hops = np.full(count, _FAR)
        tiers, times = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        hops[gates], tiers[gates] = 1, 1
        tier_of = self._links.node_tier(np.arange(count))
        delay = np.array([0, *(self._spec.hop_ns(tier) for tier in range(1, int(tier_of.max()) + 1))])[
            tier_of
        ]
        times[gates] = delay[gates]
        cable = np.where(self._tier == 0, 0, self._spec.cable_ns)
        forwards = self._head >= gpus
        level = 1
        while True:
            # A GPU is reached but forwards nothing, so only switches widen the search.
            step = np.flatnonzero(forwards & (hops[self._head] == level) & (hops[self._tail] > level))
            if len(step) == 0:
                return hops, tiers, times
            tail, head = self._tail[step], self._head[step]
            hops[tail] = level + 1
            np.maximum.at(tiers, tail, np.maximum(tiers[head], self._tier[step] + 1))
            np.maximum.at(times, tail, times[head] + cable[step] + delay[tail])
            level += 1


def graph_fabric(
    graph: nx.Graph[object], *, switches: tuple[Switch, ...] = (), cable_ns: int = 0
) -> GraphFabric:
    """Build the fabric that a networkx graph describes.

    Parameters
    ----------
    graph
        Nodes ``gpu 0``, ``gpu 1``, ... (or whole numbers) are GPUs, all others switches. Edges have
        ``bytes_per_s``, one direction, and may have ``tier``.
    switches
        What each switch is, by tier: bounds its ports, gives its latency.
    cable_ns
        Time in a cable between switches.

    Examples
    --------
    >>> import networkx as nx
    >>> star = nx.Graph()
    >>> star.add_edges_from([(gpu, "hub") for gpu in range(4)], bytes_per_s=5e10)
    >>> graph_fabric(star).bisection_bytes_per_s
    100000000000.0
    """
    edges = graph_edges(graph)
    names = {name for edge in edges for name in edge[:2] if name.startswith("gpu ")}
    spec = FabricSpec(kind=FabricKind.GRAPH, switches=switches, cable_ns=cable_ns, graph=edges)
    return GraphFabric(spec, len(names))
