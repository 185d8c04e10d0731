"""Timelines of traces: lanes, nanoseconds kept, pictures that come out the same."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.engine.trace import Trace
from exactmap.sim.plan.plan import Plan
from exactmap.sim.report.lanes import chrome_lanes, paired_timeline, timeline_of
from exactmap.sim.report.memory import MemoryCurve, draw_memory, memory_curve
from exactmap.sim.report.pictures import save_figure, write_pictures
from exactmap.sim.report.timeline import (
    MAX_DRAWN_SLICES,
    Lane,
    Slice,
    Timeline,
    draw_timeline,
    time_unit,
    to_chrome_trace,
)
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.presets import find_preset

PNG = b"\x89PNG\r\n\x1a\n"
CASES = [
    ("gpipe", 2, 4, 1),
    ("1f1b", 4, 6, 1),
    ("1f1b", 1, 3, 1),
    ("interleaved-1f1b", 2, 4, 2),
    ("zb-h1", 4, 6, 1),
    ("zb-h1", 2, 1, 1),
]


@cache
def _case(
    schedule: str = "1f1b", pp: int = 2, m: int = 4, chunks: int = 1, dp: int = 1
) -> tuple[Plan, Trace]:
    plan = build_plan(
        find_preset("byte-tiny"),
        schedule=schedule,
        pp=pp,
        num_microbatches=m,
        seq=64,
        chunks=chunks,
        dp=dp,
    )
    num_stages = len(plan.stages)
    profile = Profile(
        Mover.ENGINE,
        work_ns={(op, stage): 1_000_003 + 7 * stage for op in "FIW" for stage in range(num_stages)},
        bucket_ns={("OPT", bucket.stage, bucket.index): 100_001 for bucket in plan.buckets},
        channel={channel.name: ChannelNs(50_001, 999) for channel in plan.channels},
        group_ns={
            (group.name, op, None, None): 3_333 for group in plan.groups for op in ("AR", "NORM", "RS", "AG")
        },
    )
    return plan, replay(plan, resolve(plan, profile))


def _pieces(trace: Trace) -> dict[str, tuple[Slice, ...]]:
    return {lane.name: lane.slices for lane in timeline_of(trace, "t").lanes}


def test_a_lane_a_rank() -> None:
    """One lane per rank; its works and waits follow each other and fill it to its last work."""
    _, trace = _case()
    lanes = _pieces(trace)

    assert list(lanes) == ["rank 0", "rank 1"]
    for pieces in lanes.values():
        assert all(one.end_ns <= two.start_ns for one, two in pairwise(pieces))
        assert {"F", "B", "OPT"} <= {piece.kind for piece in pieces}
    assert timeline_of(trace, "t").end_ns == trace.summary().makespan_ns


def test_labels_leave_slots_out() -> None:
    _, trace = _case()

    assert "F0.0" in {piece.label for piece in _pieces(trace)["rank 0"]}


def test_some_ranks_only() -> None:
    _, trace = _case("1f1b", 4, 6)

    assert len(timeline_of(trace, "t", ranks=2).lanes) == 2


def test_pairs_share_ranks() -> None:
    """Two lanes a rank; a rank that one trace lacks is left out."""
    _, two = _case()
    _, four = _case("1f1b", 4, 6)
    names = [lane.name for lane in paired_timeline(four, two, ("predicted", "executed"), "t").lanes]

    assert names == ["rank 0 predicted", "rank 0 executed", "rank 1 predicted", "rank 1 executed"]


def _events(text: str) -> list[dict[str, Any]]:
    loaded = json.loads(text, parse_float=Decimal)
    events: list[dict[str, Any]] = loaded["traceEvents"]
    return events


def test_chrome_trace_keeps_nanoseconds() -> None:
    """Start and length come back from the JSON to the nanosecond, with the line of the plan."""
    _, trace = _case()
    lanes = chrome_lanes(trace, "predicted")
    events = _events(to_chrome_trace([lanes]))
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    found = [
        (names[event["tid"]], int(event["ts"] * 1000), int(event["dur"] * 1000), event["name"])
        for event in events
        if event["ph"] == "X"
    ]
    expected = [
        (lane.name, piece.start_ns, piece.end_ns - piece.start_ns, piece.label)
        for lane in lanes.lanes
        for piece in lane.slices
    ]

    assert found == expected
    assert all(Decimal(event["ts"]).as_tuple().exponent == -3 for event in events if event["ph"] == "X")
    assert {"rank 0", "rank 0 moves", "rank 1", "rank 1 moves"} == set(names.values())


def test_chrome_trace_of_two() -> None:
    """Each timeline is a process of its own."""
    _, trace = _case()
    events = _events(to_chrome_trace([chrome_lanes(trace, "a"), chrome_lanes(trace, 'b "quoted"')]))
    processes = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}

    assert processes == {0: "a", 1: 'b "quoted"'}


def test_time_units() -> None:
    assert time_unit(3_000_000_000) == (1e9, "s")
    assert time_unit(1_999_999_999) == (1e6, "ms")
    assert time_unit(2_000) == (1e3, "us")
    assert time_unit(0) == (1.0, "ns")


@pytest.mark.parametrize(("schedule", "pp", "m", "chunks"), CASES)
def test_memory_of_a_rank(schedule: str, pp: int, m: int, chunks: int) -> None:
    """Every pool fills up at some moment, never over its size; at the end nothing lives."""
    plan, trace = _case(schedule, pp, m, chunks)
    for rank in range(pp):
        curve = memory_curve(plan, trace, rank)
        pools = {pool.letter: pool for pool in plan.pools if pool.pp == rank}

        assert set(curve.live_bytes) == set(pools)
        for letter, live in curve.live_bytes.items():
            assert int(live.max()) == pools[letter].num * pools[letter].bytes, (rank, letter)
            assert int(live.min()) == 0
            assert int(live[-1]) == 0
        assert list(curve.times_ns) == sorted(curve.times_ns)
        assert curve.end_ns == int(trace.actor(rank).e_ns[-1])


@pytest.mark.parametrize(("schedule", "pp", "m", "chunks"), CASES)
def test_peak_is_the_fullest_moment(schedule: str, pp: int, m: int, chunks: int) -> None:
    """Regions and what lives in all pools at one time; at most the arena, which has room for all at once."""
    plan, trace = _case(schedule, pp, m, chunks)
    for rank in range(pp):
        curve = memory_curve(plan, trace, rank)
        moments = [
            sum(int(live[at]) for live in curve.live_bytes.values()) for at in range(len(curve.times_ns))
        ]
        arena = next(arena.bytes for arena in plan.arenas if arena.pp == rank)

        assert curve.peak_live_bytes == sum(curve.region_bytes.values()) + max(moments)
        assert sum(curve.region_bytes.values()) < curve.peak_live_bytes <= curve.arena_bytes == arena


def test_pictures_are_equal_bytes(tmp_path: Path) -> None:
    """Timeline, memory and trace of one prediction, twice: the same files."""
    plan, trace = _case()
    first = write_pictures(plan, trace, tmp_path / "a", "predicted, 1f1b")
    second = write_pictures(plan, trace, tmp_path / "b", "predicted, 1f1b")

    assert [path.name for path in first] == ["timeline.png", "memory.png", "trace.json"]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert all(path.read_bytes().startswith(PNG) for path in first[:2])


def test_no_time_stamp_in_pictures(tmp_path: Path) -> None:
    save_figure(draw_timeline(timeline_of(_case()[1], "t")), tmp_path / "t.png")

    assert b"Software" not in (tmp_path / "t.png").read_bytes()
    assert b"tIME" not in (tmp_path / "t.png").read_bytes()


def test_an_empty_timeline_is_drawn(tmp_path: Path) -> None:
    save_figure(draw_timeline(Timeline("nothing", ())), tmp_path / "t.png")

    assert (tmp_path / "t.png").read_bytes().startswith(PNG)
    assert json.loads(to_chrome_trace([]))["traceEvents"] == []


def test_a_long_timeline_says_that_it_is_cut() -> None:
    """More slices than can be drawn: the picture says how many it shows."""
    lane = Lane("rank 0", tuple(Slice(at, at + 1, "F", "F0.0") for at in range(MAX_DRAWN_SLICES + 5)))
    figure = draw_timeline(Timeline("long", (lane,)))

    assert f"{MAX_DRAWN_SLICES} of {MAX_DRAWN_SLICES + 5}" in figure.axes[0].get_title(loc="left")


def test_memory_of_no_rank() -> None:
    """A plan without slots in use draws its regions."""
    plan, trace = _case()
    curve = memory_curve(plan, trace, 0)
    bare = MemoryCurve(0, curve.times_ns, curve.region_bytes, {}, curve.arena_bytes, curve.end_ns)

    assert bare.peak_live_bytes == sum(curve.region_bytes.values())
    assert len(draw_memory([bare], "t").axes) == 1


def test_replicas_have_names() -> None:
    """With several replicas in the trace, lanes say which one they are of."""
    _, trace = _case("1f1b", 2, 4, 1, 2)
    names = [lane.name for lane in timeline_of(trace, "t").lanes]

    assert names in (["rank 0", "rank 1"], ["rank 0 dp 0", "rank 1 dp 0", "rank 0 dp 1", "rank 1 dp 1"])
