"""Errors, ranking, coverage: each number against its definition, worked out by hand or the long way round."""

from __future__ import annotations

from itertools import combinations
from math import exp, log, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.published.statistics import Case, error_statistics, ranking

_sizes = st.floats(0.01, 100.0)
_cases = st.lists(st.tuples(_sizes, _sizes), min_size=1, max_size=40)


def _case(measured: float, predicted: float, name: str = "", low: float = 0.9, high: float = 1.1) -> Case:
    return Case(name, measured, predicted, predicted * low, predicted * high)


def _of(ratios: list[float]) -> list[Case]:
    """Cases of one measured second, predicted by so much."""
    return [_case(1.0, ratio, f"r{number}") for number, ratio in enumerate(ratios)]


def test_ten_errors_of_one_to_ten_percent() -> None:
    found = error_statistics(_of([1.01, 0.98, 1.03, 0.96, 1.05, 0.94, 1.07, 0.92, 1.09, 0.90]))

    assert found.n == 10
    assert found.mape == pytest.approx(0.055)
    assert found.median == pytest.approx(0.055)
    # Nine of ten do not exceed it.
    assert found.p90 == pytest.approx(0.09)
    assert (found.worst, found.worst_id) == (pytest.approx(0.10), "r9")
    # Middle of the signed errors: -2 and +1 %.
    assert found.bias == pytest.approx(-0.005)


@given(_cases)
def test_the_ninetieth_percentile_is_the_smallest_that_nine_in_ten_do_not_exceed(
    pairs: list[tuple[float, float]],
) -> None:
    cases = [_case(*pair) for pair in pairs]
    found = error_statistics(cases).p90
    sizes = [abs(case.error) for case in cases]

    assert sum(size <= found for size in sizes) >= 0.9 * len(sizes)
    assert all(sum(other <= size for other in sizes) < 0.9 * len(sizes) for size in sizes if size < found)


@given(_cases)
def test_errors_are_in_order_and_the_worst_has_a_name(pairs: list[tuple[float, float]]) -> None:
    cases = [_case(*pair, name=str(number)) for number, pair in enumerate(pairs)]
    found = error_statistics(cases)

    assert found.median <= found.p90 <= found.worst
    assert found.mape <= found.worst * (1 + 1e-12)
    assert abs(cases[int(found.worst_id)].error) == found.worst


def test_a_factor_on_everything_moves_the_bias_and_not_what_is_explained_of_differences() -> None:
    """R2 is of logarithms about the measured mean: exact predictions have 1, the mean itself has 0."""
    measured = [1.0, 2.0, 4.0, 8.0]
    middle = exp(sum(map(log, measured)) / 4)

    assert error_statistics([_case(each, each) for each in measured]).r2 == pytest.approx(1.0)
    assert error_statistics([_case(each, middle) for each in measured]).r2 == pytest.approx(0.0)
    # log 1.1 squared over the variance of log 2^k, which is 1.25 log2 squared.
    off = error_statistics([_case(each, 1.1 * each) for each in measured])
    assert off.r2 == pytest.approx(1.0 - log(1.1) ** 2 / (1.25 * log(2.0) ** 2))
    assert off.bias == pytest.approx(0.1)


def test_equal_measurements_explain_nothing() -> None:
    assert error_statistics(_of([1.0, 1.0])).r2 == 0.0


def test_coverage_counts_the_ends_and_width_is_a_median() -> None:
    cases = [
        Case("at the low end", 1.0, 1.1, 1.0, 1.2),
        Case("at the high end", 1.0, 0.9, 0.8, 1.0),
        Case("outside", 1.0, 2.0, 1.5, 3.0),
        Case("inside", 1.0, 1.0, 0.5, 2.0),
    ]
    found = error_statistics(cases)

    assert found.coverage == 0.75
    assert found.width == pytest.approx((1.25 + 2.0) / 2)


def test_regret_is_what_the_pick_loses_against_the_best() -> None:
    picked_third = [_case(1.0, 3.0), _case(1.2, 2.0), _case(1.5, 1.0)]
    picked_best = [_case(2.0, 1.0), _case(3.0, 2.0), _case(4.0, 3.0)]
    found = ranking([picked_third, picked_best, picked_third[:2]])

    assert found.groups == 2
    assert found.worst_regret == pytest.approx(0.5)
    assert found.mean_regret == pytest.approx(0.25)
    assert found.tau == pytest.approx((-1.0 + 1.0) / 2)


def test_picks_that_are_predicted_alike_cost_their_mean() -> None:
    found = ranking([[_case(1.0, 1.0), _case(1.4, 1.0), _case(2.0, 2.0)]])

    assert found.mean_regret == pytest.approx(0.2)


def test_ties_shorten_what_tau_is_measured_against() -> None:
    # One pair predicted alike, two that agree: 2 over the root of 2 x 3 untied pairs.
    found = ranking([[_case(1.0, 1.0), _case(2.0, 1.0), _case(3.0, 2.0)]])

    assert found.tau == pytest.approx(2.0 / sqrt(6.0))


def test_a_predictor_that_ties_all_ranks_nothing() -> None:
    assert ranking([[_case(each, 1.0) for each in (1.0, 2.0, 3.0)]]).tau == 0.0


def test_groups_too_small_are_left_out() -> None:
    assert ranking([[_case(1.0, 1.0), _case(2.0, 1.0)], []]).groups == 0


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=3, max_size=12))
def test_tau_is_kendalls_tau_b(pairs: list[tuple[int, int]]) -> None:
    """Against the definition: concordant less discordant over both geometric counts of untied pairs."""
    concordant = discordant = untied_x = untied_y = 0
    for (x1, y1), (x2, y2) in combinations(pairs, 2):
        concordant += (x1 < x2 and y1 < y2) or (x1 > x2 and y1 > y2)
        discordant += (x1 < x2 and y1 > y2) or (x1 > x2 and y1 < y2)
        untied_x += x1 != x2
        untied_y += y1 != y2
    want = (concordant - discordant) / sqrt(untied_x * untied_y) if untied_x and untied_y else 0.0
    found = ranking([[_case(float(x), float(y)) for x, y in pairs]])

    assert found.tau == pytest.approx(want)
    assert -1.0 <= found.tau <= 1.0
    assert found.mean_regret >= 0.0
