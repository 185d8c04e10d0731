"""Two engines, built apart from each other, agree on random plans: to the nanosecond, or on the deadlock.

The plans are no training steps; they exercise queues: messages over channels of any depth, groups over any
axes and any ranks, scans, copies, buckets on several groups, programs of one replica that differ, coupled
works and braids, slices, notes, hosts that issue. Some orders deadlock.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from random_plans import random_durations, random_plan, redrawn

from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.deadlock import DeadlockError
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay, replay_many, replay_times
from exactmap.sim.engine.trace import Trace
from exactmap.sim.engine.trace_file import format_trace, parse_trace
from exactmap.sim.plan.progress import find_cycle

if TYPE_CHECKING:
    from collections.abc import Callable

    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.plan.verdict import StuckActor

    Engine = Callable[[Plan, Durations], Trace]


def outcome(engine: Engine, plan: Plan, durations: Durations) -> Trace | tuple[StuckActor, ...]:
    try:
        return engine(plan, durations)
    except DeadlockError as error:
        return error.cycle


def check_one(seed: int) -> str:
    rng = Random(seed)
    plan = random_plan(rng)
    durations = random_durations(rng, plan)
    by_replay, by_events = outcome(replay, plan, durations), outcome(simulate_events, plan, durations)
    cycle = find_cycle(plan)

    if isinstance(by_replay, Trace):
        assert isinstance(by_events, Trace), f"seed {seed}: only the event engine deadlocks"
        assert by_replay.same_times(by_events), f"seed {seed}: times differ"
        assert by_replay.summary() == by_events.summary()
        assert parse_trace(format_trace(by_replay).encode()).same_times(by_replay)
        assert list(by_replay.op) == list(by_events.op)
        check_compiled(rng, plan, durations, by_replay)
    else:
        assert by_replay == by_events, f"seed {seed}: deadlocks differ"
        assert by_replay == cycle
        assert cycle, f"seed {seed}: a deadlock that the strict order does not know"
    if durations.mover is Mover.INLINE:
        assert isinstance(by_replay, Trace) == (not cycle), f"seed {seed}: inline is the strict order"
    return f"{durations.mover} {'runs' if isinstance(by_replay, Trace) else 'deadlocks'}"


def check_compiled(rng: Random, plan: Plan, durations: Durations, trace: Trace) -> None:
    """What is compiled once holds for all durations: one by one, as traces, and all at once."""
    compiled = compile_plan(plan, durations)
    others = [durations, *(redrawn(rng, durations) for _ in range(2))]
    traces = [trace, *(simulate_events(plan, other) for other in others[1:])]
    many = replay_many(compiled, others)
    for number, (other, expected) in enumerate(zip(others, traces, strict=True)):
        assert replay(compiled, other).same_times(expected)
        quick, summary = replay_times(compiled, other), expected.summary()
        assert (int(quick.makespan_ns), int(quick.period_ns)) == (summary.makespan_ns, summary.period_ns)
        assert np.array_equal(quick.end_ns, many.end_ns[:, number])
        assert np.array_equal(quick.span_ns, many.span_ns[:, number])


def check_many(seeds: range) -> None:
    outcomes = Counter(check_one(seed) for seed in seeds)

    # The search is worth something only if it meets all four.
    for mover in Mover:
        assert outcomes[f"{mover} runs"] > len(seeds) // 8, outcomes
        assert outcomes[f"{mover} deadlocks"] > len(seeds) // 100, outcomes


def test_replay_equals_events_on_random_plans() -> None:
    """On 150 random plans both engines give equal times, or the same deadlock."""
    check_many(range(150))


@pytest.mark.slow
def test_replay_equals_events_on_many_random_plans() -> None:
    """On 1,200 more random plans both engines give equal times, or the same deadlock."""
    check_many(range(1000, 2200))
