"""The critical path: durations that lie behind each other from the step's start to its end."""

from __future__ import annotations

from random import Random

import pytest
from lowered_plans import random_lowered, random_profile
from random_plans import random_durations, random_plan, redrawn

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.compiled import CompiledPlan, compile_plan
from exactmap.sim.engine.critical_path import critical_path
from exactmap.sim.engine.deadlock import DeadlockError
from exactmap.sim.engine.durations import Durations, resolve
from exactmap.sim.engine.replay import replay, replay_times
from exactmap.sim.schedules.registry import SCHEDULES


def check_path(compiled: CompiledPlan, durations: Durations, end: tuple[int, int] | None = None) -> set[str]:
    """The path tiles 0 to the END, and each piece is a duration of the work or message that it names."""
    path = critical_path(compiled, durations, end=end)
    times = replay_times(compiled, durations)
    over = int(times.makespan_ns if end is None else times.end_ns[times.keys.index(end)])
    assert path == critical_path(compiled, durations, end=end)
    now = 0
    for piece in path:
        assert piece.start_ns == now
        now = piece.end_ns
        took = piece.end_ns - piece.start_ns
        assert took > 0
        actor = durations.actors[piece.lane, piece.pp]
        if piece.what in {"work", "post"}:
            assert took == actor.comp_ns[piece.index]
        elif piece.what == "operation":
            assert took == actor.op_ns[piece.index]
        elif piece.what == "host":
            assert took == actor.issue_ns[: piece.index + 1].sum()
        else:
            channel = durations.channels[piece.lane, piece.channel]
            column = {"wire": channel.wire_ns, "latency": channel.lat_ns, "copy": channel.copy_ns}[piece.what]
            assert took == column[piece.message]
    assert now == over
    return {piece.what for piece in path}


def test_paths_of_random_plans_tile_the_step() -> None:
    """Whatever decides: works, costly posts, wires, latencies, copies, operations, hosts."""
    met: set[str] = set()
    for seed in range(80):
        rng = Random(seed)
        plan = random_plan(rng)
        durations = random_durations(rng, plan)
        try:
            compiled = compile_plan(plan, durations)
        except DeadlockError:
            continue
        met |= check_path(compiled, durations)
        met |= check_path(compiled, redrawn(rng, durations), rng.choice(compiled.linked.keys))
    assert met == {"work", "post", "wire", "latency", "copy", "operation", "host"}


@pytest.mark.parametrize("name", SCHEDULES)
def test_paths_of_every_schedule_tile_the_step(name: str) -> None:
    rng = Random(f"{name} path")
    plan = random_lowered(rng, name)
    durations = resolve(plan, random_profile(rng, plan))
    compiled = compile_plan(plan, durations)

    check_path(compiled, durations)

    for key in compiled.linked.keys:
        check_path(compiled, durations, key)


def test_shortening_what_is_on_the_path_alone_can_shorten_the_step() -> None:
    """All that is not on the path may take no time at all: the step takes as long."""
    rng = Random(5)
    plan = random_lowered(rng, "1f1b")
    durations = resolve(plan, random_profile(rng, plan))
    compiled = compile_plan(plan, durations)
    path = critical_path(compiled)
    works = {(piece.lane, piece.pp, piece.index) for piece in path if piece.what == "work"}

    for (lane, pp), actor in durations.actors.items():
        for index in range(len(actor.comp_ns)):
            if (lane, pp, index) not in works:
                actor.comp_ns[index] = 0

    assert int(replay_times(compiled, durations).makespan_ns) == path[-1].end_ns
    assert replay(compiled, durations).summary().makespan_ns == path[-1].end_ns


def test_a_path_from_a_rank_that_does_not_exist_is_refused() -> None:
    rng = Random(1)
    plan = random_lowered(rng, "1f1b")
    compiled = compile_plan(plan, random_profile(rng, plan))

    with pytest.raises(InvalidInputError, match="no such rank"):
        critical_path(compiled, end=(0, 99))
