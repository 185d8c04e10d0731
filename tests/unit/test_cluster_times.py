"""Durations of every GPU: what they are made of, and that nobody changes them by how he asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray
from whole_cases import JITTERY, priced, slow, whole

from exactmap.sim.cost.meetings import pass_meetings
from exactmap.sim.cost.plan_header import formats_of, mesh_of, model_of
from exactmap.sim.cost.stages import compute_ns, stage_time_ns, tensor_parallel_parts
from exactmap.sim.engine.encoded import KINDS
from exactmap.sim.engine.wide.cluster_times import ClusterTimes
from exactmap.sim.engine.wide.hiccups import find_hiccups
from exactmap.sim.engine.wide.link_factors import LinkFactors, demand_of
from exactmap.sim.plan.plan import Group
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.workload.operators import Pass
from exactmap.topology.state.components import Component, ComponentKind
from exactmap.topology.state.factors import ONE, factor_of_rate, factor_table, scale
from exactmap.topology.state.spec import HOMOGENEOUS, StateSpec
from exactmap.topology.state.streams import Stream, draws16, stream_keys


def all_rows(times: ClusterTimes, pp: int, columns: slice) -> NDArray[np.int64]:
    num = times.base.actors[0, pp].program.num_instructions
    return np.array(times.comp_ns(pp, 0, num, columns))


@pytest.mark.parametrize(
    "sizes", [{"pp": 4, "dp": 6}, {"pp": 2, "dp": 3, "tp": 4, "cp": 2}], ids=["plain", "tp"]
)
def test_how_durations_are_asked_for_changes_nothing(sizes: dict[str, int]) -> None:
    """Row by row, in blocks, columns cut anywhere, from several threads: the same numbers."""
    times = whole(JITTERY, **sizes).times(num_steps=2)
    num = len(times.columns)
    expected = [all_rows(times, pp, slice(0, num)) for pp in range(sizes["pp"])]
    wires = [np.array(times.wire_ns(channel, 0, 8, slice(0, num))) for channel in range(2)]

    def ask(first: int) -> None:
        part = slice(first, min(first + 5, num))
        for pp, whole_rows in enumerate(expected):
            for x in range(len(whole_rows) - 1, -1, -3):
                assert times.comp_ns(pp, x, x + 1, part)[0].tolist() == whole_rows[x, part].tolist()
            at = times.rows(pp).at[1::2]
            assert times.works_ns(pp, at, part).tolist() == whole_rows[at, part].tolist()
        for channel, rows in enumerate(wires):
            for n in (7, 2, 3):
                assert times.wire_ns(channel, n, n + 1, part)[0].tolist() == rows[n, part].tolist()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, range(0, num, 5)))


def test_a_step_has_the_durations_that_it_has_alone() -> None:
    case = whole(JITTERY, pp=2, dp=4)
    together, alone = case.times(num_steps=3), case.times(num_steps=1, first_step=2)

    assert all_rows(together, 1, slice(8, 12)).tolist() == all_rows(alone, 1, slice(0, 4)).tolist()
    assert together.wire_ns(0, 0, 8, slice(8, 12)).tolist() == alone.wire_ns(0, 0, 8, slice(0, 4)).tolist()


def test_a_work_takes_its_base_times_the_factors_of_its_components() -> None:
    """One duration by hand: GPU, host, rack, step and the draw of the work."""
    spec = replace(JITTERY, hiccups_per_gpu_hour=0.0, stragglers=(slow(ComponentKind.RACK, 0, 0.5),))
    case = whole(spec, pp=4, dp=6)
    times, state = case.times(num_steps=2), case.state
    pp, dp, step, work = 2, 3, 1, 5
    gpu = case.gpu[pp, dp, 0, 0, 0]
    rows = times.rows(pp)
    base = rows.kinds[rows.which[work]].base_ns
    factor = state.work_factor(np.array([gpu]), np.array([step]))
    draw = draws16(stream_keys(spec.seed, Stream.GPU_WORK, np.array([gpu]), step), 1, 2)[0, 0, 1]

    took = times.works_ns(pp, rows.at[work : work + 1], slice(6 * step + dp, 6 * step + dp + 1))[0, 0]

    assert took == scale(scale(np.array([base]), factor), factor_table(0.03)[draw])[0]
    assert factor[0] > 1.9 * ONE


def test_jitter_has_the_variation_that_was_asked_for() -> None:
    times = whole(StateSpec(gpu_jitter=0.05, interface_jitter=0.2), pp=2, dp=60, m=32).times()
    rows = times.rows(1)
    forward = rows.at[rows.which == rows.which[0]]
    took = times.works_ns(1, forward, slice(0, 60)) / rows.kinds[rows.which[0]].base_ns
    wire = times.wire_ns(0, 0, 32, slice(0, 60)) / times.base.channels[0, "f0_1"].wire_ns[0]

    assert took.std() == pytest.approx(0.05, rel=0.06)
    assert took.mean() == pytest.approx(1, abs=0.005)
    assert wire.std() == pytest.approx(0.2, rel=0.08)


def test_a_slow_interface_slows_messages_between_racks_and_collectives_alone() -> None:
    """36 replicas on a rack and a half: messages that leave the rack wait for the interface, works do not."""
    case = whole(StateSpec(stragglers=(slow(ComponentKind.INTERFACE, 30, 0.25),)), pp=4, dp=36)
    times = case.times()
    base = times.base.channels[0, "f1_2"].wire_ns[0]

    inside, outside = (times.wire_ns(channel, 0, 1, slice(0, 36))[0] for channel in (0, 1))
    numbers = [case.plan.channels[channel].name for channel in (0, 1)]
    assert numbers == ["f0_1", "f1_2"]
    assert set(inside.tolist()) == {int(times.base.channels[0, "f0_1"].wire_ns[0])}
    assert set(outside.tolist()) == {int(base)}
    post = post_of(times, "AR")
    # A group of 36 lies in one rack: nothing of it goes through interfaces.
    assert set(times.op_ns(0, post, slice(0, 36)).tolist()) == {int(times.base.actors[0, 0].op_ns[post])}

    case = whole(StateSpec(stragglers=(slow(ComponentKind.INTERFACE, 80, 0.25),)), pp=2, dp=96)
    times = case.times()
    took, base = times.op_ns(0, post_of(times, "AR"), slice(0, 96)), times.base.actors[0, 0].op_ns
    assert (took != base[post_of(times, "AR")]).nonzero()[0].tolist() == [80]
    assert took[80] == 4 * base[post_of(times, "AR")]
    wire = times.wire_ns(0, 0, 1, slice(0, 96))[0]
    assert (wire != wire[0]).nonzero()[0].tolist() == [80]


def post_of(times: ClusterTimes, word: str, pp: int = 0) -> int:
    program = times.base.actors[0, pp].program
    return next(index for index in program.post_at.tolist() if KINDS[program.kind[index]].value == word)


def test_messages_hardly_mind_a_lost_uplink_and_collectives_do() -> None:
    case = whole(StateSpec(stragglers=(slow(ComponentKind.LEAF, 5, 1.0, 36),)), pp=4, dp=144)
    times = case.times()
    ring = times.op_ns(2, post_of(times, "AR", 2), slice(0, 144))
    on_leaf = case.state.leaves.leaf[case.gpu[2].ravel()] == 5

    assert case.demand.messages < 0.5 < case.demand.collective
    assert set(times.wire_ns(1, 0, 1, slice(0, 144))[0].tolist()) == {
        int(times.base.channels[0, "f1_2"].wire_ns[0])
    }
    base = int(times.base.actors[0, 2].op_ns[post_of(times, "AR", 2)])
    assert on_leaf.any()
    assert np.allclose(ring[on_leaf] / base, 1.86, atol=1e-3)
    assert set(ring[~on_leaf].tolist()) == {base}


def test_spares_leave_uplinks_to_spare() -> None:
    """56 of 72 uplinks are left for the 64 or 72 GPUs that send: 6 or 20 % longer."""
    lost = StateSpec(stragglers=(slow(ComponentKind.LEAF, 0, 1.0, 16),))
    slower = {}
    for used, dp in ((64, 4 * 64 * 2), (72, 4 * 72 * 2)):
        case = whole(lost, pp=4, dp=dp, used=used)
        factors = case.times().links.operation(0, 0, "AR")
        slower[used] = factors.max() / ONE

    assert slower[64] == pytest.approx(0.93 * 64 / 56, rel=1e-5)
    assert slower[72] == pytest.approx(0.93 * 72 / 56, rel=1e-5)


def test_a_pass_meets_at_each_of_its_collectives() -> None:
    """The sum of the maxima, from the draws, over a tensor group; no less than the maximum of the sums."""
    spec = StateSpec(seed=3, gpu_spread=0.05, gpu_jitter=0.05)
    case = whole(spec, pp=2, dp=2, tp=4)
    times, rows = case.times(), case.times().rows(0)
    kind = rows.kinds[rows.which[1]]
    num = kind.num_stretches
    gpus = case.gpu[0, 1, 0, 0]
    factor = case.state.work_factor(gpus, 0)
    draws = (
        draws16(stream_keys(spec.seed, Stream.GPU_WORK, gpus, 0), 0, 100).transpose(0, 2, 1).reshape(-1, 4)
    )
    table = factor_table(0.05 * sqrt(num))
    first = rows.first_draw[1]
    work = [
        scale(
            scale(np.array([kind.last_ns if n == num - 1 else kind.stretch_ns] * 4), factor),
            table[draws[first + n]],
        )
        for n in range(num)
    ]
    meetings = sum(meeting.time_ns for meeting in kind.meetings)

    took = times.works_ns(0, rows.at[1:2], slice(4, 8))[0].tolist()

    assert num == 16 * 4 + 1 + 1  # 16 layers of four collectives, one of the embedding
    assert took == [sum(int(part.max()) for part in work) + meetings] * 4
    assert took[0] > int(np.sum(work, axis=0).max()) + meetings


def test_without_jitter_meetings_cost_nothing() -> None:
    """Equal members meet without waiting, and of unequal ones the slowest sets the pace once."""
    case = whole(HOMOGENEOUS, pp=2, dp=2, tp=4, cp=2)
    times = case.times()
    for pp in range(2):
        base = times.base.actors[0, pp].comp_ns
        assert (all_rows(times, pp, slice(0, 16)) == base[:, None]).all()

    case = whole(StateSpec(stragglers=(slow(ComponentKind.GPU, 2, 0.5),)), pp=2, dp=2, tp=4, cp=2)
    times, rows = case.times(), case.times().rows(0)
    kind = rows.kinds[rows.which[1]]
    took = times.works_ns(0, rows.at[1:2], slice(0, 16))[0]
    meetings = sum(meeting.time_ns for meeting in kind.meetings)
    assert set(took[:8].tolist()) == {2 * (kind.base_ns - meetings) + meetings}
    assert set(took[8:].tolist()) == {kind.base_ns}


@pytest.mark.parametrize("step", list(Pass))
@pytest.mark.parametrize(("tp", "cp"), [(4, 1), (1, 4), (4, 2)])
def test_meetings_are_what_the_cost_model_counts_as_communication(step: Pass, tp: int, cp: int) -> None:
    """What the pass is priced at for its collectives, they take: layer by layer, embedding and head."""
    plan, _, cluster = priced(2, 2, tp, cp)
    mesh, model, formats = mesh_of(plan.mesh), model_of(plan.model), formats_of(plan)
    for stage in plan.stages:
        meetings = pass_meetings(model, stage, step, 1, 4096, mesh, cluster, formats)
        gather, scatter = tensor_parallel_parts(model, 1, 4096, mesh, cluster, formats)
        of_tp = [meeting.time_ns for meeting in meetings if meeting.axis == "tp"]
        layers = stage.num_layers
        in_layers = 2 * layers * (gather if step is Pass.W else gather + scatter) if tp > 1 else 0
        ends = 0
        if tp > 1 and stage.embedding:
            ends += {Pass.F: scatter, Pass.I: 0, Pass.W: gather}[step]
        if tp > 1 and stage.head:
            ends += {Pass.F: gather + scatter, Pass.I: 0, Pass.W: gather}[step]
        assert sum(of_tp) == in_layers + ends
        of_cp = [meeting for meeting in meetings if meeting.axis == "cp"]
        assert len(of_cp) == (layers if cp > 1 and step is not Pass.W else 0)
        if tp > 1 and cp > 1 and step is not Pass.W:
            # Gather, attention's exchange, scatter, then the feed-forward's two.
            axes = [meeting.axis for meeting in meetings]
            at = axes.index("cp")
            assert at == 1 + (stage.embedding and step is Pass.F)
            assert axes[at - 1 : at + 9] == ["tp", "cp", "tp", "tp", "tp"] * 2


def test_a_healed_gpu_stands_still_no_more() -> None:
    """Its hiccups and its own rate go, everybody else's stay."""
    spec = StateSpec(seed=9, gpu_spread=0.1, gpu_step_jitter=0.1, hiccups_per_gpu_hour=20000.0, hiccup_ns=9)
    case = whole(spec, pp=2, dp=4)
    healed = case.with_state(case.state.healed([Component(ComponentKind.GPU, 5)]))
    columns = slice(0, 80)
    sick, well = (all_rows(one.times(num_steps=20), 1, columns) for one in (case, healed))
    base = case.times().base.actors[0, 1].comp_ns

    assert (sick[:, 1::4] != base[:, None]).any(axis=1).sum() > 10
    assert (well[:, 1::4] == base[:, None]).all()
    assert (np.delete(sick, np.s_[1::4], axis=1) == np.delete(well, np.s_[1::4], axis=1)).all()


def test_hiccups_come_as_often_as_they_should() -> None:
    """Their total is what the rate says, within four deviations of a Poisson count."""
    spec = StateSpec(seed=9, hiccups_per_gpu_hour=2000.0, hiccup_ns=10_000_000)
    case = whole(spec, pp=4, dp=18)
    times = case.times(num_steps=40)
    extra = 0
    for pp in range(4):
        rows = times.rows(pp)
        base = np.array([kind.base_ns for kind in rows.kinds])[rows.which]
        extra += int((times.works_ns(pp, rows.at, slice(0, 720)) - base[:, None]).sum())
    expected = 2000 * 72 * 40 * case.nominal_ns / 3.6e12

    assert extra % 10_000_000 == 0
    assert abs(extra / 10_000_000 - expected) < 4 * sqrt(expected)


def test_a_rate_is_a_rate() -> None:
    case = whole(StateSpec(stragglers=(slow(ComponentKind.GPU, 7, 0.8),)), pp=2, dp=4)
    times, rows = case.times(), case.times().rows(1)
    took = times.works_ns(1, rows.at[:1], slice(0, 4))[0]
    base = rows.kinds[rows.which[0]].base_ns

    assert took.tolist() == [base, base, base, int(scale(np.array([base]), factor_of_rate(0.8))[0])]
    assert took[3] == pytest.approx(base / 0.8, rel=1e-6)


def test_members_on_two_axes_meet_one_axis_after_the_other() -> None:
    """A pass of 2 x 2 members by hand: all wait at each collective for those of its axis."""
    spec = StateSpec(seed=4, gpu_spread=0.05, gpu_jitter=0.1)
    case = whole(spec, pp=2, dp=2, tp=2, cp=2)
    times, rows = case.times(), case.times().rows(0)
    kind, first = rows.kinds[rows.which[0]], int(rows.first_draw[0])
    num = kind.num_stretches
    assert {meeting.axis for meeting in kind.meetings} == {"tp", "cp"}
    table = factor_table(0.1 * sqrt(num)).tolist()
    at = {(cp, tp): 0 for cp in range(2) for tp in range(2)}
    for n in range(num):
        for (cp, tp), now in at.items():
            gpu = case.gpu[0, 1, 0, cp, tp : tp + 1]
            draw = draws16(stream_keys(spec.seed, Stream.GPU_WORK, gpu, 0), 0, 200).ravel()[first + n]
            base = np.array([kind.last_ns if n == num - 1 else kind.stretch_ns])
            own = int(scale(base, case.state.work_factor(gpu, 0))[0])
            at[cp, tp] = now + (own * table[draw] + ONE // 2) // ONE
        if n < num - 1:
            meeting = kind.meetings[n]
            at = {
                (cp, tp): meeting.time_ns
                + max(
                    now
                    for (other_cp, other_tp), now in at.items()
                    if (other_cp == cp if meeting.axis == "tp" else other_tp == tp)
                )
                for cp, tp in at
            }

    assert set(times.works_ns(0, rows.at[:1], slice(4, 8))[0].tolist()) == {max(at.values())}


def test_messages_operations_and_steps_have_draws_of_their_own() -> None:
    """The same sender on two channels, two operations of one group, the same of both in two steps."""
    case = whole(StateSpec(interface_jitter=0.3), pp=4, dp=36, schedule="interleaved-1f1b", chunks=2)
    times = case.times(num_steps=2)
    first, second = slice(0, 36), slice(36, 72)
    sent = [number for number, channel in enumerate(case.plan.channels) if channel.src == 1]
    program = times.base.actors[0, 1].program
    reduces = [post for post in program.post_at.tolist() if KINDS[program.kind[post]].value == "AR"]
    drawn = []
    for part in (first, second):
        for number in sent:
            base = times.base.channels[0, case.plan.channels[number].name].wire_ns[0]
            drawn.append(times.wire_ns(number, 0, 1, part)[0] / base)
        drawn += [times.op_ns(1, post, part) / times.base.actors[0, 1].op_ns[post] for post in reduces]

    assert len(sent) >= 2
    assert len(reduces) >= 2
    for at, one in enumerate(drawn):
        for other in drawn[:at]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.6
            assert not np.allclose(one, other, rtol=1e-3)


def test_a_hiccup_falls_on_its_work_where_members_meet_too() -> None:
    """A member that stands still holds up its group in that work, and nobody in any other."""
    spec = StateSpec(seed=9, hiccups_per_gpu_hour=2000.0, hiccup_ns=10_000_000)
    case = whole(spec, pp=2, dp=4, tp=4)
    times = case.times(num_steps=20)
    rows, columns = times.rows(1), slice(0, 20 * 16)
    gpu, step = times.gpus(1, columns)
    found = find_hiccups(case.state, rows, gpu, step, case.nominal_ns)
    # Two in one work of one member add up; two members stand still together.
    each = np.zeros((len(rows.at), 80, 4), dtype=np.int64)
    np.add.at(each, (found.work, found.column // 4, found.column % 4), 10_000_000)
    # The optimizer steps of members do not wait for each other.
    together = np.array([bool(kind.axes) for kind in rows.kinds])[rows.which]
    expected = np.where(together[:, None, None], each.max(axis=2, keepdims=True), each)
    base = np.array([kind.base_ns for kind in rows.kinds])[rows.which]
    took = times.works_ns(1, rows.at, columns).reshape(-1, 80, 4) - base[:, None, None]

    assert len(found.work) > 5
    assert (took == expected).all()


def test_what_a_plan_needs_of_uplinks() -> None:
    """Messages: the bytes of the busiest stage over a step; collectives: the rate that interfaces reach."""
    plan, _, cluster = priced(4, 36)
    numbers = {channel.name: 10 + at for at, channel in enumerate(plan.channels)}
    sent = [0] * 4
    for channel in plan.channels:
        sent[channel.src] += channel.bytes * numbers[channel.name]
    assert len(set(sent)) > 1

    demand = demand_of(plan, cluster, 2, 500_000_000, numbers)
    assert demand.messages == pytest.approx(max(sent) / 0.5 / cluster.scale_out.bytes_per_s)
    assert demand.collective == cluster.scale_out.efficiency


def test_a_group_of_some_ranks_goes_through_interfaces_if_these_ranks_lie_apart() -> None:
    """First and last stage of a model with tied embeddings; the norm's few bytes mind no rate."""
    case = whole(StateSpec(stragglers=(slow(ComponentKind.INTERFACE, 5, 0.5),)), pp=4, dp=24)
    groups = (
        Group("ends", ("pp",), (0, 3)),
        Group("near", ("pp",), (0, 1)),
        Group("all", ("pp", "dp")),
    )
    plan = replace(case.plan, groups=groups)
    links = LinkFactors(plan, case.state, case.gpu, case.demand)
    racks = case.state.rack_of(case.gpu).reshape(4, 24)

    assert (racks[0] == racks[1]).all()
    assert (racks[0] != racks[3]).all()
    assert np.flatnonzero(links.operation(0, 0, "AR") != ONE).tolist() == [5]
    assert (links.operation(0, 1, "AR") == ONE).all()
    assert (links.operation(0, 2, "NORM") == ONE).all()
    assert np.flatnonzero(links.operation(0, 2, "AR") != ONE).tolist() == [5]


def test_a_pass_is_its_operators_and_its_meetings_whoever_s_kernels_describe_the_gpu() -> None:
    """An H800 has the kernels of an H100, not curves of its own: attention hides as much of the exchange."""
    plan, _, _ = priced(2, 2, 1, 4)
    cluster = replace(load_cluster("h800-8"), num_gpus=64)
    mesh, model, formats = mesh_of(plan.mesh), model_of(plan.model), formats_of(plan)
    for stage in plan.stages:
        for step in Pass:
            meetings = pass_meetings(model, stage, step, 1, 4096, mesh, cluster, formats)
            whole = stage_time_ns(model, stage, step, 1, 4096, mesh, cluster, formats)
            compute, _ = compute_ns(model, stage, step, 1, 4096, mesh, cluster, formats)
            assert sum(meeting.time_ns for meeting in meetings) == pytest.approx(whole - compute, abs=10)
