"""A cluster as a networkx graph agrees with the arithmetic that prices it."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.graph import cluster_graph
from exactmap.topology.mapping import Axis, Mesh, Tier


def test_neighbours_of_an_axis_take_the_tier_that_the_placement_says() -> None:
    cluster = replace(load_cluster("h100-8"), num_gpus=32)
    mesh = Mesh(tp=4, pp=8)
    placement = cluster.place(mesh)
    graph = cluster_graph(cluster)

    for axis in (Axis.TP, Axis.PP):
        tiers = set()
        for rank in range(mesh.num_ranks):
            place = mesh.coords(rank)
            if place.on(axis) + 1 < mesh.size(axis):
                other = mesh.rank(place.moved({axis: place.on(axis) + 1}))
                first, second = placement.gpu(rank), placement.gpu(other)
                same_domain = graph.nodes[f"gpu {first}"]["domain"] == graph.nodes[f"gpu {second}"]["domain"]
                tiers.add(Tier.SCALE_UP if same_domain else Tier.SCALE_OUT)

        assert (Tier.SCALE_OUT if Tier.SCALE_OUT in tiers else Tier.SCALE_UP) == placement.hop_tier(axis)


def test_a_rack_counts_its_spares_and_stays_connected_without_the_fabric() -> None:
    cluster = replace(load_cluster("gb300-nvl72"), num_gpus=144, used_per_domain=64)
    graph = cluster_graph(cluster)

    spares = [node for node, facts in graph.nodes(data=True) if facts.get("spare")]
    graph.remove_nodes_from([node for node, facts in graph.nodes(data=True) if facts["kind"] == "switch"])

    assert len(spares) == 16
    assert sorted(len(part) for part in nx.connected_components(graph)) == [73, 73]


def test_latency_over_the_fabric_is_that_of_the_tier_of_the_pair() -> None:
    """Over the switches of 1,152 GPUs: the fastest path takes what `Cluster.scale_out_latency_ns` says."""
    cluster = replace(load_cluster("gb300-nvl72"), num_gpus=1_152)
    fabric = build_fabric(cluster)
    graph = cluster_graph(cluster)
    graph.remove_nodes_from([node for node, facts in graph.nodes(data=True) if facts["kind"] == "domain"])
    others = [1, 4, 288, 289, 1_151]
    tiers = fabric.tier_between(np.zeros(len(others), dtype=np.int64), np.array(others)).tolist()

    assert tiers == [2, 1, 2, 2, 2]
    for other, tier in zip(others, tiers, strict=True):
        fastest = nx.dijkstra_path_length(graph, "gpu 0", f"gpu {other}", weight="latency_ns")
        assert fastest == cluster.scale_out_latency_ns(tier)


def test_a_cluster_of_220000_gpus_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidInputError, match="too large for a graph") as caught:
        cluster_graph(replace(load_cluster("gb300-nvl72"), num_gpus=220_000))

    assert "hint:" in str(caught.value)
