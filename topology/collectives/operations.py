"""Collective operations and the ways to carry them out.

Sizes are those of nccl-tests: the full buffer, what every member has (all-reduce), has before
(reduce-scatter, all-to-all) or after (all-gather, broadcast, point to point). Bus bandwidth is nccl-tests'
too: size over time, times the share of the buffer that crosses each link of a ring.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Algorithm", "Collective", "bus_factor", "num_passes"]


class Collective(StrEnum):
    """A collective operation."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    BROADCAST = "broadcast"
    POINT_TO_POINT = "point_to_point"
    """Each member sends a message to the next, as `sendrecv_perf` does."""


class Algorithm(StrEnum):
    """How a collective is carried out."""

    NONE = "none"
    """One member: nothing moves."""
    MEASURED = "measured"
    """Inside measured sizes and ranks, as the library that was measured chose."""
    RING = "ring"
    """Each member passes what it got to the next; as many rings as a domain has members."""
    TREE = "tree"
    """Two binary trees over domains, a chain through the members of each."""
    NVLS = "nvls"
    """The switches of the domain sum and multicast."""
    NVLS_TREE = "nvls_tree"
    """NVLS inside domains, two binary trees between them, one pair of trees per interface."""
    SHARP = "sharp"
    """The switches of the fabric sum, those of the domain too."""
    HIERARCHICAL_RING = "hierarchical_ring"
    """Scatter inside, a ring between equal places of the domains, gather inside."""
    HIERARCHICAL_TREE = "hierarchical_tree"
    """The same with a tree between domains."""
    DIRECT = "direct"
    """Every pair by itself; for all-to-all and point to point."""
    RAIL_ALIGNED = "rail_aligned"
    """All-to-all over the interface of the GPU at the receiver's place (PXN): no message changes rails."""
    HIERARCHICAL = "hierarchical"
    """All-to-all inside domains, then between equal places of the domains."""


def num_passes(op: Collective) -> int:
    """How often the buffer crosses a link of a ring: an all-reduce is a reduce-scatter and an all-gather."""
    return 2 if op is Collective.ALL_REDUCE else 1


def bus_factor(op: Collective, num_ranks: int) -> float:
    """Bus bandwidth over size / time, as nccl-tests defines it.

    Examples
    --------
    >>> bus_factor(Collective.ALL_REDUCE, 8), bus_factor(Collective.BROADCAST, 8)
    (1.75, 1.0)
    """
    if op in {Collective.BROADCAST, Collective.POINT_TO_POINT}:
        return 1.0
    return num_passes(op) * (num_ranks - 1) / num_ranks
