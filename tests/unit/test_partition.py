"""Cutting layers, embedding and head into stages: no rank does more than it must; what counts is the step."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.schedules.cuts import PartCosts, choose_cut
from exactmap.sim.schedules.order import loop_placement, vee_placement
from exactmap.sim.schedules.partition import balance_layers, balance_stages, rank_loads

HEAVY_HEAD = PartCosts(
    {"F": 10_000, "I": 10_000, "W": 10_000}, {"W": 4_000}, {"F": 45_000, "I": 45_000, "W": 45_000}
)


def busiest(
    counts: tuple[int, ...], placement: tuple[tuple[int, ...], ...], embedding: float, head: float
) -> float:
    loads = rank_loads(counts, placement, [1.0] * sum(counts), embedding_cost=embedding, head_cost=head)
    return max(loads.values())


@pytest.mark.parametrize("placement", [loop_placement(2, 2), vee_placement(2), ((0, 1), (0, 1))])
@pytest.mark.parametrize(("embedding", "head"), [(0.0, 0.0), (0.5, 3.0), (1.0, 0.25), (0.0, 5.0)])
def test_no_cut_of_equal_layers_has_a_lighter_busiest_rank(
    placement: tuple[tuple[int, ...], ...], embedding: float, head: float
) -> None:
    num_stages = len(placement)
    extra = [embedding, *([0.0] * (num_stages - 2)), head]
    for num_layers in range(4, 11):
        got = balance_layers(num_layers, num_stages, embedding, head, placement=placement)
        allowed = [
            counts
            for counts in product(range(num_layers + 1), repeat=num_stages)
            if sum(counts) == num_layers and all(c or e for c, e in zip(counts, extra, strict=True))
        ]
        best = min(busiest(counts, placement, embedding, head) for counts in allowed)

        assert sum(got) == num_layers
        assert busiest(got, placement, embedding, head) == pytest.approx(best)


@given(
    costs=st.lists(st.integers(1, 9), min_size=3, max_size=9),
    num_stages=st.integers(1, 3),
    head=st.integers(0, 12),
)
def test_one_stage_per_rank_is_cut_as_well_as_can_be_whatever_the_layers_cost(
    costs: list[int], num_stages: int, head: int
) -> None:
    placement = loop_placement(num_stages, 1)

    got = balance_stages(costs, placement, head_cost=head)

    best = min(
        max(rank_loads(counts, placement, costs, head_cost=head).values())
        for cuts in combinations(range(len(costs) + num_stages - 1), num_stages - 1)
        for counts in [_counts(cuts, len(costs), num_stages)]
        if all(counts[:-1]) and (counts[-1] or head)
    )
    assert sum(got) == len(costs)
    assert max(rank_loads(got, placement, costs, head_cost=head).values()) == pytest.approx(best)


def _counts(cuts: tuple[int, ...], num_layers: int, num_stages: int) -> tuple[int, ...]:
    """Counts of layers from places of bars among stars."""
    ends = [-1, *cuts, num_layers + num_stages - 1]
    return tuple(b - a - 1 for a, b in pairwise(ends))


@given(st.lists(st.floats(0.5, 8), min_size=8, max_size=24), st.floats(0, 12))
def test_moves_of_layers_never_make_a_cut_worse(costs: list[float], head: float) -> None:
    placement = vee_placement(4)
    mean = sum(costs) / len(costs)
    start = balance_layers(len(costs), 8, 0.0, head / mean, placement=placement)

    got = balance_stages(costs, placement, head_cost=head)

    loads = [max(rank_loads(cut, placement, costs, head_cost=head).values()) for cut in (start, got)]
    assert loads[1] <= loads[0] * (1 + 1e-12)


def test_a_rank_with_the_head_gets_fewer_layers_in_its_other_chunk() -> None:
    """27 layers and a head of five over four ranks: 8 each, if ranks are looked at and not stages."""
    by_rank = balance_layers(27, 8, head_layers=5.0, placement=loop_placement(4, 2))
    by_stage = balance_layers(27, 8, head_layers=5.0)

    assert busiest(by_rank, loop_placement(4, 2), 0, 5) == 8
    assert busiest(by_stage, loop_placement(4, 2), 0, 5) == 9
    assert by_rank[3] + by_rank[7] == 3


def test_embedding_and_head_can_be_had_alone() -> None:
    assert balance_layers(6, 4, 0.1, 2.0, embedding_alone=True, head_alone=True) == (0, 3, 3, 0)
    with pytest.raises(InvalidInputError, match="a stage would have no layer"):
        balance_layers(6, 2, 0.1, 2.0, embedding_alone=True, head_alone=True)


def test_costs_and_placements_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="costs of layers must be above 0"):
        balance_stages([1, 0, 1], loop_placement(2, 1))
    with pytest.raises(InvalidInputError, match="the placement does not say where each stage lies: got 2"):
        balance_layers(8, 4, placement=loop_placement(2, 1))


def test_the_best_cut_is_the_fastest_step_not_the_most_even_one() -> None:
    cuts = choose_cut(
        27,
        HEAVY_HEAD,
        num_ranks=4,
        num_microbatches=16,
        schedules=[("1f1b", 1), ("interleaved-1f1b", 2), ("zb-h1", 1)],
        hop_ns=500,
    )

    assert [cut.makespan_ns for cut in cuts] == sorted(cut.makespan_ns for cut in cuts)
    assert {cut.schedule for cut in cuts} == {"1f1b", "interleaved-1f1b", "zb-h1"}
    assert {cut.head_alone for cut in cuts} == {False, True}
    assert all(sum(cut.layers) == 27 and min(cut.layers[1:-1]) > 0 for cut in cuts)
    one = next(cut for cut in cuts if cut.schedule == "1f1b" and not cut.head_alone)
    assert one.busiest_ns == 8 * 30_000 + 4_000


def test_cuts_that_cannot_be_say_why() -> None:
    with pytest.raises(InvalidInputError, match="no schedule can be cut so: got 3 layers, p=4"):
        choose_cut(3, HEAVY_HEAD, num_ranks=4, num_microbatches=4, schedules=[("interleaved-1f1b", 2)])
