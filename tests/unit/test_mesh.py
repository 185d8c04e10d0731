"""Parallel axes on ranks, ranks on GPUs: exact both ways, and domains crossed only where they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.topology.mapping import Axis, GroupShape, Mesh, Placement, Tier

SIZES = st.sampled_from([1, 1, 2, 3, 4])
MESHES = st.builds(
    lambda sizes, order: Mesh(*sizes, order=tuple(order)),
    st.tuples(SIZES, SIZES, SIZES, SIZES, SIZES),
    st.permutations(list(Axis)),
)
AXES = st.sets(st.sampled_from(list(Axis)))


@given(MESHES)
def test_ranks_and_coordinates_are_one_to_one(mesh: Mesh) -> None:
    """Every rank has its own coordinates, and they lead back to it."""
    seen = {mesh.coords(rank) for rank in range(mesh.num_ranks)}

    assert len(seen) == mesh.num_ranks
    assert [mesh.rank(mesh.coords(rank)) for rank in range(mesh.num_ranks)] == list(range(mesh.num_ranks))


@given(MESHES, AXES)
def test_groups_partition_the_ranks(mesh: Mesh, axes: set[Axis]) -> None:
    """Each rank is in one group, with exactly those that differ on the group's axes alone."""
    groups = list(mesh.groups(axes))

    assert sorted(rank for group in groups for rank in group) == list(range(mesh.num_ranks))
    assert len(groups) == mesh.num_groups(axes)
    for group in groups:
        assert all(mesh.group(rank, axes) == group for rank in group)
        fixed = {tuple(mesh.coords(rank).on(axis) for axis in set(Axis) - axes) for rank in group}
        assert len(fixed) == 1


@given(MESHES, AXES, st.integers(1, 12))
def test_crossing_is_what_counting_the_domains_says(mesh: Mesh, axes: set[Axis], used: int) -> None:
    """The closed rule and a look at every group agree."""
    placement = Placement(mesh, num_gpus=12 * 1024, domain_size=12, used_per_domain=used)

    crosses = any(len({placement.domain(rank) for rank in group}) > 1 for group in mesh.groups(axes))

    assert placement.crosses_domains(axes) == crosses
    if crosses:
        pieces = [Counter(placement.domain(rank) for rank in group) for group in mesh.groups(axes)]
        expected = min(min(piece.values()) for piece in pieces if len(piece) > 1)
        shape = placement.group_shape(axes)
        assert shape.per_domain == expected
        assert shape.per_domain * (shape.num_domains - 1) < shape.num_members
        assert shape.num_domains > 1


@given(MESHES, st.sampled_from(list(Axis)), st.integers(1, 12), st.data())
def test_a_pair_is_as_far_apart_as_its_furthest_replica(
    mesh: Mesh, axis: Axis, used: int, data: st.DataObject
) -> None:
    """The tier of a channel between two places of an axis, over all ranks."""
    place = st.integers(0, mesh.size(axis) - 1)
    source, target = data.draw(place), data.draw(place)
    placement = Placement(mesh, num_gpus=12 * 1024, domain_size=12, used_per_domain=used)

    crosses = any(
        placement.domain(group[source]) != placement.domain(group[target]) for group in mesh.groups([axis])
    )

    expected = Tier.SELF if source == target else Tier.SCALE_OUT if crosses else Tier.SCALE_UP
    assert placement.pair_tier(axis, source, target) is expected


def test_sub_rack_groups_leave_spares_in_every_rack() -> None:
    """64 of 72: tensor-parallel groups of 64 stay in a rack, and GPUs are installed, used or spare."""
    mesh = Mesh(tp=64, pp=48, dp=63)
    placement = Placement(mesh, num_gpus=220_000, domain_size=72, used_per_domain=64)

    assert placement.group_shape([Axis.TP]) == GroupShape(64, 64, 1)
    assert placement.group_shape([Axis.DP]) == GroupShape(63, 1, 63)
    assert placement.budget.used == 193_536
    assert placement.budget.spare == 220_000 - 193_536
    assert [placement.gpu(rank) for rank in (0, 63, 64)] == [0, 63, 72]
    assert placement.rank_of_gpu(72) == 64
    assert placement.rank_of_gpu(71) is None


def test_whole_racks_would_cut_the_same_groups() -> None:
    """With all 72 GPUs in use groups of 64 lie in two racks; the worst has 8 members in one of them."""
    placement = Placement(Mesh(tp=64, pp=9), num_gpus=720, domain_size=72, used_per_domain=72)

    assert placement.group_shape([Axis.TP]) == GroupShape(64, 8, 8)
    assert placement.hop_tier(Axis.TP) is Tier.SCALE_OUT


def test_peers_stop_at_the_ends() -> None:
    """The pipeline has a first and a last stage."""
    mesh = Mesh(tp=2, pp=3)

    assert [mesh.peer(rank, Axis.PP, 1) for rank in range(6)] == [2, 3, 4, 5, None, None]


def test_impossible_meshes_and_places_are_refused() -> None:
    """Sizes, orders, ranks, and a mesh larger than its cluster."""
    with pytest.raises(InvalidInputError, match="an axis must have a size"):
        Mesh(tp=0)
    with pytest.raises(InvalidInputError, match="the order must name each axis once"):
        Mesh(order=(Axis.TP, Axis.TP, Axis.EP, Axis.DP, Axis.PP))
    with pytest.raises(InvalidInputError, match="no such rank"):
        Mesh(tp=2).coords(2)
    with pytest.raises(InfeasibleError, match="the mesh is larger than the cluster"):
        Placement(Mesh(tp=9), num_gpus=9, domain_size=8, used_per_domain=4)
