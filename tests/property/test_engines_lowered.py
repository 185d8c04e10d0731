"""Whole plans of every schedule: engines agree whatever the durations, memory is what the pools say."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.durations import Durations, resolve, split_replica
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.live_slots import peak_slots, peak_slots_in_time
from exactmap.sim.engine.perturb import jitter, slow_down
from exactmap.sim.engine.replay import replay, replay_many, replay_times
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.registry import SCHEDULES
from exactmap.sim.workload.model import ModelConfig, ModelKind

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan

PASSES = ("F", "I", "W", "B", "RC")


def random_lowered(rng: Random, name: str) -> Plan:
    """A plan of that schedule, of any size and with any of the lowering's options."""
    schedule = SCHEDULES[name]
    pp = (
        rng.choice([2, 4])
        if schedule.two_ranks
        else rng.randint(3, 5)
        if schedule.limits
        else rng.randint(1, 4)
    )
    chunks = schedule.fixed_chunks or (rng.choice([2, 4]) if schedule.many_chunks else 1)
    m = (
        2 * rng.randint(pp, pp + 3)
        if schedule.braids or schedule.two_ranks
        else rng.randint(1, 3 * pp) + 4 * schedule.limits
    )
    slices = rng.randint(1, 4) if schedule.slices else 1
    dp = rng.randint(1, 3)
    late = dp == 1 and not schedule.two_ranks and rng.random() < 0.3
    layers = pp * chunks + rng.randint(0, 2)
    model = ModelConfig(
        rng.choice(list(ModelKind)),
        layers=layers,
        hidden=16,
        heads=2,
        kv_heads=2,
        head_dim=8,
        ffn=24,
        vocab=33,
        positions=16,
        tied=not schedule.two_ranks and rng.random() < 0.3,
    )
    return build_plan(
        model,
        schedule=name,
        pp=pp,
        chunks=chunks,
        num_microbatches=m,
        seq=12,
        dp=dp,
        slices=slices,
        stash_limit=rng.choice([0, 3]) if schedule.limits else 0,
        shard_params=dp > 1 and rng.random() < 0.3,
        split_buckets=rng.random() < 0.3,
        clock="free" if late else "barrier",
        late_norm=late,
        depth=rng.choice([0, 0, 1, 2]),
        look_ahead=rng.randint(0, 3),
    )


def random_profile(rng: Random, plan: Plan) -> Profile:
    """Any durations; half of the braids take less than the sum of their members."""
    scale = rng.choice([1, 5, 10**6])
    stages = range(len(plan.stages))

    def some_ns() -> int:
        return rng.randint(0, scale)

    braids = {
        tuple((member.op.value, member.stage) for member in each.members)
        for program in plan.programs
        if (program.table.op == CODES[Op.FB]).any()
        for each in program.instructions
        if each.op is Op.FB
    }
    return Profile(
        rng.choice(list(Mover)),
        work_ns={(op, stage): some_ns() for op in PASSES for stage in stages},
        bucket_ns={
            (op, bucket.stage, bucket.index): some_ns()
            for bucket in plan.buckets
            for op in ("OPT", "ZERO", "PV", "UNDO")
        },
        channel={each.name: ChannelNs(some_ns(), some_ns(), some_ns()) for each in plan.channels},
        group_ns={(group.name, op.value, None, None): some_ns() for group in plan.groups for op in Op},
        copy_ns={(op, stage): some_ns() for op in ("OFF", "LD") for stage in stages},
        post_ns={op: some_ns() // 4 for op in ("SF", "RB", "AR")},
        braid_ns={members: some_ns() for members in sorted(braids) if rng.random() < 0.5},
        issue_ns=rng.choice([0, 0, scale // 4]),
    )


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
