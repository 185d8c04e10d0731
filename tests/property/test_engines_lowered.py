"""Whole plans of every schedule: engines agree whatever the durations, memory is what the pools say."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest
from lowered_plans import PASSES, random_lowered, random_profile

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.durations import Durations, resolve, split_replica
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.live_slots import peak_slots, peak_slots_in_time
from exactmap.sim.engine.perturb import jitter, slow_down
from exactmap.sim.engine.replay import replay, replay_many, replay_times
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.registry import SCHEDULES

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan


def comp_by_hand(plan: Plan, profile: Profile, durations: Durations) -> bool:
    """Whether compute's durations are what the profile says of each instruction, looked up one by one."""
    for (lane, pp), actor in durations.actors.items():
        for each, ns in zip(
            plan.program(pp, durations.lanes[lane].dp).instructions, actor.comp_ns.tolist(), strict=True
        ):
            if each.op is Op.FB:
                expected = profile.braid(tuple((member.op.value, member.stage) for member in each.members))
            elif each.op.value in PASSES:
                expected = profile.work(each.op.value, each.stage)
            elif each.op in {Op.OPT, Op.ZERO, Op.PV, Op.UNDO}:
                expected = profile.bucket(each.op.value, each.stage, each.bucket)
            else:
                expected = profile.post_ns.get(each.op.value, 0)
            if ns != expected:
                return False
    return True


@pytest.mark.parametrize("name", SCHEDULES)
def test_engines_agree_on_plans_of_every_schedule(name: str) -> None:
    """Event engine, replay of the plan, and replay of the compiled plan with one set of durations or many."""
    for seed in range(3):
        rng = Random(f"{name} {seed}")
        plan = random_lowered(rng, name)
        profile = random_profile(rng, plan)
        durations = resolve(plan, profile)
        assert comp_by_hand(plan, profile, durations)
        if plan.mesh.dp > 1 and rng.random() < 0.5:
            durations = slow_down(split_replica(durations, 1), "1.3", pp=[0], dp=1)
        compiled = compile_plan(plan, durations)
        draws = [durations, *(jitter(durations, 400, number) for number in range(9))]

        traces = [simulate_events(plan, each) for each in draws[:2]]
        for each, trace in zip(draws, traces, strict=False):
            assert replay(compiled, each).same_times(trace)
            assert replay(plan, each).same_times(trace)
            quick, summary = replay_times(compiled, each), trace.summary()
            assert int(quick.makespan_ns) == summary.makespan_ns
            assert int(quick.period_ns) == summary.period_ns
            assert quick.end_ns.tolist() == [
                int(trace.actor(pp, durations.lanes[lane].dp).e_ns[-1]) for lane, pp in quick.keys
            ]
        many = replay_many(compiled, iter(draws))
        for number, each in enumerate(draws):
            one = replay_times(compiled, each)
            assert np.array_equal(one.end_ns, many.end_ns[:, number])
            assert np.array_equal(one.span_ns, many.span_ns[:, number])


@pytest.mark.parametrize("name", SCHEDULES)
def test_pools_hold_exactly_the_slots_that_live_at_once(name: str) -> None:
    """Simulated memory equals the slot count: in program order each pool is full once, in time never over."""
    for seed in range(4):
        rng = Random(f"{name} memory {seed}")
        plan = random_lowered(rng, name)
        pools = {(pool.pp, pool.letter): pool.num for pool in plan.pools}

        assert peak_slots(plan) == {key: num for key, num in pools.items() if num}
        for _ in range(2):
            durations = resolve(plan, random_profile(rng, plan))
            in_time = peak_slots_in_time(plan, replay(plan, durations))
            assert set(in_time) == set(peak_slots(plan))
            assert all(num <= pools[key] for key, num in in_time.items())


def test_with_durations_that_take_time_pools_are_full_in_time_too() -> None:
    """Where every pass takes time, the most that live by program order live at some time."""
    for name in SCHEDULES:
        plan = random_lowered(Random(f"{name} full"), name)
        profile = random_profile(Random(name), plan)
        busy = Profile(
            Mover.ENGINE,
            dict.fromkeys(profile.work_ns, 5),
            dict.fromkeys(profile.bucket_ns, 2),
            dict.fromkeys(profile.channel, ChannelNs(1, 1, 1)),
            dict.fromkeys(profile.group_ns, 1),
            dict.fromkeys(profile.copy_ns, 1),
            post_ns={op.value: 1 for op in Op},
        )
        assert peak_slots_in_time(plan, replay(plan, resolve(plan, busy))) == peak_slots(plan)
