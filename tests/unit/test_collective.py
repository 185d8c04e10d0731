"""Times of communication: measured points are met, and the algorithm fits the size."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.collectives import Algorithm, Collective, collective_time, hop_time
from exactmap.topology.curves import measured_time_ns
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


def test_measured_points_are_met_exactly() -> None:
    """4 GB300, all-gather of 512 MiB: 704.5 us."""
    assert measured_time_ns("GB300", "all_gather", 4, 2**29) == pytest.approx(704_500)


def test_whole_rack_all_reduce_has_the_published_order_of_size() -> None:
    """72 GB200: bus 586 GB/s at 512 MB, 839 at 4 GB (coreweave/nccl-tests issue 43), within 35 %."""
    for num_bytes, bus in ((512 * 2**20, 586e9), (4 * 2**30, 839e9)):
        time = collective_time(GB300, Collective.ALL_REDUCE, GroupShape(72, 72, 1), num_bytes).time_ns
        assert 2 * num_bytes * 71 / 72 / (time * 1e-9) == pytest.approx(bus, rel=0.35)


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
    """64 racks with one member each: 2 (d-1)/d of the bytes at 93 GB/s, and the latency of a tree."""
    num_bytes = 2**32
    time = collective_time(GB300, Collective.ALL_REDUCE, GroupShape(64, 1, 64), num_bytes)

    wire_ns = 2 * num_bytes * 63 / 64 / 93e9 * 1e9
    assert time.time_ns == pytest.approx(wire_ns, rel=0.01)
    assert time.time_ns > wire_ns


def test_small_messages_take_the_tree_and_its_latency() -> None:
    """A kilobyte over 1,024 domains: 20 hops of 5 us, not 2,046."""
    time = collective_time(GB300, Collective.ALL_REDUCE, GroupShape(1024, 1, 1024), 1024)

    assert time.algorithm is Algorithm.HIERARCHICAL_TREE
    assert time.time_ns == pytest.approx(100_000, rel=0.01)


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
    inside_ns = collective_time(slow, Collective.ALL_GATHER, GroupShape(8, 8, 1), num_bytes).time_ns

    ring = collective_time(slow, Collective.ALL_GATHER, GroupShape(16, 8, 2), num_bytes)

    assert ring.algorithm is Algorithm.RING
    assert ring.scale_out_ns == ceil(num_bytes * 15 / 16 / 8 * 1e9 / slow.scale_out.achieved_bytes_per_s)
    assert ring.scale_up_ns == pytest.approx(inside_ns * 15 / 14, rel=0.02)
    assert ring.scale_out_ns < ring.time_ns < 1.02 * ring.scale_out_ns
