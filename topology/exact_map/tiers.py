"""The highest tier of the fabric that many pairs of GPUs climb to, found without looking at more than needed.

Pairs are first sampled evenly. Where one of them reaches the fabric's top, no other can be higher and the
answer is exact already; else all pairs are looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from exactmap.topology.fabric.fabric import Fabric
from exactmap.topology.links import Ints

__all__ = ["FabricOf", "highest_tier"]

FabricOf = Callable[[], Fabric]
"""Builds the fabric when it is first asked for."""

NUM_SAMPLED = 2048


def highest_tier(fabric: Fabric, num: int, pairs: Callable[[Ints], tuple[Ints, Ints]], each: int = 1) -> int:
    """Highest tier among pairs of GPUs; 1 if there are none.

    Parameters
    ----------
    fabric
        The fabric.
    num
        Number of items that stand for pairs.
    pairs
        Gives the GPUs of both ends of the pairs that some items stand for.
    each
        Pairs that an item stands for, about.
    """
    num_sampled = max(NUM_SAMPLED // each, 1)
    if num > 2 * num_sampled:
        found = _highest(fabric, pairs(np.arange(0, num, num // num_sampled, dtype=np.int64)))
        if found >= fabric.spec.num_tiers > 0:
            return found
    return _highest(fabric, pairs(np.arange(num, dtype=np.int64)))


def _highest(fabric: Fabric, ends: tuple[Ints, Ints]) -> int:
    return max(1, int(fabric.tier_between(*ends).max(initial=1)))
