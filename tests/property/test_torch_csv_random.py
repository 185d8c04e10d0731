"""Random orders go to a file of torch and back; random damage is found or harmless, and never a crash."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Work
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.schedules.torch_csv.channels import ChannelModel, run_channels
from exactmap.sim.schedules.torch_csv.check import check_torch
from exactmap.sim.schedules.torch_csv.file import TorchSchedule, parse_torch_csv
from exactmap.sim.schedules.torch_csv.lower import defer_receives, lower_as_torch


@st.composite
def orders(draw: st.DrawFn) -> Order:
    """Any placement with a stage on each rank; passes in some order in which all inputs are there."""
    num_stages = draw(st.integers(1, 6))
    num_ranks = draw(st.integers(1, num_stages))
    m = draw(st.integers(1, 4))
    rng = random.Random(draw(st.integers(0, 2**32)))
    rank_of = [*range(num_ranks), *(rng.randrange(num_ranks) for _ in range(num_stages - num_ranks))]
    rng.shuffle(rank_of)
    ranks: list[list[Work]] = [[] for _ in range(num_ranks)]
    ready = [Work(Op.F, 0, microbatch) for microbatch in range(m)]
    while ready:
        op, stage, microbatch, *_ = work = ready.pop(rng.randrange(len(ready)))
        ranks[rank_of[stage]].append(work)
        backward = Op.B if rng.random() < 0.5 else Op.I
        if op is Op.F and stage + 1 < num_stages:
            ready.append(Work(Op.F, stage + 1, microbatch))
        elif op is Op.F:
            ready.append(Work(backward, stage, microbatch))
        elif op in {Op.I, Op.B}:
            if stage > 0:
                ready.append(Work(backward, stage - 1, microbatch))
            if op is Op.I:
                ready.append(Work(Op.W, stage, microbatch))
    return Order(m, tuple((rank,) for rank in rank_of), ranks)


def _text(ranks: tuple[object, ...]) -> str:
    return "".join(",".join(actions.cells()) + "\n" for actions in ranks)  # type: ignore[attr-defined]


def _makespans(schedule: TorchSchedule, times: WorkTimes) -> list[float]:
    rank_of = [held[0] for held in schedule.placement]
    runs = [
        run_channels(schedule.ranks, rank_of, schedule.num_microbatches, model, times)
        for model in ChannelModel
    ]
    return [float("inf") if run.makespan_ns is None else run.makespan_ns for run in runs]


@given(orders(), st.integers(0, 3))
def test_any_order_is_lowered_right_and_gets_through(order: Order, hop: int) -> None:
    """One global order of posts: no finding, an end under every model; fewer queues never help."""
    schedule = parse_torch_csv(_text(lower_as_torch(order)))
    times = WorkTimes.unit(order.num_stages, unit_ns=10, hop_ns=hop)

    assert check_torch(schedule).findings == ()
    if schedule.num_microbatches == order.num_microbatches:
        assert schedule.order() == order
    makespans = _makespans(schedule, times)
    assert makespans == sorted(makespans, reverse=True)
    assert walk(order, times).makespan_ns <= makespans[-1] < float("inf")


@given(orders())
def test_deferred_receives_are_right_too(order: Order) -> None:
    """They may wait for each other, yet none is missing, late or twice."""
    rank_of = [held[0] for held in order.placement]
    schedule = parse_torch_csv(_text(defer_receives(lower_as_torch(order), rank_of)))

    assert {finding.rule.split(".")[0] for finding in check_torch(schedule).findings} <= {"progress"}


@given(orders(), st.randoms(use_true_random=False))
def test_damage_is_found_or_harmless(order: Order, rng: random.Random) -> None:
    """Cells moved, left out, doubled or exchanged: where the verdict is good, the step is whole and ends."""
    rows = [line.split(",") for line in _text(lower_as_torch(order)).splitlines()]
    for _ in range(rng.randint(1, 3)):
        row, other = rng.choice(rows), rng.choice(rows)
        match rng.randrange(4):
            case 0:
                row.insert(rng.randrange(len(row) + 1), row.pop(rng.randrange(len(row))))
            case 1:
                row[rng.randrange(len(row))] = ""
            case 2:
                row.insert(rng.randrange(len(row) + 1), rng.choice(other))
            case _:
                at, place = rng.randrange(len(row)), rng.randrange(len(other))
                row[at], other[place] = other[place], row[at]
    try:
        schedule = parse_torch_csv("\n".join(",".join(row) for row in rows))
    except InvalidInputError:
        return

    verdict = check_torch(schedule)

    if verdict.accepted:
        assert schedule.order().num_items == schedule.num_stages * schedule.num_microbatches
        assert _makespans(schedule, WorkTimes.unit(schedule.num_stages, unit_ns=10))[1] < float("inf")
    else:
        assert all(finding.why for finding in verdict.findings)


@given(st.text(alphabet='0123459FIWBSENDRCV_UHAO(;), \r\n"', max_size=40))
def test_any_text_is_a_schedule_or_an_error(text: str) -> None:
    """No other exception, and what is read can be written again."""
    try:
        schedule = parse_torch_csv(text)
    except InvalidInputError:
        return

    again = parse_torch_csv(_text(schedule.ranks))
    assert again.cells() == schedule.cells()
    check_torch(schedule)
