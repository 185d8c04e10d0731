"""Published makespans come out of whole plans: order, lowering, both engines.

F = I = W = 1 unit of 1,000,000 ns for all layers of a rank, a hop is a pure delay, receives are posted ahead
into buffers apart from the stash. 1F1B: DAPPLE (2007.01045); ZB-H1: Zero Bubble (2401.10241), barrier clock;
interleaved: Megatron-LM (2104.04473). GPipe by its formula (m+p-1)(F+B) + 2(p-1)c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import Durations, resolve
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.plan import Plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.workload.model import ModelConfig, ModelKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from exactmap.sim.engine.trace import Trace

    Engine = Callable[[Plan, Durations], Trace]

UNIT_NS = 1_000_000
CASES = [(4, 8, 0.0), (4, 8, 0.05), (8, 24, 0.0), (8, 24, 0.05)]
PUBLISHED = [
    ("1f1b", 1, (33.0, 33.8, 93.0, 95.7)),
    ("zb-h1", 1, (27.0, 27.6, 79.0, 80.4)),
    ("interleaved-1f1b", 2, (28.5, 29.2, 82.5, 84.0)),
    ("interleaved-1f1b", 4, (26.25, 27.75, 77.25, 80.35)),
    ("gpipe", 1, tuple((m + p - 1) * 3 + 2 * (p - 1) * c for p, m, c in CASES)),
]


def plan_of(schedule: str, pp: int, num_microbatches: int, chunks: int, hop: float) -> Plan:
    model = ModelConfig(
        ModelKind.GPT,
        layers=pp * chunks,
        hidden=8,
        heads=1,
        kv_heads=1,
        head_dim=8,
        ffn=8,
        vocab=16,
        positions=8,
        tied=False,
    )
    return build_plan(
        model,
        schedule=schedule,
        pp=pp,
        num_microbatches=num_microbatches,
        seq=8,
        chunks=chunks,
        times=WorkTimes(work_ns(pp * chunks, chunks), round(hop * UNIT_NS)),
    )


def work_ns(num_stages: int, chunks: int) -> dict[tuple[str, int], int]:
    return {(op, stage): UNIT_NS // chunks for op in "FIW" for stage in range(num_stages)}


def unit_durations(plan: Plan, chunks: int, hop: float, mover: Mover = Mover.ENGINE) -> Durations:
    """Passes take a unit per rank, hops are latency, all else is free."""
    return resolve(
        plan,
        Profile(
            mover,
            work_ns=work_ns(len(plan.stages), chunks),
            bucket_ns={("OPT", bucket.stage, bucket.index): 0 for bucket in plan.buckets},
            channel={channel.name: ChannelNs(0, round(hop * UNIT_NS)) for channel in plan.channels},
            group_ns={(group.name, op, None, None): 0 for group in plan.groups for op in ("AR", "NORM")},
        ),
    )


@pytest.mark.parametrize("engine", [replay, simulate_events], ids=["replay", "events"])
@pytest.mark.parametrize(("schedule", "chunks", "published"), PUBLISHED)
def test_published_makespans(
    engine: Engine, schedule: str, chunks: int, published: tuple[float, ...]
) -> None:
    got = []
    for pp, m, hop in CASES:
        plan = plan_of(schedule, pp, m, chunks, hop)
        got.append(engine(plan, unit_durations(plan, chunks, hop)).summary().makespan_ns)

    assert got == [round(units * UNIT_NS) for units in published]


def test_the_two_clocks_of_1f1b() -> None:
    """Without hops rank 0 spans the whole step, rank r begins and ends r units of F and B inside it."""
    plan = plan_of("1f1b", 4, 8, 1, 0.0)

    summary = replay(plan, unit_durations(plan, 1, 0.0)).summary()

    assert summary.bubble == pytest.approx(3 / 11)
    assert summary.period_ns == summary.makespan_ns
    assert [rank.span_ns // UNIT_NS for rank in summary.ranks] == [33, 30, 27, 24]


@pytest.mark.parametrize("mover", list(Mover))
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved-1f1b", "zb-h1"])
def test_engines_agree_on_whole_plans(schedule: str, mover: Mover) -> None:
    chunks = 2 if schedule == "interleaved-1f1b" else 1
    for pp, m in ((1, 3), (2, 1), (3, 7)):
        plan = plan_of(schedule, pp, m, chunks, 0.3)
        durations = unit_durations(plan, chunks, 0.3, mover)

        assert replay(plan, durations).same_times(simulate_events(plan, durations))
