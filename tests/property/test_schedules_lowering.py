"""Whatever the schedule, its numbers and durations: the plan is accepted, runs, and takes what it must."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_cases import free_of_charge

from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import check_plan, verdict
from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.workload.model import ModelConfig, ModelKind

SEQ = 12
"""Tokens of a sequence: up to four slices divide it."""
PASSES = {Op.F, Op.I, Op.W, Op.B, Op.RC}
Numbers = tuple[int, int, int, int]  # ranks, chunks, microbatches, slices


@cache
def legal_numbers(schedule: str) -> list[Numbers]:
    """What a schedule can run with: up to 6 ranks, 3 chunks, 2p + 3 microbatches and 3 slices."""
    return [
        (pp, chunks, m, slices)
        for pp, chunks, slices in product(range(1, 7), range(1, 4), range(1, 4))
        for m in range(1, 2 * pp + 4)
        if not SCHEDULES[schedule].problem(pp, m, chunks, num_slices=slices)
    ]


@dataclass(frozen=True)
class Case:
    """Numbers of one step."""

    schedule: str
    numbers: Numbers
    dp: int
    kind: ModelKind
    tied: bool
    look_ahead: int
    depth: int
    layers: tuple[int, ...]
    times: WorkTimes

    def order(self) -> Order:
        pp, chunks, m, slices = self.numbers
        return make_order(self.schedule, pp, m, chunks, num_slices=slices, times=self.times)

    def build(self) -> Plan:
        pp, chunks, m, slices = self.numbers
        model = ModelConfig(
            self.kind,
            layers=sum(self.layers),
            hidden=16,
            heads=2,
            kv_heads=2,
            head_dim=8,
            ffn=24,
            vocab=33,
            positions=SEQ,
            tied=self.tied,
        )
        return build_plan(
            model,
            schedule=self.schedule,
            pp=pp,
            chunks=chunks,
            num_microbatches=m,
            slices=slices,
            seq=SEQ,
            dp=self.dp,
            layers=self.layers,
            look_ahead=self.look_ahead,
            depth=self.depth,
            times=self.times,
        )


@cache
def num_stages(schedule: str, numbers: Numbers) -> int:
    pp, chunks, m, slices = numbers
    return make_order(schedule, pp, m, chunks, num_slices=slices).num_stages


@st.composite
def cases(draw: st.DrawFn) -> Case:
    schedule = draw(st.sampled_from(sorted(SCHEDULES)))
    numbers = draw(st.sampled_from(legal_numbers(schedule)))
    stages = num_stages(schedule, numbers)
    duration_ns = st.integers(1, 9) if draw(st.booleans()) else st.just(draw(st.integers(1, 3)))
    middle = [draw(st.integers(1, 2)) for _ in range(stages - 2)]
    ends = [draw(st.integers(0, 2)) for _ in range(min(stages, 2))]
    layers = (*ends[:1], *middle, *ends[1:])
    if not sum(layers):
        layers = (1, *layers[1:])
    work_ns = {(op, stage): draw(duration_ns) * numbers[3] for op in "FIW" for stage in range(stages)}
    copy_ns = {(op, stage): draw(st.integers(0, 3)) for op in ("OFF", "LD") for stage in range(stages)}
    return Case(
        schedule,
        numbers,
        dp=draw(st.integers(1, 2)),
        kind=draw(st.sampled_from(list(ModelKind))),
        tied=draw(st.booleans()),
        look_ahead=draw(st.integers(0, 3)),
        depth=draw(st.sampled_from((0, 0, 1, 2))),
        layers=layers,
        times=WorkTimes(work_ns, draw(st.integers(0, 4)), copy_ns=copy_ns),
    )


def makespan_ns(plan: Plan, order: Order, times: WorkTimes, mover: Mover) -> int:
    """Barrier makespan when only passes, hops and copies take time."""
    return replay(plan, free_of_charge(plan, order, times, mover)).summary().makespan_ns


def least_ns(order: Order, times: WorkTimes) -> int:
    """No order is faster than its busiest rank, nor than one item through all stages and back."""
    tables = {op: times.table(op, order.num_stages, order.num_slices) for op in PASSES}
    busiest = max(
        sum(tables[work.op][work.stage] for work in order.works(rank) if work.op in PASSES)
        for rank in range(order.num_ranks)
    )
    stages = order.placement
    # Of stages on two ranks any item may stay on its rank.
    hops = sum(len({*one, *other}) == 2 == len(one) + len(other) for one, other in pairwise(stages))
    through = sum(tables[Op.F]) + sum(tables[Op.I]) + tables[Op.W][0]
    return max(busiest, through + 2 * hops * times.hop_ns)


@settings(max_examples=200)
@given(case=cases())
def test_a_lowered_plan_is_accepted_and_takes_as_long_as_its_order(case: Case) -> None:
    """With receives posted ahead, messages cost their latency and nothing else: replay equals the walk."""
    plan, order = case.build(), case.order()
    walked_ns = walk(order, case.times).makespan_ns

    check_plan(plan)
    engine_ns = makespan_ns(plan, order, case.times, Mover.ENGINE)
    assert engine_ns >= walked_ns >= least_ns(order, case.times)
    # k buffers hold at most k messages, those on their way included.
    if case.look_ahead and not case.depth:
        assert engine_ns == walked_ns
    assert makespan_ns(plan, order, case.times, Mover.INLINE) >= walked_ns


@settings(max_examples=60)
@given(case=cases(), hop_ns=st.integers(0, 20), scale=st.integers(1, 5))
def test_a_plan_still_runs_when_the_machine_is_not_as_expected(case: Case, hop_ns: int, scale: int) -> None:
    """Posts were placed for other durations: the step may take longer, it never stops."""
    plan, order = case.build(), case.order()
    other = WorkTimes(
        {(op, stage): 1 + (ns * scale * (stage + 1)) % 7 for (op, stage), ns in case.times.work_ns.items()},
        hop_ns,
        copy_ns={at: ns * scale for at, ns in case.times.copy_ns.items()},
    )

    for mover in Mover:
        assert makespan_ns(plan, order, other, mover) >= least_ns(order, other)


@settings(max_examples=60)
@given(case=cases())
def test_the_written_plan_is_accepted_and_says_what_the_order_says(case: Case) -> None:
    plan, order = case.build(), case.order()

    assert verdict(write_plan(plan)).code == "ok"
    for pp, works in enumerate(map(order.works, range(order.num_ranks))):
        passes = [
            (each.op, each.stage, each.microbatch, max(each.slice, 0))
            for instruction in plan.program(pp).instructions
            for each in instruction.members or (instruction,)
            if each.op in {*PASSES, Op.OFF, Op.LD}
        ]
        assert passes == [work[:4] for work in works]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_small_plan_is_accepted(schedule: str) -> None:
    """All numbers up to 6 ranks, with one and two replicas, tied and not."""
    for numbers, dp, tied in product(legal_numbers(schedule), (1, 2), (False, True)):
        times = WorkTimes.unit(num_stages(schedule, numbers), 6)
        case = Case(
            schedule,
            numbers,
            dp,
            ModelKind.GPT,
            tied,
            look_ahead=1,
            depth=0,
            layers=(1,) * num_stages(schedule, numbers),
            times=times,
        )
        plan, order = case.build(), case.order()

        check_plan(plan)
        assert makespan_ns(plan, order, times, Mover.ENGINE) == walk(order, times).makespan_ns
