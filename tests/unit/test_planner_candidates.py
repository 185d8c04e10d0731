"""Candidates: what the search looks at, and the words in which it refuses."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.planner.candidate import (
    Candidate,
    Rejection,
    SearchSpace,
    divisors,
    enumerate_candidates,
    nearest_miss,
)

SPACE = SearchSpace(
    tp=(1,),
    cp=(1,),
    pp=(2,),
    chunks=(1,),
    microbatch=(1,),
    schedules=("1f1b",),
    num_gpus=8,
    global_batch=16,
    layers=8,
    heads=8,
    kv_heads=4,
    seq=64,
)


def _only(**changes: object) -> Candidate | Rejection:
    found = list(enumerate_candidates(replace(SPACE, **changes)))  # type: ignore[arg-type]

    assert len(found) == 1
    return found[0]


def _refused(**changes: object) -> Rejection:
    found = _only(**changes)

    assert isinstance(found, Rejection)
    return found


def test_replicas_follow() -> None:
    """Without a word about dp there are as many replicas as GPUs and batch allow."""
    found = _only()

    assert isinstance(found, Candidate)
    assert (found.dp, found.num_microbatches, found.num_gpus) == (4, 4, 8)
    assert found.label == "pp2 dp4 mb1x4 1f1b"


def test_replicas_divide_the_batch() -> None:
    """Three replicas would fit 7 GPUs, but 16 sequences cannot be divided by them."""
    found = _only(num_gpus=7)

    assert isinstance(found, Candidate)
    assert found.dp == 2


def test_labels_name_what_is_not_one() -> None:
    label = Candidate(8, 2, 4, 3, 2, 1, 24, "interleaved-1f1b").label

    assert label == "tp8 cp2 pp4 dp3 v2 mb1x24 interleaved-1f1b"


@pytest.mark.parametrize(
    ("changes", "rule", "why"),
    [
        ({"num_gpus": 1}, "too few GPUs", "needs 2 GPUs, 1 may be used"),
        ({"dp": (5,)}, "too few GPUs", "needs 10 GPUs, 8 may be used"),
        (
            {"dp": (3,)},
            "batch not divisible",
            "dp 3 x microbatch 1 does not divide the batch of 16 sequences",
        ),
        (
            {"microbatch": (5,)},
            "batch not divisible",
            "dp 1 x microbatch 5 does not divide the batch of 16 sequences",
        ),
        (
            {"chunks": (5,), "schedules": ("interleaved-1f1b",)},
            "too few layers",
            "10 stages (2 ranks x 5 chunks), 8 layers",
        ),
        (
            {"tp": (3,), "num_gpus": 6},
            "heads not divisible",
            "tp 3 does not fit 8 heads, 4 for keys and values",
        ),
        (
            {"cp": (2,), "seq": 62},
            "sequence not divisible",
            "4 pieces (cp 2, two each) do not divide 62 tokens",
        ),
        ({"pp": (1,), "schedules": ("zb-h1",)}, "no pipeline", "zb-h1 on one rank is 1f1b"),
    ],
)
def test_refusals(changes: dict[str, object], rule: str, why: str) -> None:
    """Every rule can be met, and says why in numbers."""
    found = _refused(**changes)

    assert (rule, why) == (found.rule, found.why)


def test_excess_says_by_how_much() -> None:
    assert _refused(num_gpus=1).excess == 1
    assert _refused(chunks=(5,), schedules=("interleaved-1f1b",)).excess == 2


def test_nearest_miss_is_of_memory_first() -> None:
    """A user can trade memory; another number of layers is another model."""
    candidate = Candidate(1, 1, 2, 1, 1, 1, 4, "1f1b")
    layers = Rejection(candidate, "too few layers", "", 1)
    far, near = Rejection(candidate, "memory", "far", 900), Rejection(candidate, "memory", "near", 300)

    assert nearest_miss([layers, far, near]) is near
    assert nearest_miss([layers]) is layers


def test_chunks_go_with_interleaving() -> None:
    """No layout comes twice: chunks are interleaving's, the other orders have one a rank."""
    space = replace(SPACE, chunks=(1, 2), schedules=("gpipe", "1f1b", "interleaved-1f1b", "zb-h1"))
    found = [each for each in enumerate_candidates(space) if isinstance(each, Candidate)]

    assert [(each.schedule, each.chunks) for each in found] == [
        ("gpipe", 1),
        ("1f1b", 1),
        ("interleaved-1f1b", 2),
        ("zb-h1", 1),
    ]
    assert len(set(found)) == len(found)


def test_every_combination_is_accounted_for() -> None:
    """What is enumerated is accepted or refused, never forgotten."""
    space = replace(
        SPACE,
        tp=(1, 2, 3),
        cp=(1, 2),
        pp=(1, 2, 4),
        chunks=(1, 2, 3),
        microbatch=(1, 2, 3),
        schedules=("1f1b", "interleaved-1f1b"),
    )
    found = list(enumerate_candidates(space))
    layouts = {
        (each.tp, each.cp, each.pp, each.microbatch, each.schedule, each.chunks)
        for each in (entry.candidate if isinstance(entry, Rejection) else entry for entry in found)
    }
    pairs = [("1f1b", 1), ("interleaved-1f1b", 2), ("interleaved-1f1b", 3)]
    expected = {
        (*axes, *pair) for axes in product(space.tp, space.cp, space.pp, space.microbatch) for pair in pairs
    }

    assert layouts == expected
    assert len(found) == len(expected)


def test_schedule_without_its_chunks() -> None:
    """A search that could not find anything says so before it begins."""
    with pytest.raises(InvalidInputError, match="no schedule goes with these chunks"):
        replace(SPACE, schedules=("interleaved-1f1b",))
    with pytest.raises(InvalidInputError, match="no schedule goes with these chunks"):
        replace(SPACE, chunks=(2, 3))


@pytest.mark.parametrize("name", ["tp", "cp", "pp", "chunks", "microbatch", "schedules"])
def test_empty_axis(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"nothing to choose from for {name}"):
        replace(SPACE, **{name: ()})  # type: ignore[arg-type]


def test_divisors() -> None:
    for number in range(1, 200):
        assert divisors(number) == tuple(each for each in range(1, number + 1) if number % each == 0)
