"""Every schedule of the registry, with random sizes and durations: it runs, and it beats no proven bound."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from schedule_cases import Case, cases

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.interleaved import microbatch_groups
from exactmap.sim.schedules.metrics import measure, peak_stash_items
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.timeline import Timeline, WorkTimes, walk


def passes_ns(case: Case, order: Order, op: Op) -> np.ndarray:
    return np.array(case.times.table(op, order.num_stages, case.slices))


def first_backward(order: Order, timeline: Timeline, rank: int) -> tuple[int, int]:
    """Row and start of the first I or B of stage 0 on a rank."""
    works = order.works(rank)
    ours = (works.stage == 0) & np.isin(works.op, [CODES[Op.I], CODES[Op.B]])
    row = int(np.flatnonzero(ours)[0])
    return row, int(timeline.start_ns[rank][row])


@given(cases())
def test_an_order_runs_and_is_no_faster_than_its_work_and_its_longest_path(case: Case) -> None:
    """The step lasts as long as the busiest rank works, and as one microbatch needs there and back."""
    order = case.order

    metrics = measure(order, case.times)

    splits = SCHEDULES[case.name].splits_backward
    per_op = {op: passes_ns(case, order, op) for op in (Op.F, Op.I, Op.W, Op.B, Op.RC)}
    busiest = max(
        sum(int(per_op[op][stage]) for op, stage, *_ in order.works(rank) if op in per_op)
        for rank in range(case.p)
    )
    ranks = order.rank_of_item.reshape(order.num_stages, -1)[:, 0]
    num_hops = int((ranks[1:] != ranks[:-1]).sum())
    back = per_op[Op.I] if splits and case.name not in {"dualpipe", "dualpipe-v"} else per_op[Op.B]
    back = np.minimum(back, per_op[Op.I]) if splits else back
    assert metrics.makespan_ns >= busiest * case.times.braid_share - order.num_items
    if case.times.braid_share == 1:
        assert metrics.makespan_ns >= int(per_op[Op.F].sum() + back.sum()) + 2 * num_hops * case.times.hop_ns
    assert metrics.period_ns <= metrics.makespan_ns
    assert 0 <= metrics.bubble_steady <= metrics.bubble_barrier < 1
    assert metrics.p2p_messages == 2 * sum(
        int((order.rank_of_item.reshape(order.num_stages, -1)[s] != ranks_of).sum())
        for s, ranks_of in enumerate(order.rank_of_item.reshape(order.num_stages, -1)[1:])
    )


@given(cases())
def test_no_first_rank_idles_less_than_the_first_microbatch_makes_it(case: Case) -> None:
    """Before its first backward pass the first rank waits for the microbatch to go there and back.

    With k forward passes admitted before it, k microbatches are stashed and, for even stages, the rank idles
    at least (p-1)(I+2c) + (p-k)F. Source: arXiv:2401.10241.
    """
    order = case.order
    timeline = walk(order, case.times)
    rank = int(order.rank_of_item[0])

    row, start_ns = first_backward(order, timeline, rank)

    works = order.works(rank)
    number = int(works.microbatch[row]) * case.slices
    item_ranks = order.rank_of_item.reshape(order.num_stages, -1)[:, number].tolist()
    hops = sum(a != b for a, b in pairwise(item_ranks))
    forward, gradient = (passes_ns(case, order, op) for op in (Op.F, Op.I))
    shortest_ns = int(forward.sum() + gradient[1:].sum()) + 2 * hops * case.times.hop_ns
    if case.times.braid_share == 1:
        assert start_ns >= shortest_ns
    before = works.taken(slice(0, row))
    if case.v == 1 and case.slices == 1 and set(before.op.tolist()) == {CODES[Op.F]}:
        k = len(before)
        idle_ns = start_ns - k * int(forward[0])
        assert (
            idle_ns >= int(gradient[1:].sum() + forward.sum() - k * forward[0]) + 2 * hops * case.times.hop_ns
        )
        if not (SCHEDULES[case.name].recomputes or SCHEDULES[case.name].copies):
            assert peak_stash_items(order)[rank] >= k


def stash_formula(case: Case, rank: int) -> tuple[float, float]:
    """Least and most microbatches that a rank may stash at its peak, as documented."""
    p, m, v, n, r = case.p, case.m, case.v, case.slices, rank
    group = len(microbatch_groups(p, m, case.group)[0])
    exact: float
    match case.name:
        case "gpipe" | "terapipe" | "breadth-first":
            exact = m
        case "1f1b":
            exact = min(p - r, m)
        case "eager-1f1b":
            exact = min(2 * (p - 1 - r) + 1, m)
        case "interleaved-1f1b":
            exact = min((2 if v > 1 else 1) * (p - 1 - r) + (v - 1) * group + 1, m * v) / v
        case "braided-interleaved":
            exact = min(2 * (p - 1 - r) + (v - 1) * group + 2, m * v) / v
        case "interleaved-zb":
            exact = min(p + (v - 1) * group, m * v) / v
        case "zb-h1":
            exact = min(p, m)
        case "zb-h2":
            exact = min(2 * p - 1, m)
        case "zb-v":
            return min(p, m) / 2, min(p, m)
        case "v-half":
            return 1, (p + 2) // 2
        case "v-min":
            return 1, (p + 4) // 3
        case "dualpipe":
            exact = p + 1
        case "dualpipe-v":
            exact = p + 0.5
        case "chimera":
            return 1, p
        case "hanayo":
            return 1, min(p, m)
        case "seq-1f1b":
            exact = min(p - 1 - r + n, m * n) / n
        case "1f1b-recompute":
            exact = 1
        case "1f1b-selective-recompute":
            exact = min(p - r, m, case.limit or m)
        case "1f1b-offload":
            return 1, min(p - r, m, case.limit or m)
        case _:
            raise AssertionError(case.name)
    return exact, exact


@given(cases())
def test_every_rank_stashes_what_its_schedule_says(case: Case) -> None:
    order = case.order

    stash = measure(order, case.times).peak_stash

    for rank, microbatches in enumerate(stash):
        least, most = stash_formula(case, rank)
        assert least - 1e-9 <= microbatches <= most + 1e-9, (rank, microbatches)


@given(st.integers(1, 8), st.integers(1, 24), st.integers(1, 4), st.integers(1, 20), st.data())
def test_groups_of_any_size_idle_as_little(p: int, m: int, v: int, unit_ns: int, data: st.DataObject) -> None:
    """(p-1)(F+B)/v for every group size from p to m, (p-1)(F+I-W)/v with W put off, F = I = W."""
    m = max(m, p)
    group = data.draw(st.integers(p, m))
    times = WorkTimes.unit(p * v, unit_ns)

    plain, braided, split = (
        walk(make_order(name, p, m, v, group_size=group), times).makespan_ns
        for name in ("interleaved-1f1b", "braided-interleaved", "interleaved-zb")
    )

    assert plain == braided == 3 * unit_ns * (m * v + p - 1)
    assert split == unit_ns * (3 * m * v + p - 1)


@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 5), st.integers(1, 30), st.integers(1, 30))
def test_slices_fill_and_drain_faster(p: int, m: int, n: int, forward_ns: int, backward_ns: int) -> None:
    """(p-1)(F+B)/n idle over n slices, with all forward passes first and in turn alike."""
    work_ns = {(op, s): n * ns for op, ns in (("F", forward_ns), ("B", backward_ns)) for s in range(p)}

    for name in ("terapipe", "seq-1f1b"):
        order = make_order(name, p, m, num_slices=n)
        makespan_ns = walk(order, WorkTimes(work_ns)).makespan_ns
        assert makespan_ns == (forward_ns + backward_ns) * (m * n + p - 1)
