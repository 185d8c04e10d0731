"""Phase 2 of the checks: each rank's arena, its regions and its pools of slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.verdict import PlanError

__all__ = ["check_memory_map"]

_ALIGNMENT_BYTES: Final = 64
_REGIONS: Final = ("params", "grads", "moments", "staging", "workspace")
_POOLS: Final = "hawgkpqo"

Fail = Callable[..., PlanError]
_Extent = tuple[int, int, str]


def check_memory_map(plan: Plan, fail: Fail) -> None:
    """Check arenas, then regions, then pools (codes `head.arena`, `arena.budget`)."""
    _check_arenas(plan, fail)
    extents: dict[int, list[_Extent]] = {rank: [] for rank in range(plan.mesh.pp)}
    _check_regions(plan, extents, fail)
    _check_pools(plan, extents, fail)


def _check_arenas(plan: Plan, fail: Fail) -> None:
    for index, arena in enumerate(plan.arenas):
        line = plan.line_of("arena", index)
        if arena.pp != index or index >= plan.mesh.pp:
            raise fail(
                "head.arena",
                line,
                "arenas must stand once per rank, in order",
                got=f"pp={arena.pp}",
                expected=f"pp={index}" if index < plan.mesh.pp else f"{plan.mesh.pp} arenas",
            )
        if 0 <= plan.budget < arena.bytes:
            raise fail(
                "arena.budget",
                line,
                f"the arena of rank {arena.pp} is over the budget",
                got=f"{arena.bytes} bytes",
                expected=f"at most {plan.budget} bytes",
                hint="fewer microbatches in flight, more pipeline ranks or recomputation need less memory",
            )
    if len(plan.arenas) < plan.mesh.pp:
        line = plan.line_of("arena", len(plan.arenas) - 1)
        raise fail("head.arena", line, "a rank has no arena", got=f"rank {len(plan.arenas)}")


def _check_regions(plan: Plan, extents: dict[int, list[_Extent]], fail: Fail) -> None:
    before = (-1, -1)
    for index, region in enumerate(plan.regions):
        line = plan.line_of("region", index)
        place = (region.pp, _REGIONS.index(region.kind))
        if place <= before or region.pp >= plan.mesh.pp:
            raise fail(
                "head.arena", line, "region out of order or repeated", got=f"pp={region.pp} {region.kind}"
            )
        before = place
        extent = (region.at, region.at + region.bytes, f"region {region.kind}")
        _check_extent(plan, region.pp, extent, extents[region.pp], line, fail)
        if region.bytes:
            extents[region.pp].append(extent)


def _check_pools(plan: Plan, extents: dict[int, list[_Extent]], fail: Fail) -> None:
    before = (-1, -1)
    for index, pool in enumerate(plan.pools):
        line = plan.line_of("pool", index)
        place = (pool.pp, _POOLS.index(pool.letter))
        if place <= before or pool.pp >= plan.mesh.pp:
            raise fail("head.arena", line, "pool out of order or repeated", got=f"pp={pool.pp} {pool.letter}")
        before = place
        if pool.letter == "o":
            continue
        extent = (pool.at, pool.at + pool.num * pool.bytes, f"pool {pool.letter}")
        _check_extent(plan, pool.pp, extent, extents[pool.pp], line, fail)


def _check_extent(
    plan: Plan, rank: int, extent: _Extent, others: list[_Extent], line: int, fail: Fail
) -> None:
    at, end, name = extent
    if at % _ALIGNMENT_BYTES:
        raise fail(
            "head.arena",
            line,
            f"{name} is not aligned",
            got=f"at={at}",
            expected=f"a multiple of {_ALIGNMENT_BYTES}",
        )
    size = plan.arenas[rank].bytes
    if end > size:
        raise fail(
            "head.arena",
            line,
            f"{name} ends outside the arena of rank {rank}",
            got=str(end),
            expected=f"at most {size} bytes",
        )
    for start, stop, other in others:
        if at < stop and start < end and at < end:
            raise fail(
                "head.arena",
                line,
                f"{name} overlaps {other} on rank {rank}",
                got=f"{at} to {end}",
                expected=f"nothing between {start} and {stop}",
            )
