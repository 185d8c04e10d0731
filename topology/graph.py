"""A cluster as a graph, for analysis by networkx: GPUs, the scale-up switch of each domain, the fabric.

Every link has one direction's rate and latency as the catalog gives them. The fabric between domains is one
node: this version knows its rate per GPU, not its tiers. Meant for looking at clusters of up to 20,000 GPUs;
prices use arithmetic on the mesh (`exactmap.topology.mapping`), never a graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from exactmap.errors import InvalidInputError

if TYPE_CHECKING:
    from exactmap.topology.hardware import Cluster

__all__ = ["MAX_GRAPH_GPUS", "cluster_graph"]

MAX_GRAPH_GPUS = 20_000


def cluster_graph(cluster: Cluster) -> nx.Graph[str]:
    """Build the graph of a cluster.

    Nodes are ``gpu N`` (attributes ``kind``, ``domain``, ``host``, ``spare``), ``domain N`` (its scale-up
    switches as one node) and ``fabric``. Edges have ``tier`` (``scale_up`` or ``scale_out``),
    ``bytes_per_s`` and ``latency_ns``; two edges make a transfer, so each has half of the tier's latency.

    Raises
    ------
    InvalidInputError
        If the cluster has more than 20,000 GPUs.
    """
    if cluster.num_gpus > MAX_GRAPH_GPUS:
        raise InvalidInputError(
            "the cluster is too large for a graph",
            got=f"{cluster.num_gpus} GPUs",
            expected=f"at most {MAX_GRAPH_GPUS}",
            hint="look at a part of it, such as 1152 GPUs; prices need no graph at any size",
        )
    graph: nx.Graph[str] = nx.Graph(name=cluster.name)
    size = cluster.scale_up.domain_size
    up = {
        "tier": "scale_up",
        "bytes_per_s": cluster.scale_up.bytes_per_s,
        "latency_ns": cluster.scale_up.latency_ns / 2,
    }
    out = {
        "tier": "scale_out",
        "bytes_per_s": cluster.scale_out.bytes_per_s,
        "latency_ns": cluster.scale_out.latency_ns / 2,
    }
    graph.add_node("fabric", kind="fabric")
    for gpu in range(cluster.num_gpus):
        domain, place = divmod(gpu, size)
        graph.add_node(
            f"gpu {gpu}",
            kind="gpu",
            domain=domain,
            host=gpu // cluster.gpus_per_host,
            spare=place >= cluster.used_per_domain,
        )
        graph.add_node(f"domain {domain}", kind="domain")
        graph.add_edge(f"gpu {gpu}", f"domain {domain}", **up)
        graph.add_edge(f"gpu {gpu}", "fabric", **out)
    return graph
