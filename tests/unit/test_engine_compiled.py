"""A compiled plan: structure is found once, durations come and go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.durations import resolve, split_replica
from exactmap.sim.engine.levels import arrange, levels_of, solve
from exactmap.sim.engine.perturb import jitter, slow_down
from exactmap.sim.engine.replay import replay, replay_many, replay_times
from exactmap.sim.plan.plan import MeshDims, Plan
from exactmap.sim.plan.reader import read_plan

WORKED_EXAMPLE = Path(__file__).parent.parent / "golden" / "plans" / "valid" / "worked-example.plan"


def worked_example(dp: int = 1) -> Plan:
    return replace(read_plan(WORKED_EXAMPLE.read_bytes()), mesh=MeshDims(1, 1, 1, 2, dp))


def profile(mover: Mover = Mover.ENGINE, unit_ns: int = 1000) -> Profile:
    work_ns = {(op, stage): ns * unit_ns for op, ns in (("F", 2), ("I", 1), ("W", 1)) for stage in (0, 1)}
    opt_ns = {("OPT", stage, 0): unit_ns for stage in (0, 1)}
    return Profile(mover, work_ns, opt_ns, {name: ChannelNs(0, unit_ns // 2) for name in "fb"})


def test_the_worked_example_takes_what_its_page_says() -> None:
    """Barrier makespan 14 us, period 13 us; 14.5 us with mover inline."""
    engine = replay_times(compile_plan(worked_example(), profile()))
    inline = replay_times(compile_plan(worked_example(), profile(Mover.INLINE)))

    assert (int(engine.makespan_ns), int(engine.period_ns)) == (14_000, 13_000)
    assert int(inline.makespan_ns) == 14_500
    assert engine.end_ns.tolist() == [14_000, 11_500]
    assert engine.keys == ((0, 0), (0, 1))


def test_another_profile_is_priced_without_encoding_the_plan_again() -> None:
    """Its programs are the compiled plan's own; everything takes ten times as long."""
    compiled = compile_plan(worked_example(), profile())

    slow = compiled.price(profile(unit_ns=10_000))

    assert all(actor.program is compiled.durations.actors[key].program for key, actor in slow.actors.items())
    assert replay(compiled, slow).same_times(replay(worked_example(), slow))
    assert int(replay_times(compiled, slow).makespan_ns) == 140_000


def test_many_draws_at_once_are_each_of_them_alone() -> None:
    """More than are taken up at a time; a slow replica has a lane of its own."""
    compiled = compile_plan(
        worked_example(dp=4), slow_down(resolve(worked_example(dp=4), profile()), 2, dp=1)
    )
    draws = [jitter(compiled.durations, 300, seed) for seed in range(19)]

    many = replay_many(compiled, iter(draws))

    assert many.end_ns.shape == many.span_ns.shape == (4, 19)
    assert many.makespan_ns.tolist() == [int(replay_times(compiled, draw).makespan_ns) for draw in draws]
    assert many.period_ns.tolist() == [int(replay_times(compiled, draw).period_ns) for draw in draws]
    assert len(set(many.makespan_ns.tolist())) > 10


def test_no_draws_are_no_times() -> None:
    assert replay_many(compile_plan(worked_example(), profile()), []).makespan_ns.tolist() == []


def test_durations_of_something_else_are_refused() -> None:
    plan = worked_example(dp=2)
    compiled = compile_plan(plan, profile())

    with pytest.raises(InvalidInputError, match="of another mover"):
        replay_times(compiled, compiled.price(profile(Mover.INLINE)))
    with pytest.raises(InvalidInputError, match="other lanes"):
        replay_times(compiled, split_replica(compiled.durations, 1))
    with pytest.raises(InvalidInputError, match="other programs"):
        replay(compiled, resolve(plan, profile()))


@pytest.mark.parametrize("seed", range(20))
def test_settling_by_levels_is_the_longest_path(seed: int) -> None:
    """On random graphs, nodes with many edges among them: against one node after another, in plain Python."""
    rng = np.random.default_rng(seed)
    num_nodes, num_edges = int(rng.integers(2, 40)), int(rng.integers(1, 200))
    ends = np.sort(np.array([rng.choice(num_nodes, 2, replace=False) for _ in range(num_edges)]), axis=1)
    ends = np.concatenate((ends, [(0, node) for node in range(1, num_nodes)]))  # all follow on node 0
    names = np.concatenate(([0], 1 + rng.permutation(num_nodes - 1)))
    src, dst = names[ends].T
    level = levels_of(num_nodes, src, dst, np.ones(num_nodes, dtype=np.int64))
    assert level is not None
    assert (level[src] < level[dst]).all()
    levels = arrange(src, dst, level)
    constant = rng.integers(-5, 20, (3, len(src)))
    floor = rng.integers(-5, 60, (3, len(src)))

    for draw, (with_floor, got) in enumerate(
        [
            *((False, row) for row in solve(levels, constant)),
            *((True, row) for row in solve(levels, constant, floor)),
        ]
    ):
        row = draw % 3
        expected = [0] * num_nodes
        for node in np.argsort(level, kind="stable")[1:].tolist():
            into = [at for at in range(len(src)) if dst[levels.edge[at]] == node]
            expected[node] = max(
                max(expected[src[levels.edge[at]]] + constant[row, at], floor[row, at] if with_floor else -9)
                for at in into
            )
        assert got[levels.number].tolist() == expected
    assert np.array_equal(solve(levels, constant[:1])[0], solve(levels, constant)[0])


def test_edges_in_a_circle_have_no_levels() -> None:
    assert levels_of(3, np.array([0, 1, 2]), np.array([1, 2, 1]), np.ones(3, dtype=np.int64)) is None
