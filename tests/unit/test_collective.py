"""Times of communication: measured points are met, and the algorithm fits the size."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.collectives import (
    Algorithm,
    Collective,
    Confidence,
    collective_time,
    explain_collective,
    hop_time,
)
from exactmap.topology.curves import curve_names, find_curves
from exactmap.topology.mapping import GroupShape, Tier

H100 = load_cluster("h100-8")
GB300 = load_cluster("gb300-nvl72")
CPU = load_cluster("cpu-host")


@pytest.mark.parametrize(
    ("num_bytes", "micros", "tolerance"), [(2**20, 27.0, 0.25), (2**24, 124.0, 0.25), (2**28, 1113.0, 0.25)]
)
def test_all_reduce_of_eight_h100_is_near_an_independent_measurement(
    num_bytes: int, micros: float, tolerance: float
) -> None:
    """27 us at 1 MB, 124 us at 16 MB, 422 GB/s at 256 MB: NVIDIA/dgxc-benchmarking, not in our curves."""
    time = collective_time(H100, Collective.ALL_REDUCE, GroupShape(8, 8, 1), num_bytes)

    assert time.time_ns / 1000 == pytest.approx(micros, rel=tolerance)
    assert time.algorithm is Algorithm.MEASURED


@pytest.mark.parametrize("name", sorted(curve_names()))
def test_every_measured_point_is_met(name: str) -> None:
    """Inside the data it is the data: 4 GB300, all-gather of 512 MiB, take 704.5 us."""
    curves = find_curves(name)
    assert curves is not None
    cluster = replace(GB300, gpu=replace(GB300.gpu, curves=name))
    for key, curve in curves.by_key.items():
        for num_bytes, time_ns in zip(*curve, strict=True):
            shape = GroupShape(key.num_ranks, key.num_ranks, 1)
            time = collective_time(cluster, Collective(key.op), shape, num_bytes)

            assert time.time_ns == pytest.approx(time_ns, abs=1.5)
            assert time.confidence is Confidence.MEASURED
            assert not time.extrapolated


def test_whole_rack_sums_in_its_switches_at_about_the_published_rate() -> None:
    """72 GB200: bus 681 GB/s at 1 GiB, 839 at 4 (coreweave/nccl-tests pull 43); a ring is far slower."""
    for num_bytes, bus in ((2**30, 681e9), (4 * 2**30, 839e9)):
        shape = GroupShape(72, 72, 1)
        time = collective_time(GB300, Collective.ALL_REDUCE, shape, num_bytes)
        ring = collective_time(GB300, Collective.ALL_REDUCE, shape, num_bytes, Algorithm.RING)

        assert time.algorithm is Algorithm.NVLS
        assert time.bus_bytes_per_s == pytest.approx(bus, rel=0.16)
        assert ring.time_ns > 1.2 * time.time_ns


def test_a_ring_over_twenty_racks_pays_for_its_steps() -> None:
    """1,440 GB200: 7.1 ms for 512 MiB, of which bytes are the smaller part (coreweave/nccl-tests pull 48)."""
    cluster = replace(load_cluster("gb200-nvl72"), num_gpus=1440)
    shape = GroupShape(1440, 72, 20, fabric_tier=2)
    time = collective_time(cluster, Collective.ALL_REDUCE, shape, 2**29)

    assert time.algorithm is Algorithm.RING
    assert time.time_ns == pytest.approx(7.108e6, rel=0.1)
    # Each of 2,878 steps takes 1.1 us and more, whatever it carries.
    assert time.latency_ns > 3e6


@given(
    st.sampled_from(list(Collective)),
    st.integers(1, 72),
    st.integers(1, 64),
    st.integers(1, 2**34),
    st.integers(1, 2**30),
)
def test_more_bytes_take_no_less_time_but_for_dips_of_the_measured_curves(
    op: Collective, per_domain: int, num_domains: int, num_bytes: int, more: int
) -> None:
    """On every algorithm and across the choices between them; the library itself dips by up to a quarter."""
    shape = GroupShape(per_domain * num_domains, per_domain, num_domains)

    less_time = collective_time(GB300, op, shape, num_bytes).time_ns
    more_time = collective_time(GB300, op, shape, num_bytes + more).time_ns

    # Measured curves dip where the library changes its algorithm.
    assert more_time >= 0.75 * less_time


def test_across_racks_the_interface_is_the_limit() -> None:
    """64 racks with one member each: 2 (d-1)/d of the bytes at 93 GB/s, and the latency of 126 steps."""
    num_bytes = 2**32
    time = collective_time(GB300, Collective.ALL_REDUCE, GroupShape(64, 1, 64), num_bytes, Algorithm.RING)

    wire_ns = 2 * num_bytes * 63 / 64 / 93e9 * 1e9
    assert time.scale_out_ns == ceil(wire_ns)
    assert 0 < time.time_ns - wire_ns < 126 * 15_000


def test_small_messages_take_the_tree_and_its_latency() -> None:
    """A kilobyte over 1,024 domains: 20 hops of 5 us and a launch, not 2,046 hops."""
    time = collective_time(GB300, Collective.ALL_REDUCE, GroupShape(1024, 1, 1024), 1024)

    assert time.algorithm is Algorithm.TREE
    assert 100_000 < time.time_ns < 115_000


def test_a_faster_network_shortens_what_crosses_it_only() -> None:
    """400G against 800G: the hop between racks doubles, the one inside stays."""
    slow = replace(GB300, scale_out=replace(GB300.scale_out, bytes_per_s=50 * 10**9))

    fast_hop, slow_hop = (hop_time(cluster, Tier.SCALE_OUT, 2**26) for cluster in (GB300, slow))

    assert slow_hop.wire_ns == pytest.approx(2 * fast_hop.wire_ns, rel=1e-6)
    assert slow_hop.lat_ns == fast_hop.lat_ns == 5000
    assert hop_time(slow, Tier.SCALE_UP, 2**26) == hop_time(GB300, Tier.SCALE_UP, 2**26)
    assert hop_time(GB300, Tier.SELF, 2**26).wire_ns == 0


def test_a_machine_without_curves_gets_latency_and_rate() -> None:
    """The CPU host: 2 us and 7 GB/s."""
    hop = hop_time(CPU, Tier.SCALE_UP, 7_000_000)

    assert (hop.wire_ns, hop.lat_ns) == (1_000_000, 2000)
    assert collective_time(CPU, Collective.ALL_REDUCE, GroupShape(2, 2, 1), 7_000_000).time_ns == 1_004_000


def test_one_member_moves_nothing_and_negative_sizes_are_refused() -> None:
    """Groups of one are free."""
    assert collective_time(GB300, Collective.ALL_REDUCE, GroupShape(1, 1, 1), 2**30).time_ns == 0
    with pytest.raises(InvalidInputError, match="negative size"):
        collective_time(GB300, Collective.ALL_REDUCE, GroupShape(2, 2, 1), -1)
    with pytest.raises(InvalidInputError, match="negative size"):
        hop_time(GB300, Tier.SCALE_OUT, -1)


def test_a_flat_ring_leaves_a_domain_with_all_but_its_own_share() -> None:
    """2 domains of 8: each of the eight rings carries 15/16 of its eighth through every link of its way."""
    num_bytes = 2**30
    slow = replace(H100, scale_out=replace(H100.scale_out, bytes_per_s=30 * 10**9))

    ring = collective_time(slow, Collective.ALL_GATHER, GroupShape(16, 8, 2), num_bytes)

    assert ring.algorithm is Algorithm.RING
    assert ring.scale_out_ns == ceil(num_bytes * 15 / 16 / 8 * 1e9 / slow.scale_out.achieved_bytes_per_s)
    assert ring.scale_out_ns < ring.time_ns < 1.08 * ring.scale_out_ns


def test_a_tree_sends_less_from_few_domains() -> None:
    """Interfaces send S/k over 2 domains, 1.5 S/k over 3, 2 S/k over more (NVIDIA/nccl issue 1801)."""
    share = {
        domains: collective_time(
            H100, Collective.ALL_REDUCE, GroupShape(8 * domains, 8, domains), 2**33, Algorithm.TREE
        ).scale_out_ns
        * H100.scale_out.achieved_bytes_per_s
        / (2**33 / 8 * 1e9)
        for domains in (2, 3, 4, 64)
    }

    assert share == pytest.approx({2: 1.0, 3: 1.5, 4: 2.0, 64: 2.0})


def test_a_tapered_tier_slows_what_climbs_to_it() -> None:
    """Three tiers, 1:4 below the third: a group that climbs there has a quarter of each interface."""
    tapered = replace(H100, fabric=replace(H100.fabric, oversubscription=(1.0, 4.0)))
    shape = GroupShape(512, 8, 64, fabric_tier=3)
    near = collective_time(tapered, Collective.ALL_GATHER, replace(shape, fabric_tier=2), 2**32)
    far = collective_time(tapered, Collective.ALL_GATHER, shape, 2**32)

    assert far.scale_out_ns == pytest.approx(4 * near.scale_out_ns, rel=1e-6)
    assert far.tier_ns["core"] == far.scale_out_ns
    assert far.tier_ns["leaf"] == pytest.approx(near.tier_ns["leaf"], rel=1e-6)
    assert explain_collective(tapered, Collective.ALL_GATHER, shape, 2**32)[0].bound == "tapered core"


def test_every_way_is_explained() -> None:
    """The chosen first, the library's others by time, and those that there are not with the reason."""
    shape = GroupShape(128, 8, 16, fabric_tier=2)
    ways = explain_collective(H100, Collective.ALL_REDUCE, shape, 2**27)
    time = collective_time(H100, Collective.ALL_REDUCE, shape, 2**27)

    assert ways[0].chosen
    assert (ways[0].algorithm, ways[0].time_ns) == (time.algorithm, time.time_ns)
    assert {way.algorithm for way in ways} >= {
        Algorithm.RING,
        Algorithm.TREE,
        Algorithm.NVLS_TREE,
        Algorithm.SHARP,
    }
    assert all(way.why for way in ways)
    ethernet = replace(
        H100,
        fabric=replace(
            H100.fabric, switches=tuple(replace(each, reduction="") for each in H100.fabric.switches)
        ),
    )
    sharp = {way.algorithm: way for way in explain_collective(ethernet, Collective.ALL_REDUCE, shape, 2**27)}
    assert sharp[Algorithm.SHARP].time_ns is None
    assert "sum nothing" in sharp[Algorithm.SHARP].why


def test_summing_switches_are_taken_when_asked_for_only() -> None:
    """SHARP halves what interfaces send; the library needs a plugin for it."""
    shape = GroupShape(128, 8, 16, fabric_tier=2)
    sharp = collective_time(H100, Collective.ALL_REDUCE, shape, 2**32, Algorithm.SHARP)
    tree = collective_time(H100, Collective.ALL_REDUCE, shape, 2**32, Algorithm.TREE)

    assert 2 * sharp.scale_out_ns == pytest.approx(tree.scale_out_ns, rel=1e-6)
    assert sharp.time_ns < collective_time(H100, Collective.ALL_REDUCE, shape, 2**32).time_ns
    with pytest.raises(InvalidInputError, match="all_reduce only"):
        collective_time(H100, Collective.ALL_GATHER, GroupShape(8, 8, 1), 2**20, Algorithm.NVLS)


def test_a_rail_saves_messages_and_never_bytes() -> None:
    """PXN: 31 messages instead of 248 through each interface; large buffers gain nothing else."""
    shape = GroupShape(256, 8, 32, fabric_tier=2)
    ways = [
        collective_time(H100, Collective.ALL_TO_ALL, shape, 2**22, way)
        for way in (Algorithm.RAIL_ALIGNED, Algorithm.DIRECT)
    ]

    assert ways[0].scale_out_ns == ways[1].scale_out_ns
    assert ways[1].time_ns - ways[0].time_ns > 100_000
    assert collective_time(H100, Collective.ALL_TO_ALL, shape, 2**22).algorithm is Algorithm.RAIL_ALIGNED


def test_a_type_without_curves_borrows_and_says_so() -> None:
    """8 H800: 215 GB/s (NVIDIA/nccl issue 1374), from H100's constants and a link of 200 GB/s."""
    h800 = load_cluster("h800-8")
    time = collective_time(h800, Collective.ALL_REDUCE, GroupShape(8, 8, 1), 2**33)

    assert time.bus_bytes_per_s == pytest.approx(215e9, rel=0.05)
    assert time.confidence is Confidence.BORROWED
    assert time.extrapolated


def test_a_broadcast_is_a_pipeline() -> None:
    """A large buffer takes little longer over 8 members than over 2; a small one takes each hop."""
    times = {
        (num, size): collective_time(H100, Collective.BROADCAST, GroupShape(num, num, 1), size).time_ns
        for num in (2, 8)
        for size in (1024, 2**33)
    }

    assert times[8, 2**33] < 1.3 * times[2, 2**33]
    assert times[8, 1024] - times[2, 1024] == pytest.approx(6 * 800, rel=0.3)


def test_point_to_point_is_the_hop() -> None:
    """Inside and across, a collective of messages takes what one message does."""
    for shape, tier in ((GroupShape(8, 8, 1), Tier.SCALE_UP), (GroupShape(16, 8, 2), Tier.SCALE_OUT)):
        hop = hop_time(H100, tier, 2**24)

        assert collective_time(H100, Collective.POINT_TO_POINT, shape, 2**24).time_ns == pytest.approx(
            hop.wire_ns + hop.lat_ns, abs=2
        )


@pytest.mark.parametrize("name", ["a100-8", "h100-8", "h200-8"])
@pytest.mark.parametrize("num_bytes", [2**16, 2**20, 2**24, 2**26])
def test_two_hosts_sum_no_faster_than_one(name: str, num_bytes: int) -> None:
    """A tensor-parallel group that leaves its host: chains of a tree have the rate of their protocol."""
    cluster = load_cluster(name)
    one, two = (
        collective_time(cluster, Collective.ALL_REDUCE, GroupShape(8 * hosts, 8, hosts), num_bytes).time_ns
        for hosts in (1, 2)
    )

    assert two > 0.95 * one


def test_a_long_chain_is_a_pipeline_of_many_pieces() -> None:
    """A broadcast of 16 GiB over 256 ranks takes little longer than over 16, and its interfaces are busy."""
    few, many = (
        collective_time(H100, Collective.BROADCAST, GroupShape(8 * hosts, 8, hosts), 2**34)
        for hosts in (2, 32)
    )

    assert few.time_ns < many.time_ns < 1.5 * few.time_ns
    assert many.scale_out_ns > 0.5 * many.time_ns


def test_from_the_last_measured_size_another_way_takes_over_without_a_step() -> None:
    """Eight H100: 2.39 ms for 512 MiB by a ring; NVLS would need 2.06, and needs as long for 594 MiB."""
    shape = GroupShape(8, 8, 1)
    end, soon, later = (
        collective_time(H100, Collective.ALL_REDUCE, shape, size * 2**20) for size in (512, 580, 640)
    )
    ways = explain_collective(H100, Collective.ALL_REDUCE, shape, 580 * 2**20)

    assert (end.algorithm, soon.algorithm) == (Algorithm.MEASURED, Algorithm.NVLS)
    assert soon.time_ns == end.time_ns < later.time_ns
    assert ways[0].time_ns == soon.time_ns
