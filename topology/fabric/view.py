"""A built fabric as a networkx graph: GPUs, switches, cables.

Parallel cables between two switches are one edge with the rate of all. An edge's latency is that of its cable
and of half of the switch at each end, so that the sum over a path is what its switches and cables take, but
for half a switch at each end of it.
"""

from __future__ import annotations

import networkx as nx
import numpy as np

from exactmap.topology.fabric.build import BuiltFabric
from exactmap.topology.fabric.wiring import pair_key

__all__ = ["fabric_graph"]


def fabric_graph(fabric: BuiltFabric) -> nx.Graph[str]:
    """Build the graph of a fabric, all planes of it.

    Nodes are named as in the fabric's links and have ``kind`` (``gpu`` or ``switch``) and ``fabric_tier`` (0
    for a GPU). Edges have ``fabric_tier`` (0 at a GPU), ``bytes_per_s`` in one direction, ``num_cables`` and,
    between switches, ``latency_ns``.

    Examples
    --------
    >>> from exactmap.topology.fabric.graph_fabric import graph_fabric
    >>> star = nx.Graph()
    >>> star.add_edges_from([(gpu, "hub") for gpu in range(3)], bytes_per_s=5e10)
    >>> sorted(fabric_graph(graph_fabric(star)).edges())
    [('gpu 0', 'hub'), ('gpu 1', 'hub'), ('gpu 2', 'hub')]
    """
    links, spec = fabric.links, fabric.spec
    every = np.arange(links.num_links)
    first, second = links.ends(every)
    sent = np.flatnonzero(first < second)
    keys, one, place, count = np.unique(
        pair_key(first[sent], second[sent], links.num_nodes),
        return_index=True,
        return_inverse=True,
        return_counts=True,
    )
    rates = np.bincount(place, links.capacity_bytes_per_s(sent))
    link_tiers = links.tier(sent)[one]
    node_tiers = links.node_tier(np.arange(links.num_nodes))
    graph: nx.Graph[str] = nx.Graph()
    names = [links.node_name(node) for node in range(links.num_nodes)]
    for name, tier in zip(names, node_tiers.tolist(), strict=True):
        graph.add_node(name, kind="switch" if tier else "gpu", fabric_tier=tier)
    for at, key in enumerate(keys.tolist()):
        ends = divmod(key, links.num_nodes)
        graph.add_edge(
            *(names[end] for end in ends),
            fabric_tier=int(link_tiers[at]),
            bytes_per_s=float(rates[at]),
            num_cables=int(count[at]),
        )
        tiers = [int(node_tiers[end]) for end in ends]
        if min(tiers) > 0:
            hops = sum(spec.hop_ns(tier) for tier in tiers)
            graph.edges[names[ends[0]], names[ends[1]]]["latency_ns"] = hops / 2 + spec.cable_ns
    return graph
