"""Comparisons: differences of times, shares and bytes."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from exactmap.sim.report.comparison import Row, compare_results
from exactmap.sim.report.quantity import show_bytes, show_count, show_share, show_time
from exactmap.sim.report.result import RankResult, StepResult

A = StepResult(
    kind="prediction",
    source="replay",
    plan_sha256="ab" * 32,
    plan_path="a.plan",
    step_time_ns=1000,
    period_ns=900,
    bubble=0.25,
    steady_bubble=0.125,
    tokens_per_step=1,
    num_gpus=2,
    ranks=(
        RankResult(0, 0, 1000, {"F": 300, "B": 500}, {"WR": 100}, 1000),
        RankResult(1, 0, 950, {"F": 310, "B": 490}, {}, 2000),
    ),
    basis="test",
)
B = replace(
    A,
    kind="execution",
    source="run",
    step_time_ns=1100,
    bubble=0.35,
    ranks=(
        RankResult(0, 0, 1100, {"F": 600, "B": 500}, {"WC": 7}, 1000),
        RankResult(1, 0, 950, {"F": 620, "B": 490}, {}, 2500),
    ),
)


def test_differences() -> None:
    """Times relative, shares in points, bytes relative; what only one side has is named as new or gone."""
    both = compare_results(A, B)
    rows = {row.name: row for row in both.rows}

    assert both.step_time_difference == pytest.approx(0.1)
    assert rows["step time"].difference == pytest.approx(0.1)
    assert rows["bubble"].difference == pytest.approx(0.1)
    assert rows["in F, all ranks"].difference == pytest.approx(1.0)
    assert rows["in B, all ranks"].difference == 0.0
    assert rows["waiting in WR, all ranks"].difference == -1.0
    assert rows["waiting in WC, all ranks"].difference is None
    assert rows["arena of rank 0"].difference == 0.0
    assert rows["arena of rank 1"].difference == pytest.approx(0.25)


def test_shown() -> None:
    assert Row("step time", 1000, 1100, "ns").shown() == ("step time", "1.00 us", "1.10 us", "+10.0 %")
    assert Row("bubble", 0.25, 0.2, "share").shown() == ("bubble", "25.0 %", "20.0 %", "-5.0 points")
    assert Row("x", 0, 5, "ns").shown()[-1] == "new"
    assert Row("x", 0, 0, "ns").shown()[-1] == "+0.0 %"


def test_long_kinds_of_work_come_first() -> None:
    names = [row.name for row in compare_results(A, B).rows if row.name.startswith("in ")]

    assert names == ["in F, all ranks", "in B, all ranks"]


def test_same_plan() -> None:
    assert compare_results(A, B).same_plan
    assert not compare_results(A, replace(B, plan_sha256="cd" * 32)).same_plan


def test_a_step_of_no_time() -> None:
    """Any time is infinitely longer than none; the document says null, since JSON has no infinity."""
    both = compare_results(replace(A, step_time_ns=0), B)

    assert both.step_time_difference == inf
    assert both.to_dict()["step_time_difference"] is None


def test_ranks_that_both_have() -> None:
    names = [row.name for row in compare_results(A, replace(B, ranks=B.ranks[:1])).rows]

    assert "arena of rank 0" in names
    assert "arena of rank 1" not in names


def test_replicas_are_named() -> None:
    both = tuple(replace(rank, dp=dp) for dp in range(2) for rank in A.ranks)
    names = [row.name for row in compare_results(replace(A, ranks=both), replace(B, ranks=both)).rows]

    assert "arena of rank 1 dp 1" in names


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (show_time(0), "0 ns"),
        (show_time(999), "999 ns"),
        (show_time(1000), "1.00 us"),
        (show_time(-1500), "-1.50 us"),
        (show_time(99_950_000), "100 ms"),
        (show_time(12_345_000_000_000), "12,345 s"),
        (show_bytes(1023), "1023 B"),
        (show_bytes(1024), "1.00 KiB"),
        (show_bytes(10 * 2**30), "10.0 GiB"),
        (show_count(999), "999"),
        (show_count(10_500_000_000_000), "10.5T"),
        (show_share(1.0), "100.0 %"),
    ],
)
def test_quantities(shown: str, text: str) -> None:
    assert shown == text
