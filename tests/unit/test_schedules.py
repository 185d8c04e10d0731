"""Orders of F, I, W and B: what each rank computes in which order, and what that costs."""

from __future__ import annotations

import doctest
from itertools import product
from pathlib import Path

import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.interleaved import interleaved, microbatch_groups
from exactmap.sim.schedules.order import Order, Work
from exactmap.sim.schedules.partition import balance_layers, stages_of
from exactmap.sim.schedules.registry import SCHEDULES, find_schedule, make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

UNIT_NS = 1_000_000


def spell(order: Order, rank: int) -> str:
    return " ".join(f"{op}{stage}.{microbatch}" for op, stage, microbatch, *_ in order.works(rank))


def makespan(order: Order, hop: float = 0.0, num_chunks: int = 1) -> float:
    """Makespan in units, F = I = W = 1 unit per rank, shared by its chunks."""
    times = WorkTimes.unit(order.num_stages, UNIT_NS // num_chunks, round(hop * UNIT_NS))
    return walk(order, times).makespan_ns / UNIT_NS


def test_gpipe_does_all_forward_passes_first() -> None:
    assert spell(make_order("gpipe", 2, 3), 1) == "F1.0 F1.1 F1.2 B1.0 B1.1 B1.2"


def test_1f1b_warms_up_less_on_each_later_rank() -> None:
    order = make_order("1f1b", 3, 4)

    assert spell(order, 0) == "F0.0 F0.1 F0.2 B0.0 F0.3 B0.1 B0.2 B0.3"
    assert spell(order, 1) == "F1.0 F1.1 B1.0 F1.2 B1.1 F1.3 B1.2 B1.3"
    assert spell(order, 2) == "F2.0 B2.0 F2.1 B2.1 F2.2 B2.2 F2.3 B2.3"


def test_a_warm_up_longer_than_the_step_is_cut() -> None:
    assert spell(make_order("1f1b", 5, 2), 0) == "F0.0 F0.1 B0.0 B0.1"
    assert spell(make_order("zb-h1", 5, 2), 4) == "F4.0 I4.0 F4.1 I4.1 W4.0 W4.1"


def test_interleaved_visits_chunks_group_by_group() -> None:
    order = make_order("interleaved-1f1b", 2, 4, 2)

    assert spell(order, 1).startswith("F1.0 F1.1 F3.0 B3.0 F3.1 B3.1 F1.2 B1.0 F1.3 B1.1 F3.2 B3.2")


def test_interleaved_with_one_chunk_is_1f1b() -> None:
    assert make_order("interleaved-1f1b", 3, 5, 1) == make_order("1f1b", 3, 5)


def test_zb_h1_puts_weight_gradients_off_by_the_rank() -> None:
    order = make_order("zb-h1", 3, 4)

    assert spell(order, 0) == "F0.0 F0.1 F0.2 I0.0 W0.0 F0.3 I0.1 W0.1 I0.2 W0.2 I0.3 W0.3"
    assert spell(order, 2) == "F2.0 I2.0 F2.1 I2.1 F2.2 I2.2 W2.0 F2.3 I2.3 W2.1 W2.2 W2.3"


@pytest.mark.parametrize(("p", "chunks"), list(product(range(1, 7), (2, 3, 4))))
def test_interleaved_idles_as_little_for_any_number_of_microbatches(p: int, chunks: int) -> None:
    """(p-1)(F+B)/v for every m from p on, whether p divides it or not."""
    for m in range(p, 3 * p + 2):
        times = WorkTimes.unit(p * chunks, 12)
        assert walk(interleaved(p, m, chunks), times).makespan_ns == 12 * 3 * (m * chunks + p - 1)


@pytest.mark.parametrize("p", range(1, 9))
def test_zb_h1_with_few_microbatches_hides_all_weight_gradients_but_one(p: int) -> None:
    """(m+p-1)(F+I) + W for m <= p."""
    for m in range(1, p + 1):
        assert makespan(make_order("zb-h1", p, m)) == 2 * (m + p - 1) + 1


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_rank_sums_the_gradients_of_a_stage_in_ascending_order(name: str) -> None:
    num_orders = 0
    for p, m, chunks in product((1, 2, 4), (1, 3, 4, 9, 10), (1, 2, 3)):
        if SCHEDULES[name].problem(p, m, chunks):
            continue
        num_orders += 1
        order = make_order(name, p, m, chunks)
        summed: dict[int, list[int]] = {}
        for works in map(order.works, range(order.num_ranks)):
            for stage in {work.stage for work in works}:
                adding = [w.microbatch for w in works if w.stage == stage and w.op in {Op.W, Op.B}]
                assert adding == sorted(adding)
                summed.setdefault(stage, []).extend(adding)
        assert all(sorted(adding) == list(range(m)) for adding in summed.values())
    assert num_orders > 0


def test_groups_are_as_even_as_they_can_be_and_never_smaller_than_the_pipeline() -> None:
    assert [len(group) for group in microbatch_groups(4, 11)] == [6, 5]
    assert [len(group) for group in microbatch_groups(4, 11, 11)] == [11]
    assert [list(group) for group in microbatch_groups(2, 5)] == [[0, 1, 2], [3, 4]]


def test_groups_smaller_than_the_pipeline_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="too small for the pipeline: got 3, expected at least 4"):
        interleaved(4, 8, 2, 3)


def test_an_unknown_schedule_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"unknown schedule: got '1f2b'(.|\n)*did you mean '1f1b'"):
        find_schedule("1f2b")


def test_a_schedule_says_why_it_cannot_run() -> None:
    with pytest.raises(InvalidInputError, match="zb-h1 runs one chunk per rank, got 2"):
        make_order("zb-h1", 4, 8, 2)
    with pytest.raises(InvalidInputError, match="1f1b needs at least 1 of microbatches, got 0"):
        make_order("1f1b", 4, 0)


F00, B00 = Work(Op.F, 0, 0), Work(Op.B, 0, 0)


@pytest.mark.parametrize(
    ("works", "message"),
    [
        ((F00, F00, B00), "F 0.0 comes twice"),
        ((F00, B00, Work(Op.W, 0, 0)), "W 0.0 comes twice"),
        ((F00, Work(Op.I, 0, 0)), "W 0.0 is missing"),
        ((F00,), "I 0.0 is missing"),
        ((), "F 0.0 is missing"),
        ((B00, F00), "B 0.0 comes too early"),
        ((F00, Work(Op.W, 0, 0), Work(Op.I, 0, 0)), "W 0.0 comes too early"),
        ((F00, B00, Work(Op.F, 1, 0)), "F 1.0 does not belong on this rank"),
        ((F00, B00, Work(Op.F, 0, 1)), "F 0.1 does not belong on this rank"),
        ((F00, B00, Work(Op.OPT, 0, 0)), "OPT 0.0 is no pass"),
    ],
)
def test_what_is_no_order_of_a_step_is_refused(works: tuple[Work, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Order(1, ((0,),), (works,))


def test_an_order_that_waits_for_itself_is_found() -> None:
    """Rank 0 wants the gradient of microbatch 1 first, rank 1 starts with microbatch 0 and ends it first."""
    forward = [[Work(Op.F, s, b) for b in (0, 1)] for s in (0, 1)]
    crossed = Order(
        2,
        ((0,), (1,)),
        (
            (forward[0][0], Work(Op.B, 0, 0), forward[0][1], Work(Op.B, 0, 1)),
            (*forward[1], Work(Op.B, 1, 1), Work(Op.B, 1, 0)),
        ),
    )

    with pytest.raises(InfeasibleError, match=r"rank 0: the order of works waits for itself: got B 0\.0"):
        walk(crossed, WorkTimes.unit(2))


def test_the_walk_needs_every_duration() -> None:
    work_ns = {("F", 0): 1, ("F", 1): 1, ("I", 0): 1, ("I", 1): 1, ("W", 0): 1}

    with pytest.raises(InvalidInputError, match="no duration for W of stage 1"):
        walk(make_order("1f1b", 2, 1), WorkTimes(work_ns))


def test_a_fused_backward_may_have_a_duration_of_its_own() -> None:
    times = WorkTimes({("F", 0): 10, ("I", 0): 10, ("W", 0): 10, ("B", 0): 15})

    assert walk(make_order("1f1b", 1, 2), times).makespan_ns == 2 * 25


def heaviest(counts: tuple[int, ...], embedding: float, head: float) -> float:
    loads = [float(count) for count in counts]
    loads[0] += embedding
    loads[-1] += head
    return max(loads)


@pytest.mark.parametrize(("embedding", "head"), [(0.0, 0.0), (0.5, 2.0), (1.0, 0.25), (0.0, 3.0)])
def test_no_cut_has_a_lighter_heaviest_stage(embedding: float, head: float) -> None:
    for num_layers, num_stages in product(range(4, 9), range(1, 5)):
        got = balance_layers(num_layers, num_stages, embedding, head)
        best = min(
            heaviest(counts, embedding, head)
            for counts in product(range(num_layers + 1), repeat=num_stages)
            if sum(counts) == num_layers
        )

        assert sum(got) == num_layers
        assert heaviest(got, embedding, head) == best


def test_stages_without_layers_are_refused_in_the_middle_and_allowed_at_the_ends() -> None:
    assert [(s.first, s.last, s.embedding, s.head) for s in stages_of((0, 2, 0))] == [
        (-1, -1, True, False),
        (0, 1, False, False),
        (-1, -1, False, True),
    ]
    with pytest.raises(InvalidInputError, match="a stage would have no layer: got 2 layers over 4 stages"):
        balance_layers(2, 4)
    with pytest.raises(InvalidInputError, match="a stage would have no layer: got 2 layers over 3 stages"):
        stages_of((1, 0, 1))
    with pytest.raises(InvalidInputError, match=r"cannot cut .* got 2 stages for 0 layers"):
        balance_layers(0, 2)


def test_the_examples_of_the_page_print_what_they_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "concepts" / "schedules.md"
    result = doctest.testfile(str(page), module_relative=False)

    assert result.attempted > 0
    assert result.failed == 0
