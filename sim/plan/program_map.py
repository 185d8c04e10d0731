"""Phase 2 of the checks: which program runs on which rank of which replica."""

from __future__ import annotations

from collections.abc import Callable

from exactmap.sim.plan.plan import MapLine, Plan
from exactmap.sim.plan.verdict import PlanError

__all__ = ["check_maps", "program_ranks"]

Fail = Callable[..., PlanError]


def program_ranks(plan: Plan) -> dict[str, int]:
    """Pipeline rank of each program, in the order in which maps first name them."""
    ranks: dict[str, int] = {}
    for line in plan.maps:
        ranks.setdefault(line.program, line.pp)
    return ranks


def check_maps(plan: Plan, fail: Fail) -> None:
    """Check map lines, then the names on the program lines (code `head.map`)."""
    ranks: dict[str, int] = {}
    named_at: dict[str, int] = {}
    num_defaults = 0
    before = (-1, -1)
    for index, entry in enumerate(plan.maps):
        line = plan.line_of("map", index)
        wrong = _map_fault(plan, entry, num_defaults, before)
        if wrong is None and ranks.setdefault(entry.program, entry.pp) != entry.pp:
            wrong = f"program {entry.program} is mapped to ranks {ranks[entry.program]} and {entry.pp}"
        if wrong is not None:
            raise fail("head.map", line, wrong)
        named_at.setdefault(entry.program, line)
        if entry.dp < 0:
            num_defaults += 1
        else:
            before = (entry.pp, entry.dp)
    if num_defaults < plan.mesh.pp:
        line = plan.line_of("map", len(plan.maps) - 1)
        raise fail("head.map", line, "a rank has no program", got=f"rank {num_defaults}")
    given = {program.name for program in plan.programs}
    for name, line in named_at.items():
        if name not in given:
            raise fail("head.map", line, f"program {name} is not in the file")
    expected = list(ranks)
    for index, program in enumerate(plan.programs):
        wanted = expected[index] if index < len(expected) else "the end of the file"
        if program.name != wanted:
            raise fail(
                "head.map",
                plan.line_of("program", index),
                "programs must stand in the order of their first map lines",
                got=program.name,
                expected=wanted,
            )


def _map_fault(plan: Plan, entry: MapLine, num_defaults: int, before: tuple[int, int]) -> str | None:
    if entry.pp >= plan.mesh.pp:
        return f"rank {entry.pp} is not on the mesh: pp={plan.mesh.pp}"
    if entry.dp < 0:
        if before >= (0, 0):
            return "rank lines must stand before the overrides of replicas"
        if entry.pp != num_defaults:
            return f"ranks must stand once each, in order: got {entry.pp}, expected {num_defaults}"
        return None
    if entry.dp >= plan.mesh.dp:
        return f"replica {entry.dp} is not on the mesh: dp={plan.mesh.dp}"
    if num_defaults < plan.mesh.pp:
        return f"rank {num_defaults} has no program before the first override"
    if (entry.pp, entry.dp) <= before:
        return "overrides must ascend by rank, then replica"
    return None
