"""Works of one program as a whole cluster needs them: which there are, how each is cut by its collectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.encoded import KINDS, WORK_KINDS, Ints
from exactmap.sim.plan.instruction import Op

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from exactmap.sim.cost.meetings import Meeting
    from exactmap.sim.engine.durations import ActorDurations, Durations
    from exactmap.sim.plan.plan import Plan

__all__ = ["WorkKind", "WorkRows", "rows_of_plan", "work_rows"]

_MAX_BASE_NS = 2**40  # a factor of 8 at most, in units of 2^-20, must fit 63 bits beside it
_FB = KINDS.index(Op.FB)
_PARTS = {"F": ("F",), "RC": ("F",), "I": ("I",), "W": ("W",), "B": ("I", "W")}


@dataclass(frozen=True, slots=True)
class WorkKind:
    """Works of a program that are alike.

    Parameters
    ----------
    base_ns
        Nominal duration.
    meetings
        Collectives inside.
    stretch_ns
        Nominal work between them: the first stretches; the last takes what is left.
    last_ns
        Nominal work after the last of them.
    axes
        Axes whose members start and end it together.
    """

    base_ns: int
    meetings: tuple[Meeting, ...]
    stretch_ns: int
    last_ns: int
    axes: tuple[str, ...] = ()

    @property
    def num_stretches(self) -> int:
        """Stretches of work, one more than meetings; each has a draw of its own."""
        return len(self.meetings) + 1


@dataclass(frozen=True, slots=True, eq=False)
class WorkRows:
    """Works of a program that take time, in order.

    Parameters
    ----------
    at
        [works] their instructions.
    which
        [works] number of their kind.
    kinds
        The kinds.
    first_draw
        [works + 1] first draw of each in its GPU's stream.
    cost_ns
        [instructions] what compute spends on all others: posts.
    is_work
        [instructions] whether it is one of the works.
    """

    at: Ints
    which: Ints
    kinds: tuple[WorkKind, ...]
    first_draw: Ints
    cost_ns: Ints
    is_work: NDArray[np.bool_]

    @property
    def meets(self) -> bool:
        """Whether any work has a collective inside."""
        return any(kind.meetings for kind in self.kinds)


def rows_of_plan(
    base: Durations, plan: Plan, meetings: Mapping[tuple[str, int], tuple[Meeting, ...]]
) -> list[WorkRows]:
    """Works of each pipeline rank of a plan with one lane; ranks that share a program share them.

    Raises
    ------
    InvalidInputError
        If a nominal duration is over 18 minutes.
    """
    known: dict[int, WorkRows] = {}
    rows: list[WorkRows] = []
    for pp in range(plan.mesh.pp):
        actor = base.actors[0, pp]
        if id(actor) not in known:
            longest = int(actor.comp_ns.max(initial=0))
            if longest > _MAX_BASE_NS:
                raise InvalidInputError(
                    "a pass is too long to be simulated GPU by GPU",
                    got=f"{longest} ns",
                    expected=f"at most {_MAX_BASE_NS} ns",
                )
            known[id(actor)] = work_rows(actor, meetings, dict(plan.couple))
        rows.append(known[id(actor)])
    return rows


def work_rows(
    actor: ActorDurations,
    meetings: Mapping[tuple[str, int], tuple[Meeting, ...]],
    couple: Mapping[str, tuple[str, ...]],
) -> WorkRows:
    """Find the works of a program.

    Parameters
    ----------
    actor
        The program with its nominal durations.
    meetings
        (pass, stage) -> its collectives; a pass that is not named has none.
    couple
        Kind of work -> axes whose members start it together.
    """
    program = actor.program
    is_work = WORK_KINDS[program.kind] & (actor.comp_ns > 0)
    at = np.flatnonzero(is_work).astype(np.int64)
    numbers: dict[tuple[int, tuple[Meeting, ...], tuple[str, ...]], int] = {}
    known: dict[object, int] = {}
    which = np.empty(len(at), dtype=np.int64)
    columns = (program.kind[at].tolist(), program.stage[at].tolist(), actor.comp_ns[at].tolist())
    for row, (kind, stage, base_ns) in enumerate(zip(*columns, strict=True)):
        # Braids of one duration may differ in their members, where these have meetings.
        key: object = (kind, stage, base_ns) if kind != _FB or not meetings else None
        number = known.get(key) if key else None
        if number is None:
            passes = _passes(actor, int(at[row]), KINDS[kind].value, stage)
            inside = tuple(
                meeting
                for op, of in passes
                for part in _PARTS.get(op, ())
                for meeting in meetings.get((part, of), ())
            )
            axes = tuple(sorted({axis for op, _ in passes for axis in couple.get(op, ())}))
            number = numbers.setdefault((base_ns, inside, axes), len(numbers))
            if key:
                known[key] = number
        which[row] = number
    kinds = tuple(_cut(*key) for key in numbers)
    draws = np.array([kind.num_stretches for kind in kinds], dtype=np.int64)
    first_draw = np.concatenate(([0], np.cumsum(draws[which]))).astype(np.int64)
    cost_ns = actor.comp_ns.copy()
    cost_ns[at] = 0
    return WorkRows(at, which, kinds, first_draw, cost_ns, is_work)


def _passes(actor: ActorDurations, row: int, op: str, stage: int) -> list[tuple[str, int]]:
    """The work itself, or the members of a braid."""
    if op != Op.FB:
        return [(op, stage)]
    table = actor.program.program.table
    assert table.members is not None
    low, num = int(table.first_member[row]), int(table.num_members[row])
    return [
        (KINDS[int(table.members.op[member])].value, int(table.members.stage[member]))
        for member in range(low, low + num)
    ]


def _cut(base_ns: int, inside: tuple[Meeting, ...], axes: tuple[str, ...]) -> WorkKind:
    """Share the work of a pass evenly over the stretches; collectives that fill it whole leave none."""
    if inside and sum(meeting.time_ns for meeting in inside) >= base_ns:
        inside = ()
    work_ns = base_ns - sum(meeting.time_ns for meeting in inside)
    stretch_ns = work_ns // (len(inside) + 1)
    return WorkKind(base_ns, inside, stretch_ns, work_ns - stretch_ns * len(inside), axes)
