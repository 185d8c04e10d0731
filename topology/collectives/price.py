"""What callers ask: the time of a message, of a collective, and why it is that."""

from __future__ import annotations

from math import ceil

from exactmap.errors import InvalidInputError
from exactmap.topology.collectives.constants import Confidence, find_constants
from exactmap.topology.collectives.group import GroupTimes, price_group
from exactmap.topology.collectives.operations import Algorithm, Collective
from exactmap.topology.collectives.times import CandidateTime, CollectiveTime, HopTime
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import GroupShape, Tier

__all__ = ["collective_time", "explain_collective", "hop_time"]

_PAIR = GroupShape(2, 2, 1)
_NOTHING = CollectiveTime(0, 0, 0, Algorithm.NONE, confidence=Confidence.MEASURED, extrapolated=False)


def _group(cluster: Cluster, op: Collective, shape: GroupShape) -> GroupTimes:
    """Prices of a group, made once per cluster."""
    key = (op, shape.num_members, shape.per_domain, shape.num_domains, shape.fabric_tier)
    known = cluster.memo.get(key)
    if known is None:
        known = cluster.memo[key] = price_group(cluster, op, shape)
    assert isinstance(known, GroupTimes)
    return known


def hop_time(cluster: Cluster, tier: Tier, num_bytes: int, fabric_tier: int = 1) -> HopTime:
    """Time of one message from a GPU to another.

    Parameters
    ----------
    cluster
        The machine.
    tier
        The network that the message takes.
    num_bytes
        Its size.
    fabric_tier
        Where it leaves its domain: the tier of the fabric that it climbs to.
    """
    if num_bytes < 0:
        raise InvalidInputError("a message cannot have a negative size", got=f"{num_bytes} bytes")
    if tier is Tier.SELF or tier in cluster.ideal:
        return HopTime(0, 0)
    if tier is Tier.SCALE_OUT:
        wire_ns = num_bytes * 1e9 / cluster.scale_out_bytes_per_s(fabric_tier)
        return HopTime(ceil(wire_ns), cluster.scale_out_latency_ns(fabric_tier))
    if cluster.collectives is None and find_constants(cluster.gpu.curves) is None:
        wire_ns = num_bytes * 1e9 / (cluster.scale_up.bytes_per_s * cluster.scale_up.efficiency)
        return HopTime(ceil(wire_ns), cluster.scale_up.latency_ns)
    time = _group(cluster, Collective.POINT_TO_POINT, _PAIR).at(num_bytes)
    return HopTime(time.time_ns - time.latency_ns, time.latency_ns)


def collective_time(
    cluster: Cluster,
    op: Collective,
    shape: GroupShape,
    num_bytes: int,
    algorithm: Algorithm | None = None,
) -> CollectiveTime:
    """Time of a collective over a group.

    Parameters
    ----------
    cluster
        The machine.
    op
        The collective.
    shape
        How the group lies on the machine.
    num_bytes
        Full buffer: what every member has (all-reduce), has before (reduce-scatter, all-to-all) or after
        (all-gather).
    algorithm
        How it is to be carried out; default: as measured, else the fastest that the library has.

    Raises
    ------
    InvalidInputError
        If the size is negative or the group has no such algorithm.
    """
    if num_bytes < 0:
        raise InvalidInputError("a collective cannot have a negative size", got=f"{num_bytes} bytes")
    if shape.num_members == 1 or shape.tier in cluster.ideal:
        return _NOTHING
    return _group(cluster, op, shape).at(num_bytes, algorithm)


def explain_collective(
    cluster: Cluster,
    op: Collective,
    shape: GroupShape,
    num_bytes: int,
    algorithm: Algorithm | None = None,
) -> tuple[CandidateTime, ...]:
    """All ways to carry out a collective, that of `collective_time` first, with why and why not."""
    if shape.num_members == 1:
        return ()
    return _group(cluster, op, shape).explain(num_bytes, algorithm)
