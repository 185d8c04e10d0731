"""From a random request to a plan that runs: accepted, never stuck, no faster than proven, memory as said."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schedule_cases import Case, cases

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.live_slots import peak_slots, peak_slots_in_time
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import check_plan
from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.order_bound import order_bound
from exactmap.sim.schedules.registry import SCHEDULES
from exactmap.sim.schedules.timeline import walk
from exactmap.sim.workload.model import ModelConfig, ModelKind

PASSES = (Op.F, Op.I, Op.W, Op.B, Op.RC)


def build(case: Case, *, tied: bool, dp: int, depth: int) -> Plan:
    num_stages = case.order.num_stages
    model = ModelConfig(
        ModelKind.LLAMA,
        layers=num_stages,
        hidden=16,
        heads=2,
        kv_heads=1,
        head_dim=8,
        ffn=24,
        vocab=33,
        positions=64,
        tied=tied,
    )
    return build_plan(
        model,
        schedule=case.name,
        pp=case.p,
        chunks=case.v,
        num_microbatches=case.m,
        seq=12 * case.slices,
        dp=dp,
        slices=case.slices,
        group_size=case.group,
        stash_limit=case.limit,
        layers=(1,) * num_stages,
        times=case.times,
        depth=depth,
    )


def profile_of(case: Case, plan: Plan) -> Profile:
    """The durations of the case, and nothing else that takes time."""
    tables = {op: case.times.table(op, len(plan.stages), case.slices) for op in PASSES}
    braids: dict[tuple[tuple[str, int], ...], int] = {}
    for program in plan.programs:
        members = program.table.members
        if members is None:
            continue
        of_braid = program.table.num_members > 0
        for first, num in zip(
            program.table.first_member[of_braid].tolist(),
            program.table.num_members[of_braid].tolist(),
            strict=True,
        ):
            rows = [(KINDS[members.op[row]], int(members.stage[row])) for row in range(first, first + num)]
            total = sum(tables[op][stage] for op, stage in rows)
            key = tuple((op.value, stage) for op, stage in rows)
            braids[key] = max(1, round(total * case.times.braid_share)) if num > 1 else total
    return Profile(
        Mover.ENGINE,
        work_ns={(op.value, stage): ns for op, table in tables.items() for stage, ns in enumerate(table)},
        braid_ns=braids,
        bucket_ns={("OPT", bucket.stage, bucket.index): 0 for bucket in plan.buckets},
        channel={channel.name: ChannelNs(0, case.times.hop_ns) for channel in plan.channels},
        group_ns={(group.name, op, None, None): 0 for group in plan.groups for op in ("AR", "NORM")},
        copy_ns={(op, stage): 0 for op in ("OFF", "LD") for stage in range(len(plan.stages))},
    )


def check_whole(case: Case, *, tied: bool, dp: int, depth: int) -> None:
    plan = build(case, tied=tied and not SCHEDULES[case.name].two_ranks, dp=dp, depth=depth)

    check_plan(plan)
    durations = resolve(plan, profile_of(case, plan))
    trace = replay(plan, durations)
    assert trace.same_times(simulate_events(plan, durations))

    walked = walk(case.order, case.times)
    passes = np.isin(trace.kind, [CODES[op] for op in (*PASSES, Op.FB)])
    assert int(trace.e_ns[passes].max()) >= walked.makespan_ns
    if depth == 0:
        assert int(trace.e_ns[passes].max()) == walked.makespan_ns
    for objective, clock_ns in (("barrier", walked.makespan_ns), ("period", trace.summary().period_ns)):
        bound = order_bound(case.order, case.times, objective)
        assert bound is None or clock_ns >= bound.value_ns, bound

    pools = {(pool.pp, pool.letter): pool.num for pool in plan.pools if pool.num}
    assert peak_slots(plan) == pools
    assert all(num <= pools[key] for key, num in peak_slots_in_time(plan, trace).items())


SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(SETTINGS, max_examples=200)
@given(case=cases(), tied=st.booleans(), dp=st.integers(1, 2), depth=st.sampled_from((0, 0, 1)))
def test_whole_plans_of_random_schedules(case: Case, tied: bool, dp: int, depth: int) -> None:
    check_whole(case, tied=tied, dp=dp, depth=depth)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@settings(SETTINGS, max_examples=2000)
@given(case=cases(), tied=st.booleans(), dp=st.integers(1, 2), depth=st.sampled_from((0, 0, 1)))
def test_whole_plans_of_two_thousand_random_schedules(case: Case, tied: bool, dp: int, depth: int) -> None:
    check_whole(case, tied=tied, dp=dp, depth=depth)
