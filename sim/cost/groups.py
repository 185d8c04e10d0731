"""Groups of ranks by size and stride on the machine, and what their collectives take."""

from __future__ import annotations

from exactmap.topology.collectives import Collective, collective_time
from exactmap.topology.group_shape import GroupShape
from exactmap.topology.hardware import Cluster

__all__ = ["collective_ns", "strided_group"]


def strided_group(cluster: Cluster, size: int, stride: int) -> GroupShape:
    """Shape of `size` ranks, each `stride` GPUs from the next, from the first GPU of a domain on."""
    domain = cluster.used_per_domain
    inside = max(1, min(size, domain // stride)) if stride < domain else 1
    while size % inside:
        inside -= 1
    return GroupShape(size, inside, size // inside)


def collective_ns(cluster: Cluster, collective: str, shape: GroupShape, num_bytes: float) -> float:
    """Time of a collective over a group in ns; a group of one takes none."""
    if shape.num_members == 1 or num_bytes <= 0:
        return 0.0
    return float(collective_time(cluster, Collective(collective), shape, int(num_bytes)).time_ns)
