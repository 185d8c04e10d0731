"""Random pipelines: whatever is asked, the automatic scheduler gives a valid order within limit and bound."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.schedules.auto import Memory, find_order
from exactmap.sim.schedules.auto.bounds import lower_bound
from exactmap.sim.schedules.auto.dispatch import dispatch
from exactmap.sim.schedules.auto.problem import Problem
from exactmap.sim.schedules.auto.rules import rules
from exactmap.sim.schedules.auto.timing import fits, peaks, time_sequences
from exactmap.sim.schedules.metrics import measure
from exactmap.sim.schedules.order import loop_placement, vee_placement
from exactmap.sim.schedules.timeline import WorkTimes, walk


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, WorkTimes]:
    p, m = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    vee, chunks = draw(st.booleans()), draw(st.integers(1, 3))
    placement = vee_placement(p) if vee else loop_placement(p, chunks)
    num_stages = len(placement)
    duration = st.integers(1, 40)
    work_ns = {(op, stage): draw(duration) for op in "FIW" for stage in range(num_stages)}
    times = WorkTimes(work_ns, draw(st.integers(0, 15)))
    adds = draw(st.lists(st.integers(1, 9), min_size=num_stages, max_size=num_stages))
    frees = [draw(st.integers(0, added)) for added in adds]
    least = max(sum(adds[s] for s in range(num_stages) if placement[s][0] == rank) for rank in range(p))
    memory = Memory(adds, frees, least + draw(st.integers(0, 40)))
    return Problem.of(p, m, placement, times, memory), times


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 200))
def test_every_rule_makes_a_valid_order_within_the_limit(
    drawn: tuple[Problem, WorkTimes], skipped: int
) -> None:
    """List scheduling never gets stuck, never exceeds memory, and stays above the bounds of both clocks."""
    problem, times = drawn
    found = list(rules(problem))
    sequences = dispatch(problem, found[skipped % len(found)])
    timing = time_sequences(problem, sequences)
    assert timing is not None
    assert fits(problem, sequences)
    timeline = walk(problem.order(sequences), times)
    assert timeline.makespan_ns == timing.makespan_ns
    for objective in ("barrier", "period"):
        assert lower_bound(problem, objective).value_ns <= timing.value(objective)


@settings(max_examples=25, deadline=None)
@given(problems(), st.sampled_from(["barrier", "period"]))
def test_what_is_found_is_what_is_reported(drawn: tuple[Problem, WorkTimes], objective: str) -> None:
    """Order, clocks, memory and bound agree, for uneven stages and uneven memory on any placement."""
    problem, times = drawn
    chunks = problem.num_stages // problem.num_ranks
    vee = problem.placement == vee_placement(problem.num_ranks) and chunks == 2
    found = find_order(
        problem.num_ranks,
        problem.num_microbatches,
        times,
        placement="vee" if vee else "loop",
        chunks=chunks,
        memory=Memory(problem.adds, problem.frees, problem.limits[0]),
        objective=objective,
        budget=30 * problem.num_works,
    )
    metrics = measure(found.order, times)
    assert (metrics.makespan_ns, metrics.period_ns) == (found.makespan_ns, found.period_ns)
    assert found.lower_bound_ns <= found.value_ns
    held = max(peaks(problem, problem.sequences(found.order)))
    assert held == found.peak_stash <= problem.limits[0]
