"""Slots live from the instruction that names them to the one that the plan format's table says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.live_slots import peak_slots, peak_slots_in_time, slot_lives
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import Channel, Group, MapLine, MeshDims, Plan, PlanStage, Program
from exactmap.sim.plan.reader import read_plan
from exactmap.sim.plan.text import parse_instruction

WORKED_EXAMPLE = Path(__file__).parent.parent / "golden" / "plans" / "valid" / "worked-example.plan"


def lives(text: str, letter: str) -> list[tuple[int, int]]:
    """(born, ends) of a pool's slots in a program of instructions parted by "; ", by birth."""
    plan, program = plan_of(text)
    found = slot_lives(plan, program)[letter]
    return sorted(zip(found.born.tolist(), found.ends.tolist(), strict=True))


def plan_of(text: str) -> tuple[Plan, Program]:
    program = Program(
        "P0", [parse_instruction(line) or Instruction(Op.END) for line in [*text.split("; "), "END"]]
    )
    plan = replace(
        read_plan(WORKED_EXAMPLE.read_bytes()),
        mesh=MeshDims(1, 1, 1, 1, 2),
        stages=tuple(PlanStage(number, number) for number in range(3)),
        channels=(Channel("f", 0, 0, "F", 0, 64), Channel("b", 0, 0, "B", 0, 64)),
        groups=(Group("dp", ("dp",)),),
        maps=(MapLine(0, -1, "P0"),),
        programs=(program,),
    )
    return plan, program


@pytest.mark.parametrize(
    ("story", "text", "letter", "expected"),
    [
        ("parts and all, I ends its stash", "F 0.0:x a0 w0; F 0.0:y; I 0.0:y g0; I 0.0:x", "a", [(0, 3)]),
        ("the stash for W outlives I", "F 0.0 a0 w0; I 0.0 g0; W 0.0", "w", [(0, 2)]),
        ("what I leaves goes with W", "F 0.0 a0 w0; I 0.0 g0; F 0.1 a1 w1; W 0.0", "g", [(1, 3)]),
        ("recomputed, a stash lives from RC", "F 0.0; F 0.1; RC 0.0 a0 w0; B 0.0", "a", [(2, 3)]),
        (
            "sent to the host, it lives twice here",
            "F 0.0 a0 w0; OFF 0.0 o0; WOFF 0.0; LD 0.0 a1 w1; WLD 0.0; B 0.0",
            "w",
            [(0, 2), (3, 5)],
        ),
        ("and once there", "F 0.0 a0 w0; OFF 0.0 o0; WOFF 0.0; LD 0.0 a1 w1; WLD 0.0; B 0.0", "o", [(1, 4)]),
        (
            "keys of all slices live until the first slice's backward pass",
            "F 0.0.0 k0; F 0.0.1; F 0.1.0 k1; B 0.0.1; B 0.0.0",
            "k",
            [(0, 4), (2, 5)],
        ),
        (
            "gathered parameters until FREE",
            "AG 0/0@dp p0; WC 0/0@dp; FREE 0/0; AG 0/0@dp p0; WC 0/0@dp; FREE 0/0",
            "p",
            [(0, 2), (3, 5)],
        ),
        (
            "unreduced gradients until the wait for their sum, each time",
            "AG 0/0@dp p0; ZERO 0/0 q0; WC 0/0@dp; RS 0/0@dp; WC 0/0@dp; ZERO 0/0 q0; RS 0/0@dp; WC 0/0@dp",
            "q",
            [(1, 4), (5, 7)],
        ),
        ("a stage's output until it is sent", "F 0.0 h0; SF 0.0@f; WS 0.0@f; RF 1.0@f h1; WR 1.0@f", "h",
         [(0, 2), (3, 5)]),
        (
            "inputs and output gradients until the weights have used them, input gradients until sent",
            "RF 1.0@f h0; WR 1.0@f; F 1.0; RB 1.0@b h1; WR 1.0@b; I 1.0 h2; SB 1.0@b; W 1.0; WS 1.0@b",
            "h",
            [(0, 7), (3, 7), (5, 8)],
        ),
        (
            "handed to the next stage of this rank, an output is its input",
            "F 0.0 h0; LF 0.0; F 1.0; B 1.0 h1; LB 1.0; B 0.0",
            "h",
            [(0, 3), (3, 5)],
        ),
        (
            "members of a braid name first, then end",
            "F 0.0 a0 w0; FB{F 0.1 a1 w1|B 0.0}; FB{B 0.1|F 0.2 a0 w0}",
            "a",
            [(0, 1), (1, 2), (2, 3)],
        ),
    ],
)  # fmt: skip
def test_lives(story: str, text: str, letter: str, expected: list[tuple[int, int]]) -> None:
    assert lives(text, letter) == expected, story


def test_what_an_instruction_names_lives_beside_what_ends_with_it() -> None:
    """In program order a braid needs both slots; in time the one ends only when the braid does."""
    plan, _ = plan_of("F 0.0 a0 w0; FB{F 0.1 a1 w1|B 0.0}; B 0.1")
    durations = resolve(plan, Profile(Mover.ENGINE, {(op, 0): 5 for op in "FB"}))

    assert peak_slots(plan) == {(0, "a"): 2, (0, "w"): 2}
    assert peak_slots_in_time(plan, replay(plan, durations)) == peak_slots(plan)


def test_the_worked_example_needs_what_its_pools_say() -> None:
    """Two stashes on rank 0, where both microbatches are in flight, one on rank 1."""
    plan = read_plan(WORKED_EXAMPLE.read_bytes())
    expected = {(0, "h"): 3, (0, "a"): 2, (0, "w"): 2, (1, "h"): 3, (1, "a"): 1, (1, "w"): 1}
    work_ns = {(op, stage): 1000 for op in "FIW" for stage in (0, 1)}
    profile = Profile(
        Mover.ENGINE,
        work_ns,
        {("OPT", stage, 0): 0 for stage in (0, 1)},
        {name: ChannelNs(0, 500) for name in "fb"},
    )

    assert (
        peak_slots(plan) == expected == {(pool.pp, pool.letter): pool.num for pool in plan.pools if pool.num}
    )
    in_time = peak_slots_in_time(plan, replay(plan, resolve(plan, profile)))
    assert all(in_time[key] <= num for key, num in expected.items())
