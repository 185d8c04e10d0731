"""A cluster as a graph, for analysis by networkx: GPUs, the scale-up switch of each domain, the whole fabric.

Every link has one direction's rate and latency as the catalog gives them. Meant for looking at clusters of up
to 20,000 GPUs; prices use arithmetic on the mesh and the fabric (`exactmap.topology.mapping`,
`exactmap.topology.fabric.build`), never a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from exactmap.errors import InvalidInputError
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.view import fabric_graph

if TYPE_CHECKING:
    from exactmap.topology.hardware import Cluster

__all__ = ["MAX_GRAPH_GPUS", "cluster_graph"]

MAX_GRAPH_GPUS = 20_000


def cluster_graph(cluster: Cluster) -> nx.Graph[str]:
    """Build the graph of a cluster.

    Nodes are ``gpu N`` (attributes ``kind``, ``domain``, ``host``, ``spare``), ``domain N`` (its scale-up
    switches as one node) and the switches of the fabric (``leaf 3``, ``spine 0 plane 1``), whose attributes
    are those of `exactmap.topology.fabric.view`. Edges have ``tier`` (``scale_up`` or ``scale_out``),
    ``bytes_per_s`` and ``latency_ns``. The two edges at the ends of a transfer have half of the tier's
    latency each; what the fabric adds beyond one leaf lies on the edges between its switches.

    Raises
    ------
    InvalidInputError
        If the cluster has more than 20,000 GPUs.
    InfeasibleError
        If its fabric cannot be built.
    """
    if cluster.num_gpus > MAX_GRAPH_GPUS:
        raise InvalidInputError(
            "the cluster is too large for a graph",
            got=f"{cluster.num_gpus} GPUs",
            expected=f"at most {MAX_GRAPH_GPUS}",
            hint="look at a part of it, such as 1152 GPUs; prices need no graph at any size",
        )
    graph = fabric_graph(build_fabric(cluster))
    graph.graph["name"] = cluster.name
    for _, _, facts in graph.edges(data=True):
        facts["tier"] = "scale_out"
        if facts["fabric_tier"] == 0:
            facts["latency_ns"] = cluster.scale_out.latency_ns / 2
    for gpu in range(cluster.num_gpus):
        domain, place = divmod(gpu, cluster.scale_up.domain_size)
        graph.add_node(
            f"gpu {gpu}",
            domain=domain,
            host=gpu // cluster.gpus_per_host,
            spare=place >= cluster.used_per_domain,
        )
        graph.add_node(f"domain {domain}", kind="domain")
        graph.add_edge(
            f"gpu {gpu}",
            f"domain {domain}",
            tier="scale_up",
            bytes_per_s=cluster.scale_up.bytes_per_s,
            latency_ns=cluster.scale_up.latency_ns / 2,
        )
    return graph
