"""The wide replay gives each column the times that the event engine and the replay of lanes give it.

Random plans as for these engines (any queues, scans, copies, buckets on several groups, braids, coupled
works, hosts that issue), lowered plans of every schedule, and durations of its own for every column.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from lowered_plans import random_lowered, random_profile
from random_plans import one_lane_durations, random_plan
from wide_cases import drawn_times

from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.deadlock import DeadlockError
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay, replay_times
from exactmap.sim.engine.wide.columns import Columns
from exactmap.sim.engine.wide.lanes import durations_of
from exactmap.sim.engine.wide.replay_wide import replay_wide
from exactmap.sim.schedules.registry import SCHEDULES

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.plan.plan import Plan

AXES = ("dp", "ep", "cp", "tp")


def with_inner_axes(rng: Random, plan: Plan) -> Plan:
    """The same plan on a mesh with members on every axis, groups over any of them, works coupled on any."""
    sizes = {axis: rng.choice([1, 1, 2, 3]) for axis in ("tp", "cp", "ep")}
    mesh = replace(plan.mesh, **sizes)
    groups = tuple(
        group
        if group.axes == ("pp",)
        else replace(
            group,
            axes=(*group.axes, *(axis for axis in sizes if rng.random() < 0.3 and axis not in group.axes)),
        )
        for group in plan.groups
    )
    couple = tuple(
        (kind, tuple(axis for axis in sizes if axis == "tp" or rng.random() < 0.4))
        for kind in ("F", "I", "W", "B")
        if rng.random() < 0.4
    )
    return replace(plan, mesh=mesh, groups=groups, couple=couple)


def check_columns(rng: Random, compiled: CompiledPlan) -> None:
    """All columns of several steps against both engines, however they are cut into blocks."""
    mesh = compiled.plan.mesh
    held = {axis: 1 if rng.random() < 0.15 else getattr(mesh, axis) for axis in AXES}
    columns = Columns(rng.choice([1, 1, 2, 3]), **held)
    times = drawn_times(rng, compiled, columns)
    cuts = ((1, 10**6, 2**20), (2, rng.choice([1, rng.randint(1, 20)]), rng.choice([1, 2000, 2**20])))
    results = [
        replay_wide(compiled, times, num_threads=threads, block_columns=block, window_bytes=window)
        for threads, block, window in cuts
    ]
    for other in results[1:]:
        for name in ("end_ns", "own_ns", "makespan_ns", "period_ns"):
            assert np.array_equal(getattr(results[0], name), getattr(other, name)), name
    wide, num = results[0], len(columns) // columns.num_steps
    for step in range(columns.num_steps):
        chosen = range(step * num, (step + 1) * num)
        durations = durations_of(compiled, times, chosen)
        as_lanes = compile_plan(compiled.plan, durations)
        lanes = replay_times(as_lanes)
        pp = compiled.plan.mesh.pp
        assert lanes.keys == tuple((lane, rank) for lane in range(num) for rank in range(pp))
        assert np.array_equal(lanes.end_ns.reshape(num, pp).T, wide.end_ns[:, chosen.start : chosen.stop])
        assert int(lanes.makespan_ns) == wide.makespan_ns[step]
        assert int(lanes.period_ns) == wide.period_ns[step]
        if step == 0:
            assert simulate_events(compiled.plan, durations).same_times(replay(as_lanes))


def check_random(seed: int) -> bool:
    rng = Random(seed)
    plan = with_inner_axes(rng, random_plan(rng, overrides=False))
    durations = one_lane_durations(rng, plan)
    try:
        compiled = compile_plan(plan, durations)
    except DeadlockError:
        return False
    check_columns(rng, compiled)
    return True


def test_wide_equals_both_engines_on_random_plans() -> None:
    """On 22 random plans every column has the times that the other engines give it."""
    # The last two have messages without nodes of their own that wait for those before them.
    assert sum(check_random(seed) for seed in (*range(20), 48, 371)) > 10


@pytest.mark.slow
def test_wide_equals_both_engines_on_many_random_plans() -> None:
    """On 600 more."""
    assert sum(check_random(seed) for seed in range(1000, 1600)) > 300


def check_lowered(seed: str, name: str, *, inner: bool) -> None:
    rng = Random(seed)
    plan = random_lowered(rng, name)
    if inner:
        plan = with_inner_axes(rng, plan)
    check_columns(rng, compile_plan(plan, resolve(plan, random_profile(rng, plan))))


@pytest.mark.parametrize("name", SCHEDULES)
def test_wide_equals_both_engines_on_plans_of_every_schedule(name: str) -> None:
    """Lowered plans, with and without sharded parameters, works coupled in tensor, context, expert groups."""
    check_lowered(f"{name} wide", name, inner=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_wide_equals_both_engines_on_many_plans_of_every_schedule(name: str) -> None:
    """Three more with members on all axes, three with replicas alone."""
    for seed in range(6):
        check_lowered(f"{name} wide {seed}", name, inner=seed % 2 == 0)
