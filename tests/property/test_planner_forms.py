"""Closed forms of the planner against walks of the orders that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.planner.closed_form import CLOSED_FORMS, fused_times_ns, pipeline_time_ns, rank_times_ns
from exactmap.sim.schedules.order import loop_placement
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

MS = 1_000_000


@st.composite
def even_pipelines(draw: st.DrawFn) -> tuple[str, int, int, int, dict[tuple[str, int], int]]:
    """Schedule, ranks, microbatches, chunks, and equal stages with I >= W, as transformers have them."""
    schedule = draw(st.sampled_from(CLOSED_FORMS))
    num_ranks = draw(st.integers(2, 8))
    chunks = draw(st.integers(2, 4)) if SCHEDULES[schedule].many_chunks else 1
    if chunks > 1:
        num_microbatches = draw(
            st.one_of(st.integers(1, num_ranks), st.integers(1, 4).map(lambda k: k * num_ranks))
        )
    else:
        num_microbatches = draw(st.integers(1, 4 * num_ranks + 1))
    weight = draw(st.integers(1, 4))
    gradient = weight + draw(st.integers(0, 3))
    # A chunk's own forward pass covers a neighbour's W, as in any layer of matrix products.
    forward = draw(st.integers(weight, gradient))
    work_ns = {
        (op, stage): units * MS
        for op, units in (("F", forward), ("I", gradient), ("W", weight))
        for stage in range(num_ranks * chunks)
    }
    return schedule, num_ranks, num_microbatches, chunks, work_ns


def _both(pipeline: tuple[str, int, int, int, dict[tuple[str, int], int]], hop_ns: int) -> tuple[int, int]:
    schedule, num_ranks, num_microbatches, chunks, work_ns = pipeline
    order = make_order(schedule, num_ranks, num_microbatches, chunks)
    walked_ns = walk(order, WorkTimes(work_ns, hop_ns)).makespan_ns
    placement = loop_placement(num_ranks, chunks)
    rank_ns, weight_ns = rank_times_ns(work_ns, placement, num_ranks)
    form_ns = pipeline_time_ns(
        schedule,
        rank_ns,
        weight_ns,
        num_microbatches=num_microbatches,
        chunks=chunks,
        hop_ns=hop_ns,
        forward_ns=fused_times_ns(work_ns, placement, num_ranks)[1],
    )
    return form_ns, walked_ns


@given(even_pipelines())
def test_exact_on_even_stages(
    pipeline: tuple[str, int, int, int, dict[tuple[str, int], int]],
) -> None:
    form_ns, walked_ns = _both(pipeline, 0)

    assert form_ns == walked_ns


@given(even_pipelines(), st.integers(1, 2000))
def test_exact_with_short_hops(
    pipeline: tuple[str, int, int, int, dict[tuple[str, int], int]], hop_ns: int
) -> None:
    """Hops of up to a five-hundredth of the shortest pass."""
    form_ns, walked_ns = _both(pipeline, hop_ns)

    assert form_ns == walked_ns


@given(st.data())
def test_uneven_stages_stay_between_their_bounds(data: st.DataObject) -> None:
    """The walk takes at least what the busiest rank works; the form is at most as far off as ranks differ."""
    num_ranks, num_microbatches = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 16))
    work_ns = {(op, stage): data.draw(st.integers(MS, 2 * MS)) for op in "FIW" for stage in range(num_ranks)}
    form_ns, walked_ns = _both(("1f1b", num_ranks, num_microbatches, 1, work_ns), 0)
    rank_ns, _ = rank_times_ns(work_ns, loop_placement(num_ranks, 1), num_ranks)

    assert walked_ns >= num_microbatches * max(rank_ns)
    assert abs(form_ns - walked_ns) <= (num_ranks + num_microbatches) * (max(rank_ns) - min(rank_ns))
