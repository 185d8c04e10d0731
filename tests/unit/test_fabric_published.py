"""Published fabrics, rebuilt: sizes, switches and bisection against arithmetic of the test's own.

Sources of the designs: vendors' tables of non-blocking trees (k^2/2 endpoints in two tiers, k^3/4 in three);
Llama 3 (arXiv:2407.21783); Alibaba HPN (SIGCOMM 2024); CoreWeave's GB300 system in MLPerf Training v6.0;
DeepSeek-V3 (arXiv:2505.09343).
"""

from __future__ import annotations

import numpy as np
import pytest
from fabric_cases import PORT, machine, switch

from exactmap.errors import InfeasibleError
from exactmap.sim.scenario.cluster_source import read_cluster
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.needs import fabric_needs
from exactmap.topology.fabric.rail_only import RailOnly
from exactmap.topology.fabric.spec import FabricKind, FabricSpec, Switch
from exactmap.topology.hardware import Cluster

GBIT = 10**9 // 8
# Switch, planes of an 800G interface, radix that follows, endpoints in two tiers and in three.
NON_BLOCKING = [
    ("SN5600", 1, 64, 2_048, 65_536),
    ("SN5600", 2, 128, 8_192, 524_288),
    ("SN5600", 4, 256, 32_768, 4_194_304),
    ("Q3400", 1, 144, 10_368, 746_496),
    ("SN6810", 4, 512, 131_072, None),
    ("SN6800", 1, 512, 131_072, None),
]


def _gb300(part: str, planes: int, num_gpus: int, tiers: int | None = None, rails: int = 1) -> Cluster:
    changes = [f"fabric.switches=[{{part: {part}}}]", f"fabric.planes={planes}", f"fabric.rails={rails}"]
    return read_cluster(
        "gb300-nvl72", changes + ([f"fabric.tiers={tiers}"] if tiers else []), num_gpus=num_gpus
    )


def _tree(cluster: Cluster) -> FatTree:
    fabric = build_fabric(cluster)
    assert isinstance(fabric, FatTree)
    return fabric


def _counts(tree: FatTree) -> list[int]:
    return [tree.spec.planes * tree.shape.num_switches(tier) for tier in range(1, tree.shape.num_tiers + 1)]


@pytest.mark.parametrize("rails", [1, 4])
@pytest.mark.parametrize(("part", "planes", "radix", "two", "three"), NON_BLOCKING)
def test_non_blocking_table(
    part: str, planes: int, radix: int, two: int, three: int | None, rails: int
) -> None:
    """Two tiers hold k^2/2 GPUs with k leaves, k/2 spines; three hold k^3/4 with k^2/2, k^2/2, k^2/4."""
    full = _tree(_gb300(part, planes, two, rails=rails))

    assert (two, set(full.shape.radix)) == (radix**2 // 2, {radix})
    assert _counts(full) == [planes * radix, planes * radix // 2]
    assert full.bisection_bytes_per_s == two // 2 * 800 * GBIT
    with pytest.raises(InfeasibleError, match=f"{radix}-port switches .* in 2 tiers stop at {two} GPUs"):
        build_fabric(_gb300(part, planes, two + 4, 2, rails))
    if three is None:
        return
    full = _tree(_gb300(part, planes, three, rails=rails))
    assert three == radix**3 // 4
    assert _counts(full) == [planes * radix**2 // 2, planes * radix**2 // 2, planes * radix**2 // 4]
    assert full.bisection_bytes_per_s == three // 2 * 800 * GBIT
    with pytest.raises(InfeasibleError, match=f"in 3 tiers stop at {three} GPUs"):
        build_fabric(_gb300(part, planes, three + 4, 3, rails))


def test_64_ports_at_800g_do_not_reach_220000_and_the_refusal_says_what_would() -> None:
    with pytest.raises(
        InfeasibleError, match=r"64-port switches at 800 Gb/s .* in 3 tiers stop at 65536"
    ) as no:
        build_fabric(_gb300("SN5600", 1, 220_000, 3))

    hint = str(no.value.hint)
    assert "tiers: 4 (up to 2097152)" in hint
    assert "planes: 2 of 400 Gb/s (up to 524288)" in hint
    assert "oversubscription: " in hint
    assert "switches with 96 ports (up to 221184)" in hint


@pytest.mark.parametrize(
    ("part", "planes", "tiers", "ratios"),
    [
        ("SN5600", 1, 4, ""),
        ("SN5600", 2, 3, ""),
        ("SN5600", 4, 3, ""),
        ("Q3400", 1, 3, ""),
        ("SN5600", 1, 3, "[15, 15]"),
    ],
)
def test_what_the_hints_name_does_hold_220000(part: str, planes: int, tiers: int, ratios: str) -> None:
    changes = [f"fabric.switches=[{{part: {part}}}]", f"fabric.planes={planes}", f"fabric.tiers={tiers}"]
    changes += [f"fabric.oversubscription={ratios}"] if ratios else []
    tree = _tree(read_cluster("gb300-nvl72", changes, num_gpus=220_000))

    assert tree.num_gpus == 220_000
    for tier, radix in enumerate(tree.shape.radix, start=1):
        assert tree.shape.down_ports(tier) + tree.shape.up_ports(tier) <= radix
        above = tree.shape.num_switches(tier + 1) * tree.shape.down_ports(tier + 1) if tier < tiers else 0
        assert tree.shape.num_up_links(tier) <= above or tier == tiers


def test_220000_on_144_ports_leaf_by_leaf() -> None:
    """3,056 leaves of 72; 43 pods of 72 leaves and 72 spines; cores with 3 cables to a spine of each pod."""
    tree = _tree(_gb300("Q3400", 1, 220_000, rails=4))
    pods = -(-220_000 // (72 * 72))

    assert pods == 43
    assert _counts(tree) == [-(-220_000 // 288) * 4, pods * 72, pods * 72 * 72 // (pods * 3)]
    assert tree.bisection_bytes_per_s == 110_000 * 800 * GBIT


def test_llama_3() -> None:
    """16 GPUs per rack, 192 racks in a pod with full bisection, 8 pods, 1:7 above them."""
    switches = (switch(128), Switch("chassis", 256, PORT, 256, 500, 1))
    spec = FabricSpec(
        FabricKind.FAT_TREE, switches, shape=(16, 192, 8), oversubscription=(1.0, 7.0), cable_ns=150
    )
    pod = _tree(machine(FabricSpec(FabricKind.FAT_TREE, switches, shape=(16, 192)), 3_072))
    cluster = machine(spec, 8 * 3_072)
    tree = _tree(cluster)

    assert cluster.num_gpus == 24_576
    assert _counts(pod)[0] == 192
    assert pod.bisection_bytes_per_s == 1_536 * PORT
    assert _counts(tree)[:2] == [8 * 192, 8 * 16]
    # 192 cables down for each spine: 28 up are the fewest that keep to 1:7.
    assert tree.shape.up_ports(2) == 28 == -(-192 // 7)
    assert _counts(tree)[2] * 256 >= 8 * 16 * 28
    assert tree.bisection_bytes_per_s == pytest.approx(12_288 * PORT * 28 / 192)
    assert cluster.scale_out_bytes_per_s(3) == pytest.approx(cluster.scale_out_bytes_per_s(2) / 7)
    assert [int(tree.tier_between(np.array([0]), np.array([gpu]))[0]) for gpu in (15, 16, 3_071, 3_072)] == [
        1,
        2,
        2,
        3,
    ]
    with pytest.raises(InfeasibleError, match="stop at 24576 GPUs"):
        build_fabric(machine(spec, 8 * 3_072 + 8))


def test_dual_plane_pods_of_hpn() -> None:
    """Two ports of 200G on two leaves; 1,024 GPUs in a segment of 8 rails; 15 segments in a two-tier pod."""
    tor = Switch("51.2T", 128, PORT, 256, 500, 1)
    spec = FabricSpec(
        FabricKind.DUAL_TOR, (tor,), rails=8, shape=(128, 120), oversubscription=(128 / 120,), cable_ns=150
    )
    cluster = machine(spec, 15 * 1_024)
    tree = _tree(cluster)
    every = np.arange(cluster.num_gpus)

    assert tree.spec.planes == 2
    # Per plane 8 leaves per segment; 60 spines, each with 2 x 200G (one 400G port) to each of 120 leaves.
    assert _counts(tree) == [2 * 15 * 8, 2 * 60]
    assert tree.shape.down_ports(2) == 240
    assert tree.bisection_bytes_per_s == pytest.approx(15 * 512 * PORT * 120 / 128)
    # The GPUs of a rail share a leaf all over the segment, and nowhere else.
    assert np.flatnonzero(tree.tier_between(every, np.zeros_like(every)) == 1).tolist() == list(
        range(8, 1_024, 8)
    )
    one = tree.links.name(0), tree.links.name(tree.links.plane_links)
    assert one == ("gpu 0 > leaf 0 plane 0", "gpu 0 > leaf 0 plane 1")
    with pytest.raises(InfeasibleError, match="stop at 15360 GPUs"):
        build_fabric(machine(spec, 15 * 1_024 + 8))


@pytest.mark.parametrize(("part", "size", "leaves"), [("SN5600", 32_768, 256), ("SN6810", 131_072, 512)])
def test_four_planes_of_200g_in_two_tiers(part: str, size: int, leaves: int) -> None:
    """CoreWeave's GB300: 4 x 200G per interface; 51.2T chips reach 32,768 GPUs, 102.4T chips 131,072."""
    cluster = read_cluster("gb300-nvl72-ethernet", [f"fabric.switches=[{{part: {part}}}]"], num_gpus=size)
    tree = _tree(cluster)
    needs = fabric_needs(cluster, tree)

    assert tree.spec.num_tiers == 2
    assert [row.num_switches for row in needs.tiers] == [4 * leaves, 4 * leaves // 2]
    assert [row.ports_free for row in needs.tiers] == [0, 0]
    assert [row.num_cables for row in needs.cables] == [4 * size, 4 * size]
    assert needs.reach_gpus == size
    assert tree.bisection_bytes_per_s == size // 2 * 800 * GBIT


def test_eight_planes_of_100g_on_102t_chips_reach_524288_in_two_tiers() -> None:
    chip = Switch("102.4T", 128, 800 * GBIT, 1_024, 500, 1)
    spec = FabricSpec(FabricKind.FAT_TREE, (chip,), planes=8)
    tree = _tree(machine(spec, 524_288, rate=800 * GBIT))

    assert tree.spec.num_tiers == 2
    assert _counts(tree) == [8 * 1_024, 8 * 512]


def test_eight_rails_that_never_meet() -> None:
    """DeepSeek: 8 interfaces of a host in 8 two-tier trees, 16,384 GPUs with 64 ports of 400G."""
    spec = FabricSpec(FabricKind.RAIL_ONLY, (switch(64),), num_tiers=2)
    cluster = machine(spec, 16_384)
    fabric = build_fabric(cluster)
    needs = fabric_needs(cluster, fabric)

    assert isinstance(fabric, RailOnly)
    assert [row.num_switches for row in needs.tiers] == [8 * 64, 8 * 32]
    assert fabric.bisection_bytes_per_s == 8_192 * PORT
    assert needs.reach_gpus == 16_384 == 8 * 64**2 // 2
    # To another rail a message goes over NVLink first: the route is that between equal rails.
    one = np.array([0, 3])
    assert fabric.tier_between(one, np.array([16_003, 16_003])).tolist() == [2, 2]
    with pytest.raises(InfeasibleError, match="stop at 16384 GPUs"):
        build_fabric(machine(spec, 16_392))
