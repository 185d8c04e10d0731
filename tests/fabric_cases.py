"""Small clusters with a fabric of each kind, and the plain graph that such a fabric must agree with."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import hypothesis.strategies as st
import networkx as nx
import numpy as np

from exactmap.errors import InfeasibleError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.fabric.build import BuiltFabric, build_fabric
from exactmap.topology.fabric.spec import FabricKind, FabricSpec, Switch
from exactmap.topology.hardware import Cluster

__all__ = ["PORT", "fabrics", "machine", "plain_graph", "switch"]

PORT = 50_000_000_000
"""Rate of an interface and of a full port: 400 Gb/s."""


def switch(ports: int, hop_ns: int = 500, *, split: int = 4) -> Switch:
    """A switch with so many 400G ports, each of which may be split."""
    return Switch(f"S{ports}", ports, PORT, ports * split, hop_ns, 1000)


@cache
def _h100() -> Cluster:
    return load_cluster("h100-8")


def machine(
    spec: FabricSpec, num_gpus: int, *, gpus_per_host: int = 8, rate: int = PORT, domain: int = 8
) -> Cluster:
    """A cluster of so many GPUs on a fabric."""
    base = _h100()
    return replace(
        base,
        num_gpus=num_gpus,
        gpus_per_host=gpus_per_host,
        used_per_domain=1,
        scale_up=replace(base.scale_up, domain_size=domain),
        scale_out=replace(base.scale_out, bytes_per_s=rate),
        fabric=spec,
    )


def plain_graph(fabric: BuiltFabric, *, global_weight: int = 1) -> nx.DiGraph[int]:
    """Every link as an edge of node numbers, parallel ones with their rates added.

    Links of tier 2 weigh `global_weight`: with 3 a dragonfly's shortest paths are its minimal ones, which
    take one global cable at most.
    """
    links = fabric.links
    every = np.arange(links.num_links)
    first, second = links.ends(every)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(links.num_nodes))
    rows = zip(
        first.tolist(),
        second.tolist(),
        links.tier(every).tolist(),
        links.capacity_bytes_per_s(every).tolist(),
        strict=True,
    )
    for tail, head, tier, rate in rows:
        if graph.has_edge(tail, head):
            graph.edges[tail, head]["capacity"] += rate
            graph.edges[tail, head]["cables"] += 1
        else:
            weight = global_weight if tier == 2 else 1
            graph.add_edge(tail, head, tier=tier, capacity=rate, cables=1, weight=weight)
    return graph


@st.composite
def fabrics(draw: st.DrawFn, *kinds: FabricKind) -> tuple[Cluster, BuiltFabric]:
    """A small cluster of one of some kinds, and its fabric."""
    kind = draw(st.sampled_from(kinds))
    planes = draw(st.sampled_from((1, 1, 2, 3)))
    hops = [draw(st.integers(100, 900)) for _ in range(2)]
    cable = draw(st.integers(0, 300))
    host = draw(st.sampled_from((1, 2, 4)))
    num_gpus = draw(st.integers(1, 90))
    shape: tuple[int, ...] = ()
    rails = 1
    oversubscription: tuple[float, ...] = ()
    ports = draw(st.integers(4, 10))
    if kind in {FabricKind.FAT_TREE, FabricKind.DUAL_TOR}:
        rails = draw(st.sampled_from((1, 2, 4)))
        oversubscription = tuple(draw(st.lists(st.sampled_from((1.0, 1.5, 2.0, 3.0)), max_size=3)))
    elif kind is FabricKind.RAIL_ONLY:
        planes = 1
        num_gpus = host * draw(st.integers(1, 40))
    elif kind is FabricKind.DRAGONFLY:
        shape = (draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3)))
        ports = 20
    elif kind is FabricKind.TORUS:
        shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
        ports = 100
    spec = FabricSpec(
        kind=kind,
        switches=tuple(switch(ports, hop) for hop in hops),
        planes=planes,
        rails=rails,
        oversubscription=oversubscription,
        cable_ns=cable,
        shape=shape,
    )
    cluster = machine(spec, num_gpus, gpus_per_host=host, rate=PORT * planes)
    while True:
        try:
            return cluster, build_fabric(cluster)
        except InfeasibleError:
            # Too large for such switches: a smaller one is as good a case.
            unit = host if kind is FabricKind.RAIL_ONLY else 1
            smaller = cluster.num_gpus // 2 // unit * unit
            assert smaller > 0, spec
            cluster = replace(cluster, num_gpus=smaller)
