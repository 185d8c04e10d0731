"""The registry: every schedule is there, says what it asks for, and refuses what it cannot do."""

from __future__ import annotations

import re

import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.registry import SCHEDULES, make_order
from exactmap.sim.schedules.schedule import Request, Schedule

NAMES = [
    "gpipe",
    "1f1b",
    "eager-1f1b",
    "interleaved-1f1b",
    "breadth-first",
    "zb-h1",
    "zb-h2",
    "interleaved-zb",
    "zb-v",
    "v-half",
    "v-min",
    "dualpipe",
    "dualpipe-v",
    "braided-interleaved",
    "chimera",
    "hanayo",
    "seq-1f1b",
    "terapipe",
    "1f1b-recompute",
    "1f1b-selective-recompute",
    "1f1b-offload",
]


def test_every_schedule_of_the_field_is_there() -> None:
    assert set(NAMES) <= set(SCHEDULES)


@pytest.mark.parametrize("name", NAMES)
def test_an_order_has_what_its_schedule_says(name: str) -> None:
    """Chunks, split backward passes, braids, stages on two ranks, slices, recomputation and copies."""
    schedule = SCHEDULES[name]
    chunks = schedule.fixed_chunks or (2 if schedule.many_chunks else 1)
    slices = 3 if schedule.slices else 1
    order = make_order(name, 4, 8, chunks, num_slices=slices, stash_limit=3 if schedule.limits else 0)

    ops = {code for rank in range(4) for code in order.works(rank).op.tolist()}
    assert order.num_stages == 4 * chunks
    assert order.num_slices == slices
    assert (CODES[Op.I] in ops) == schedule.splits_backward
    assert (CODES[Op.RC] in ops) == schedule.recomputes
    assert (CODES[Op.OFF] in ops) == schedule.copies
    assert any((order.works(rank).braid >= 0).any() for rank in range(4)) == schedule.braids
    assert {len(ranks) for ranks in order.placement} == {2 if schedule.two_ranks else 1}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=lambda schedule: schedule.name)
def test_a_schedule_says_what_it_does_and_where_it_is_from(schedule: Schedule) -> None:
    assert re.match(r"\w.{30,100}$", schedule.about)
    assert "arXiv:" in schedule.source or schedule.name == "auto"


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("1f1b", {"num_chunks": 2}, "1f1b runs one chunk per rank, got 2"),
        ("1f1b", {"num_microbatches": 0}, "1f1b needs at least 1 of microbatches, got 0"),
        ("1f1b", {"num_slices": 2}, "1f1b does not cut sequences, got 2 slices"),
        ("seq-1f1b", {"num_slices": 0}, "seq-1f1b needs at least 1 of slices, got 0"),
        ("1f1b", {"group_size": 4}, "1f1b has no groups of microbatches, got a group of 4"),
        ("1f1b", {"stash_limit": 2}, "1f1b cannot keep to a stash limit, got 2"),
        ("1f1b-offload", {"stash_limit": -1}, "needs at least 0 of stashed microbatches, got -1"),
        (
            "interleaved-1f1b",
            {"num_chunks": 2, "group_size": 3},
            "needs groups of 4 to 8 microbatches, got 3",
        ),
        ("interleaved-zb", {"num_chunks": 2, "group_size": 9}, "needs groups of 4 to 8 microbatches, got 9"),
        ("zb-v", {}, "zb-v runs 2 chunks per rank, got 1"),
        ("v-half", {"num_chunks": 4}, "v-half runs 2 chunks per rank, got 4"),
        ("dualpipe", {"num_ranks": 3}, "need an even number of ranks, got 3"),
        ("dualpipe", {"num_microbatches": 9}, "need an even number of microbatches, got 9"),
        ("dualpipe", {"num_microbatches": 6}, "at least 2 microbatches per rank are needed, got 6"),
        (
            "dualpipe-v",
            {"num_chunks": 2, "num_microbatches": 7},
            "at least 2 microbatches per rank are needed",
        ),
        ("chimera", {"num_ranks": 5}, "need an even number of ranks, got 5"),
        ("hanayo", {"num_chunks": 3}, "a wave takes two chunks per rank, got 3"),
    ],
)
def test_a_schedule_says_why_it_cannot_run(name: str, numbers: dict[str, int], message: str) -> None:
    request = Request(**({"num_ranks": 4, "num_microbatches": 8} | numbers))  # type: ignore[arg-type]

    with pytest.raises(InvalidInputError, match=re.escape(message)):
        make_order(
            name,
            *request[:3],
            num_slices=request.num_slices,
            group_size=request.group_size,
            stash_limit=request.stash_limit,
        )
    assert message in SCHEDULES[name].problem_of(request)


def test_a_refusal_ends_with_what_the_schedule_asks_for() -> None:
    with pytest.raises(InvalidInputError, match=r"hint: dualpipe: p even, m even, m >= 2p"):
        make_order("dualpipe", 3, 8)


def test_fewer_microbatches_than_ranks_are_no_problem_where_nothing_forbids_them() -> None:
    for name, schedule in SCHEDULES.items():
        if name in {"dualpipe", "dualpipe-v", "auto"}:
            continue
        for m in (2, 4):
            chunks = schedule.fixed_chunks or (2 if schedule.many_chunks else 1)
            assert make_order(name, 6, m, chunks).num_microbatches == m


def test_a_stash_limit_that_copies_cannot_keep_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="rank 0: offload alone cannot keep to the stash limit"):
        make_order("1f1b-offload", 8, 16, stash_limit=1)
