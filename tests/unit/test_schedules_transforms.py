"""Recomputation and offload: what they do to an order, and that they do no more than they must."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import numpy as np
import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.metrics import measure, peak_stash_items
from exactmap.sim.schedules.offload import copy_reach, offload, offload_in_time, offload_within
from exactmap.sim.schedules.order import Order, Work
from exactmap.sim.schedules.recompute import items_within, recompute, recompute_selectively
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

UNIT_NS = 1000


def spell(order: Order, rank: int) -> str:
    return " ".join(f"{op}{stage}.{microbatch}" for op, stage, microbatch, *_ in order.works(rank))


def num_of(order: Order, op: Op) -> int:
    return sum(int((order.works(rank).op == CODES[op]).sum()) for rank in range(order.num_ranks))


def with_copies(order: Order, copy_ns: int) -> WorkTimes:
    unit = WorkTimes.unit(order.num_stages, UNIT_NS)
    copies = {(op, stage): copy_ns for op in ("OFF", "LD") for stage in range(order.num_stages)}
    return WorkTimes(unit.work_ns, copy_ns=copies)


def test_full_recomputation_costs_a_forward_pass_each_and_keeps_one_stash() -> None:
    """The forward pass again needs no gradient, so waits hide it: m(2F+B) + (p-1)(F+B)."""
    for p, m in ((4, 8), (8, 24), (5, 3)):
        order = make_order("1f1b-recompute", p, m)
        metrics = measure(order, WorkTimes.unit(p, UNIT_NS))

        assert metrics.peak_stash == (1.0,) * p
        if m >= p:
            assert metrics.makespan_ns == UNIT_NS * (4 * m + 3 * (p - 1))


def test_an_item_is_recomputed_before_the_braid_of_its_backward_pass() -> None:
    works = [
        Work(Op.F, 0, 0),
        Work(Op.F, 0, 1, braid=1),
        Work(Op.B, 0, 0, braid=1),
        Work(Op.B, 0, 1),
    ]

    order = recompute(Order(2, ((0,),), [works]))

    assert spell(order, 0) == "F0.0 RC0.0 F0.1 B0.0 RC0.1 B0.1"


def test_a_split_backward_pass_keeps_what_was_made_again_until_its_weight_gradient() -> None:
    order = recompute(make_order("zb-h1", 3, 6))

    assert spell(order, 2).startswith("F2.0 RC2.0 I2.0 F2.1 RC2.1 I2.1 F2.2 RC2.2 I2.2 W2.0")
    assert peak_stash_items(order) == (1, 2, 3)


def test_recomputation_without_a_limit_or_with_room_enough_changes_nothing() -> None:
    order = make_order("1f1b", 4, 8)

    assert recompute_selectively(order, 0) == order
    assert recompute_selectively(order, 4) == order


def test_a_chunk_counts_its_share_of_a_limit() -> None:
    order = make_order("interleaved-1f1b", 4, 8, 2)
    sliced = make_order("seq-1f1b", 4, 8, num_slices=3)

    assert items_within(order, 3) == 6
    assert items_within(sliced, 2) == 6
    assert items_within(make_order("dualpipe", 4, 8), 3) == 3
    limited = recompute_selectively(order, 3)
    assert measure(limited, WorkTimes.unit(8, UNIT_NS)).peak_stash_microbatches == 3.0


SMALL = [("1f1b", 3, 5, 1), ("gpipe", 2, 4, 1), ("interleaved-1f1b", 2, 2, 2), ("zb-h1", 3, 4, 1)]


@pytest.mark.parametrize(("name", "p", "m", "chunks"), SMALL)
def test_no_choice_recomputes_less(name: str, p: int, m: int, chunks: int) -> None:
    """Against all subsets of the items of rank 0, for every limit."""
    order = make_order(name, p, m, chunks)
    mine = np.flatnonzero(order.rank_of_item == 0)
    feasible = 0
    for limit in range(1, m + 1):
        most = items_within(order, limit)
        fewest = next(
            (
                num
                for num in range(len(mine) + 1)
                for chosen in combinations(mine.tolist(), num)
                if peak_stash_items(recompute(order, np.isin(np.arange(order.num_items), chosen)))[0] <= most
            ),
            None,
        )
        try:
            limited = recompute_selectively(order, limit)
        except InfeasibleError:
            continue
        feasible += 1
        assert peak_stash_items(limited)[0] <= most
        assert int((limited.works(0).op == CODES[Op.RC]).sum()) == fewest
    assert feasible > 0


def test_a_limit_below_what_waits_for_weight_gradients_cannot_be_kept() -> None:
    """The last rank of ZB-H1 puts three weight gradients off: with its own, four stashes."""
    with pytest.raises(InfeasibleError, match="rank 2: recomputation alone cannot keep to the stash limit"):
        recompute_selectively(make_order("zb-h1", 4, 8), 2)


def test_a_stash_leaves_behind_its_forward_pass_and_is_back_before_its_backward_pass() -> None:
    order = make_order("1f1b-offload", 4, 6)

    assert spell(order, 0).startswith("F0.0 OFF0.0 F0.1 OFF0.1 F0.2 OFF0.2 LD0.0 F0.3 OFF0.3 B0.0")
    assert num_of(order, Op.OFF) == num_of(order, Op.LD) > 0
    assert spell(order, 3) == spell(make_order("1f1b", 4, 6), 3)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_the_stashes_goes_evenly_spread(share: float) -> None:
    order = offload(make_order("gpipe", 2, 20), share)
    away = [w.microbatch for w in order.works(0) if w.op is Op.OFF]

    assert len(away) == int(20 * share)
    assert len({b - a for a, b in pairwise(away)}) <= 1


@pytest.mark.parametrize(("p", "m"), [(4, 8), (8, 24), (6, 40)])
def test_offload_keeps_to_the_limit_without_costing_time(p: int, m: int) -> None:
    """Copies that fit beside the passes are free: the makespan is that of 1F1B."""
    for limit, copy_ns in product(range(4, p + 1), (0, UNIT_NS // 2, UNIT_NS)):
        base = make_order("1f1b", p, m)
        order = make_order("1f1b-offload", p, m, times=with_copies(base, 0), stash_limit=limit)
        metrics = measure(order, with_copies(order, copy_ns))

        assert metrics.peak_stash_microbatches == min(limit, p)
        assert metrics.makespan_ns == walk(base, WorkTimes.unit(p, UNIT_NS)).makespan_ns
        assert (metrics.copies > 0) == (limit < p)


def test_slow_copies_start_so_early_that_the_limit_holds() -> None:
    """Ten copies of three passes each must be over before the last of forty forward passes."""
    base = make_order("gpipe", 1, 40)
    times = with_copies(base, 3 * UNIT_NS)

    hasty = offload_within(base, 30, reach=copy_reach(base, times))
    metrics = measure(offload_in_time(base, 30, times), times)

    assert copy_reach(base, times) == 4
    assert copy_reach(base, None) == 1
    assert measure(hasty, times).peak_stash_microbatches > 30
    assert metrics.peak_stash_microbatches <= 30
    assert metrics.copies >= 10


def test_copies_that_are_too_slow_are_infeasible() -> None:
    base = make_order("gpipe", 1, 40)

    with pytest.raises(InfeasibleError, match="offload alone cannot keep to the stash limit"):
        offload_in_time(base, 30, with_copies(base, 9 * UNIT_NS))


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_from_nothing_to_all(share: float) -> None:
    with pytest.raises(InvalidInputError, match="a share of the stashes goes to the host"):
        offload(make_order("1f1b", 2, 2), share)


def test_a_copy_takes_a_work_at_least() -> None:
    with pytest.raises(InvalidInputError, match="a copy takes at least one work: got 0"):
        offload(make_order("gpipe", 2, 2), reach=0)
