"""Fabrics one by one: bisection against cuts, choices among paths, refusals, a graph of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from fabric_cases import PORT, machine, plain_graph, switch

from exactmap.errors import ExactmapError, InfeasibleError, InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.scenario.cluster_source import read_cluster
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.graph_fabric import graph_fabric
from exactmap.topology.fabric.needs import fabric_needs
from exactmap.topology.fabric.spec import FabricKind, FabricSpec
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.hardware import Cluster

S8 = switch(8)
TREE, FLY, TORUS = FabricKind.FAT_TREE, FabricKind.DRAGONFLY, FabricKind.TORUS
# A fabric that is full or even, its GPUs, and the GPUs' rates that the least cut carries.
EVEN = [
    (FabricSpec(TREE, (S8,)), 32, 16.0),
    (FabricSpec(TREE, (S8,), rails=2), 128, 64.0),
    (FabricSpec(TREE, (S8,), num_tiers=4), 256, 128.0),
    (FabricSpec(TREE, (S8,), oversubscription=(3.0,)), 48, 8.0),
    (FabricSpec(TREE, (S8,), oversubscription=(1.0, 3.0)), 192, 32.0),
    (FabricSpec(FLY, (S8,), shape=(2, 4, 1)), 32, 4.0),
    (FabricSpec(FLY, (S8,), shape=(2, 3, 2)), 24, 8.0),
    (FabricSpec(FLY, (S8,), shape=(2, 4, 1)), 8, 4.0),
    (FabricSpec(TORUS, (S8,), shape=(4, 6)), 24, 8.0),
    (FabricSpec(TORUS, (S8,), shape=(3, 4)), 24, 6.0),
    (FabricSpec(TORUS, (S8,), shape=(2, 2)), 16, 2.0),
]


@pytest.mark.parametrize(("spec", "num_gpus", "rates"), EVEN)
def test_bisection_is_the_least_cut(spec: FabricSpec, num_gpus: int, rates: float) -> None:
    """Known by hand, and found by maximum flow between the lower and the upper half."""
    fabric = build_fabric(machine(spec, num_gpus, gpus_per_host=2))
    graph = plain_graph(fabric)
    for gpu in range(num_gpus):
        graph.add_edge("from", gpu) if gpu < num_gpus // 2 else graph.add_edge(gpu, "to")

    assert fabric.bisection_bytes_per_s == pytest.approx(rates * PORT)
    assert nx.maximum_flow_value(graph, "from", "to") == pytest.approx(rates * PORT)


def test_paths_by_hash_are_even_and_hang_on_the_seed() -> None:
    """64,000 flows between two leaves: each of 16 paths gets a sixteenth, within 5 sigma."""
    fabric = build_fabric(machine(FabricSpec(TREE, (S8,), planes=4), 32, gpus_per_host=4, rate=4 * PORT))
    first, second = np.zeros(64_000, dtype=np.int64), np.full(64_000, 31)
    routes = fabric.routes(first, second, spread=Spread.ECMP, seed=3)
    again = fabric.routes(first, second, spread=Spread.ECMP, seed=3)
    other = fabric.routes(first, second, spread=Spread.ECMP, seed=4)
    counts = np.unique(routes.link[1::4], return_counts=True)[1]

    assert len(counts) == 16
    assert np.abs(counts - 4_000).max() < 5 * np.sqrt(64_000 / 16 * 15 / 16)
    assert (again.link == routes.link).all()
    assert (other.link != routes.link).any()


def test_a_hash_of_one_flow_does_not_hang_on_its_neighbours() -> None:
    """The path of a flow is that of its pair, its place and the seed, however long the list is."""
    fabric = build_fabric(machine(FabricSpec(TREE, (S8,)), 128, gpus_per_host=4))
    first, second = np.arange(100), (np.arange(100) * 7 + 5) % 128
    whole = fabric.routes(first, second, spread=Spread.ECMP)
    part = fabric.routes(first[:40], second[:40], spread=Spread.ECMP)

    assert (part.link == whole.link[: len(part.link)]).all()


def test_spraying_fills_a_non_blocking_tree_and_hashing_collides() -> None:
    """A shift by half of the GPUs: sprayed flows all get their whole rate, hashed ones share uplinks."""
    fabric = build_fabric(machine(FabricSpec(TREE, (S8,)), 128, gpus_per_host=4))
    first = np.arange(128)
    second = (first + 64) % 128
    capacity = fabric.links.capacity_bytes_per_s(np.arange(fabric.links.num_links))
    even = fair_rates(fabric.routes(first, second, spread=Spread.SPRAY), capacity)
    hashed = fair_rates(fabric.routes(first, second, spread=Spread.ECMP, seed=1), capacity)

    assert even == pytest.approx(np.full(128, PORT))
    assert hashed.min() <= PORT / 2
    assert hashed.max() <= PORT * (1 + 1e-9)


def test_dragonfly_takes_every_global_cable_between_groups() -> None:
    """Two groups of 3 routers with 2 global ports: all 6 cables join them, and all carry sprayed flows."""
    fabric = build_fabric(machine(FabricSpec(FLY, (S8,), shape=(2, 3, 2)), 12, gpus_per_host=2))
    pairs = np.array([(a, b) for a in range(6) for b in range(6, 12)])
    routes = fabric.routes(pairs[:, 0], pairs[:, 1], spread=Spread.SPRAY)
    used = np.unique(routes.link[fabric.links.tier(routes.link) == 2])

    assert len(used) == 6


def _graph(edges: str) -> nx.Graph:
    """`a-b a-b ...`; whole numbers are GPUs."""
    graph = nx.Graph()
    for edge in edges.split():
        first, second = (int(end) if end.isdigit() else end for end in edge.split("-"))
        graph.add_edge(first, second, bytes_per_s=PORT)
    return graph


REFUSED_GRAPHS = [
    ("0-a 1-a 2-b 3-b", "the graph is disconnected: got 2 parts: a; b, expected a path"),
    ("0-a 1-1", "joins a node to itself"),
    ("0-a 2-a", "no such GPU: got gpu 2"),
    ("0-1 1-a 0-a", "two GPUs are joined without a switch"),
    ("0-a 1-a b-c", "a switch reaches no GPU: got b"),
    ("0-a 1-a 2-a 3-a 4-a 5-a 6-a 7-a 8-a", "has more cables than S2 has ports: got 9 cables"),
]


@pytest.mark.parametrize(("edges", "reason"), REFUSED_GRAPHS)
def test_a_graph_that_is_no_network_is_refused(edges: str, reason: str) -> None:
    with pytest.raises(ExactmapError) as caught:
        graph_fabric(_graph(edges), switches=(switch(2),))

    assert reason in str(caught.value)


def test_planes_of_a_graph_may_be_apart() -> None:
    """Two stars that all GPUs are in: no path joins the stars, and none needs to."""
    fabric = graph_fabric(_graph("0-a 1-a 2-a 0-b 1-b 2-b"))
    routes = fabric.routes(np.array([0]), np.array([2]), spread=Spread.SPRAY)

    assert routes.share.tolist() == [0.5] * 4
    assert fabric.bisection_bytes_per_s == 2 * PORT


REFUSED = [
    (FabricSpec(TREE), 8, "a fat tree needs switches"),
    (
        FabricSpec(TREE, (switch(4),), num_tiers=1),
        9,
        "4-port switches at 400 Gb/s .* in 1 tier stop at 4 GPUs",
    ),
    (
        FabricSpec(TREE, (switch(8),), shape=(9, 2)),
        8,
        "a switch of tier 1 has too few ports: got 8 down and 8 up",
    ),
    (FabricSpec(TREE, (switch(8),), num_tiers=3, shape=(4, 2)), 8, "one size per tier: got 2 sizes, 3 tiers"),
    (FabricSpec(TREE, (S8,), num_tiers=3), 8, "too few ports .* host: got 8 GPUs on 1 leaves of 8 ports"),
    (
        FabricSpec(FabricKind.RAIL_ONLY, (S8,)),
        1_000_000,
        "8 rails that never meet stop at 4096 GPUs in 4 tiers",
    ),
    (FabricSpec(FabricKind.RAIL_ONLY, (S8,), rails=3), 8, "need whole hosts and one plane"),
    (FabricSpec(FLY, (S8,), shape=(2, 2)), 8, "a dragonfly has three sizes: got .2, 2."),
    (FabricSpec(FLY, (S8,), shape=(4, 4, 2)), 64, "more ports than S8 has at 400 Gb/s: got 9 ports"),
    (FabricSpec(FLY, (S8,), shape=(2, 2, 1)), 13, "join 3 groups at most: got 13 GPUs, expected at most 12"),
    (FabricSpec(TORUS, (S8,)), 8, "a torus has a size in each direction"),
    (FabricSpec(TORUS, (S8,), shape=(3, 3, 3)), 81, "got 9 ports: 3 GPUs and 6 neighbours per router"),
    (FabricSpec(FabricKind.GRAPH), 2, "2 of 2 GPUs have no cable"),
]


@pytest.mark.parametrize(("spec", "num_gpus", "reason"), REFUSED)
def test_a_fabric_that_cannot_be_built_is_refused(spec: FabricSpec, num_gpus: int, reason: str) -> None:
    with pytest.raises((InvalidInputError, InfeasibleError), match=reason):
        build_fabric(machine(spec, num_gpus))


def test_a_port_slower_than_an_interface_is_refused() -> None:
    with pytest.raises(
        InfeasibleError, match="slower than an interface's: got 400 Gb/s, expected at least 800"
    ):
        build_fabric(machine(FabricSpec(TREE, (S8,)), 8, rate=2 * PORT))


def test_leaves_of_a_rail_optimised_tree() -> None:
    """GPU i of each host on leaf i; with one rail a host's GPUs share a leaf."""
    rails = build_fabric(machine(FabricSpec(TREE, (switch(16),), rails=4), 64, gpus_per_host=4))
    plain = build_fabric(machine(FabricSpec(TREE, (switch(16),)), 64, gpus_per_host=4))
    gpus = np.arange(64)

    assert rails.leaf(gpus).tolist() == (gpus // 32 * 4 + gpus % 4).tolist()
    assert plain.leaf(gpus).tolist() == (gpus // 8).tolist()


def test_cables_in_a_rack_are_copper_and_others_optical() -> None:
    """A leaf with the 4 hosts of one rack: 2 m of copper to its GPUs; 30 m of fibre to the spines."""
    plain = replace(load_cluster("h100-8"), num_gpus=2_048)
    plain = replace(plain, fabric=replace(plain.fabric, rails=1))
    railed = replace(plain, fabric=replace(plain.fabric, rails=8))
    near, far = (fabric_needs(it, build_fabric(it)) for it in (plain, railed))

    assert (near.num_copper, near.num_optical, near.num_modules) == (2_048, 2_048, 4_096)
    assert (far.num_copper, far.num_optical, far.num_modules) == (0, 4_096, 8_192)
    assert near.switch_power_w == 96 * plain.fabric.switches[0].power_w
    assert near.cable_power_w == 2_048 * plain.fabric.cables[-1].power_w


def _with_graph(folder: Path, edges: str, num_gpus: int = 2) -> Path:
    (folder / "edges.csv").write_text(edges, encoding="utf-8")
    path = folder / "scenario.yaml"
    path.write_text(
        f"""exactmap: 1
cluster:
  catalog: h100-8
  num_gpus: {num_gpus}
  fabric: {{kind: graph, graph: edges.csv}}
model: gpt2
training: {{sequence: 64 tokens, batch: 8 sequences}}
""",
        encoding="utf-8",
    )
    return path


def test_a_scenario_brings_its_own_graph(tmp_path: Path) -> None:
    """The file lies beside the scenario; written out in full, the scenario has the same fabric."""
    path = _with_graph(
        tmp_path, "# mine\na,b,rate,tier\ngpu 0,x,400 Gb/s,0\ngpu 1, y, 50 GB/s, 0\n\nx,y,800 Gb/s,1\n"
    )
    cluster: Cluster = read_cluster(path)
    fabric = build_fabric(cluster)

    assert fabric.tier_between(np.array([0]), np.array([1])).tolist() == [2]
    assert [fabric.links.name(link) for link in range(6)] == [
        *("gpu 0 > x", "x > gpu 0", "gpu 1 > y", "y > gpu 1", "x > y", "y > x"),
    ]
    assert fabric.links.capacity_bytes_per_s(np.array([0, 4])).tolist() == [PORT, 2 * PORT]


@pytest.mark.parametrize(
    ("edges", "reason"),
    [
        ("gpu 0,x,400 Gb/s,0\n", "edges.csv:1: not a list of edges"),
        ("a,b,rate,tier\ngpu 0,x,400G,0\n", "edges.csv:2: rate: '400 G' has 2 readings"),
        ("a,b,rate,tier\ngpu 0,x,1 GB/s\n", "edges.csv:2: a row of another length: got 3 cells"),
        ("a,b,rate,tier\ngpu 0,x,1 GB/s,one\n", "edges.csv:2: tier: not a tier: got 'one'"),
        ("a,b,rate,tier\ngpu 0,x,1 GB/s,0\n", "edges.csv: 1 of 2 GPUs have no cable: got gpu 1"),
        (
            "a,b,rate,tier\ngpu 0,x,1 GB/s,0\ngpu 00,x,1 GB/s,0\ngpu 1,x,1 GB/s,0\n",
            "edges.csv:3: GPU 0 is named twice: got 'gpu 0' and 'gpu 00'",
        ),
        (
            "a,b,rate,tier\ngpu 0,x,1 GB/s,0\nx,gpu 0,1 GB/s,0\ngpu 1,x,1 GB/s,0\n",
            "edges.csv:3: two nodes are joined twice",
        ),
        (
            "a,b,rate,tier\ngpu 0,x,1 GB/s,0\ngpu 1,y,1 GB/s,0\n",
            "edges.csv: the graph is disconnected: got 2 parts: x; y",
        ),
        ("a,b,rate,tier\ngpu 0,x,1 GB/s,1\ngpu 1,x,1 GB/s,0\n", "edges.csv:2: tier 0 is for edges at a GPU"),
    ],
)
def test_a_bad_edge_list_is_refused_with_its_line(tmp_path: Path, edges: str, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_cluster(_with_graph(tmp_path, edges))

    assert reason in str(caught.value)


def test_a_scenario_whose_switches_do_not_reach_is_refused_with_its_line(tmp_path: Path) -> None:
    path = _with_graph(tmp_path, "")
    text = path.read_text(encoding="utf-8").replace("{kind: graph, graph: edges.csv}", "{tiers: 2}")
    path.write_text(text.replace("num_gpus: 2", "num_gpus: 2056"), encoding="utf-8")

    with pytest.raises(
        InfeasibleError, match=r"scenario.yaml:5: cluster.fabric: 64-port .* stop at 2048 GPUs"
    ):
        load_scenario(path)


def test_a_graph_is_written_out_with_its_scenario(tmp_path: Path) -> None:
    path = _with_graph(tmp_path, "a,b,rate,tier\ngpu 0,x,400 Gb/s,0\ngpu 1,x,400 Gb/s,0\n")
    scenario = load_scenario(path)
    again = tmp_path / "again.yaml"
    again.write_text(scenario.effective(), encoding="utf-8")

    assert load_scenario(again).cluster == scenario.cluster
