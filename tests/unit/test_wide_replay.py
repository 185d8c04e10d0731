"""The wide replay on whole clusters: equal to the aggregated replay, stragglers, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.wide_cases import ArrayTimes, drawn_times, same_times

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.durations import split_replica
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.perturb import slow_down
from exactmap.sim.engine.replay import replay, replay_times
from exactmap.sim.engine.wide.columns import Columns
from exactmap.sim.engine.wide.graph import wide_graph
from exactmap.sim.engine.wide.lanes import durations_of
from exactmap.sim.engine.wide.replay_wide import replay_wide
from exactmap.sim.engine.wide.tape import make_tape
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.encoded import Ints


def compiled_plan(
    schedule: str = "1f1b",
    *,
    pp: int = 2,
    dp: int = 1,
    tp: int = 1,
    cp: int = 1,
    chunks: int = 1,
    microbatches: int = 4,
    mover: Mover = Mover.ENGINE,
    sharded: bool = False,
    couple: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> CompiledPlan:
    """A lowered plan; stages, buckets and channels take different times."""
    model = ModelConfig(
        ModelKind.GPT,
        layers=pp * chunks,
        hidden=8,
        heads=2,
        kv_heads=2,
        head_dim=4,
        ffn=8,
        vocab=16,
        positions=8,
        tied=False,
    )
    plan = build_plan(
        model,
        schedule=schedule,
        pp=pp,
        num_microbatches=microbatches,
        seq=8,
        chunks=chunks,
        dp=dp,
        shard_params=sharded,
        split_buckets=sharded,
    )
    plan = replace(plan, mesh=replace(plan.mesh, tp=tp, cp=cp), couple=couple)
    stages = range(len(plan.stages))
    profile = Profile(
        mover,
        work_ns={
            (op, stage): 1000 + 7 * stage + shift
            for op, shift in (("F", 0), ("I", 31), ("W", 50))
            for stage in stages
        },
        bucket_ns={
            (op, each.stage, each.index): 90 + each.stage for each in plan.buckets for op in ("OPT", "ZERO")
        },
        channel={each.name: ChannelNs(40 + number, 11, 3) for number, each in enumerate(plan.channels)},
        group_ns={(group.name, op.value, None, None): 300 for group in plan.groups for op in Op},
        copy_ns={(op, stage): 100 for op in ("OFF", "LD") for stage in stages},
    )
    return compile_plan(plan, profile)


def columns_of(compiled: CompiledPlan, num_steps: int = 1) -> Columns:
    mesh = compiled.plan.mesh
    return Columns(num_steps, dp=mesh.dp, ep=mesh.ep, cp=mesh.cp, tp=mesh.tp)


COUPLE = (("F", ("tp", "cp")), ("B", ("tp",)))


@pytest.mark.parametrize(
    ("num_gpus", "schedule", "sizes"),
    [
        (8, "1f1b", {"pp": 2, "dp": 2, "tp": 2, "couple": COUPLE}),
        (8, "1f1b", {"pp": 1, "dp": 8, "sharded": True}),
        (64, "interleaved-1f1b", {"pp": 4, "dp": 4, "tp": 2, "cp": 2, "chunks": 2, "couple": COUPLE}),
        (64, "zb-h1", {"pp": 4, "dp": 16, "microbatches": 8}),
        (512, "gpipe", {"pp": 8, "dp": 64, "microbatches": 16, "mover": Mover.INLINE}),
        (512, "zb-v", {"pp": 4, "dp": 16, "tp": 8, "chunks": 2, "microbatches": 8, "couple": COUPLE}),
        (1024, "dualpipe", {"pp": 4, "dp": 256, "microbatches": 12}),
        (1024, "1f1b", {"pp": 8, "dp": 16, "tp": 4, "cp": 2, "sharded": True, "couple": COUPLE}),
        (4096, "1f1b", {"pp": 4, "dp": 1024, "sharded": True, "mover": Mover.INLINE}),
        (4096, "interleaved-1f1b", {"pp": 8, "dp": 64, "tp": 8, "chunks": 2, "microbatches": 16}),
        (4096, "1f1b", {"pp": 64, "dp": 64, "microbatches": 64}),
    ],
)
def test_a_homogeneous_cluster_takes_what_its_one_lane_takes(
    num_gpus: int, schedule: str, sizes: dict[str, Any]
) -> None:
    """Full and aggregated simulation agree to the nanosecond, on every GPU."""
    compiled = compiled_plan(schedule, **sizes)
    columns = columns_of(compiled)
    assert len(columns) * compiled.plan.mesh.pp == num_gpus

    wide = replay_wide(compiled, same_times(compiled, columns), block_columns=100)

    lane = replay_times(compiled)
    assert (wide.end_ns == lane.end_ns[:, None]).all()
    assert wide.makespan_ns.tolist() == [int(lane.makespan_ns)]
    assert wide.period_ns.tolist() == [int(lane.period_ns)]


def with_slow_gpu(times: ArrayTimes, slowed: Ints, pp: int, column: int) -> ArrayTimes:
    """The same times, but that GPU's compute takes `slowed`."""
    comp = list(times.comp)
    comp[pp] = np.array(comp[pp])
    comp[pp][:, column] = slowed
    return ArrayTimes(times.columns, comp, times.op, times.wire, times.lat)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("dp", [2, 8, 512])
def test_one_straggler_among_replicas_costs_what_the_event_engine_says(dp: int, sharded: bool) -> None:
    """Rank 3 of a replica takes 1.37 times as long; the event engine gives that replica a lane of its own."""
    compiled = compiled_plan(pp=8, dp=dp, microbatches=12, sharded=sharded)
    lanes = slow_down(split_replica(compiled.durations, dp - 1), "1.37", pp=[3], dp=dp - 1)
    events = simulate_events(compiled.plan, lanes)

    times = same_times(compiled, columns_of(compiled))
    wide = replay_wide(compiled, with_slow_gpu(times, lanes.actors[1, 3].comp_ns, 3, dp - 1), block_columns=7)

    for replica in range(dp):
        for pp in range(8):
            one = events.actor(pp, dp - 1 if replica == dp - 1 else 0)
            assert wide.end_ns[pp, replica] == one.e_ns[-1]
    assert wide.makespan_ns[0] == events.summary().makespan_ns > int(replay_times(compiled).makespan_ns)
    assert wide.replica_own_ns[0].argmax() == dp - 1, "the slow replica is the one that all wait for"


def test_one_straggler_in_a_tensor_group_costs_what_the_event_engine_says() -> None:
    """All columns as lanes: the group waits for its slow member at each coupled work, replicas at the end."""
    compiled = compiled_plan(pp=4, dp=3, tp=2, cp=2, microbatches=6, couple=COUPLE)
    columns = columns_of(compiled)
    slowed = compiled.durations.actors[0, 2].comp_ns * 3 // 2
    times = with_slow_gpu(same_times(compiled, columns), slowed, 2, 6)

    wide = replay_wide(compiled, times, block_columns=4)
    durations = durations_of(compiled, times, range(len(columns)))

    assert simulate_events(compiled.plan, durations).same_times(replay(compiled.plan, durations))
    lanes = replay_times(compile_plan(compiled.plan, durations))
    assert np.array_equal(lanes.end_ns.reshape(len(columns), 4).T, wide.end_ns)
    assert int(lanes.period_ns) == wide.period_ns[0]
    assert wide.replica_own_ns.argmax() == 1


def test_replicas_wait_for_the_slowest_by_hand() -> None:
    """One rank, two replicas: 4 x (F + B) each, then the slower one's all-reduce, the norm, the update."""
    compiled = compiled_plan(pp=1, dp=2)
    times = same_times(compiled, Columns(dp=2))
    times.comp[0] = np.array(times.comp[0]) * [1, 2]
    times.op[0] = np.array(times.op[0]) * [3, 1]

    wide = replay_wide(compiled, times)

    passes = 4 * (1000 + 1031 + 1050)
    zero, update = 90, 90
    own = [zero + passes, 2 * (zero + passes)]
    norm = [900, 300]
    assert wide.own_ns.tolist() == [own]
    assert wide.end_ns.tolist() == [[own[1] + 900 + norm[0] + update, own[1] + 900 + norm[1] + 2 * update]]
    assert wide.period_ns.tolist() == [2 * passes]
    assert wide.replica_own_ns.tolist() == [own]


def test_monte_carlo_steps_are_each_of_them_alone() -> None:
    """Steps do not touch each other, whether they are stepped one by one or several at once."""
    compiled = compiled_plan(pp=2, dp=3)
    times = drawn_times(Random(3), compiled, columns_of(compiled, num_steps=9))

    together = replay_wide(compiled, times, num_threads=2, block_columns=7)

    for step in range(9):
        part = slice(3 * step, 3 * step + 3)
        alone = ArrayTimes(
            Columns(dp=3),
            *([each[:, part] for each in of] for of in (times.comp, times.op, times.wire, times.lat)),
        )
        one = replay_wide(compiled, alone, num_threads=1)
        assert np.array_equal(one.end_ns, together.end_ns[:, part])
        assert (one.makespan_ns[0], one.period_ns[0]) == (
            together.makespan_ns[step],
            together.period_ns[step],
        )
    assert len(set(together.makespan_ns.tolist())) > 5


def test_rows_are_given_back() -> None:
    """The pool holds what is on its way: it does not grow with the number of microbatches."""
    num_rows = []
    for microbatches in (16, 64):
        compiled = compiled_plan(pp=8, microbatches=microbatches)
        tape = make_tape(compiled, wide_graph(compiled, Columns()), apart=0, window_rows=100)
        num_rows.append(tape.num_rows)
        assert all(window.num_rows <= 100 for windows in tape.phases for window in windows)

    assert num_rows[0] == num_rows[1] < 8 * 8


def test_phases_are_as_many_as_meetings_follow_each_other() -> None:
    """64 buckets that are reduced side by side are one meeting; the norm after them is another."""
    compiled = compiled_plan(pp=16, dp=4, microbatches=16, sharded=True)
    graph = wide_graph(compiled, columns_of(compiled))

    tape = make_tape(compiled, graph, apart=1, window_rows=1000)

    assert [len(meetings) for meetings in tape.meetings if meetings][-1] == 1, "the norm"
    assert sum(len(meetings) for meetings in tape.meetings) == compiled.linked.operations.num
    assert len(tape.phases) < 8


def test_who_steps_is_told_how_far_it_is() -> None:
    compiled = compiled_plan(pp=2, dp=3)
    told: list[float] = []
    for num_steps, block in ((1, 100), (4, 1), (5, 6)):
        times = drawn_times(Random(3), compiled, columns_of(compiled, num_steps))
        replay_wide(compiled, times, progress=lambda done, _: told.append(done), block_columns=block)
        assert told[-1] == max(told) == 1.0
        told.clear()


def test_a_plan_whose_replicas_differ_is_refused() -> None:
    compiled = compiled_plan(pp=2, dp=3)
    lanes = compile_plan(compiled.plan, split_replica(compiled.durations, 1))

    with pytest.raises(InvalidInputError, match="one program per pipeline rank"):
        replay_wide(lanes, same_times(compiled, Columns(dp=3)))


def test_columns_of_another_mesh_are_refused() -> None:
    compiled = compiled_plan(pp=2, dp=3)

    with pytest.raises(InvalidInputError, match="mesh on axis dp"):
        replay_wide(compiled, same_times(compiled, Columns(dp=2)))
    with pytest.raises(InvalidInputError, match="at least 1"):
        replay_wide(compiled, same_times(compiled, Columns(dp=3)), num_threads=0)


@pytest.mark.parametrize("columns", [[], [1, 0], [2, 3], [-1], [6]])
def test_lanes_of_columns_that_are_not_of_one_step_are_refused(columns: list[int]) -> None:
    compiled = compiled_plan(pp=2, dp=3)
    times = same_times(compiled, Columns(2, dp=3))

    with pytest.raises(InvalidInputError, match="of one step"):
        durations_of(compiled, times, columns)


def test_lanes_of_columns_that_pay_for_free_posts_are_refused() -> None:
    """The wide replay would not look at such times; the other engines would."""
    compiled = compiled_plan(pp=2, dp=3)
    times = same_times(compiled, Columns(dp=3))
    post = int(compiled.linked.programs[1].post_at[0])
    times.comp[1] = np.array(times.comp[1])
    times.comp[1][post, 2] = 7

    with pytest.raises(InvalidInputError, match="free in the compiled plan") as error:
        durations_of(compiled, times, [2])

    assert f"rank 1, instruction {post}" in str(error.value)


def test_a_failure_in_a_thread_reaches_who_asked() -> None:
    """And nothing hangs: the durations' own errors come through."""
    compiled = compiled_plan(pp=2, dp=3)

    class Broken(ArrayTimes):
        def wire_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
            raise InvalidInputError("no such link", got=f"{channel} {first} {last} {columns}")

    whole = same_times(compiled, Columns(dp=3))
    broken = Broken(Columns(dp=3), whole.comp, whole.op, whole.wire, whole.lat)

    for block in (1, 100):
        with pytest.raises(InvalidInputError, match="no such link"):
            replay_wide(compiled, broken, block_columns=block)
