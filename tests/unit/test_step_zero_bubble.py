"""Published throughput of pipeline schedules from profiled passes: within 4 % where nothing was fitted."""

from __future__ import annotations

from statistics import mean

import pytest

from exactmap.sim.published.row import Row, may_fit
from exactmap.sim.published.zero_bubble import SCHEDULES, Throughput, predict_throughput, throughputs


def _error(case: Throughput, schedule: str) -> float:
    return predict_throughput(case, schedule) / case.measured[schedule] - 1.0


def _held_out() -> list[Throughput]:
    return [case for case in throughputs() if not may_fit(Row({"set": "zero_bubble", "id": case.id}))]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_throughput_of_a_schedule_is_within_four_percent(schedule: str) -> None:
    errors = [_error(case, schedule) for case in _held_out()]
    assert len(errors) == 5
    assert mean(map(abs, errors)) <= 0.04


def test_the_schedules_rank_as_measured() -> None:
    for case in throughputs():
        predicted = {schedule: predict_throughput(case, schedule) for schedule in SCHEDULES}
        best = max(case.measured, key=case.measured.__getitem__)
        assert max(predicted, key=predicted.__getitem__) == best
