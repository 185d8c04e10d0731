"""The survey: whole arrays of candidates say what each candidate says by itself, and the best is the best."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_cases import WIDE, h100, one_by_one

from exactmap.sim.planner.candidate import divisors
from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.estimate import Estimator
from exactmap.sim.planner.survey import CHOICES, survey


@pytest.mark.parametrize(
    "overrides",
    [(), ("map.order=[tp, cp, ep, dp, pp]",), ("map.require=[tp within rack, pp stages whole racks]",)],
    ids=["default", "pipeline outside", "map"],
)
def test_arrays_say_what_each_candidate_says(overrides: tuple[str, ...]) -> None:
    """Thousands of layouts of 175B on 1,024 H100: with the same step times, the others refused alike."""
    narrow, estimator = h100(*overrides)
    space = replace(narrow, **WIDE)  # type: ignore[arg-type]
    fit, refused = one_by_one(space, estimator)
    found = survey(space, estimator, num_kept=len(fit) + 1)

    assert len(found.kept) == found.num_priced == len(fit) > 100
    assert found.counts == Counter(each.rule for each in refused)
    by_candidate = {each.candidate: each.step_ns for each in fit}
    for step_ns, candidate in found.kept:
        assert step_ns == pytest.approx(by_candidate[candidate], rel=1e-6)


def test_the_best_of_each_choice_and_the_nearest_misses_are_known() -> None:
    narrow, estimator = h100()
    space = replace(narrow, **WIDE)  # type: ignore[arg-type]
    fit, refused = one_by_one(space, estimator)
    found = survey(space, estimator, num_kept=8)

    assert found.kept[0][0] == pytest.approx(min(each.step_ns for each in fit), rel=1e-6)
    for choice in CHOICES:
        for value in {getattr(each.candidate, choice) for each in fit}:
            best = min(each.step_ns for each in fit if getattr(each.candidate, choice) == value)
            assert found.best_of[choice, value][0] == pytest.approx(best, rel=1e-6)
    least = min(each.excess for each in refused if each.rule == "memory")
    assert found.nearest["memory"].excess == pytest.approx(least, abs=100)
    found.put_in_words(space, estimator)
    assert "GiB to use (activations" in found.nearest["memory"].why


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_best_of_any_small_space_is_found(data: st.DataObject) -> None:
    """Random spaces on fewer or more GPUs: the first of the survey is the first of brute force."""
    narrow, estimator = h100()

    def some(values: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(data.draw(st.sets(st.sampled_from(values), min_size=1, max_size=3))))

    space = replace(
        narrow,
        tp=some((1, 2, 4, 8, 16)),
        cp=some((1, 2, 4)),
        pp=some(divisors(96)),
        chunks=(1, *some((2, 3, 4, 6))),
        microbatch=some((1, 2, 3, 4)),
        schedules=CLOSED_FORMS,
        zero=some((0, 1)),
        num_gpus=data.draw(st.sampled_from((64, 500, 1024))),
        all_replicas=data.draw(st.booleans()),
    )
    fit, refused = one_by_one(space, estimator)
    found = survey(space, estimator)

    assert (found.num_priced, found.num_refused) == (len(fit), len(refused))
    if fit:
        assert found.kept[0][0] == pytest.approx(min(each.step_ns for each in fit), rel=1e-6)


def test_no_candidate_beats_the_bound_of_its_cut() -> None:
    narrow, estimator = h100()
    space = replace(narrow, **WIDE)  # type: ignore[arg-type]
    fit, _ = one_by_one(space, estimator)

    assert fit
    for each in fit:
        one = each.candidate
        assert each.step_ns >= estimator.least_ns(space, one.tp, one.cp, one.microbatch)


def test_a_survey_is_not_stopped_before_a_candidate_fits() -> None:
    """Nothing fits: time is over from the start, yet every cut is looked at before it says so."""
    narrow, estimator = h100()
    space = replace(
        narrow,
        tp=(8,),
        cp=(1,),
        microbatch=(1, 4),
        pp=(16,),
        chunks=(1,),
        schedules=("1f1b",),
        num_gpus=128,
        zero=(0,),
    )
    tight = Estimator(estimator.model, estimator.seq, estimator.formats, estimator.pricing, 1)
    nothing, something = survey(space, tight, deadline=0.0), survey(space, estimator, deadline=0.0)

    assert not nothing.kept
    assert (nothing.num_refused, nothing.num_unseen) == (2, 0)
    assert len(something.kept) == something.num_unseen == 1


def test_a_stopped_survey_says_what_it_has_not_seen() -> None:
    """Out of time after the first cut: the rest is counted, and bounded by its passes alone."""
    narrow, estimator = h100()
    space = replace(narrow, **WIDE)  # type: ignore[arg-type]
    whole, stopped = survey(space, estimator), survey(space, estimator, deadline=0.0)

    seen = stopped.num_priced + stopped.num_refused
    assert 0 < seen < whole.num_priced + whole.num_refused == seen + stopped.num_unseen
    assert stopped.bound_ns < whole.kept[0][0] <= stopped.kept[0][0]
    assert whole.num_unseen == 0
