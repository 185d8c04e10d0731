"""From the times of each actor to a trace: rows in order, with lines and texts of the plan."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.trace import OpTexts, Trace
from exactmap.sim.plan.instruction import CODES, Instruction, Op
from exactmap.sim.plan.text import format_instruction

if TYPE_CHECKING:
    from exactmap.sim.engine.durations import Durations, Lane
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.plan.plan import Plan
    from exactmap.sim.plan.table import InstructionTable

_COLUMNS = (
    "op", "stage", "microbatch", "slice", "bucket", "part", "queue", "phase", "slots", "num_members"
)  # fmt: skip
_ROW_COST = 16  # what making one row costs, in rows of a program that is made as a whole
_MARK = CODES[Op.MARK]

__all__ = ["ActorTimes", "assemble"]


@dataclass(frozen=True, slots=True, eq=False)
class ActorTimes:
    """Times of one actor in ns, each of shape [instructions]; -1 where there is none."""

    a_ns: Ints
    s_ns: Ints
    e_ns: Ints
    done_ns: Ints


def assemble(
    source: str,
    plan: Plan,
    durations: Durations,
    times: dict[tuple[int, int], ActorTimes],
    *,
    plan_sha256: str,
) -> Trace:
    """Trace of one step (number 0) from the times of all actors, keyed by (lane number, pipeline rank)."""

    def inner_of(lane: Lane) -> int:
        tp, cp, ep = lane.inner
        return tp + plan.mesh.tp * (cp + plan.mesh.cp * ep)

    keys = sorted(
        times, key=lambda key: (durations.lanes[key[0]].dp, inner_of(durations.lanes[key[0]]), key[1])
    )
    programs = [durations.actors[key].program for key in keys]
    sizes = [program.num_instructions for program in programs]
    lanes = [durations.lanes[lane] for lane, _ in keys]
    ends = np.cumsum(sizes).tolist()

    num_asked = [0] * len(programs)

    def text_of(row: int) -> str:
        at = bisect_right(ends, row)
        place = row - (ends[at - 1] if at else 0)
        program = programs[at].program
        num_asked[at] += 1
        # A few rows are made one by one; who asks for many gets them from the whole program, made once.
        if num_asked[at] * _ROW_COST > sizes[at]:
            return format_instruction(program.instructions[place])
        return format_instruction(_instruction(program.table, place))

    def column(values: list[int]) -> Ints:
        return np.repeat(np.array(values, dtype=np.int64), sizes)

    lines = [
        np.array(program.program.lines or np.zeros(size), dtype=np.int64)
        for program, size in zip(programs, sizes, strict=True)
    ]
    return Trace(
        source=source,
        plan_sha256=plan_sha256,
        mover=durations.mover.value,
        step=np.zeros(ends[-1], dtype=np.int64),
        dp=column([lane.dp for lane in lanes]),
        inner=column([inner_of(lane) for lane in lanes]),
        pp=column([pp for _, pp in keys]),
        index=np.concatenate([np.arange(size) for size in sizes]),
        line=np.concatenate(lines),
        kind=np.concatenate([program.kind for program in programs]),
        op=OpTexts(ends[-1], text_of),
        a_ns=np.concatenate([times[key].a_ns for key in keys]),
        s_ns=np.concatenate([times[key].s_ns for key in keys]),
        e_ns=np.concatenate([times[key].e_ns for key in keys]),
        done_ns=np.concatenate([times[key].done_ns for key in keys]),
        replicas=durations.replicas,
    )


def _instruction(table: InstructionTable, row: int) -> Instruction:
    """One row as an object, without making objects of the others."""
    marks: tuple[str, ...] = ()
    if table.op[row] == _MARK:
        number = int(np.count_nonzero(table.op[:row] == _MARK))
        marks = table.marks[number : number + 1]
    members = table.members
    if members is not None:
        first = int(table.first_member[row])
        members = _rows(members, first, first + int(table.num_members[row]))
    return next(iter(replace(_rows(table, row, row + 1), members=members, marks=marks)))


def _rows(table: InstructionTable, first: int, last: int) -> InstructionTable:
    """Rows first..last-1, which name no marks and whose members, if any, come first."""
    columns = {name: getattr(table, name)[first:last] for name in _COLUMNS}
    return replace(table, first_member=np.zeros(last - first, dtype=np.int32), **columns)
