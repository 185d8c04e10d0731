"""Time of communication between GPUs: point to point and collectives, inside a domain and across domains.

Inside a scale-up domain the time comes from measured curves (`exactmap.topology.curves`); a machine without
curves gets latency + bytes / (efficiency x rate). Across domains a group has d domains with k members each,
every GPU with an interface of its own, and S is the full buffer. All-gather and reduce-scatter, as

    flat ring      (n-1) steps;          links carry S (n-1)/n inside, S (n-1)/(n k) outside, both at once
    hierarchical   outside first (d-1 steps or log2 d levels), S (d-1)/(d k); then inside; the times add

and an all-reduce is a reduce-scatter inside, an all-reduce over the interfaces, an all-gather inside. The
fastest is taken and named. All-to-all: each GPU sends (n-k)/n of its buffer through its interface and the
rest inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, log2

from exactmap.errors import InvalidInputError
from exactmap.topology.curves import curve_names, measured_time_ns, small_message_ns
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import GroupShape, Tier

__all__ = ["Algorithm", "Collective", "CollectiveTime", "HopTime", "collective_time", "hop_time"]


class Collective(StrEnum):
    """A collective operation."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"


class Algorithm(StrEnum):
    """How a collective is carried out."""

    NONE = "none"
    """One member: nothing moves."""
    MEASURED = "measured"
    """Inside a domain, as the library that was measured chose."""
    RING = "ring"
    HIERARCHICAL_RING = "hierarchical_ring"
    HIERARCHICAL_TREE = "hierarchical_tree"
    DIRECT = "direct"
    """All-to-all, every pair by itself."""


@dataclass(frozen=True, slots=True)
class HopTime:
    """A point-to-point transfer: `wire_ns` occupies the link, `lat_ns` only delays."""

    wire_ns: int
    lat_ns: int


@dataclass(frozen=True, slots=True)
class CollectiveTime:
    """Time of a collective.

    Parameters
    ----------
    time_ns
        All of it.
    scale_up_ns, scale_out_ns
        What each tier takes; where the two run at once the parts add to more than the whole.
    algorithm
        The fastest algorithm, which was taken.
    """

    time_ns: int
    scale_up_ns: int
    scale_out_ns: int
    algorithm: Algorithm


def hop_time(cluster: Cluster, tier: Tier, num_bytes: int, fabric_tier: int = 1) -> HopTime:
    """Time of one message from a GPU to another.

    Inside a domain with measured curves the message is half of a two-rank all-to-all, in which each GPU
    sends half of the buffer to the other.

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
    if tier is Tier.SELF:
        return HopTime(0, 0)
    if tier is Tier.SCALE_OUT:
        wire_ns = num_bytes * 1e9 / cluster.scale_out_bytes_per_s(fabric_tier)
        return HopTime(ceil(wire_ns), cluster.scale_out_latency_ns(fabric_tier))
    if cluster.gpu.curves in curve_names():
        curves = cluster.gpu.curves
        latency = small_message_ns(curves, Collective.ALL_TO_ALL, 2)
        total = measured_time_ns(curves, Collective.ALL_TO_ALL, 2, 2 * num_bytes)
        return HopTime(ceil(max(total - latency, 0.0)), ceil(latency))
    wire_ns = num_bytes * 1e9 / (cluster.scale_up.bytes_per_s * cluster.scale_up.efficiency)
    return HopTime(ceil(wire_ns), cluster.scale_up.latency_ns)


def collective_time(cluster: Cluster, op: Collective, shape: GroupShape, num_bytes: int) -> CollectiveTime:
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
    """
    if num_bytes < 0:
        raise InvalidInputError("a collective cannot have a negative size", got=f"{num_bytes} bytes")
    if shape.num_members == 1:
        return CollectiveTime(0, 0, 0, Algorithm.NONE)
    if shape.num_domains == 1:
        inside = ceil(_inside_ns(cluster, op, shape.num_members, num_bytes))
        return CollectiveTime(inside, inside, 0, Algorithm.MEASURED)
    if op is Collective.ALL_TO_ALL:
        return _all_to_all(cluster, shape, num_bytes)
    candidates = [
        _flat_ring(cluster, op, shape, num_bytes),
        _hierarchical(cluster, op, shape, num_bytes, Algorithm.HIERARCHICAL_RING),
        _hierarchical(cluster, op, shape, num_bytes, Algorithm.HIERARCHICAL_TREE),
    ]
    return min(candidates, key=lambda candidate: candidate.time_ns)


def _num_passes(op: Collective) -> int:
    """How often the buffer crosses a link: an all-reduce is a reduce-scatter and an all-gather."""
    return 2 if op is Collective.ALL_REDUCE else 1


def _inside_ns(cluster: Cluster, op: Collective, num_ranks: int, num_bytes: int) -> float:
    """Time inside one domain."""
    if num_ranks == 1:
        return 0.0
    if cluster.gpu.curves in curve_names():
        return measured_time_ns(cluster.gpu.curves, op, num_ranks, num_bytes)
    num_steps = _num_passes(op) * (num_ranks - 1)
    per_link = _num_passes(op) * num_bytes * (num_ranks - 1) / num_ranks
    rate = cluster.scale_up.bytes_per_s * cluster.scale_up.efficiency
    return num_steps * cluster.scale_up.latency_ns + per_link * 1e9 / rate


def _inside_latency_ns(cluster: Cluster, op: Collective, num_ranks: int) -> float:
    return _inside_ns(cluster, op, num_ranks, 1)


def _outside_bytes(shape: GroupShape, num_bytes: int) -> float:
    """Least bytes through one interface for one pass: a domain takes in what it lacks over k interfaces."""
    return num_bytes * (shape.num_domains - 1) / shape.num_domains / shape.per_domain


def _flat_ring(cluster: Cluster, op: Collective, shape: GroupShape, num_bytes: int) -> CollectiveTime:
    """Time of as many rings as a domain has members, each with a share of the buffer."""
    passes, n, k = _num_passes(op), shape.num_members, shape.per_domain
    inside = _inside_ns(cluster, op, k, num_bytes)
    inside_latency = _inside_latency_ns(cluster, op, shape.per_domain)
    # Every domain repeats the steps inside, and one step leaves it.
    latency = shape.num_domains * (inside_latency + passes * cluster.scale_out_latency_ns(shape.fabric_tier))
    per_link = num_bytes * (n - 1) / n
    outside = passes * per_link / k * 1e9 / cluster.scale_out_bytes_per_s(shape.fabric_tier)
    # Time inside is known for a ring of k, whose links carry (k-1)/k of the buffer.
    inside = max(inside - inside_latency, 0.0) * (n - 1) / n * k / (k - 1) if k > 1 else 0.0
    streaming = max(inside, outside)
    return CollectiveTime(ceil(latency + streaming), ceil(inside), ceil(outside), Algorithm.RING)


def _hierarchical(
    cluster: Cluster, op: Collective, shape: GroupShape, num_bytes: int, algorithm: Algorithm
) -> CollectiveTime:
    passes = _num_passes(op)
    if op is Collective.ALL_REDUCE:
        inside = sum(
            _inside_ns(cluster, part, shape.per_domain, num_bytes)
            for part in (Collective.REDUCE_SCATTER, Collective.ALL_GATHER)
        )
    else:
        inside = _inside_ns(cluster, op, shape.per_domain, num_bytes)
    is_tree = algorithm is Algorithm.HIERARCHICAL_TREE
    num_steps = ceil(log2(shape.num_domains)) if is_tree else shape.num_domains - 1
    outside = passes * (
        num_steps * cluster.scale_out_latency_ns(shape.fabric_tier)
        + _outside_bytes(shape, num_bytes) * 1e9 / cluster.scale_out_bytes_per_s(shape.fabric_tier)
    )
    return CollectiveTime(ceil(inside + outside), ceil(inside), ceil(outside), algorithm)


def _all_to_all(cluster: Cluster, shape: GroupShape, num_bytes: int) -> CollectiveTime:
    n, k = shape.num_members, shape.per_domain
    inside = _inside_ns(cluster, Collective.ALL_TO_ALL, k, num_bytes * k // n)
    outside = num_bytes * (n - k) / n * 1e9 / cluster.scale_out_bytes_per_s(shape.fabric_tier)
    outside += cluster.scale_out_latency_ns(shape.fabric_tier)
    return CollectiveTime(ceil(max(inside, outside)), ceil(inside), ceil(outside), Algorithm.DIRECT)
