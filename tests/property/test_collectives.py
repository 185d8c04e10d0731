"""Times of collectives anywhere: more bytes, further away or a tapered tier never help, no link is outrun."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.catalog import catalog_names
from exactmap.topology.collectives import Algorithm, Collective, collective_time, explain_collective
from exactmap.topology.collectives.constants import network_constants
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import GroupShape

CLUSTERS = sorted(catalog_names())
TIB = 2**40
MODELLED = (Collective.BROADCAST, Collective.POINT_TO_POINT)


@cache
def _cluster(name: str) -> Cluster:
    return load_cluster(name)


@st.composite
def groups(draw: st.DrawFn, min_domains: int = 1, max_domains: int = 3437) -> tuple[Cluster, GroupShape]:
    """A cluster of the catalog and a group on it: 2 to 220,000 members, 1 to 72 in each domain."""
    cluster = _cluster(draw(st.sampled_from(CLUSTERS)))
    per_domain = draw(st.integers(1, min(72, cluster.scale_up.domain_size)))
    least = max(min_domains, 1 if per_domain > 1 else 2)
    num_domains = draw(st.integers(least, min(max_domains, 220_000 // per_domain)))
    tier = draw(st.integers(1, 4)) if num_domains > 1 else 0
    return cluster, GroupShape(per_domain * num_domains, per_domain, num_domains, tier)


ops = st.sampled_from(list(Collective))
sizes = st.floats(0, 40).map(lambda doublings: int(2**doublings))


def _least_ns(cluster: Cluster, op: Collective, shape: GroupShape, num_bytes: int) -> float:
    """What the busiest link needs for the bytes that cannot stay where they are."""
    n, k, d = shape.num_members, shape.per_domain, shape.num_domains
    link = cluster.scale_up.bytes_per_s / 1e9
    sums = cluster.scale_up.reduction
    passes = 2 if op is Collective.ALL_REDUCE else 1
    if d == 1:
        if op in MODELLED or (op is Collective.ALL_REDUCE and sums):
            return num_bytes / link
        return passes * num_bytes * (n - 1) / n / link
    out = cluster.scale_out_bytes_per_s(shape.fabric_tier) / 1e9
    if op is Collective.ALL_TO_ALL:
        return num_bytes * (n - k) / n / out
    if op is Collective.POINT_TO_POINT:
        return num_bytes / out
    if op is Collective.BROADCAST:
        return num_bytes / k / out
    # Each domain sends what it has for the others, over all of its interfaces.
    return passes * num_bytes * (d - 1) / d / k / out


@given(groups(), ops, sizes)
def test_no_link_is_outrun(at: tuple[Cluster, GroupShape], op: Collective, num_bytes: int) -> None:
    """By any way that the library has, and what is busy is busy no longer than the whole."""
    cluster, shape = at
    time = collective_time(cluster, op, shape, num_bytes)

    assert time.time_ns >= 0.999 * _least_ns(cluster, op, shape, num_bytes)
    assert 0 <= time.latency_ns <= time.time_ns
    assert time.scale_up_ns <= time.time_ns
    assert time.scale_out_ns <= time.time_ns
    if shape.num_domains > 1:
        # The quickest hop there is: a ring's in the LL protocol.
        hop_ns = network_constants().ring_ll * cluster.scale_out_latency_ns(shape.fabric_tier)
        assert time.time_ns >= hop_ns


@given(groups(min_domains=2), st.sampled_from(MODELLED), sizes, sizes)
def test_what_is_modelled_alone_takes_more_time_for_more_bytes(
    at: tuple[Cluster, GroupShape], op: Collective, one: int, other: int
) -> None:
    """No measured curve is in it, so there is no dip to inherit."""
    cluster, shape = at
    less, more = sorted((one, other))

    assert (
        collective_time(cluster, op, shape, less).time_ns <= collective_time(cluster, op, shape, more).time_ns
    )


@given(groups(), ops, st.floats(29, 42), st.floats(0, 2))
def test_beyond_the_measured_sizes_more_bytes_take_more_time(
    at: tuple[Cluster, GroupShape], op: Collective, doublings: float, more: float
) -> None:
    """From 512 MiB, the largest that was measured, on and over the border; whatever way is taken."""
    cluster, shape = at
    one, other = int(2**doublings), int(2 ** (doublings + more))
    before, after = (collective_time(cluster, op, shape, size).time_ns for size in (one, other))

    assert after >= before


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_border_of_the_measured_sizes_is_no_step(name: str) -> None:
    """One byte more than 512 MiB takes what 512 MiB take, though another way takes over from there."""
    cluster = _cluster(name)
    for op in Collective:
        for ranks in (2, 4, 8):
            if ranks > cluster.scale_up.domain_size:
                continue
            shape = GroupShape(ranks, ranks, 1)
            end = collective_time(cluster, op, shape, 2**29).time_ns
            beyond = collective_time(cluster, op, shape, 2**29 + 1).time_ns

            assert 0 <= beyond - end <= 1e-6 * end + 2


@given(groups(min_domains=2), ops, sizes, st.integers(1, 3))
def test_further_away_or_over_a_taper_is_no_faster(
    at: tuple[Cluster, GroupShape], op: Collective, num_bytes: int, higher: int
) -> None:
    """A tier more has hops and perhaps less rate; all else is the same."""
    cluster, shape = at
    far = replace(shape, fabric_tier=shape.fabric_tier + higher)
    tapered = replace(cluster, fabric=replace(cluster.fabric, oversubscription=(1.0, 2.0, 7.0)))

    near_ns = collective_time(cluster, op, shape, num_bytes).time_ns
    assert near_ns <= collective_time(cluster, op, far, num_bytes).time_ns
    assert near_ns <= collective_time(tapered, op, shape, num_bytes).time_ns


@given(groups(), ops, sizes)
def test_every_way_has_a_sane_time(at: tuple[Cluster, GroupShape], op: Collective, num_bytes: int) -> None:
    """Also those that are not taken; the one that is taken is the first, with the time that is told."""
    cluster, shape = at
    ways = explain_collective(cluster, op, shape, num_bytes)
    time = collective_time(cluster, op, shape, num_bytes)

    assert ways[0].chosen
    assert ways[0].time_ns == time.time_ns > 0
    assert sum(way.chosen for way in ways) == 1
    for way in ways:
        assert (way.time_ns is None) == (way.bound == "")
        assert way.time_ns is None or way.time_ns > 0
        assert way.why or way.chosen


@given(groups(), ops)
def test_nothing_takes_the_time_of_a_launch(at: tuple[Cluster, GroupShape], op: Collective) -> None:
    """No bytes: latency alone, no rate; and a byte takes no less."""
    cluster, shape = at
    nothing = collective_time(cluster, op, shape, 0)

    assert nothing.bus_bytes_per_s == 0
    assert 0 < nothing.time_ns <= collective_time(cluster, op, shape, 1).time_ns
    assert nothing.algorithm is not Algorithm.NONE


@pytest.mark.parametrize("name", CLUSTERS)
def test_an_all_to_all_of_many_leaves_each_gpu_over_one_link(name: str) -> None:
    """Also over more ranks than were measured, and on a machine of which nothing was."""
    cluster = _cluster(name)
    wide = replace(cluster, scale_up=replace(cluster.scale_up, domain_size=576), used_per_domain=576)
    for ranks in (2, 8, 72, 576):
        time = collective_time(wide, Collective.ALL_TO_ALL, GroupShape(ranks, ranks, 1), TIB)

        assert time.time_ns >= TIB * (ranks - 1) / ranks / (cluster.scale_up.bytes_per_s / 1e9)
