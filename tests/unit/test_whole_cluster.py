"""A whole cluster: its aggregate if all are alike, stragglers as by events, blame and healing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from whole_cases import JITTERY, slow, whole

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.encoded import KINDS
from exactmap.sim.engine.events import simulate_events
from exactmap.sim.engine.replay import replay_times
from exactmap.sim.engine.wide.lanes import durations_of
from exactmap.sim.engine.wide.replay_wide import replay_wide
from exactmap.sim.report.whole_cluster import blame_by_component
from exactmap.sim.resilience.blame import Cause
from exactmap.sim.resilience.latest import Latest, touched_by
from exactmap.sim.resilience.monte_carlo import step_whole
from exactmap.sim.resilience.replica import replica_durations
from exactmap.topology.state.components import Component, ComponentKind
from exactmap.topology.state.spec import HOMOGENEOUS, StateSpec, Straggler

KIND = ComponentKind


@pytest.mark.parametrize(
    "sizes",
    [
        {"pp": 2, "dp": 4},
        {"pp": 4, "dp": 18, "m": 6},
        {"pp": 2, "dp": 4, "tp": 4, "cp": 2},
        {"pp": 4, "dp": 16, "tp": 8, "used": 64},
        pytest.param({"pp": 8, "dp": 512}, marks=pytest.mark.slow),
    ],
    ids=["8", "72", "64-tp-cp", "512-tp", "4096"],
)
def test_a_homogeneous_cluster_is_its_aggregate(sizes: dict[str, int]) -> None:
    """All GPUs by themselves, all alike: the times of the one lane that stands for them, to the ns."""
    case = whole(HOMOGENEOUS, **sizes)
    result = replay_wide(case.compiled, case.times())
    lane = replay_times(case.compiled)

    assert result.makespan_ns.tolist() == [case.nominal_ns]
    assert result.period_ns.tolist() == [case.nominal_period_ns]
    assert (result.end_ns == lane.end_ns[:, None]).all()


@pytest.mark.parametrize(
    "straggler",
    [
        slow(KIND.GPU, 9, 0.7),
        slow(KIND.HOST, 4, 0.9),
        slow(KIND.RACK, 1, 0.95),
        slow(KIND.INTERFACE, 100, 0.2),
        slow(KIND.LEAF, 2, 0.3),
    ],
    ids=["gpu", "host", "rack", "interface", "leaf"],
)
def test_a_straggler_does_in_full_what_it_does_in_the_event_engine(straggler: Straggler) -> None:
    case = whole(StateSpec(stragglers=(straggler,)), pp=2, dp=96, m=3)
    times = case.times()
    result = replay_wide(case.compiled, times)
    durations = durations_of(case.compiled, times, range(96))
    events = simulate_events(case.plan, durations)

    ends = [rank.end_ns for rank in events.summary().ranks]
    assert result.end_ns.T.ravel().tolist() == ends
    assert result.makespan_ns[0] == events.summary().makespan_ns


def test_a_noisy_tensor_parallel_cluster_does_what_the_event_engine_says() -> None:
    case = whole(JITTERY, pp=2, dp=4, tp=4)
    times = case.times()
    result = replay_wide(case.compiled, times)
    events = simulate_events(case.plan, durations_of(case.compiled, times, range(16)))

    assert result.makespan_ns[0] == events.summary().makespan_ns > case.nominal_ns


def test_removing_the_straggler_restores_the_nominal_time() -> None:
    stragglers = (slow(KIND.GPU, 100, 0.8), slow(KIND.RACK, 1, 0.9), slow(KIND.INTERFACE, 70, 0.5))
    case = whole(StateSpec(stragglers=stragglers), pp=4, dp=32)
    found = step_whole(case, most_healed=8)

    assert found.makespan_ns[0] > case.nominal_ns
    assert {str(entry.component) for entry in found.healed} == {"gpu 100", "rack 1", "interface of gpu 70"}
    assert found.healed[-1].step_ns == case.nominal_ns
    state = case.state.healed(entry.component for entry in found.healed)
    assert replay_wide(case.compiled, case.with_state(state).times()).makespan_ns[0] == case.nominal_ns


def test_a_hot_rack_slows_exactly_the_replicas_that_touch_it() -> None:
    case = whole(StateSpec(stragglers=(slow(KIND.RACK, 2, 0.9),)), pp=4, dp=96)
    own = replay_wide(case.compiled, case.times()).replica_own_ns[0]
    touched = (case.state.rack_of(case.gpu) == 2).any(axis=(0, 2, 3, 4))

    assert touched.sum() == 72
    assert (own > own.min()).nonzero()[0].tolist() == touched.nonzero()[0].tolist()
    assert touched_by(case, Component(KIND.RACK, 2))[1] == touched.nonzero()[0].tolist()


@pytest.mark.parametrize(
    ("straggler", "cause"),
    [
        (slow(KIND.GPU, 9, 0.7), Cause.COMPUTE),
        (slow(KIND.HOST, 20, 0.8), Cause.COMPUTE),
        (slow(KIND.RACK, 1, 0.8), Cause.COMPUTE),
        (slow(KIND.INTERFACE, 100, 0.05), Cause.COLLECTIVE),
        (slow(KIND.LEAF, 2, 0.2), Cause.COLLECTIVE),
        (slow(KIND.LEAF, 1, 1.0, 45), Cause.COLLECTIVE),
    ],
    ids=["gpu", "host", "rack", "interface", "leaf", "lost-uplinks"],
)
def test_blame_names_the_straggler(straggler: Straggler, cause: Cause) -> None:
    """Whatever is slow is charged most, also under the noise of all others."""
    quiet = replace(JITTERY, slow_host_share=0.0, hiccups_per_gpu_hour=0.0, gpu_spread=0.002, gpu_jitter=0.01)
    wanted = Component(straggler.kind, straggler.ids[0][0])
    for spec in (HOMOGENEOUS, quiet):
        case = whole(replace(spec, stragglers=(straggler,)), pp=2, dp=96)
        found = step_whole(case, most_healed=1)
        first = found.blames[0].charges[0]

        assert first.component == wanted
        assert first.cause is cause
        assert found.healed[0].component == wanted


def test_a_hiccup_is_charged_to_its_gpu() -> None:
    case = whole(StateSpec(seed=2, hiccups_per_gpu_hour=100.0, hiccup_ns=90_000_000), pp=2, dp=16)
    found = step_whole(case, num_steps=8, most_healed=0)
    late = int(np.argmax(found.makespan_ns))
    first = found.blames[late].charges[0]

    assert found.makespan_ns[late] >= case.nominal_ns + 80_000_000
    assert first.component.kind is KIND.GPU
    assert first.passing_ns >= 90_000_000


@pytest.mark.parametrize("sizes", [{"pp": 4, "dp": 24}, {"pp": 2, "dp": 6, "tp": 4}], ids=["plain", "tp"])
def test_charges_add_up_to_what_the_step_took_longer(sizes: dict[str, int]) -> None:
    """Charges = path - its nominal time; the nominal time of no path is longer than the nominal step."""
    case = whole(JITTERY, **sizes)
    found = step_whole(case, num_steps=4, most_healed=0)

    for blame, makespan in zip(found.blames, found.makespan_ns.tolist(), strict=True):
        assert blame.makespan_ns == makespan
        assert sum(charge.total_ns for charge in blame.charges) == blame.path_ns - blame.nominal_path_ns
        assert blame.nominal_path_ns <= case.nominal_ns
        assert blame.path_ns == makespan


def test_members_folded_into_one_are_late_by_little() -> None:
    """Where messages of members jitter, the folded replica bounds the step from above, within 0.1 %."""
    case = whole(
        replace(JITTERY, interface_jitter=0.5), pp=8, dp=6, tp=4, schedule="interleaved-1f1b", chunks=2
    )
    found = step_whole(case, num_steps=4, most_healed=0)

    rests = [blame.makespan_ns - blame.path_ns for blame in found.blames]
    assert max(rests) <= 0
    assert min(rests) < 0
    assert min(rests) > -case.nominal_ns // 1000


def test_stragglers_on_which_no_rank_lies_are_named() -> None:
    """48 of 72 GPUs are used: a name that changes nothing is likely a mistake."""
    stragglers = (slow(KIND.GPU, 9, 0.7), Straggler(KIND.GPU, ((46, 49),), 0.5), slow(KIND.HOST, 17, 0.9))
    case = whole(StateSpec(stragglers=stragglers), pp=2, dp=24)

    assert case.without_ranks() == ["gpu 48", "gpu 49", "host 17"]


def test_more_hiccups_than_are_drawn_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"stands still too often: got .* times in a step"):
        whole(StateSpec(hiccups_per_gpu_hour=1e9, hiccup_ns=1_000_000), pp=2, dp=4)


def test_the_latest_replica_is_the_latest_of_all() -> None:
    """Replays of all replicas, one by one, find no later one; the search looks at few of them."""
    case = whole(JITTERY, pp=4, dp=40)
    times = case.times()
    latest = Latest(case, times, 0, replay_wide(case.compiled, times).own_ns)
    dp, when = latest.find()
    alone = [
        int(replay_times(case.compiled, replica_durations(case, times, 0, other, latest.meeting)).makespan_ns)
        for other in range(40)
    ]

    assert max(alone) == alone[dp] == when
    assert latest.num_replayed <= 20


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu_jitter": 0.0, "interface_jitter": 0.0, "gpu_step_jitter": 0.0, "hiccups_per_gpu_hour": 0.0},
        {"gpu_jitter": 0.0, "interface_jitter": 0.0, "gpu_step_jitter": 0.0, "hiccups_per_gpu_hour": 0.0}
        | {"interface_spread": 0.0},
        {},
    ],
    ids=["lasting", "works-alone", "noisy"],
)
def test_healing_is_what_a_simulation_of_the_healed_cluster_says(changes: dict[str, float]) -> None:
    """After each component the replayed replicas give the step of the whole cluster, stepped anew."""
    spec = replace(JITTERY, **changes)  # type: ignore[arg-type]
    case = whole(spec, pp=4, dp=40)
    found = step_whole(case, most_healed=6)
    components = []
    for entry in found.healed:
        components.append(entry.component)
        again = case.with_state(case.state.healed(components))
        makespan = int(replay_wide(again.compiled, again.times()).makespan_ns[0])
        assert entry.step_ns == makespan
    times = [found.first_step_ns, *(entry.step_ns for entry in found.healed)]
    assert times == sorted(times, reverse=True)
    assert len(set(components)) == 6


def test_what_follows_the_meeting_is_charged_to_the_replica_that_needs_longest_for_it() -> None:
    """Replica 0 comes last, held up by an interface; then a GPU of replica 5 needs longest to step."""
    stragglers = (slow(KIND.INTERFACE, 48, 0.001), slow(KIND.GPU, 5, 0.97))
    case = whole(StateSpec(stragglers=stragglers), pp=4, dp=24)
    blame = step_whole(case, most_healed=0).blames[0]
    by_gpu = {charge.component: charge for charge in blame.charges}
    program = case.compiled.durations.actors[0, 0].program
    steps = [int(at) for at in case.rows[0].at if KINDS[program.kind[at]].value == "OPT"]
    ns = sum(int(case.compiled.durations.actors[0, 0].comp_ns[at]) for at in steps)

    assert blame.dp == 0
    assert set(by_gpu) == {Component(KIND.INTERFACE, 48), Component(KIND.GPU, 5)}
    assert by_gpu[Component(KIND.GPU, 5)].total_ns == pytest.approx(ns / 0.97 - ns, abs=2)


def test_what_lasts_is_healed_not_what_passes() -> None:
    """A message that jitters costs more than a GPU that is slow for good, and heals by itself."""
    spec = StateSpec(seed=3, interface_jitter=1.0, stragglers=(slow(KIND.GPU, 9, 0.99),))
    found = step_whole(whole(spec, pp=2, dp=24), most_healed=4)
    first = found.blames[0].charges[0]

    assert first.component.kind is KIND.INTERFACE
    assert first.passing_ns > 10 * abs(first.lasting_ns)
    assert [entry.component for entry in found.healed] == [Component(KIND.GPU, 9)]


def test_healing_a_gpu_of_the_tail_is_felt_by_replicas_that_it_does_not_touch() -> None:
    """Replica 5 needs longest after the meeting, also when one of its two slow GPUs is healed."""
    stragglers = (slow(KIND.INTERFACE, 48, 0.001), slow(KIND.GPU, 5, 0.4), slow(KIND.GPU, 29, 0.5))
    case = whole(StateSpec(stragglers=stragglers), pp=4, dp=24)
    times = case.times()
    latest = Latest(case, times, 0, replay_wide(case.compiled, times).own_ns)
    before = latest.find()
    assert latest.meeting.tail == 5
    healed = case.with_state(case.state.healed([Component(KIND.GPU, 5)]))
    latest.heal(healed, healed.times(), Component(KIND.GPU, 5))

    assert latest.meeting.tail == 5
    assert before[0] == 0
    assert latest.find()[1] == replay_wide(healed.compiled, healed.times()).makespan_ns[0] < before[1]


def test_threads_and_batches_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    case = whole(JITTERY, pp=2, dp=12)
    one = step_whole(case, 5, num_threads=1, most_healed=3)
    monkeypatch.setattr("exactmap.sim.resilience.monte_carlo._MOST_ENTRIES", 60)
    two = step_whole(case, 5, num_threads=3, most_healed=3)

    assert one.makespan_ns.tolist() == two.makespan_ns.tolist()
    assert one.replica_ns.tolist() == two.replica_ns.tolist()
    assert one.blames == two.blames
    assert one.healed == two.healed
    assert len(set(one.makespan_ns.tolist())) == 5


def test_the_interpreters_hash_seed_changes_no_number() -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from whole_cases import JITTERY, whole\n"
        "from exactmap.sim.resilience.monte_carlo import step_whole\n"
        "found = step_whole(whole(JITTERY, pp=2, dp=12), 2, num_threads=int(sys.argv[1]), most_healed=3)\n"
        "print(found.makespan_ns.tolist(), found.blames, found.healed)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script, threads],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed, threads in (("0", "1"), ("1", "2"))
    }

    assert len(outputs) == 1


def test_more_replicas_leave_the_durations_of_the_others_alone() -> None:
    """Two clusters that differ by racks: replicas on the same GPUs have the same durations."""
    small, large = (whole(JITTERY, pp=1, dp=dp).times() for dp in (8, 80))

    at = small.rows(0).at
    assert small.works_ns(0, at, slice(0, 8)).tolist() == large.works_ns(0, at, slice(0, 8)).tolist()


def test_compiled_lanes_of_all_replicas_agree_too() -> None:
    """The replay of lanes with every replica a lane: a third engine, the same ends."""
    case = whole(JITTERY, pp=4, dp=10)
    times = case.times()
    durations = durations_of(case.compiled, times, range(10))
    lanes = replay_times(compile_plan(case.plan, durations))

    assert lanes.makespan_ns == replay_wide(case.compiled, times).makespan_ns[0]


def test_idle_is_the_excess_of_a_step_times_the_gpus_that_wait() -> None:
    """144 GPUs of which one, one host or one rack is slow: all that lie elsewhere wait for it."""
    for straggler, num_waiting in (
        (slow(KIND.GPU, 9, 0.7), 143),
        (slow(KIND.HOST, 20, 0.8), 140),
        (slow(KIND.RACK, 1, 0.8), 72),
    ):
        case = whole(StateSpec(stragglers=(straggler,)), pp=2, dp=72)
        found = step_whole(case, most_healed=0)
        (entry,) = blame_by_component(found.blames, case.waiting())

        assert entry.num_waiting == num_waiting
        assert entry.idle_gpu_s == pytest.approx(num_waiting * found.blames[0].charges[0].total_ns / 1e9)
