"""Plans of a few lines, their durations, and the times that a trace has for one of their instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import (
    Channel,
    Group,
    MapLine,
    MeshDims,
    Plan,
    PlanModel,
    PlanStage,
    PlanTrain,
    Precision,
    Program,
)
from exactmap.sim.plan.text import parse_instruction

if TYPE_CHECKING:
    from exactmap.sim.engine.trace import Trace

__all__ = ["make_plan", "profile", "times"]


def make_plan(
    *programs: str,
    channels: tuple[Channel, ...] = (),
    groups: tuple[Group, ...] = (),
    mesh: MeshDims | None = None,
    own: tuple[int, int, str] | None = None,
    couple: tuple[tuple[str, tuple[str, ...]], ...] = (),
) -> Plan:
    """A plan of programs as text, instructions parted by "; "; `own`: (pp, dp, program) of one replica."""

    def program(name: str, text: str) -> Program:
        found = [parse_instruction(line) for line in text.split("; ") if text]
        assert None not in found, text
        return Program(name, (*(line for line in found if line), Instruction(Op.END)))

    pp = len(programs)
    maps = [MapLine(rank, -1, f"P{rank}") for rank in range(pp)]
    made = [program(f"P{rank}", text) for rank, text in enumerate(programs)]
    if own is not None:
        maps.append(MapLine(own[0], own[1], "Own"))
        made.append(program("Own", own[2]))
    return Plan(
        PlanModel("gpt", pp, 8, 1, 1, 8, 8, 8, 8, tied=False, eps=1e-5, theta=1e4),
        PlanTrain(1, 4, 8, 1, "adamw", 1e-3, 0.0, 0, 1, 0.9, 0.9, 1e-8, 0.0, 0.0, 1),
        Precision(),
        mesh or MeshDims(1, 1, 1, pp, 1),
        tuple(PlanStage(rank, rank, rank == 0, rank == pp - 1) for rank in range(pp)),
        tuple((rank,) for rank in range(pp)),
        "barrier",
        serial=False,
        limit=100,
        channels=channels,
        groups=groups,
        buckets=(),
        arenas=(),
        regions=(),
        pools=(),
        maps=tuple(maps),
        programs=tuple(made),
        couple=couple,
    )


def profile(mover: Mover = Mover.ENGINE, **changes: object) -> Profile:
    """F = 100, I = W = 50 on any of four stages; a message 10 + 5 + 3, a group operation 40, a copy 60."""
    stages = range(4)
    names = ["f", "b", "g", "n", "x", "y"]
    base = Profile(
        mover,
        work_ns={(op, stage): 100 if op == "F" else 50 for op in "FIW" for stage in stages},
        bucket_ns={("OPT", stage, index): 20 for stage in stages for index in range(2)},
        channel={name: ChannelNs(10, 5, 3) for name in names},
        group_ns={(name, op, None, None): 40 for name in names for op in ("AR", "RS", "AG", "NORM", "CHK")},
        copy_ns={(op, stage): 60 for op in ("OFF", "LD") for stage in stages},
    )
    return replace(base, **changes)


def times(trace: Trace, pp: int, text: str, dp: int = 0, inner: int = 0) -> tuple[int, int, int, int]:
    """(a, s, e, done) of the instruction with this text."""
    rank = trace.actor(pp, dp, inner)
    at = list(rank.op).index(text)
    return int(rank.a_ns[at]), int(rank.s_ns[at]), int(rank.e_ns[at]), int(rank.done_ns[at])
