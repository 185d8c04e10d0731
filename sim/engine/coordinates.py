"""Which actors meet: members of a group operation, and works that are coupled across tp, cp or ep.

Two actors of a group meet where their coordinates agree on every axis that the group does not span. An axis
on which all lanes are held equal has one coordinate, so a group over it has one member for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.encoded import KINDS, EncodedProgram, Ints
from exactmap.sim.plan.instruction import Op

if TYPE_CHECKING:
    from exactmap.sim.engine.durations import Durations, Lane
    from exactmap.sim.plan.plan import Plan

__all__ = ["CoupledWorks", "GroupInstance", "coupled_works", "group_instances", "works_by_axes"]

_FB = KINDS.index(Op.FB)
_AXIS_BITS = {axis: 1 << number for number, axis in enumerate(("tp", "cp", "ep", "pp", "dp"))}


@dataclass(frozen=True, slots=True)
class GroupInstance:
    """Actors, as (lane, pipeline rank), that meet in one group, in the order of a scan."""

    group: int
    scan: bool
    members: tuple[tuple[int, int], ...]


def _apart(lane: Lane, axes: tuple[str, ...]) -> tuple[int, ...]:
    """Coordinates on the axes that are not among `axes`."""
    return tuple(lane.coordinate(axis) for axis in ("tp", "cp", "ep", "dp") if axis not in axes)


def group_instances(plan: Plan, durations: Durations) -> list[GroupInstance]:
    """All sets of actors that meet in a group, by pipeline rank, then lane; a scan down turns them round."""
    out: list[GroupInstance] = []
    for number, group in enumerate(plan.groups):
        ranks = group.pp or tuple(range(plan.mesh.pp))
        met: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for pp in ranks:
            for lane_number, lane in enumerate(durations.lanes):
                key = (-1 if "pp" in group.axes else pp, *_apart(lane, group.axes))
                met.setdefault(key, []).append((lane_number, pp))
        for members in met.values():
            ordered = members[::-1] if group.scan == "down" else members
            out.append(GroupInstance(number, bool(group.scan), tuple(ordered)))
    return out


@dataclass(frozen=True, slots=True, eq=False)
class CoupledWorks:
    """Actors (two or more, with one program) whose instructions `at` start together."""

    members: tuple[tuple[int, int], ...]
    at: Ints


def coupled_works(plan: Plan, durations: Durations) -> list[CoupledWorks]:
    """All works that start together with those of other lanes; none while lanes share coupled axes."""
    axes_of = {Op(kind): frozenset(axes) for kind, axes in plan.couple}
    out: list[CoupledWorks] = []
    if not axes_of or not any(any(lane.inner) for lane in durations.lanes):
        return out
    for pp in range(plan.mesh.pp):
        met: dict[tuple[frozenset[str], tuple[int, ...]], list[tuple[int, int]]] = {}
        at: dict[tuple[frozenset[str], tuple[int, ...]], Ints] = {}
        for number, lane in enumerate(durations.lanes):
            for axes, works in works_by_axes(durations.actors[number, pp].program, axes_of).items():
                key = (axes, _apart(lane, tuple(axes)))
                met.setdefault(key, []).append((number, pp))
                at[key] = works
        out.extend(CoupledWorks(tuple(members), at[key]) for key, members in met.items() if len(members) > 1)
    return out


def works_by_axes(program: EncodedProgram, axes_of: dict[Op, frozenset[str]]) -> dict[frozenset[str], Ints]:
    """Coupled axes -> the instructions; a braid is coupled on the axes of all its members."""
    mask_of_kind = np.array(
        [sum(_AXIS_BITS[axis] for axis in axes_of.get(op, ())) for op in KINDS], dtype=np.int64
    )
    mask = mask_of_kind[program.kind]
    table = program.program.table
    braids = np.flatnonzero(program.kind == _FB)
    if table.members is not None and len(braids):
        first, num = table.first_member[braids], table.num_members[braids]
        for number in range(int(num.max())):
            has = number < num
            mask[braids[has]] |= mask_of_kind[table.members.op[first[has] + number]]
    return {
        frozenset(axis for axis, bit in _AXIS_BITS.items() if value & bit): np.flatnonzero(mask == value)
        for value in np.unique(mask[mask > 0]).tolist()
    }
