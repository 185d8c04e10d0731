"""Time of a plan's channels, groups and optimizer on a cluster.

A channel between two pipeline ranks is priced at the furthest network, and the highest tier of the fabric,
that any replica's copy of it crosses.
A group's collective is priced from the shape of its axes on the machine. The optimizer is bound by memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil

from exactmap.sim.cost.formats import Formats
from exactmap.sim.cost.profile import ChannelNs
from exactmap.sim.plan.plan import Bucket, Channel, Group
from exactmap.topology.collectives import Collective, collective_time, hop_time
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.hardware import Cluster
from exactmap.topology.mapping import Axis, GroupShape, Mesh, Placement, Tier

__all__ = [
    "COLLECTIVES",
    "norm_time_ns",
    "price_buckets",
    "price_channels",
    "price_groups",
    "update_time_ns",
]

_SCALAR_BYTES = 8
COLLECTIVES = {
    "AR": Collective.ALL_REDUCE,
    "RS": Collective.REDUCE_SCATTER,
    "AG": Collective.ALL_GATHER,
}
"""What closes and gathers buckets, by the plan's words."""


def price_channels(
    channels: Iterable[Channel], mesh: Mesh, cluster: Cluster, *, alone: bool = False
) -> dict[str, ChannelNs]:
    """Times of channels, for `Profile.channel`.

    Parameters
    ----------
    channels
        Channels with the pipeline ranks of their ends and the bytes of one message.
    mesh, cluster
        How ranks lie on the machine.
    alone
        What a message takes if nothing else runs, at an interface's full rate; else at the rate that a
        tapered tier leaves each GPU when all send.
    """
    placement, cluster = cluster.place(mesh), _untapered(cluster) if alone else cluster
    memory_rate = cluster.gpu.memory_bytes_per_s * cluster.gpu.memory_efficiency
    times: dict[str, ChannelNs] = {}
    for channel in channels:
        tier = placement.pair_tier(Axis.PP, channel.src, channel.dst)
        fabric_tier = placement.pair_fabric_tier(Axis.PP, channel.src, channel.dst)
        hop = hop_time(cluster, tier, channel.bytes, fabric_tier)
        # A receive buffer is read and its slot written.
        copy_ns = ceil(2 * channel.bytes * 1e9 / memory_rate)
        times[channel.name] = ChannelNs(hop.wire_ns, hop.lat_ns, copy_ns)
    return times


def price_groups(
    groups: Iterable[Group],
    buckets: Iterable[Bucket],
    mesh: Mesh,
    cluster: Cluster,
    formats: Formats,
    *,
    alone: bool = False,
) -> dict[tuple[str, str, int | None, int | None], int]:
    """Durations of the collectives that close buckets and of the gradient norm, for `Profile.group_ns`.

    Parameters
    ----------
    groups
        Groups by mesh axes.
    buckets
        Buckets with the groups that close them.
    mesh, cluster
        How ranks lie on the machine.
    formats
        Widths: gradients are reduced as they are accumulated, parameters gathered as products read them.
    alone
        As in `price_channels`.
    """
    placement, cluster = cluster.place(mesh), _untapered(cluster) if alone else cluster
    shapes = {group.name: _group_shape(group, placement) for group in groups}
    group_ns: dict[tuple[str, str, int | None, int | None], int] = {}
    for name, shape in shapes.items():
        scalar = norm_time_ns(cluster, shape)
        group_ns[name, "NORM", None, None] = scalar
        group_ns[name, "CHK", None, None] = scalar
    for bucket in buckets:
        for name in bucket.reduce:
            for op, collective in COLLECTIVES.items():
                width = formats.param_bytes if op == "AG" else formats.grad_bytes
                time = collective_time(cluster, collective, shapes[name], bucket.elements * width)
                group_ns[name, op, bucket.stage, bucket.index] = time.time_ns
    return group_ns


def _untapered(cluster: Cluster) -> Cluster:
    """The same cluster as one transfer sees it."""
    return replace(cluster, fabric=replace(cluster.fabric, oversubscription=()))


def _group_shape(group: Group, placement: Placement | ExactMap) -> GroupShape:
    """Shape of a group; one over chosen pipeline ranks is as far apart as its furthest pair."""
    axes = [Axis(axis) for axis in group.axes]
    if not group.pp:
        return placement.group_shape(axes)
    others = [axis for axis in axes if axis is not Axis.PP]
    inner = placement.group_shape(others)
    first = group.pp[0]
    tiers = {placement.pair_tier(Axis.PP, first, other) for other in group.pp}
    fabric_tiers = [placement.pair_fabric_tier(Axis.PP, first, other) for other in group.pp]
    highest = max([inner.fabric_tier, *fabric_tiers])
    num_members = inner.num_members * len(group.pp)
    if Tier.SCALE_OUT in tiers:
        return GroupShape(num_members, inner.per_domain, inner.num_domains * len(group.pp), highest)
    return GroupShape(num_members, inner.per_domain * len(group.pp), inner.num_domains, highest)


def norm_time_ns(cluster: Cluster, shape: GroupShape) -> int:
    """A sum of one number over a group, in ns."""
    time: int = collective_time(cluster, Collective.ALL_REDUCE, shape, _SCALAR_BYTES).time_ns
    return time


def update_time_ns(elements: int, cluster: Cluster, formats: Formats) -> int:
    """``OPT`` on so many elements, in ns; bound by `Formats.update_bytes`."""
    gpu = cluster.gpu
    rate = gpu.memory_bytes_per_s * gpu.memory_efficiency
    return gpu.launch_ns + ceil(elements * formats.update_bytes * 1e9 / rate)


def price_buckets(
    buckets: Iterable[Bucket], cluster: Cluster, formats: Formats, num_shards: int = 1
) -> dict[tuple[str, int, int], int]:
    """Durations of ``OPT`` on each bucket, for `Profile.bucket_ns`; of a sharded one, on a rank's share."""
    return {
        ("OPT", bucket.stage, bucket.index): update_time_ns(
            bucket.elements // (num_shards if bucket.shard else 1), cluster, formats
        )
        for bucket in buckets
    }
