"""The automatic scheduler as a schedule of the registry, at a price that a planner can pay."""

from __future__ import annotations

from exactmap.sim.schedules.auto.find import find_order
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["auto_order"]

_NUM_CANDIDATES = 40
_MORE_WORKS = 2000


def auto_order(
    num_ranks: int, num_microbatches: int, num_chunks: int, times: WorkTimes | None, stash_limit: float
) -> Order:
    """The order found for `times` (F = I = W without) in about 40 candidates, for the barrier clock.

    With two chunks per rank both placements, loop and V, are tried.

    Examples
    --------
    >>> auto_order(4, 8, 1, None, 4).num_stages
    4
    """
    num_stages = num_ranks * num_chunks
    num_placements = 2 if num_chunks == 2 else 1
    num_works = 3 * num_stages * num_microbatches
    return find_order(
        num_ranks,
        num_microbatches,
        times if times is not None else WorkTimes.unit(num_stages),
        stash_limit=stash_limit,
        placement="best" if num_chunks == 2 else "loop",
        chunks=num_chunks,
        budget=num_placements * (_MORE_WORKS + _NUM_CANDIDATES * num_works),
    ).order
