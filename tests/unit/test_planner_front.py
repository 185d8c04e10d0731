"""The Pareto front over step time, GPUs and memory, against comparing all with all."""

from __future__ import annotations

from dataclasses import replace

from planner_cases import WIDE, h100, one_by_one

from exactmap.sim.planner.estimate import Estimate
from exactmap.sim.planner.survey import survey


def test_the_front_is_what_none_beats() -> None:
    """Brute force: of every candidate that fits, those that no other equals or beats in all three."""
    narrow, estimator = h100()
    space = replace(narrow, **{**WIDE, "tp": (4, 8), "cp": (1,)})  # type: ignore[arg-type]
    fit, _ = one_by_one(space, estimator)
    found = survey(space, estimator, with_front=True).front
    assert found is not None

    def goals(each: Estimate) -> tuple[float, int, int]:
        return each.step_ns, each.candidate.num_gpus, each.memory.total_bytes

    all_goals = {each.candidate: goals(each) for each in fit}
    front = {point.candidate for point in found.points}
    assert 5 < len(front) < len(fit) / 4
    for candidate, (step, gpus, memory) in all_goals.items():
        # Columns and single prices may differ in the last digits.
        better = [
            other
            for other in front - {candidate}
            if all_goals[other][0] <= step * (1 + 1e-6)
            and all_goals[other][1] <= gpus
            and all_goals[other][2] <= memory * (1 + 1e-6)
        ]
        assert better or candidate in front
    assert found.points == sorted(found.points)
    assert found.points[0].candidate == survey(space, estimator).kept[0][1]
