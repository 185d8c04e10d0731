"""Fabrics by arithmetic agree with the same fabrics as plain graphs, whatever their kind and size."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from fabric_cases import fabrics, plain_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.topology.fabric.build import BuiltFabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.graph_fabric import graph_fabric
from exactmap.topology.fabric.needs import fabric_needs
from exactmap.topology.fabric.rail_only import RailOnly
from exactmap.topology.fabric.spec import FabricKind
from exactmap.topology.fabric.view import fabric_graph
from exactmap.topology.hardware import Cluster

TREES = (FabricKind.IDEAL, FabricKind.FAT_TREE, FabricKind.DUAL_TOR)
KINDS = (*TREES, FabricKind.RAIL_ONLY, FabricKind.DRAGONFLY, FabricKind.TORUS)
GLOBAL = 3


def _pairs(fabric: BuiltFabric, seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Random pairs; between rails that never meet, pairs of one rail, since others start inside a host."""
    draws = np.random.default_rng(seed)
    first = draws.integers(0, fabric.num_gpus, count)
    second = draws.integers(0, fabric.num_gpus, count)
    if isinstance(fabric, RailOnly):
        rails = fabric.spec.rails
        second = second - second % rails + first % rails
    return first, second


def _distances(graph: nx.DiGraph, pairs: set[int]) -> dict[int, dict[int, int]]:
    return {gpu: nx.single_source_dijkstra_path_length(graph, gpu) for gpu in pairs}


@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), st.integers(0, 2**32))
@settings(max_examples=25)
def test_paths_are_the_shortest_of_the_graph(kind: FabricKind, data: st.DataObject, seed: int) -> None:
    """Length, tier and latency of a pair; each flow's links lead from one end to the other."""
    _, fabric = data.draw(fabrics(kind))
    graph = plain_graph(fabric, global_weight=GLOBAL)
    first, second = _pairs(fabric, seed)
    routes = fabric.routes(first, second, spread=Spread.ECMP, seed=seed)
    tails, heads = fabric.links.ends(routes.link)
    node_tier = fabric.links.node_tier(np.arange(fabric.links.num_nodes))
    tiers, latencies = fabric.tier_between(first, second), fabric.latency_ns(first, second)

    assert (routes.share == 1.0).all()
    for flow, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        path = slice(*routes.start[flow : flow + 2])
        nodes = [a, *heads[path].tolist()]

        assert nodes[:-1] == tails[path].tolist()
        assert nodes[-1] == b
        weights = [graph.edges[ends]["weight"] for ends in pairwise(nodes)]
        assert sum(weights) == nx.dijkstra_path_length(graph, a, b)
        between = [int(node_tier[node]) for node in nodes[1:-1]]
        edge_tiers = [graph.edges[ends]["tier"] for ends in pairwise(nodes)]
        assert tiers[flow] == (1 + max(edge_tiers) if a != b else 0)
        cables = max(len(between) - 1, 0) * fabric.spec.cable_ns
        assert latencies[flow] == sum(fabric.spec.hop_ns(tier) for tier in between) + cables


@pytest.mark.parametrize("kind", KINDS)
@given(st.data(), st.integers(0, 2**32))
@settings(max_examples=15)
def test_a_sprayed_flow_is_conserved_and_keeps_to_shortest_paths(
    kind: FabricKind, data: st.DataObject, seed: int
) -> None:
    """What enters a node leaves it; in a tree every link of a shortest path is used, and evenly by tier."""
    _, fabric = data.draw(fabrics(kind))
    graph = plain_graph(fabric, global_weight=GLOBAL)
    first, second = _pairs(fabric, seed, 6)
    routes = fabric.routes(first, second, spread=Spread.SPRAY, seed=seed)
    links = fabric.links
    tails, heads = links.ends(np.arange(links.num_links))
    weights = np.array([graph.edges[ends]["weight"] for ends in zip(tails, heads, strict=True)])
    for flow, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        entries = slice(*routes.start[flow : flow + 2])
        used, share = routes.link[entries], routes.share[entries]
        net = np.zeros(links.num_nodes)
        np.add.at(net, tails[used], share)
        np.add.at(net, heads[used], -share)
        net[a] -= 1.0
        net[b] += 1.0

        assert np.abs(net).max() < 1e-9
        assert len(np.unique(used)) == len(used)
        if a == b:
            assert len(used) == 0
            continue
        ahead = nx.single_source_dijkstra_path_length(graph, a)
        back = nx.single_source_dijkstra_path_length(graph.reverse(copy=False), b)
        far = float("inf")
        through = np.array([ahead.get(int(node), far) for node in tails]) + weights
        through += np.array([back.get(int(node), far) for node in heads])
        shortest = set(np.flatnonzero(through == ahead[b]).tolist())
        assert set(used.tolist()) <= shortest
        if fabric.spec.kind in TREES:
            assert set(used.tolist()) == shortest
            for tier in range(int(links.tier(used).max()) + 1):
                assert len(set(share[links.tier(used) == tier].tolist())) == 1


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
@settings(max_examples=20)
def test_ports_switches_and_names(kind: FabricKind, data: st.DataObject) -> None:
    """No switch has more cables than ports, each link has its way back, names are unique, counts agree."""
    cluster, fabric = data.draw(fabrics(kind))
    graph = plain_graph(fabric)
    links, needs = fabric.links, fabric_needs(cluster, fabric)
    node_tier = links.node_tier(np.arange(links.num_nodes))
    names = [links.name(link) for link in range(links.num_links)]
    port = cluster.scale_out.bytes_per_s / fabric.spec.planes

    if isinstance(fabric, FatTree):
        assert fabric.shape.taper >= fabric.spec.taper(fabric.spec.num_tiers) * (1 - 1e-12)
    assert len(set(names)) == links.num_links
    assert len({links.node_name(node) for node in range(links.num_nodes)}) == links.num_nodes
    for tail, head, facts in graph.edges(data=True):
        back = graph.edges[head, tail]
        assert (back["cables"], back["tier"]) == (facts["cables"], facts["tier"])
    degree = dict(graph.out_degree(weight="cables"))
    for node in range(links.num_gpus, links.num_nodes):
        tier = int(node_tier[node])
        if fabric.spec.kind is not FabricKind.IDEAL:
            assert degree[node] <= fabric.spec.switches[min(tier, 2) - 1].radix(port)
    for row in needs.tiers:
        here = [node for node in range(links.num_gpus, links.num_nodes) if node_tier[node] == row.tier]
        assert row.num_switches == len(here)
        assert row.ports_used == sum(degree[node] for node in here)
    assert sum(row.num_cables for row in needs.cables) * 2 == links.num_links
    assert fabric.num_gpus <= needs.reach_gpus or not needs.reach_gpus


@given(fabrics(*KINDS))
@settings(max_examples=40)
def test_all_gpus_meet(case: tuple[Cluster, BuiltFabric]) -> None:
    """The graph is connected; rails that never meet are as many parts."""
    _, fabric = case
    graph = fabric_graph(fabric)
    parts = [part for part in nx.connected_components(graph) if any(n.startswith("gpu") for n in part)]

    assert len(parts) == (fabric.links.num_planes if isinstance(fabric, RailOnly) else 1)
    assert sum(facts["num_cables"] for _, _, facts in graph.edges(data=True)) * 2 == fabric.links.num_links


@given(fabrics(*TREES, FabricKind.RAIL_ONLY))
@settings(max_examples=40)
def test_no_cut_of_a_tree_is_below_its_bisection(case: tuple[Cluster, BuiltFabric]) -> None:
    """The least cut between the lower and the upper half of the GPUs carries the bisection at least."""
    _, fabric = case
    graph = plain_graph(fabric)
    half = fabric.num_gpus // 2
    if half == 0:
        return
    for gpu in range(fabric.num_gpus):
        graph.remove_edges_from(list(graph.in_edges(gpu) if gpu < half else graph.out_edges(gpu)))
        graph.add_edge("from", gpu) if gpu < half else graph.add_edge(gpu, "to")
    cut = nx.maximum_flow_value(graph, "from", "to")

    assert cut >= fabric.bisection_bytes_per_s * (1 - 1e-9)


@given(fabrics(FabricKind.FAT_TREE, FabricKind.DUAL_TOR), st.integers(0, 2**32))
@settings(max_examples=30)
def test_a_tree_given_as_edges_is_the_same_fabric(case: tuple[Cluster, BuiltFabric], seed: int) -> None:
    """A user who writes a fat tree out as a graph gets its tiers, latencies, shares and path lengths."""
    _, fabric = case
    graph = fabric_graph(fabric)
    for _, _, facts in graph.edges(data=True):
        facts["tier"] = facts["fabric_tier"]
    own = graph_fabric(graph, switches=fabric.spec.switches, cable_ns=fabric.spec.cable_ns)
    first, second = _pairs(fabric, seed)

    assert (own.tier_between(first, second) == fabric.tier_between(first, second)).all()
    assert (own.latency_ns(first, second) == fabric.latency_ns(first, second)).all()
    one = own.routes(first, second, spread=Spread.ECMP, seed=seed)
    other = fabric.routes(first, second, spread=Spread.ECMP, seed=seed)
    assert (one.start == other.start).all()
    loads = []
    for made in (own, fabric):
        routes = made.routes(first, second, spread=Spread.SPRAY)
        ends = made.links.ends(routes.link)
        flows = np.repeat(np.arange(len(first)), np.diff(routes.start))
        load: dict[tuple[int, str, str], float] = {}
        for flow, tail, head, share in zip(flows, *ends, routes.share, strict=True):
            key = (int(flow), made.links.node_name(int(tail)), made.links.node_name(int(head)))
            load[key] = load.get(key, 0.0) + float(share)
        loads.append(load)
    assert loads[0] == pytest.approx(loads[1])


@given(fabrics(FabricKind.FAT_TREE, FabricKind.TORUS, FabricKind.DRAGONFLY), st.integers(0, 2**32))
@settings(max_examples=20)
def test_a_graph_cut_in_two_is_refused(case: tuple[Cluster, BuiltFabric], seed: int) -> None:
    """Without the cables around some GPUs a graph is refused, and the reason says so."""
    _, fabric = case
    graph = fabric_graph(fabric)
    lost = np.random.default_rng(seed).integers(0, fabric.num_gpus)
    graph.remove_edges_from(list(graph.edges(f"gpu {lost}")))
    graph.add_edge(f"gpu {lost}", "island", bytes_per_s=1e9)
    if fabric.num_gpus == 1:
        return
    for _, _, facts in graph.edges(data=True):
        facts["tier"] = facts.get("fabric_tier", 0)

    with pytest.raises(InvalidInputError, match="disconnected"):
        graph_fabric(graph)
