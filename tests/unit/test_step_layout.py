"""Which layers a stage holds and which rank holds a stage; what the optimizer moves; names of parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.spread import largest_of
from exactmap.sim.step.layout import lay_out, read_layout, stage_ranks
from exactmap.sim.step.optimizer import update_bytes
from exactmap.sim.step.parts import PartGroup, group_of, grouped_ns


@given(st.integers(1, 200), st.integers(0, 2), st.integers(1, 16), st.integers(1, 8))
def test_every_layer_is_on_one_stage_and_the_ends_hold_embedding_and_head(
    layers: int, mtp: int, ranks: int, chunks: int
) -> None:
    stages = lay_out(layers, mtp, ranks * chunks, ranks, ())

    assert len(stages) == ranks * chunks
    assert stages[0].first == 0
    assert stages[-1].last == layers
    assert all(before.last == after.first for before, after in pairwise(stages))
    assert [stage.embedding for stage in stages] == [number == 0 for number in range(len(stages))]
    assert [stage.head for stage in stages] == [number == len(stages) - 1 for number in range(len(stages))]
    assert sum(stage.mtp for stage in stages) == mtp


@given(st.integers(1, 200), st.integers(1, 16))
def test_without_further_predictions_no_stage_has_two_layers_more_than_another(
    layers: int, stages: int
) -> None:
    counts = [stage.last - stage.first for stage in lay_out(layers, 0, stages, stages, ())]

    assert max(counts) - min(counts) <= 1


def test_126_layers_leave_room_for_embedding_and_head() -> None:
    counts = [stage.last - stage.first for stage in lay_out(126, 0, 64, 8, ())]

    assert counts == [1, *[2] * 62, 1]


def test_layers_by_rank_are_spread_over_its_chunks() -> None:
    counts = [stage.last - stage.first for stage in lay_out(10, 0, 4, 2, (6, 4))]

    assert counts == [3, 2, 3, 2]


def test_layers_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="9 layers on 2 stages"):
        lay_out(10, 0, 2, 2, (5, 4))


def test_megatrons_notation() -> None:
    """E embedding, t layer, m further prediction, L head; repeats of letters and of groups."""
    stages = read_layout("Et*3|(tt|)*29t*2mL", 63, 31)
    counts = [stage.last - stage.first for stage in stages]

    assert counts == [3, *[2] * 30]
    assert (stages[0].embedding, stages[-1].head, stages[-1].mtp) == (True, True, 1)
    assert not any(stage.head or stage.embedding for stage in stages[1:-1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Et|tL",
        "Et*2|t",
        "Exx|ttL",
        "(t)*999999999|",
        "E((t*2)*2)|L",
        "Et*9999999999999999999|L",
        "*3|t",
        "|||",
    ],
)
def test_other_notation_is_refused_whatever_its_size(text: str) -> None:
    with pytest.raises(InvalidInputError, match="does not fit the model"):
        read_layout(text, 4, 2)


@given(st.integers(1, 12), st.sampled_from(["1f1b", "interleaved-1f1b", "zb-v", "dualpipe-v", "dualpipe"]))
def test_ranks_hold_equally_many_stages(ranks: int, schedule: str) -> None:
    stages = ranks * (1 if schedule in ("1f1b", "dualpipe") else 2)
    held = [rank for each in stage_ranks(schedule, ranks, stages) for rank in each]

    assert sorted(set(held)) == list(range(ranks))
    assert len({held.count(rank) for rank in range(ranks)}) == 1


def test_a_v_comes_back_and_dualpipe_runs_from_both_ends() -> None:
    assert stage_ranks("zb-v", 3, 6) == ((0,), (1,), (2,), (2,), (1,), (0,))
    assert stage_ranks("dualpipe", 4, 4) == ((0, 3), (1, 2), (2, 1), (3, 0))
    assert stage_ranks("interleaved-1f1b", 2, 4) == ((0,), (1,), (0,), (1,))


def test_an_update_reads_and_writes_what_adam_needs() -> None:
    """bf16 in Megatron: norm 4, clip 8, gradient 4, copy and moments 12 read and written, parameter 2."""
    assert update_bytes("bf16", 4, 2, 4, 4) == 4 + 8 + 4 + 24 + 2
    # Wide parameters are their own copy.
    assert update_bytes("fp32", 4, 4, 0, 4) == 4 + 8 + 4 + 24
    # Loss scaling looks through wide copies of the gradients; DeepSpeed's Adam does it on the way.
    assert update_bytes("fp16", 2, 2, 4, 4) > update_bytes("fp16", 2, 2, 4, 4, scale_inside=True)


def test_a_name_says_which_group_a_part_is_in() -> None:
    names = {
        "qkv": PartGroup.COMPUTE,
        "recompute": PartGroup.COMPUTE,
        "tp scale_up": PartGroup.COMMUNICATION,
        "pp scale_out": PartGroup.COMMUNICATION,
        "overlap slowdown": PartGroup.COMMUNICATION,
        "slowest rank": PartGroup.BUBBLE,
        "step overhead": PartGroup.HOST,
    }

    assert {name: group_of(name) for name in names} == names
    summed = grouped_ns(dict.fromkeys(names, 1.0))
    assert sum(summed.values()) == len(names)
    assert summed[PartGroup.OPTIMIZER] == 0.0


def test_the_slowest_of_more_ranks_is_slower() -> None:
    """Expected largest of N normal draws: .564 of 2, 1.423 of 8, 2.343 of 64 (Blom is within 5 %)."""
    found = [largest_of(count) for count in (1, 2, 8, 64, 2048, 220_000)]

    assert found == sorted(found)
    assert found[0] == 0.0
    for value, exact in zip(found[1:4], (0.5642, 1.4236, 2.3439), strict=True):
        assert value == pytest.approx(exact, rel=0.06)
