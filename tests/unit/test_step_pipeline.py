"""Closed forms of pipelines against walks of the schedules' orders, with uneven stages and messages."""

from __future__ import annotations

import random
from functools import partial
from statistics import median

import pytest

from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.step.bubbles import StageTimes
from exactmap.sim.step.layout import lay_out, read_layout, stage_ranks
from exactmap.sim.step.pipeline import pipeline_time

_UNIT = 100_000


def _stages(shape: str, stages: int, chunks: int) -> StageTimes:
    """F, I, W of each stage: even, a head on the last, or 15 % more or less by chance."""
    rng = random.Random(stages)
    out = []
    for each in (1.0, 1.1, 0.9):
        times = [each * _UNIT / chunks] * stages
        if shape == "head":
            times[-1] += 0.5 * _UNIT
        out.append(times)
    if shape == "uneven":
        factors = [1.0 + rng.uniform(-0.15, 0.15) for _ in range(stages)]
        out = [[time * factor for time, factor in zip(times, factors, strict=True)] for times in out]
    return StageTimes(*out)


def _error(schedule: str, p: int, m: int, chunks: int, shape: str, hop: float) -> float:
    stages = p if schedule == "dualpipe" else p * chunks
    times = _stages(shape, stages, chunks)
    form = pipeline_time(
        schedule,
        times,
        stage_ranks(schedule, p, stages),
        num_microbatches=m,
        hops_ns=[hop * _UNIT] * (stages - 1),
    )
    names = zip("FIW", (times.forward, times.input, times.weight), strict=True)
    work = {(name, stage): round(times[stage]) for name, times in names for stage in range(stages)}
    walked = walk(make_order(schedule, p, m, chunks), WorkTimes(work, round(hop * _UNIT))).makespan_ns
    return form.total_ns / walked - 1.0


@pytest.mark.parametrize(
    ("schedule", "chunks", "shape", "median_error", "worst_error"),
    [
        ("gpipe", 1, "uneven", 1e-4, 1e-4),
        ("1f1b", 1, "even", 1e-3, 0.025),
        ("1f1b", 1, "head", 1e-3, 0.02),
        ("1f1b", 1, "uneven", 2e-3, 0.025),
        ("interleaved-1f1b", 2, "even", 1e-4, 1e-4),
        ("interleaved-1f1b", 4, "head", 1e-4, 1e-4),
        ("interleaved-1f1b", 2, "uneven", 0.025, 0.06),
        ("zb-h1", 1, "even", 1e-4, 1e-4),
        ("zb-h1", 1, "uneven", 0.025, 0.07),
        ("zb-h2", 1, "even", 4e-3, 0.045),
        ("zb-v", 2, "even", 2e-3, 0.03),
        ("zb-v", 2, "uneven", 0.03, 0.15),
        ("dualpipe", 1, "even", 4e-3, 0.012),
        ("dualpipe-v", 2, "even", 5e-3, 0.012),
        ("interleaved-zb", 2, "even", 5e-3, 0.02),
    ],
)
def test_form_agrees_with_a_walk_of_the_order(
    schedule: str, chunks: int, shape: str, median_error: float, worst_error: float
) -> None:
    least = 2 if schedule.startswith("dualpipe") or schedule == "interleaved-zb" else 1
    errors = [
        abs(_error(schedule, p, turns * p, chunks, shape, hop))
        for p in (2, 4, 8)
        for turns in (least, 2 * least, 4 * least)
        for hop in (0.0, 0.02, 0.1)
    ]
    assert median(errors) <= median_error
    assert max(errors) <= worst_error


def test_fewer_microbatches_than_ranks() -> None:
    for schedule in ("gpipe", "1f1b", "zb-h1"):
        for m in (1, 3, 7):
            assert abs(_error(schedule, 8, m, 1, "even", 0.05)) < 0.01


def test_messages_that_block_cost_more_and_the_host_with_them() -> None:
    times = _stages("even", 4, 1)
    one = partial(
        pipeline_time,
        "1f1b",
        times,
        stage_ranks("1f1b", 4, 4),
        num_microbatches=16,
        hops_ns=[0.05 * _UNIT] * 3,
    )
    free, blocked = one(), one(blocking=True)
    late = one(blocking=True, handover_ns=0.01 * _UNIT)
    assert free.total_ns < blocked.total_ns < late.total_ns
    # Two passes of each microbatch on the busiest rank, and those of the others on the way in and out.
    assert late.host_ns == pytest.approx(2 * 0.01 * _UNIT * (16 + 3))
    for each in (free, blocked, late):
        assert each.busy_ns + each.bubble_ns + each.hop_ns + each.host_ns == pytest.approx(each.total_ns)


def test_embedding_and_head_count_as_layers_where_that_makes_stages_even() -> None:
    counts = [stage.last - stage.first for stage in lay_out(126, 0, 64, 8, ())]
    assert counts == [1, *[2] * 62, 1]
    assert [stage.last - stage.first for stage in lay_out(10, 0, 4, 4, ())] == [2, 3, 3, 2]


def test_layers_by_rank_spread_over_its_chunks() -> None:
    stages = lay_out(12, 0, 4, 2, (8, 4))
    assert [stage.last - stage.first for stage in stages] == [4, 2, 4, 2]


def test_a_stated_layout_is_read() -> None:
    stages = read_layout("Et*4|(t*4|)*14tmL", 61, 16)
    assert [stage.last - stage.first for stage in stages] == [*[4] * 15, 1]
    assert (stages[0].embedding, stages[-1].head, stages[-1].mtp) == (True, True, 1)


def test_gpipe_with_chunks_does_all_of_a_ranks_chunks_for_each_microbatch() -> None:
    """Cutting stages in two leaves what a rank has to do, and no bubble below zero."""
    whole = StageTimes([2.0] * 4, [2.0] * 4, [2.0] * 4)
    halves = StageTimes([1.0] * 8, [1.0] * 8, [1.0] * 8)
    one = pipeline_time("gpipe", whole, stage_ranks("gpipe", 4, 4), num_microbatches=8)
    two = pipeline_time("gpipe", halves, stage_ranks("gpipe", 4, 8), num_microbatches=8)

    assert two.busy_ns == one.busy_ns == 48.0
    assert two.bubble_ns == one.bubble_ns == 18.0
