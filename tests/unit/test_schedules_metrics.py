"""What is measured of an order: clocks, bubbles, stash, messages, copies."""

from __future__ import annotations

import numpy as np
import pytest

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.metrics import measure, most_at_once, peak_stash_items
from exactmap.sim.schedules.order import Order, Work, loop_placement, vee_placement
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes


def test_the_clocks_of_the_plan_formats_worked_example() -> None:
    """Two ranks, two microbatches, F = 2, B = 2, a hop 0.5: without its optimizer 13, 13 and 1 - 8/13."""
    times = WorkTimes({(op, s): ns for op, ns in (("F", 20), ("B", 20)) for s in (0, 1)}, hop_ns=5)
    order = Order(
        2,
        loop_placement(2, 1),
        [
            [Work(Op.F, 0, 0), Work(Op.F, 0, 1), Work(Op.B, 0, 0), Work(Op.B, 0, 1)],
            [Work(Op.F, 1, 0), Work(Op.B, 1, 0), Work(Op.F, 1, 1), Work(Op.B, 1, 1)],
        ],
    )

    got = measure(order, times)

    assert (got.makespan_ns, got.period_ns) == (130, 130)
    assert got.bubble_steady == pytest.approx(1 - 8 / 13)
    assert got.p2p_messages == 4


def test_a_braid_counts_once_as_work_and_holds_all_its_stashes_to_its_end() -> None:
    """A braid names what its members need before it frees anything, in whatever order they are listed."""
    works = [
        Work(Op.F, 0, 0),
        Work(Op.B, 0, 0, braid=0),
        Work(Op.F, 0, 1, braid=0),
        Work(Op.B, 0, 1),
    ]
    order = Order(2, ((0,),), [works])
    times = WorkTimes({("F", 0): 10, ("B", 0): 20}, braid_share=0.8)

    got = measure(order, times)

    assert peak_stash_items(order) == (2,)
    assert got.makespan_ns == 10 + 24 + 20
    assert got.bubble_barrier == pytest.approx(0)


def test_a_stash_on_the_host_makes_room_when_its_copy_has_moved() -> None:
    works = [
        *(Work(Op.F, 0, 0), Work(Op.OFF, 0, 0), Work(Op.F, 0, 1), Work(Op.F, 0, 2)),
        *(Work(Op.B, 0, 1), Work(Op.LD, 0, 0), Work(Op.B, 0, 2), Work(Op.B, 0, 0)),
    ]
    order = Order(3, ((0,),), [works])
    unit = {("F", 0): 10, ("B", 0): 20}

    def peak(off_ns: int) -> float:
        return measure(order, WorkTimes(unit, copy_ns={("OFF", 0): off_ns, ("LD", 0): 5})).peak_stash[0]

    assert peak(10) == 2
    assert peak(11) == 3
    # A stash that is asked back before it has left was never away.
    assert peak(1000) == 3
    assert measure(order, WorkTimes(unit)).copies == 1


def test_messages_are_those_that_leave_a_rank() -> None:
    """The turn of a V stays on its rank; a second chunk doubles what a loop sends."""
    num = {
        name: measure(make_order(name, 4, 8, v), WorkTimes.unit(4 * v)).p2p_messages
        for name, v in (("1f1b", 1), ("interleaved-1f1b", 2), ("zb-v", 2), ("dualpipe", 1))
    }

    assert vee_placement(4)[3] == vee_placement(4)[4]
    assert num == {"1f1b": 48, "interleaved-1f1b": 112, "zb-v": 96, "dualpipe": 48}


def test_a_chunk_and_a_slice_count_their_share_of_a_microbatch() -> None:
    sliced = measure(make_order("seq-1f1b", 4, 8, num_slices=4), WorkTimes.unit(4, 4000))
    chunked = measure(make_order("interleaved-zb", 4, 8, 4), WorkTimes.unit(16))

    assert sliced.peak_stash == (7 / 4, 6 / 4, 5 / 4, 4 / 4)
    assert chunked.peak_stash == (4.0,) * 4


def test_intervals_that_touch_do_not_overlap() -> None:
    assert most_at_once(np.array([0, 5]), np.array([5, 9])) == 1
    assert most_at_once(np.array([0, 4]), np.array([5, 9])) == 2
    assert most_at_once(np.array([], dtype=np.int64), np.array([], dtype=np.int64)) == 0
