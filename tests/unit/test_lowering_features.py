"""Whatever an order asks for, lowering makes a plan that is accepted and runs as the order was walked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from order_cases import CASES, SEQ, OrderCase, free_of_charge, lowered, tiny_model, works

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import verdict
from exactmap.sim.plan.plan import Group, Plan, Precision
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.sizes import align, size_stage
from exactmap.sim.schedules.timeline import WorkTimes, walk


def program(plan: Plan, pp: int) -> list[str]:
    return [format_instruction(instruction) for instruction in plan.program(pp).instructions]


def times_of(order: Order) -> WorkTimes:
    """Uneven durations; copies are short enough to be over when they are needed."""
    stages = range(order.num_stages)
    work_ns = {(op, stage): 40 + 10 * stage + 4 * kind for kind, op in enumerate("FIW") for stage in stages}
    return WorkTimes(work_ns, 3, copy_ns={(op, stage): 12 for op in ("OFF", "LD") for stage in stages})


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_accepted_as_written(name: str) -> None:
    plan = lowered(CASES[name])
    data = write_plan(plan)
    said = verdict(data)

    assert (said.code, said.message) == ("ok", "")
    assert read_plan(data) == plan


@pytest.mark.parametrize("name", CASES)
def test_both_engines_take_as_long_as_the_walk(name: str) -> None:
    case = CASES[name]
    times = times_of(case.order)
    plan = lowered(case, times)
    for mover in Mover:
        durations = free_of_charge(plan, case.order, times, mover)
        makespans = [engine(plan, durations).summary().makespan_ns for engine in (replay, simulate_events)]

        assert makespans[0] == makespans[1]
        if mover is Mover.ENGINE:
            assert makespans[0] == walk(case.order, times).makespan_ns


def test_messages_go_to_the_rank_that_runs_the_neighbouring_item() -> None:
    """Both stages lie on both ranks: each pair of ranks has a channel per class and direction."""
    plan = lowered(CASES["stages-on-two-ranks"])

    assert [channel.name for channel in plan.channels] == ["f0_1", "f1_0", "b0_1", "b1_0"]
    assert [line for line in program(plan, 0) if line.startswith(("SF", "RF", "SB", "RB"))] == [
        "SF 0.0@f0_1",
        "RF 1.1@f1_0 h1",
        "SB 1.1@b0_1",
        "RB 0.0@b1_0 h1",
    ]


def test_a_stage_on_two_ranks_is_summed_over_both_after_the_replicas() -> None:
    """In the same order on both ranks, when the last pass of either has added to the bucket."""
    plan = lowered(CASES["stages-on-two-ranks"])

    assert Group("twin0_1", ("pp",), pp=(0, 1)) in plan.groups
    assert {bucket.reduce for bucket in plan.buckets} == {("dp", "twin0_1")}
    for pp in (0, 1):
        assert [line for line in program(plan, pp) if line.startswith("AR")] == [
            "AR 1/0@dp",
            "AR 1/0@twin0_1",
            "AR 0/0@dp",
            "AR 0/0@twin0_1",
        ]


def test_a_rank_without_work_still_takes_part_in_the_sum_of_its_stage() -> None:
    plan = lowered(CASES["a-twin-without-work"])

    assert program(plan, 0) == [
        "ZERO 0/0",
        "AR 0/0@dp",
        "AR 0/0@twin0_1",
        "WC 0/0@dp",
        "WC 0/0@twin0_1",
        "NORM @norm",
        "WC @norm",
        "OPT 0/0",
        "END",
    ]


def test_twins_of_a_tied_embedding_and_its_head_are_summed_at_once() -> None:
    """Each of the four copies adds its part once: no sum over twins before that over all holders."""
    plan = lowered(CASES["tied-twins-apart"])
    reduce = {bucket.holds: bucket.reduce for bucket in plan.buckets}

    assert reduce["wte",] == reduce["head",] == ("dp", "tie")
    assert reduce["wpe", "layers"] == ("dp", "twin0_1")
    assert Group("tie", ("pp",), pp=(0, 1, 2, 3)) in plan.groups


def test_sums_over_several_ranks_stand_in_the_same_order_on_all_of_them() -> None:
    """Two sums get their data from one braid: of the tied copies, and of the stage on both ranks."""
    plan = lowered(CASES["a-tie-beside-twins"])
    sums = [[line.split("@")[1] for line in program(plan, pp) if line.startswith("AR")] for pp in range(2)]

    assert sums == [["tie", "twin0_1"]] * 2


def test_slices_share_the_keys_and_values_of_their_sequence() -> None:
    """Pool k: one slot from the F of slice 0 to the B of slice 0; all else is of a slice's size."""
    plan = lowered(CASES["slices"])
    lines = program(plan, 1)
    pools = {pool.letter: pool for pool in plan.pools if pool.pp == 1}
    whole = size_stage(tiny_model(2), plan.stages[1], 1, SEQ, Precision())

    assert [line for line in lines if line.startswith(("F", "B"))] == [
        "F 1.0.0 a0 w0 k0",
        "F 1.0.1 a1 w1",
        "B 1.0.1 h4",
        "F 1.1.0 a1 w1 k1",
        "B 1.0.0 h1",
        "F 1.1.1 a0 w0",
        "B 1.1.1 h4",
        "B 1.1.0 h0",
    ]
    assert pools["h"].bytes == align(whole.h_bytes // 2)
    assert pools["k"].bytes == align(4 * 1 * SEQ * 2 * 8 * 4)
    assert [channel.bytes for channel in plan.channels] == [SEQ // 2 * 16 * 4] * 2


def test_an_f_that_is_run_again_keeps_no_stash() -> None:
    plan = lowered(CASES["recomputation"])
    passes = [line for line in program(plan, 0) if line.split()[0] in {"F", "RC", "I", "W", "B"}]
    pools = {pool.letter: pool.num for pool in plan.pools if pool.pp == 0}
    workspace = next(region.bytes for region in plan.regions if region.kind == "workspace")
    sizes = size_stage(tiny_model(2), plan.stages[0], 1, SEQ, Precision())

    assert passes == ["F 0.0 h0", "F 0.1 h1", "RC 0.0 a0 w0", "B 0.0", "RC 0.1 a0 w0", "I 0.1 g0", "W 0.1"]
    assert (pools["a"], pools["w"]) == (1, 1)
    scratch = align(sizes.workspace_bytes["F"]) + align(sizes.a_bytes) + align(sizes.w_bytes)
    assert workspace == max(scratch, *(sizes.workspace_bytes[op] for op in "IWB"))


def test_a_stash_leaves_and_comes_back_when_its_slots_are_wanted() -> None:
    """The slots of 0.0 go to 0.2 as soon as its copy is waited for; 0.1 is waited for before its own LD."""
    plan = lowered(CASES["offload"])
    moves = [line for line in program(plan, 0) if line.split()[0] in {"F", "B", "OFF", "WOFF", "LD", "WLD"}]
    host = next(pool for pool in plan.pools if pool.letter == "o")
    sizes = size_stage(tiny_model(2), plan.stages[0], 1, SEQ, Precision())

    assert moves == [
        "F 0.0 h0 a0 w0",
        "OFF 0.0 o0",
        "F 0.1 h1 a1 w1",
        "OFF 0.1 o1",
        "WOFF 0.0",
        "F 0.2 h2 a0 w0",
        "WOFF 0.1",
        "LD 0.0 a1 w1",
        "WLD 0.0",
        "B 0.0",
        "LD 0.1 a1 w1",
        "WLD 0.1",
        "B 0.1",
        "B 0.2",
    ]
    assert (host.num, host.bytes, host.at) == (2, align(sizes.a_bytes) + align(sizes.w_bytes), 0)
    used = sum(align(region.bytes) for region in plan.regions if region.pp == 0)
    used += sum(pool.num * pool.bytes for pool in plan.pools if pool.pp == 0 and pool.letter != "o")
    assert plan.arenas[0].bytes == used


def test_copies_are_waited_for_in_the_order_in_which_they_were_posted() -> None:
    """0.3 wants the slots of 0.2, whose copy was posted behind the return of 0.0: that is awaited first."""
    lines = program(lowered(CASES["copies-that-cross"]), 0)
    at = lines.index("WLD 0.0")

    assert lines[at : at + 4] == ["WLD 0.0", "WOFF 0.2", "F 0.3 a0 w0", "B 0.0"]


def test_a_copy_that_is_waited_for_early_frees_its_slots_early() -> None:
    """The braid takes the slot of 0.1: two stashes live at once, though in the walk 0.1 is still leaving."""
    case = CASES["a-return-that-hurries-a-copy"]
    plan = lowered(case, times_of(case.order))
    lines = program(plan, 0)
    at = lines.index("WLD 0.0")

    assert {pool.letter: pool.num for pool in plan.pools} == {"a": 2, "w": 2, "o": 2}
    assert lines[at - 1 : at + 2] == ["WOFF 0.1", "WLD 0.0", "FB{F 0.2 a1 w1|B 0.0}"]


def test_a_braid_has_its_inputs_before_and_sends_its_outputs_after() -> None:
    lines = program(lowered(CASES["braids"]), 1)

    assert lines[3:-4] == [
        "F 1.0 a0 w0",
        "RF 1.1@f0_1 h1",
        "WR 1.1@f0_1",
        "FB{F 1.1 a1 w1|B 1.0 h2}",
        "SB 1.0@b1_0",
        "RF 1.2@f0_1 h0",
        "WR 1.2@f0_1",
        "WS 1.0@b1_0",
        "FB{F 1.2 a0 w0|I 1.1 h2 g0}",
        "SB 1.1@b1_0",
        "WS 1.1@b1_0",
        "FB{B 1.2 h2|W 1.1}",
        "SB 1.2@b1_0",
        "WS 1.2@b1_0",
    ]


def test_shards_are_gathered_at_the_start_and_reduced_behind_the_drain() -> None:
    plan = lowered(CASES["shards"])
    lines = [line for line in program(plan, 0) if "@f" not in line and "@b" not in line]
    (bucket,) = [bucket for bucket in plan.buckets if bucket.stage == 0]
    regions = {region.kind: region.bytes for region in plan.regions if region.pp == 0}
    pools = {pool.letter: pool.bytes for pool in plan.pools if pool.pp == 0}

    assert lines == [
        "AG 0/0@dp p0",
        "WC 0/0@dp",
        "F 0.0 h0 a0 w0",
        "F 0.1 h1 a1 w1",
        "ZERO 0/0 q0",
        "B 0.0",
        "B 0.1",
        "FREE 0/0",
        "RS 0/0@dp",
        "WC 0/0@dp",
        "NORM @norm",
        "WC @norm",
        "OPT 0/0",
        "END",
    ]
    assert Group("norm", ("pp", "dp")) in plan.groups
    assert bucket.elements % (16 * 4) == 0
    assert (regions["params"], regions["moments"]) == (bucket.elements, 2 * bucket.elements)
    assert pools["p"] == pools["q"] == 4 * bucket.elements


def test_buckets_are_gathered_in_the_order_of_their_first_use() -> None:
    """Rank 0 runs stage 1 before it runs stage 0."""
    order = Order(2, ((0, 1), (0, 1)), (works("F1.1 F0.0 B1.1 B0.0"), works("F0.1 F1.0 B1.0 B0.1")))
    lines = program(lowered(OrderCase(order, dp=2, options={"shard_params": True, "split_buckets": True})), 0)

    assert lines[:4] == ["AG 1/0@dp p0", "AG 1/1@dp p1", "AG 0/0@dp p2", "AG 0/1@dp p3"]
    assert lines.index("WC 1/1@dp") < lines.index("F 1.1 a0 w0") < lines.index("WC 0/0@dp")
    assert lines.index("FREE 1/1") < lines.index("RS 1/0@dp") < lines.index("B 0.0")


def test_a_late_norm_is_checked_before_the_first_gradient_of_the_next_step() -> None:
    plan = lowered(CASES["late-norm"])
    lines = program(plan, 0)
    at = lines.index("WC @chk")

    assert lines[0] == "CHK @chk"
    assert lines[at:][:4] == ["WC @chk", "PV 0/0", "UNDO 0/0", "ZERO 0/0"]
    assert not any(line.startswith(("B", "W ")) for line in lines[:at])
    assert lines[-5:] == ["WC 0/0@dp", "NORM @norm", "WC @norm", "OPT 0/0", "END"]
    assert plan.clock == "free"
    assert Group("norm", ("pp",), scan="up") in plan.groups
    assert Group("chk", ("pp",), scan="down") in plan.groups


def test_the_check_never_makes_ranks_wait_in_a_circle() -> None:
    """Rank 0 of a vee runs its first B early: rank 1 hears of the norm before the F that this B needs."""
    lines = program(lowered(CASES["late-norm-of-a-vee"]), 1)

    assert lines.index("WC @chk") < lines.index("F 2.1 h5 a3 w3") < lines.index("B 2.0 h3")


def test_squares_of_shards_are_summed_over_the_replicas_before_the_pipeline() -> None:
    lines = program(lowered(CASES["late-norm-of-shards"]), 1)

    assert lines[-7:] == [
        "NORM @part",
        "WC @part",
        "NORM @norm",
        "WC @norm",
        "OPT 0/0",
        "OPT 1/0",
        "END",
    ]


def test_whole_plans_take_the_new_options() -> None:
    plan = build_plan(
        tiny_model(4),
        schedule="1f1b",
        pp=2,
        num_microbatches=4,
        seq=SEQ,
        dp=2,
        shard_params=True,
        split_buckets=True,
        clock="free",
        late_norm=True,
    )

    assert verdict(write_plan(plan)).code == "ok"
    assert [bucket.holds for bucket in plan.buckets] == [
        ("wte", "wpe"),
        ("layers",),
        ("layers",),
        ("norm", "head"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"late_norm": True}, "a late norm needs the free clock: got clock=barrier"),
        ({"shard_params": True}, "there is one replica"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict[str, bool], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        lowered(replace(CASES["one-f-one-b"], options=changes))


def test_a_tied_head_on_some_of_its_embeddings_ranks_is_refused() -> None:
    """One sum would count the copies of one rank twice or not at all."""
    order = Order(1, ((0,), (0, 1)), (works("F0.0 B0.0"), works("F1.0 B1.0")))

    with pytest.raises(InfeasibleError, match="must lie on the same ranks, or share none"):
        lowered(OrderCase(order, tied=True))


def test_a_sequence_that_cannot_be_cut_evenly_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="cannot be cut evenly: got 12 tokens in 5 slices"):
        size_stage(tiny_model(1), lowered(CASES["slices"]).stages[0], 1, SEQ, Precision(), slices=5)
