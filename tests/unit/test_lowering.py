"""Lowering: an order becomes a plan with messages, collectives, slots and arenas."""

from __future__ import annotations

import time

import pytest

from exactmap.errors import InfeasibleError, InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import Bucket, Group, Plan, Precision, Tie
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.writer import write_plan
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.schedules.lowering import lower
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.workload.footprint import stage_footprint
from exactmap.sim.workload.model import ModelConfig, ModelKind

UNIT_NS = 1_000_000


def tiny(layers: int = 32, *, tied: bool = False, kind: ModelKind = ModelKind.GPT) -> ModelConfig:
    return ModelConfig(
        kind,
        layers=layers,
        hidden=32,
        heads=4,
        kv_heads=4 if kind is ModelKind.GPT else 2,
        head_dim=8,
        ffn=64,
        vocab=259,
        positions=64,
        tied=tied,
    )


def program(plan: Plan, pp: int) -> list[str]:
    return [format_instruction(instruction) for instruction in plan.program(pp).instructions]


def at(lines: list[str], start: str) -> int:
    """Place of the one line that is `start`, slots aside."""
    (place,) = [i for i, line in enumerate(lines) if line == start or line.startswith(f"{start} ")]
    return place


def price(plan: Plan, times: WorkTimes, mover: Mover = Mover.ENGINE) -> int:
    """Barrier makespan: passes as in `times`, a hop a pure latency, all else free."""
    profile = Profile(
        mover,
        work_ns=times.work_ns,
        bucket_ns={("OPT", bucket.stage, bucket.index): 0 for bucket in plan.buckets},
        channel={channel.name: ChannelNs(0, times.hop_ns) for channel in plan.channels},
        group_ns={(group.name, op, None, None): 0 for group in plan.groups for op in ("AR", "NORM")},
    )
    return replay(plan, resolve(plan, profile)).summary().makespan_ns


@pytest.mark.parametrize(
    ("schedule", "chunks", "expected"),
    [
        ("1f1b", 1, (33.0, 33.8, 93.0, 95.7)),
        ("zb-h1", 1, (27.0, 27.6, 79.0, 80.4)),
        ("interleaved-1f1b", 2, (28.5, 29.2, 82.5, 84.0)),
        ("interleaved-1f1b", 4, (26.25, 27.75, 77.25, 80.35)),
        ("gpipe", 1, (33.0, 33.0 + 6 * 0.05, 93.0, 93.0 + 14 * 0.05)),
    ],
)
def test_whole_plans_have_the_published_makespans(
    schedule: str, chunks: int, expected: tuple[float, ...]
) -> None:
    """Receives of channels without buffers are posted in time: no hop costs more than its latency."""
    got: list[float] = []
    for pp, num_microbatches, hop in ((4, 8, 0.0), (4, 8, 0.05), (8, 24, 0.0), (8, 24, 0.05)):
        times = WorkTimes.unit(pp * chunks, UNIT_NS // chunks, round(hop * UNIT_NS))
        plan = build_plan(
            tiny(),
            schedule=schedule,
            pp=pp,
            chunks=chunks,
            num_microbatches=num_microbatches,
            seq=16,
            times=times,
        )
        got.append(price(plan, times) / UNIT_NS)

    assert tuple(got) == expected


def test_receives_posted_late_delay_their_sender() -> None:
    """Look-ahead 0 posts a receive when the receiver is next idle; with a copy engine that costs time."""
    times = WorkTimes.unit(4, UNIT_NS, UNIT_NS // 20)
    makespans = [
        price(
            build_plan(
                tiny(),
                schedule="zb-h1",
                pp=4,
                num_microbatches=8,
                seq=16,
                times=times,
                look_ahead=look_ahead,
            ),
            times,
        )
        for look_ahead in (0, 1, 2)
    ]

    assert makespans == [27_850_000, 27_600_000, 27_600_000]


def test_1f1b_on_two_ranks_reads_as_one_would_write_it() -> None:
    plan = build_plan(tiny(2), schedule="1f1b", pp=2, num_microbatches=2, seq=16)

    assert program(plan, 0) == [
        "ZERO 0/0",
        "F 0.0 h0 a0 w0",
        "SF 0.0@f0_1",
        "F 0.1 h1 a1 w1",
        "SF 0.1@f0_1",
        "WS 0.0@f0_1",
        "RB 0.0@b1_0 h0",
        "WR 0.0@b1_0",
        "B 0.0",
        "RB 0.1@b1_0 h0",
        "WR 0.1@b1_0",
        "B 0.1",
        "WS 0.1@f0_1",
        "NORM @norm",
        "WC @norm",
        "OPT 0/0",
        "END",
    ]
    assert program(plan, 1) == [
        "ZERO 1/0",
        "RF 1.0@f0_1 h0",
        "WR 1.0@f0_1",
        "F 1.0 a0 w0",
        "RF 1.1@f0_1 h1",
        "B 1.0 h2",
        "SB 1.0@b1_0",
        "WR 1.1@f0_1",
        "F 1.1 a0 w0",
        "B 1.1 h0",
        "SB 1.1@b1_0",
        "WS 1.0@b1_0",
        "WS 1.1@b1_0",
        "NORM @norm",
        "WC @norm",
        "OPT 1/0",
        "END",
    ]


def test_a_rank_hands_over_to_itself_without_a_message() -> None:
    plan = build_plan(tiny(2), schedule="interleaved-1f1b", pp=1, chunks=2, num_microbatches=1, seq=16)

    assert program(plan, 0) == [
        "ZERO 0/0",
        "ZERO 1/0",
        "F 0.0 h0 a0 w0",
        "LF 0.0",
        "F 1.0 a1 w1",
        "B 1.0 h1",
        "LB 1.0",
        "B 0.0",
        "NORM @norm",
        "WC @norm",
        "OPT 0/0",
        "OPT 1/0",
        "END",
    ]
    assert plan.channels == ()


def test_gradients_are_reduced_behind_the_drain_and_waited_for_late() -> None:
    """The bucket of the later chunk closes while the earlier chunk still runs backward."""
    plan = build_plan(tiny(4), schedule="interleaved-1f1b", pp=2, chunks=2, num_microbatches=2, seq=16, dp=3)
    lines = program(plan, 0)

    assert at(lines, "B 2.1") < at(lines, "SB 2.1@b0_1") < at(lines, "AR 2/0@dp") < at(lines, "B 0.0")
    assert at(lines, "B 0.1") < at(lines, "AR 0/0@dp")
    assert lines[-7:] == [
        "WC 2/0@dp",
        "WC 0/0@dp",
        "NORM @norm",
        "WC @norm",
        "OPT 0/0",
        "OPT 2/0",
        "END",
    ]
    assert Group("dp", ("dp",)) in plan.groups


def test_a_tied_head_on_another_rank_is_a_bucket_of_its_own_with_a_group_of_two() -> None:
    plan = build_plan(tiny(3, tied=True), schedule="1f1b", pp=3, num_microbatches=2, seq=16, dp=2)
    table = -(-259 * 32 // 16) * 16

    assert plan.ties == (Tie((0, 0), (2, 0)),)
    assert Group("tie", ("pp",), pp=(0, 2)) in plan.groups
    assert Bucket(0, 0, ("wte",), table, reduce=("dp", "tie")) in plan.buckets
    assert Bucket(2, 0, ("head",), table, reduce=("dp", "tie")) in plan.buckets
    for pp, stage in ((0, 0), (2, 2)):
        lines = program(plan, pp)
        assert lines.index(f"AR {stage}/0@dp") < lines.index(f"AR {stage}/0@tie")
        assert lines.index(f"WC {stage}/0@dp") < lines.index(f"WC {stage}/0@tie") < lines.index("NORM @norm")
    assert not any("@tie" in line for line in program(plan, 1))


def test_a_tied_head_beside_its_embedding_uses_the_embeddings_bucket() -> None:
    """Its bucket closes after the last backward pass of either stage."""
    plan = build_plan(
        tiny(2, tied=True), schedule="interleaved-1f1b", pp=1, chunks=2, num_microbatches=2, seq=16, dp=2
    )
    lines = program(plan, 0)

    assert [bucket.holds for bucket in plan.buckets] == [("wte", "wpe", "layers"), ("layers", "norm")]
    assert plan.ties == ()
    assert at(lines, "B 1.1") < at(lines, "AR 1/0@dp") < at(lines, "B 0.1") < at(lines, "AR 0/0@dp")


def test_the_arena_is_what_the_engine_needs_and_nothing_else() -> None:
    model = tiny(5, kind=ModelKind.LLAMA)
    plan = build_plan(model, schedule="zb-h1", pp=2, num_microbatches=3, seq=24, microbatch=2)
    for pp, stage in enumerate(plan.stages):
        need = stage_footprint(model, stage, 2, 24)
        elements = sum(need.elements.values())
        regions = {region.kind: region.bytes for region in plan.regions if region.pp == pp}
        pools = {pool.letter: pool for pool in plan.pools if pool.pp == pp}

        assert regions == {
            "params": 4 * elements,
            "grads": 4 * elements,
            "moments": 8 * elements,
            "staging": 2 * 24 * 4,  # tokens on the first rank, targets on the last
            "workspace": max(need.workspace_bytes[letter] for letter in "FIW"),
        }
        assert {letter: pool.bytes for letter, pool in pools.items()} == {
            "h": need.h_bytes,
            "a": need.a_bytes,
            "w": need.w_bytes,
            "g": need.g_bytes,
        }
        assert [pools[letter].num for letter in "awg"] == ([2, 2, 1] if pp == 0 else [1, 2, 2])
        used = sum(regions.values()) + sum(pool.num * pool.bytes for pool in pools.values())
        assert plan.arenas[pp].bytes == used
    assert all(channel.bytes == 2 * 24 * 32 * 4 for channel in plan.channels)


def test_the_workspace_does_not_serve_passes_that_a_rank_never_runs() -> None:
    fused, split = (
        build_plan(tiny(2), schedule=name, pp=2, num_microbatches=2, seq=16) for name in ("1f1b", "zb-h1")
    )
    sizes = [
        next(region.bytes for region in plan.regions if region.kind == "workspace") for plan in (fused, split)
    ]

    assert sizes[1] < sizes[0]
    assert not any(pool.letter == "g" for pool in fused.pools)


def most_alive(instructions: tuple[Instruction, ...], plan: Plan) -> int:
    """Most h buffers that live at once, by the table of section 4 alone."""
    last_stage = len(plan.stages) - 1
    alive = most = 0
    for instruction in instructions:
        alive += instruction.slot("h") >= 0
        most = max(most, alive)
        if instruction.op is Op.WS:
            alive -= 1
        elif instruction.op in {Op.W, Op.B}:
            alive -= (instruction.stage > 0) + (instruction.stage < last_stage)
    assert alive == 0
    return most


@pytest.mark.parametrize(
    ("schedule", "chunks"), [("gpipe", 1), ("1f1b", 1), ("interleaved-1f1b", 3), ("zb-h1", 1)]
)
def test_no_pool_has_more_slots_than_live_at_once(schedule: str, chunks: int) -> None:
    plan = build_plan(tiny(12), schedule=schedule, pp=4, chunks=chunks, num_microbatches=9, seq=16)
    slots = {pool.pp: pool.num for pool in plan.pools if pool.letter == "h"}

    assert slots == {pp: most_alive(plan.program(pp).instructions, plan) for pp in range(4)}


def test_the_limit_is_the_most_posts_under_way_at_once() -> None:
    plan = build_plan(tiny(4), schedule="1f1b", pp=4, num_microbatches=8, seq=16)
    counts: list[int] = []
    for each in plan.programs:
        under_way = 0
        for instruction in each.instructions:
            under_way += instruction.op in {Op.SF, Op.SB, Op.RF, Op.RB, Op.AR, Op.NORM}
            under_way -= instruction.op in {Op.WS, Op.WR, Op.WC}
            counts.append(under_way)

    assert plan.limit == max(counts)
    assert plan.serial


def test_receive_buffers_of_a_channel_lie_in_the_receivers_staging() -> None:
    plain, deep = (
        build_plan(tiny(2), schedule="1f1b", pp=2, num_microbatches=2, seq=16, depth=depth)
        for depth in (0, 3)
    )
    staging = [[r.bytes for r in plan.regions if r.kind == "staging"] for plan in (plain, deep)]

    assert [after - before for before, after in zip(*staging, strict=True)] == [3 * 16 * 32 * 4] * 2


def test_a_gpu_plan_shares_layers_and_tokens_and_keeps_master_weights() -> None:
    precision = Precision(param="bf16", grad="f32", act="bf16", comm="bf16", moment="f32")
    plan = build_plan(
        tiny(4), schedule="1f1b", pp=2, num_microbatches=4, seq=32, tp=2, cp=2, dp=3, precision=precision
    )
    elements = sum(bucket.elements for bucket in plan.buckets if bucket.stage == 0)
    regions = {region.kind: region.bytes for region in plan.regions if region.pp == 0}

    assert plan.groups == (Group("norm", ("tp", "pp")), Group("dp", ("cp", "dp")))
    assert plan.couple == (("F", ("tp", "cp")), ("B", ("tp", "cp")))
    assert regions["params"] == 2 * elements
    assert regions["grads"] == 4 * elements
    assert regions["moments"] == 12 * elements
    assert plan.channels[0].bytes == 32 * 32 * 2 // (2 * 2)


def test_layers_are_cut_unevenly_where_the_head_is_heavy() -> None:
    plan = build_plan(tiny(8), schedule="1f1b", pp=4, num_microbatches=4, seq=16, head_layers=1.0)
    asked = build_plan(tiny(8), schedule="1f1b", pp=4, num_microbatches=4, seq=16, layers=(3, 2, 2, 1))

    assert [stage.num_layers for stage in plan.stages] == [2, 3, 2, 1]
    assert [stage.num_layers for stage in asked.stages] == [3, 2, 2, 1]


def test_a_plan_written_and_read_is_the_same_plan() -> None:
    plan = build_plan(
        tiny(6, tied=True),
        schedule="interleaved-1f1b",
        pp=2,
        chunks=3,
        num_microbatches=5,
        seq=16,
        dp=2,
        budget_bytes=10**9,
        cost=(("F", 12),),
        pred=(("step", "3ms"),),
        made=(("by", "test"),),
        optimizer=OptimizerSettings(lr=1e-3, clip=0.5, seed=7),
    )
    data = write_plan(plan)
    again = read_plan(data)

    assert again == plan
    assert write_plan(again) == data


def test_the_same_numbers_give_the_same_bytes() -> None:
    plans = [build_plan(tiny(4), schedule="zb-h1", pp=4, num_microbatches=6, seq=16, dp=2) for _ in range(2)]

    assert write_plan(plans[0]) == write_plan(plans[1])


def test_a_budget_that_is_too_small_names_the_rank_and_the_largest_part() -> None:
    with pytest.raises(
        InfeasibleError, match=r"pipeline rank 0: .* over the budget: got \d+ bytes"
    ) as caught:
        build_plan(tiny(4), schedule="gpipe", pp=2, num_microbatches=64, seq=64, budget_bytes=1_000_000)

    assert "its largest part is pool a with" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pp": 0}, "pp: an axis of the mesh is empty: got 0"),
        ({"dp": 0}, "dp: an axis of the mesh is empty"),
        ({"num_microbatches": 0}, "needs at least 1 of microbatches"),
        ({"seq": 65}, "longer than the model's positions: got 65 tokens, expected at most 64"),
        ({"seq": 0}, "seq"),
        ({"microbatch": 0}, "microbatch"),
        ({"cp": 3}, "got 16 tokens over cp=3"),
        ({"layers": (2, 1)}, "got 3 layers in 2 stages, expected 4 layers in 2 stages"),
        ({"pp": 5}, "a stage would have no layer"),
        ({"mesh_order": ("tp", "pp")}, "the mesh order names each axis once: got tp,pp"),
        ({"depth": -1}, "depth and look-ahead are at least 0"),
        ({"precision": Precision(act="f64")}, "unknown data type: got 'f64'"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    numbers: dict[str, object] = {"schedule": "1f1b", "pp": 2, "num_microbatches": 2, "seq": 16}
    with pytest.raises(InvalidInputError, match=message):
        build_plan(tiny(4), **(numbers | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -1.0}, "lr: the optimizer cannot work so: got -1.0"),
        ({"clip": float("nan")}, "clip: .* got nan"),
        ({"eps": float("inf")}, "eps: .* got inf"),
        ({"beta2": 1.0}, "beta2: .* expected less than 1"),
        ({"steps": 0}, "steps: .* expected at least 1"),
    ],
)
def test_optimizer_numbers_that_no_plan_can_say_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        OptimizerSettings(**changes)  # type: ignore[arg-type]


def test_an_order_of_another_step_is_refused() -> None:
    plan = build_plan(tiny(2), schedule="1f1b", pp=2, num_microbatches=2, seq=16)

    with pytest.raises(InvalidInputError, match="differ in microbatches: got 2, expected 3"):
        lower(
            make_order("1f1b", 2, 3),
            model=plan.model,
            train=plan.train,
            mesh=plan.mesh,
            stages=plan.stages,
            sizes=(),
        )


@pytest.mark.slow
def test_a_plan_of_64_ranks_is_lowered_in_seconds() -> None:
    """Half a million works and messages; the bound leaves room for a busy machine."""
    before = time.process_time()
    plan = build_plan(tiny(256), schedule="interleaved-1f1b", pp=64, chunks=4, num_microbatches=256, seq=16)

    assert sum(len(each.instructions) for each in plan.programs) > 600_000
    assert time.process_time() - before < 30
