"""Arithmetic and array say the same of maps that fill racks in order; and both what counting says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from map_cases import fitting_meshes

from exactmap.topology.exact_map.place import exact_map_of, fabric_of
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, Mesh, Tier

AXES = st.sets(st.sampled_from(list(Axis)), min_size=1)


@given(fitting_meshes(), AXES, st.data())
@settings(max_examples=150, deadline=None)
def test_arithmetic_is_the_array(laid: tuple[Mesh, Cluster], axes: set[Axis], data: st.DataObject) -> None:
    """GPUs, group shapes with their tiers, pairs, neighbours: all that costs ask for."""
    mesh, cluster = laid
    placement, exact = cluster.place(mesh), exact_map_of(cluster, mesh)
    axis = data.draw(st.sampled_from(list(Axis)))
    place = st.integers(0, mesh.size(axis) - 1)
    source, target = data.draw(place), data.draw(place)

    assert [placement.gpu(rank) for rank in range(mesh.num_ranks)] == exact.gpu.tolist()
    assert placement.budget == exact.budget
    assert placement.crosses_domains(axes) == exact.crosses_domains(axes)
    assert placement.group_shape(axes) == exact.group_shape(axes)
    assert placement.hop_tier(axis) == exact.hop_tier(axis)
    assert placement.hop_fabric_tier(axis) == exact.hop_fabric_tier(axis)
    assert placement.pair_tier(axis, source, target) == exact.pair_tier(axis, source, target)
    assert placement.pair_fabric_tier(axis, source, target) == exact.pair_fabric_tier(axis, source, target)


@given(fitting_meshes(most=256), AXES)
@settings(max_examples=60, deadline=None)
def test_shapes_are_what_counting_says(laid: tuple[Mesh, Cluster], axes: set[Axis]) -> None:
    """Pieces, racks, tiers and the number of groups, group by group without arrays."""
    mesh, cluster = laid
    exact = exact_map_of(cluster, mesh)
    built = fabric_of(cluster)
    domain = cluster.scale_up.domain_size
    expected: Counter[tuple[int, ...]] = Counter()
    for group in mesh.groups(axes):
        pieces: dict[int, list[int]] = {}
        for rank in group:
            gpu = int(exact.gpu[rank])
            pieces.setdefault(gpu // domain, []).append(gpu)
        tier = 0
        if len(pieces) > 1:
            ring = [*pieces.values(), next(iter(pieces.values()))]
            hops = [
                (gpu, after[min(place, len(after) - 1)])
                for here, after in pairwise(ring)
                for place, gpu in enumerate(here)
            ]
            first, second = np.array(hops).T
            assert built is not None
            tier = int(built().tier_between(first, second).max())
        sizes = [len(piece) for piece in pieces.values()]
        expected[len(group), len(pieces), min(sizes), max(sizes), tier] += 1

    found = {
        (each.num_members, each.num_racks, each.fewest, each.most, each.fabric_tier): each.num_groups
        for each in exact.count_shapes(axes)
    }
    assert found == dict(expected)


@given(fitting_meshes(most=256), st.sampled_from(list(Axis)))
@settings(max_examples=60, deadline=None)
def test_a_message_climbs_as_high_as_its_furthest_replica(laid: tuple[Mesh, Cluster], axis: Axis) -> None:
    """Tier and fabric tier of neighbours on an axis, pair by pair."""
    mesh, cluster = laid
    placement = cluster.place(mesh)
    built = fabric_of(cluster)
    assert built is not None
    domain = cluster.scale_up.domain_size
    tiers = [1]
    crossing = False
    for group in mesh.groups([axis]):
        for rank, after in pairwise(group):
            ends = placement.gpus(np.array([rank, after]))
            if ends[0] // domain != ends[1] // domain:
                crossing = True
                tiers.append(int(built().tier_between(ends[:1], ends[1:])[0]))

    assert placement.hop_fabric_tier(axis) == max(tiers)
    assert (placement.hop_tier(axis) is Tier.SCALE_OUT) == crossing
