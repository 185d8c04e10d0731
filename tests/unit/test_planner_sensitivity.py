"""On another machine: what the winner takes there, and when something else would have won."""

from __future__ import annotations

from pathlib import Path

import pytest

import exactmap

SCENARIO = Path(__file__).parents[2] / "scenarios" / "h100-1024.yaml"


def test_a_winner_that_needs_the_network_is_found_out() -> None:
    """Half the rate makes every layout slower, twice the rate none; the best there is never behind."""
    outcome = exactmap.plan(SCENARIO, ["parallel.schedule=[1f1b, interleaved-1f1b]"], sensitive=True)
    by_change = {shift.change.split(",")[0]: shift for shift in outcome.shifts}
    half, twice = (by_change[f"network between domains at {word} the rate"] for word in ("half", "twice"))

    assert len(by_change) == 5
    assert by_change["as it is"].longer == 0
    assert half.longer > 0 > twice.longer
    assert all(0 <= shift.faster < 1 for shift in outcome.shifts)
    assert outcome.to_dict()["sensitivity"][0]["best"] == by_change["as it is"].best.label  # type: ignore[index]


def test_the_best_on_half_the_network_is_what_a_search_there_finds() -> None:
    there = exactmap.plan(SCENARIO, ["cluster.scale_out.bandwidth=50 Gb/s"], sensitive=True, num_finalists=1)
    half = there.shifts[1]
    again = exactmap.plan(SCENARIO, ["cluster.scale_out.bandwidth=25 Gb/s"], num_finalists=1)
    assert half.best == min(again.ranking.survey.kept)[1]


def test_a_measured_host_and_a_walked_schedule_have_no_other_machine() -> None:
    outcome = exactmap.plan(
        SCENARIO,
        ["parallel.schedule=zb-h2", "parallel.tp=8", "parallel.pp=8"],
        sensitive=True,
        num_finalists=1,
    )

    assert outcome.shifts == ()


def test_time_is_short_for_walked_schedules_too() -> None:
    """Schedules without a closed form are priced one by one; what there was no time for is counted."""
    outcome = exactmap.plan(SCENARIO, ["parallel.schedule=zb-h2"], budget_s=0.001)
    found = outcome.ranking.survey

    assert found.num_unseen > 0
    assert outcome.ranking.gap > 0
    assert outcome.content


@pytest.mark.parametrize("budget_s", [0.001, 60.0])
def test_a_search_that_is_stopped_still_has_a_plan(budget_s: float) -> None:
    outcome = exactmap.plan(SCENARIO, budget_s=budget_s)

    assert outcome.content
    assert len(outcome.ranking.finalists) == (1 if budget_s < 1 else 4)
    assert (outcome.ranking.gap > 0) == (outcome.ranking.survey.num_unseen > 0) == (budget_s < 1)
