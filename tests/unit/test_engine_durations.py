"""Durations: priced once per plan, edited for stragglers and jitter, told apart by replica."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import ActorDurations, Durations, resolve, split_inner, split_replica
from exactmap.sim.engine.perturb import jitter, slow_down
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.plan import MeshDims, Plan
from exactmap.sim.plan.reader import read_plan

WORKED_EXAMPLE = Path(__file__).parent.parent / "golden" / "plans" / "valid" / "worked-example.plan"


def worked_example(dp: int = 1, tp: int = 1) -> Plan:
    plan = read_plan(WORKED_EXAMPLE.read_bytes())
    return replace(plan, mesh=MeshDims(tp, 1, 1, 2, dp))


def profile() -> Profile:
    work_ns = {(op, stage): ns for op, ns in (("F", 2000), ("I", 1001), ("W", 1000)) for stage in (0, 1)}
    opt_ns = {("OPT", stage, 0): 1000 for stage in (0, 1)}
    return Profile(Mover.ENGINE, work_ns, opt_ns, {name: ChannelNs(0, 500) for name in "fb"})


def test_each_instruction_is_priced_by_kind_stage_and_bucket() -> None:
    durations = resolve(worked_example(), replace(profile(), post_ns={"SF": 9}, issue_ns=4))

    rank0 = durations.actors[0, 0]
    assert rank0.comp_ns.tolist() == [0, 2000, 9, 2000, 9, 0, 0, 0, 0, 2001, 0, 2001, 0, 1000, 0]
    assert rank0.issue_ns.tolist() == [4] * 15
    assert durations.channels[0, "b"].lat_ns.tolist() == [500, 500]


@pytest.mark.parametrize("missing", ["work_ns", "bucket_ns", "channel"])
def test_a_price_that_is_missing_is_an_error(missing: str) -> None:
    with pytest.raises(InvalidInputError, match="the profile has no duration for"):
        resolve(worked_example(), replace(profile(), **{missing: {}}))


def test_a_plan_without_overrides_is_one_lane_whatever_its_replicas() -> None:
    durations = resolve(worked_example(dp=1000), profile())

    assert durations.replicas == {0: 1000}
    assert set(durations.actors) == {(0, 0), (0, 1)}


def test_splitting_a_replica_changes_no_time() -> None:
    plan = worked_example(dp=4)
    durations = resolve(plan, profile())

    split = split_replica(split_replica(durations, 2), 0)

    assert split.replicas == {1: 2, 2: 1, 0: 1}
    one, three = replay(plan, durations), replay(plan, split)
    for dp in (0, 1, 2):
        for pp in (0, 1):
            assert three.actor(pp, dp).e_ns.tolist() == one.actor(pp).e_ns.tolist()


def test_splitting_an_axis_makes_a_lane_per_coordinate() -> None:
    plan = worked_example(tp=2)
    split = split_inner(resolve(plan, profile()), plan, ("tp",))

    assert [lane.inner for lane in split.lanes] == [(0, 0, 0), (1, 0, 0)]
    assert split_inner(split, plan, ("tp",)).lanes == split.lanes
    assert np.unique(replay(plan, split).inner).tolist() == [0, 1]
    with pytest.raises(InvalidInputError, match="only tp, cp and ep can be split"):
        split_inner(split, plan, ("dp",))


def test_an_unknown_replica_or_rank_is_an_error() -> None:
    durations = resolve(worked_example(dp=2), profile())

    with pytest.raises(InvalidInputError, match="no such replica"):
        split_replica(durations, 2)
    with pytest.raises(InvalidInputError, match="no such pipeline rank"):
        slow_down(durations, 2, pp=[5])
    with pytest.raises(InvalidInputError, match="negative"):
        slow_down(durations, -1)


def test_a_slow_rank_of_one_replica_gets_a_lane_of_its_own() -> None:
    plan = worked_example(dp=8)
    slower = slow_down(resolve(plan, profile()), "1.5", pp=[1], dp=5)

    assert slower.replicas == {0: 7, 5: 1}
    trace = replay(plan, slower)
    assert trace.actor(1, dp=0).summary().busy_ns == {"ZERO": 0, "F": 4000, "B": 4002, "OPT": 1000}
    # Rounded half up: 1.5 * 2001 = 3001.5.
    assert trace.actor(1, dp=5).summary().busy_ns == {"ZERO": 0, "F": 6000, "B": 6004, "OPT": 1500}
    assert trace.actor(0, dp=5).summary().busy_ns == trace.actor(0, dp=0).summary().busy_ns


def test_a_factor_is_exact() -> None:
    durations = resolve(worked_example(), profile())

    by_text, by_fraction = slow_down(durations, "1.1"), slow_down(durations, Fraction(11, 10))

    assert works(by_text) == works(by_fraction)
    assert max(works(by_text)) == 2201  # 2001 * 1.1 = 2201.1


def works(durations: Durations) -> list[int]:
    return [ns for actor in durations.actors.values() for ns in actor.comp_ns.tolist()]


def test_jitter_is_bounded_repeatable_and_seeded() -> None:
    durations = resolve(worked_example(), replace(profile(), post_ns={"SF": 500}))

    once, again, other = jitter(durations, 100, 7), jitter(durations, 100, 7), jitter(durations, 100, 8)

    assert works(once) == works(again) != works(other)
    for actor, plain in zip(once.actors.values(), durations.actors.values(), strict=True):
        assert (actor.comp_ns >= plain.comp_ns).all()
        assert (actor.comp_ns <= plain.comp_ns + plain.comp_ns // 10).all()
    assert once.actors[0, 0].comp_ns[2] == 500  # a post is no work
    assert works(jitter(durations, 0, 7)) == works(durations)


def test_jitter_is_the_same_on_every_machine() -> None:
    """The draws are SplitMix64's, computed here with Python's integers."""
    mask = 2**64 - 1

    def mix(state: int) -> int:
        z = (state + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return z ^ (z >> 31)

    state = 0
    for word in (41, 0, 0, 0, 0, 1):  # seed, dp, tp, cp, ep, pp
        state = mix((state * 31 + word) & mask)
    draws = [(mix((state + index * 0x9E3779B97F4A7C15) & mask) >> 32) * 501 >> 32 for index in range(15)]
    durations = resolve(worked_example(), profile())
    plain = durations.actors[0, 1].comp_ns.tolist()

    drawn = jitter(durations, 500, 41).actors[0, 1].comp_ns.tolist()

    assert drawn == [ns + ns * draw // 1000 for ns, draw in zip(plain, draws, strict=True)]
    assert mix(1234567) == 6457827717110365317  # first output for this seed, as published with the generator


def test_jitter_of_one_rank_does_not_depend_on_the_lanes_around_it() -> None:
    durations = resolve(worked_example(dp=4), profile())

    alone, among = jitter(durations, 300, 3), jitter(split_replica(durations, 2), 300, 3)

    assert alone.actors[0, 1].comp_ns.tolist() == among.actors[0, 1].comp_ns.tolist()
    assert among.actors[1, 1].comp_ns.tolist() != among.actors[0, 1].comp_ns.tolist()


def test_jitter_spreads_evenly() -> None:
    """Mean and extremes of 1 + u, u even in 0..1, over many draws."""
    durations = resolve(worked_example(), profile())
    actor = durations.actors[0, 0]
    drawn = np.array([works(jitter(durations, 1000, seed))[1] for seed in range(2000)])

    assert actor.comp_ns[1] == 2000
    assert abs(drawn.mean() - 3000) < 5 * 2000 / np.sqrt(12 * 2000)
    assert drawn.min() < 2020
    assert drawn.max() > 3980


def test_durations_that_could_overflow_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"add up to more than 2\^62 ns"):
        resolve(worked_example(), replace(profile(), bucket_ns={("OPT", 0, 0): 2**62, ("OPT", 1, 0): 1}))


def test_a_negative_duration_is_refused() -> None:
    durations = resolve(worked_example(), profile())
    actor = durations.actors[0, 0]
    broken = ActorDurations(actor.program, actor.comp_ns - 1, actor.op_ns, actor.issue_ns)

    with pytest.raises(InvalidInputError, match="a duration is negative"):
        replace(durations, actors={(0, 0): broken})
