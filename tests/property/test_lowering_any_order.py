"""Any order that can run at all becomes a plan that is accepted and takes as long as the order's walk.

The orders are no schedules: ranks take ready works in random turns. They have stages on one rank or two,
hand-overs, slices, split and fused backward passes, recomputation, copies to the host and braids.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from order_cases import OrderCase, free_of_charge, lowered

from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import check_plan, verdict
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.order import Order, Work
from exactmap.sim.schedules.slots import colour
from exactmap.sim.schedules.timeline import WorkTimes, walk

Item = tuple[int, int, int]  # stage, microbatch, slice
COPIES = (Op.OFF, Op.LD)  # in this order: random numbers are drawn along it


class Game:
    """Ranks take ready works in random turns until all is done: what comes out is an order that can run."""

    def __init__(self, random: Random, num_ranks: int, num_stages: int, m: int, num_slices: int) -> None:
        self.random, self.num_stages, self.num_slices = random, num_stages, num_slices
        self.m = m
        self.placement = tuple(self.ranks_of(stage, num_ranks) for stage in range(num_stages))
        self.works: list[list[Work]] = [[] for _ in range(num_ranks)]
        self.done: set[tuple[Op, Item]] = set()
        self.made: dict[str, set[Item]] = {"y": set(), "dx": set()}
        self.left: dict[Item, list[Op]] = {}
        self.rank_of: dict[Item, int] = {}
        for stage in range(num_stages):
            for microbatch in range(m):
                rank = random.choice(self.placement[stage])
                for cut in range(num_slices):
                    self.left[stage, microbatch, cut] = self.chain()
                    self.rank_of[stage, microbatch, cut] = rank

    def ranks_of(self, stage: int, num_ranks: int) -> tuple[int, ...]:
        """The ranks go round, so that none is without a stage; some stages have a second one."""
        first, second = stage % num_ranks, self.random.randrange(num_ranks)
        return (first,) if first == second or self.random.random() < 0.5 else tuple(sorted((first, second)))

    def chain(self) -> list[Op]:
        """What is to be done with one item."""
        again = [Op.RC] if self.random.random() < 0.3 else []
        copies = [Op.OFF, Op.LD] if self.random.random() < 0.3 else []
        backward = [Op.B] if self.random.random() < 0.5 else [Op.I, Op.W]
        return [Op.F, *again, *copies, *backward]

    def ready(self, item: Item) -> bool:
        stage, microbatch, cut = item
        op = self.left[item][0]
        if op is Op.F:
            before = cut == 0 or (stage, microbatch, cut - 1) in self.made["y"]
            return before and (stage == 0 or (stage - 1, microbatch, cut) in self.made["y"])
        if op in {Op.I, Op.B}:
            before = cut == self.num_slices - 1 or (stage, microbatch, cut + 1) in self.made["dx"]
            return before and (
                stage == self.num_stages - 1 or (stage + 1, microbatch, cut) in self.made["dx"]
            )
        return True

    def play(self) -> Order:
        number = 0
        while self.left:
            ready = [item for item in self.left if self.ready(item)]
            first = self.random.choice(ready)
            members = [first]
            if self.left[first][0] not in COPIES and self.random.random() < 0.4:
                for item in ready:
                    apart = item[:2] not in {member[:2] for member in members}
                    here = self.rank_of[item] == self.rank_of[first]
                    if apart and here and len(members) < 3 and self.left[item][0] not in COPIES:
                        members.append(item)
            number += 1
            for item in members:
                op = self.left[item].pop(0)
                braid = number if len(members) > 1 else -1
                self.works[self.rank_of[item]].append(Work(op, *item, braid))
                if op is Op.F:
                    self.made["y"].add(item)
                elif op in {Op.I, Op.B}:
                    self.made["dx"].add(item)
                if not self.left[item]:
                    del self.left[item]
        return Order(self.m, self.placement, self.works, self.num_slices)


@dataclass(frozen=True)
class Drawn:
    """A case with the durations that it is lowered for."""

    case: OrderCase
    times: WorkTimes
    look_ahead: int
    depth: int


@st.composite
def cases(draw: st.DrawFn) -> Drawn:
    random = Random(draw(st.integers(0, 2**32)))
    num_ranks = draw(st.integers(1, 4))
    num_stages = num_ranks * draw(st.integers(1, 2)) + draw(st.integers(0, 1))
    order = Game(random, num_ranks, num_stages, draw(st.integers(1, 4)), draw(st.integers(1, 3))).play()
    first, last = (set(order.placement[stage]) for stage in (0, -1))
    dp = draw(st.integers(1, 2))
    late = draw(st.booleans())
    options: dict[str, bool | str] = {
        "shard_params": dp > 1 and draw(st.booleans()),
        "split_buckets": draw(st.booleans()),
        "clock": "free" if late else "barrier",
        "late_norm": late,
    }
    tied = draw(st.booleans()) and (last <= first or not last & first)
    span = draw(st.integers(1, 9))
    # A slice takes its even share, and at least 1 ns.
    work_ns = {
        (op, stage): random.randint(1, span) * order.num_slices
        for op in ("F", "I", "W")
        for stage in range(num_stages)
    }
    copies_ns = {(op, stage): random.randint(0, span) for op in COPIES for stage in range(num_stages)}
    times = WorkTimes(work_ns, draw(st.integers(0, 4)), copy_ns=copies_ns)
    depth = draw(st.sampled_from((0, 0, 0, 2)))
    return Drawn(OrderCase(order, dp, options, tied), times, draw(st.integers(0, 3)), depth)


@settings(max_examples=200)
@given(drawn=cases())
def test_any_order_is_accepted_and_takes_as_long_as_its_walk(drawn: Drawn) -> None:
    order, times = drawn.case.order, drawn.times
    plan = lowered(drawn.case, times, look_ahead=drawn.look_ahead, depth=drawn.depth)
    check_plan(plan)

    walked_ns = walk(order, times).makespan_ns
    got = replay(plan, free_of_charge(plan, order, times, Mover.ENGINE)).summary().makespan_ns
    assert got >= walked_ns
    if drawn.look_ahead and not drawn.depth:
        assert got == walked_ns


@settings(max_examples=60)
@given(drawn=cases(), hop_ns=st.integers(0, 20), scale=st.integers(1, 5))
def test_a_plan_runs_on_a_machine_that_is_not_as_expected(drawn: Drawn, hop_ns: int, scale: int) -> None:
    """Whatever the durations, and whoever moves the bytes: two engines agree on how long it takes."""
    order = drawn.case.order
    plan = lowered(drawn.case, drawn.times, look_ahead=drawn.look_ahead, depth=drawn.depth)
    other = WorkTimes(
        {(op, stage): 1 + (ns * scale * (stage + 1)) % 7 for (op, stage), ns in drawn.times.work_ns.items()},
        hop_ns,
        copy_ns={at: scale * ns for at, ns in drawn.times.copy_ns.items()},
    )
    for mover in Mover:
        durations = free_of_charge(plan, order, other, mover)
        traces = [engine(plan, durations).summary().makespan_ns for engine in (replay, simulate_events)]

        assert traces[0] == traces[1] > 0


@settings(max_examples=60)
@given(drawn=cases())
def test_the_written_plan_says_what_the_order_says(drawn: Drawn) -> None:
    """Works in their order, braids whole, copies posted between the works where the order has them."""
    order = drawn.case.order
    plan = lowered(drawn.case, drawn.times)

    assert verdict(write_plan(plan)).code == "ok"
    for pp in range(order.num_ranks):
        said: list[tuple[Op, int, int, int]] = []
        sizes: list[int] = []
        for instruction in plan.program(pp).instructions:
            members = instruction.members if instruction.op is Op.FB else (instruction,)
            if members[0].op in {Op.F, Op.I, Op.W, Op.B, Op.RC, Op.OFF, Op.LD}:
                said += [(each.op, each.stage, each.microbatch, max(each.slice, 0)) for each in members]
                sizes.append(len(members))
        braids = Counter(work.braid for work in order.works(pp) if work.braid >= 0)

        assert said == [work[:4] for work in order.works(pp)]
        assert sorted(size for size in sizes if size > 1) == sorted(braids.values())


def lives(plan: Plan, pp: int) -> dict[str, int]:
    """Most slots of each pool that are named and not yet ended, by the table of the plan format alone."""
    last_stage = len(plan.stages) - 1
    alive: Counter[str] = Counter()
    most: Counter[str] = Counter()
    off: set[tuple[int, ...]] = set()

    def end(each: Instruction) -> None:
        item = each[1:4]
        if each.op in {Op.W, Op.B}:
            alive["w"] -= 1
            alive["h"] -= (each.stage > 0) + (each.stage < last_stage)
        if each.op in {Op.I, Op.B}:
            alive["a"] -= 1
            alive["k"] -= each.slice == 0
        if each.op is Op.W:
            alive["g"] -= 1
        if each.op is Op.WOFF:
            off.add(item)
            alive.subtract("aw")
        alive["o"] -= each.op is Op.WLD
        alive["h"] -= each.op is Op.WS
        alive["p"] -= each.op is Op.FREE

    for instruction in plan.program(pp).instructions:
        members = instruction.members or (instruction,)
        for each in members:
            alive.update(letter for letter, _ in each.slots)
        for letter, number in alive.items():
            most[letter] = max(most[letter], number)
        for each in members:
            end(each)
    assert not any(number for letter, number in alive.items() if letter != "q")
    return {letter: number for letter, number in most.items() if number}


@settings(max_examples=60)
@given(drawn=cases())
def test_no_pool_has_more_slots_than_live_at_once(drawn: Drawn) -> None:
    plan = lowered(drawn.case, drawn.times, look_ahead=drawn.look_ahead)
    for pp in range(drawn.case.order.num_ranks):
        assert {pool.letter: pool.num for pool in plan.pools if pool.pp == pp} == lives(plan, pp)


@settings(max_examples=200)
@given(spans=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=20))
def test_slots_are_few_and_never_shared(spans: list[tuple[int, int]]) -> None:
    """As many slots as live at once at some moment, each given on only when its buffer has ended."""
    # Every buffer is named by an instruction of its own, at an even place, and ended at any.
    begins = [4 * (begin * len(spans) + number) for number, (begin, _) in enumerate(spans)]
    ends = [begin + 4 * len(spans) * length for begin, (_, length) in zip(begins, spans, strict=True)]
    colouring = colour(np.array(begins, dtype=np.int64), np.array(ends, dtype=np.int64))
    peak = max(
        (sum(b <= moment <= e for b, e in zip(begins, ends, strict=True)) for moment in begins), default=0
    )
    by_slot: dict[int, list[tuple[int, int, int]]] = {}
    for number, slot in enumerate(colouring.slot.tolist()):
        by_slot.setdefault(slot, []).append((begins[number], ends[number], int(colouring.wanted_key[number])))

    assert colouring.num_slots == peak == len(by_slot)
    for buffers in by_slot.values():
        buffers.sort()
        for (_, end, wanted), (begin, _, _) in pairwise(buffers):
            assert end < begin == wanted
    wanted = colouring.wanted_key[colouring.by_end]
    assert (np.diff(wanted) >= 0).all()


@pytest.mark.slow
@settings(max_examples=3000)
@given(drawn=cases())
def test_very_many_orders(drawn: Drawn) -> None:
    plan = lowered(drawn.case, drawn.times, look_ahead=drawn.look_ahead, depth=drawn.depth)

    check_plan(plan)
