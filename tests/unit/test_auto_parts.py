"""Stories of the parts of the automatic scheduler: weaving, patterns, timing from a change on, bounds."""

from __future__ import annotations

from random import Random

import pytest

from exactmap.sim.schedules.auto.bounds import lower_bound
from exactmap.sim.schedules.auto.improve import climb
from exactmap.sim.schedules.auto.pattern import Pattern, frames_of, least_gaps, scaled
from exactmap.sim.schedules.auto.portfolio import hand_made
from exactmap.sim.schedules.auto.problem import Memory, Problem, Sequences
from exactmap.sim.schedules.auto.timing import peaks, time_sequences
from exactmap.sim.schedules.auto.weave import frame, weave
from exactmap.sim.schedules.order import loop_placement, vee_placement
from exactmap.sim.schedules.timeline import WorkTimes

NONE = 1 << 40


def pipeline(p: int, m: int, limit: int, *, vee: bool = False, hop_ns: int = 0, w_ns: int = 10) -> Problem:
    placement = vee_placement(p) if vee else loop_placement(p, 1)
    work_ns = {
        (op, stage): ns for stage in range(len(placement)) for op, ns in (("F", 10), ("I", 10), ("W", w_ns))
    }
    num_stages = len(placement)
    memory = Memory((1,) * num_stages, (0,) * num_stages, limit)
    return Problem.of(p, m, placement, WorkTimes(work_ns, hop_ns), memory)


def made(problem: Problem, name: str) -> Sequences:
    sequences = dict(hand_made(problem))[name](problem)
    assert sequences is not None
    return sequences


def test_zb_h1_is_woven_from_the_frame_of_1f1b() -> None:
    """The passes F and I of 1F1B with weight gradients in its gaps make the makespan of ZB-H1."""
    problem = pipeline(4, 8, limit=4)
    frames = frame(problem, made(problem, "1f1b"))
    woven = weave(problem, frames, 1.0, [NONE] * 4)
    assert woven is not None
    timing = time_sequences(problem, woven)
    assert timing is not None
    assert timing.makespan_ns == 270
    assert max(peaks(problem, woven)) <= 4


def test_a_frame_that_needs_more_memory_is_given_up() -> None:
    """GPipe's frame holds all microbatches before the first I: no weight gradient can make room."""
    problem = pipeline(4, 8, limit=7)
    roomy = pipeline(4, 8, limit=8)
    frames = frame(roomy, made(roomy, "gpipe"))
    assert weave(roomy, frames, 1.0, [NONE] * 4) is not None
    assert weave(problem, frames, 1.0, [NONE] * 4) is None


def test_timing_from_a_change_on_equals_timing_anew() -> None:
    """Works that start before the change keep their times; everything later is timed again."""
    problem = pipeline(5, 15, limit=5, hop_ns=3)
    before = made(problem, "zb-h1")
    base = time_sequences(problem, before)
    assert base is not None
    rng = Random(5)
    changed = 0
    for _ in range(300):
        rank = rng.randrange(5)
        at = rng.randrange(1, len(before[rank]))
        after = [list(sequence) for sequence in before]
        after[rank][at - 1], after[rank][at] = after[rank][at], after[rank][at - 1]
        from_ns = base.end_ns[before[rank][at - 2]] if at > 1 else 0
        anew, again = time_sequences(problem, after), time_sequences(problem, after, base, from_ns)
        assert (anew is None) == (again is None)
        if anew is not None and again is not None:
            assert anew == again
            changed += anew != base
    assert changed > 50


def test_an_even_pattern_at_full_memory_is_near_the_bound() -> None:
    """Even paces down and up the V, stretched to the limit, are all that V schedules need at F = I = W."""
    problem = pipeline(8, 32, limit=16, vee=True)
    gaps = scaled(problem, least_gaps(problem), 1.0)
    woven = weave(problem, frames_of(problem, Pattern(gaps, 1, 1.0, 1.0, 0.5, (NONE,) * 8)), 0.5, [NONE] * 8)
    assert woven is not None
    timing = time_sequences(problem, woven)
    assert timing is not None
    assert timing.makespan_ns <= 1.02 * lower_bound(problem, "barrier").value_ns
    assert max(peaks(problem, woven)) <= 16


def test_local_search_turns_1f1b_into_the_optimum() -> None:
    """From 1F1B with split passes, small moves alone reach the bound."""
    problem = pipeline(4, 8, limit=4)
    sequences, tried, _ = climb(problem, made(problem, "1f1b"), "barrier", 2_000_000, Random(1))
    timing = time_sequences(problem, sequences)
    assert timing is not None
    assert tried > 100
    assert timing.makespan_ns == 270 == lower_bound(problem, "barrier").value_ns
    assert max(peaks(problem, sequences)) <= 4


@pytest.mark.parametrize(
    ("limit", "objective", "value_ns", "name"),
    [
        # Work, and the skew of the last rank: ZB-H1 reaches it.
        (4, "barrier", 270, "first and last microbatch"),
        # Half the memory: two places, each held for 4F + 4I + W per microbatch.
        (2, "barrier", 370, "stash"),
        # Without a barrier 2p-1 microbatches fill the first rank until its first I.
        (7, "period", 240, "work"),
    ],
)
def test_bounds_by_hand(limit: int, objective: str, value_ns: int, name: str) -> None:
    """Four ranks, eight microbatches, F = I = W = 10: the bounds of the argument named, by pencil."""
    bound = lower_bound(pipeline(4, 8, limit=limit), objective)
    assert (bound.value_ns, bound.name) == (value_ns, name)


def test_few_weight_gradients_leave_the_end_of_the_last_rank_open() -> None:
    """While the last I goes on to rank 0, rank 3 fills the time with the W that memory let it keep."""
    short_w = lower_bound(pipeline(4, 8, limit=4, w_ns=2), "barrier")
    # Start of rank 3, its work, the way of the last I and the W of rank 0, less four W that fill it.
    assert short_w.value_ns == 30 + 8 * 22 + (30 + 2) - 4 * 2
    # With room for all microbatches all eight W may wait.
    assert (
        lower_bound(pipeline(4, 8, limit=100, w_ns=2), "barrier").value_ns == 30 + 8 * 22 + (30 + 2) - 8 * 2
    )
