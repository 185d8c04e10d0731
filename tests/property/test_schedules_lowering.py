"""Whatever the schedule, its numbers and durations: the plan is accepted, runs, and takes what it must."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import check_plan, verdict
from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.workload.model import ModelConfig, ModelKind

# Schedules whose orders lowering can make plans of.
LOWERED = [
    name
    for name, each in SCHEDULES.items()
    if not (each.slices or each.braids or each.two_ranks or each.recomputes or each.copies)
    and not each.fixed_chunks
    and name != "hanayo"
]


@dataclass(frozen=True)
class Case:
    """Numbers of one step."""

    schedule: str
    pp: int
    chunks: int
    num_microbatches: int
    dp: int
    kind: ModelKind
    tied: bool
    look_ahead: int
    depth: int
    layers: tuple[int, ...]
    times: WorkTimes

    def build(self) -> Plan:
        model = ModelConfig(
            self.kind,
            layers=sum(self.layers),
            hidden=16,
            heads=2,
            kv_heads=2,
            head_dim=8,
            ffn=24,
            vocab=33,
            positions=8,
            tied=self.tied,
        )
        return build_plan(
            model,
            schedule=self.schedule,
            pp=self.pp,
            chunks=self.chunks,
            num_microbatches=self.num_microbatches,
            seq=8,
            dp=self.dp,
            layers=self.layers,
            look_ahead=self.look_ahead,
            depth=self.depth,
            times=self.times,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    schedule = draw(st.sampled_from(LOWERED))
    pp = draw(st.integers(1, 6))
    chunks = draw(st.integers(1, 3)) if SCHEDULES[schedule].many_chunks else 1
    num_stages = pp * chunks
    duration_ns = st.integers(1, 9) if draw(st.booleans()) else st.just(draw(st.integers(1, 3)))
    middle = [draw(st.integers(1, 2)) for _ in range(num_stages - 2)]
    ends = [draw(st.integers(0, 2)) for _ in range(min(num_stages, 2))]
    layers = (*ends[:1], *middle, *ends[1:])
    if not sum(layers):
        layers = (1, *layers[1:])
    work_ns = {(op, stage): draw(duration_ns) for op in "FIW" for stage in range(num_stages)}
    return Case(
        schedule,
        pp,
        chunks,
        num_microbatches=draw(st.integers(1, 2 * pp + 3)),
        dp=draw(st.integers(1, 2)),
        kind=draw(st.sampled_from(list(ModelKind))),
        tied=draw(st.booleans()),
        look_ahead=draw(st.integers(0, 3)),
        depth=draw(st.sampled_from((0, 0, 1, 2))),
        layers=layers,
        times=WorkTimes(work_ns, draw(st.integers(0, 4))),
    )


def makespan_ns(plan: Plan, times: WorkTimes, mover: Mover) -> int:
    """Barrier makespan when only passes and hops take time."""
    profile = Profile(
        mover,
        work_ns=times.work_ns,
        bucket_ns={("OPT", bucket.stage, bucket.index): 0 for bucket in plan.buckets},
        channel={channel.name: ChannelNs(0, times.hop_ns) for channel in plan.channels},
        group_ns={(group.name, op, None, None): 0 for group in plan.groups for op in ("AR", "NORM")},
    )
    return replay(plan, resolve(plan, profile)).summary().makespan_ns


def least_ns(case: Case) -> int:
    """No order is faster than its busiest rank, nor than a microbatch through all stages and back."""
    num_stages, m = case.pp * case.chunks, case.num_microbatches
    forward, input_grad, weight_grad = (
        [case.times.work_ns[op, stage] for stage in range(num_stages)] for op in "FIW"
    )
    busiest = max(
        m * (sum(forward[r :: case.pp]) + sum(input_grad[r :: case.pp]) + sum(weight_grad[r :: case.pp]))
        for r in range(case.pp)
    )
    hops = 2 * (num_stages - 1) * case.times.hop_ns if case.pp > 1 else 0
    return max(busiest, sum(forward) + sum(input_grad) + weight_grad[0] + hops)


@settings(max_examples=150)
@given(case=cases())
def test_a_lowered_plan_is_accepted_and_takes_as_long_as_its_order(case: Case) -> None:
    """With receives posted ahead, messages cost their latency and nothing else: replay equals the walk."""
    plan = case.build()
    order = make_order(case.schedule, case.pp, case.num_microbatches, case.chunks)
    walked_ns = walk(order, case.times).makespan_ns

    check_plan(plan)
    engine_ns = makespan_ns(plan, case.times, Mover.ENGINE)
    assert engine_ns >= walked_ns >= least_ns(case)
    if case.look_ahead and not case.depth:  # k buffers hold at most k messages, those on their way included
        assert engine_ns == walked_ns
    assert makespan_ns(plan, case.times, Mover.INLINE) >= walked_ns


@settings(max_examples=50)
@given(case=cases(), hop_ns=st.integers(0, 20), scale=st.integers(1, 5))
def test_a_plan_still_runs_when_the_machine_is_not_as_expected(case: Case, hop_ns: int, scale: int) -> None:
    """Posts were placed for other durations: the step may take longer, it never stops."""
    plan = case.build()
    other = WorkTimes(
        {(op, stage): 1 + (ns * scale * (stage + 1)) % 7 for (op, stage), ns in case.times.work_ns.items()},
        hop_ns,
    )

    for mover in Mover:
        assert makespan_ns(plan, other, mover) >= least_ns(replace(case, times=other))


@settings(max_examples=50)
@given(case=cases())
def test_the_written_plan_is_accepted_and_says_what_the_order_says(case: Case) -> None:
    plan = case.build()
    order = make_order(case.schedule, case.pp, case.num_microbatches, case.chunks)

    assert verdict(write_plan(plan)).code == "ok"
    for pp, works in enumerate(map(order.works, range(order.num_ranks))):
        passes = [
            (i.op, i.stage, i.microbatch)
            for i in plan.program(pp).instructions
            if i.op in {Op.F, Op.I, Op.W, Op.B}
        ]
        assert passes == [work[:3] for work in works]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", LOWERED)
def test_every_small_plan_is_accepted(schedule: str) -> None:
    """All p up to 6, m up to 2p+3, v up to 3, with one and two replicas, tied and not."""
    for pp, chunks, dp, tied in product(range(1, 7), range(1, 4), (1, 2), (False, True)):
        if SCHEDULES[schedule].problem(pp, 1, chunks):
            continue
        for num_microbatches in range(1, 2 * pp + 4):
            times = WorkTimes.unit(pp * chunks, 2)
            case = Case(
                schedule,
                pp,
                chunks,
                num_microbatches,
                dp,
                ModelKind.GPT,
                tied,
                look_ahead=1,
                depth=0,
                layers=(1,) * (pp * chunks),
                times=times,
            )
            plan = case.build()

            check_plan(plan)
            order = make_order(schedule, pp, num_microbatches, chunks)
            assert makespan_ns(plan, times, Mover.ENGINE) == walk(order, times).makespan_ns
