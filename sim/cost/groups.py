"""Groups of ranks on the machine: how each lies on domains and fabric, and what its collectives take.

Ranks fill domains in the order tensor, context, data, pipeline; experts lie inside tensor x context x data,
those that share an expert side by side. A group is ranks at one stride, so its sister groups start at the
ranks between: all of them work at once, and each has the interfaces of its own members and no others. That
is what `exactmap.topology.collectives` prices for a shape of several members per domain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exactmap.sim.workload.training import Split
from exactmap.topology.collectives import Collective, collective_time, hop_time
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.group_shape import GroupShape, Tier
from exactmap.topology.hardware import Cluster

__all__ = ["GROUPS", "Hop", "collective_ns", "fabric_tier", "pipeline_hop", "rank_groups", "strided_group"]

GROUPS = ("tp", "cp", "ep", "etp", "dp", "shard", "replica", "expert_dp", "expert_shard", "pp", "embedding")
"""Names of the groups of a split, as `rank_groups` has them."""


class Hop(NamedTuple):
    """A message between pipeline neighbours: its tier, time on the wire, and delay besides."""

    tier: Tier
    wire_ns: float
    latency_ns: float

    @property
    def total_ns(self) -> float:
        """From the end of one pass to the start of the next."""
        return self.wire_ns + self.latency_ns


def fabric_tier(cluster: Cluster, distance: int) -> int:
    """Tier of the fabric that ranks so far apart meet at, counted from the first rank; 1: a leaf."""
    used, size = cluster.used_per_domain, cluster.scale_up.domain_size
    domain, slot = divmod(distance, used)
    key = ("step fabric tier", domain, slot)
    known = cluster.memo.get(key)
    if known is None:
        last = min(domain * size + slot, cluster.num_gpus - 1)
        fabric = cluster.memo.get("step fabric")
        if fabric is None:
            fabric = cluster.memo["step fabric"] = build_fabric(cluster)
        tiers = fabric.tier_between(np.array([0]), np.array([last]))  # type: ignore[attr-defined]
        known = cluster.memo[key] = max(1, int(tiers[0]))
    assert isinstance(known, int)
    return known


def strided_group(cluster: Cluster, size: int, stride: int) -> GroupShape:
    """Shape of `size` ranks, each `stride` ranks from the next, from the first rank of a domain on.

    Where domains do not hold the same number of members, it is the largest even share below that.

    Examples
    --------
    >>> from exactmap.sim.scenario.cluster_file import load_cluster
    >>> from dataclasses import replace
    >>> pod = replace(load_cluster("h100-8"), num_gpus=64)
    >>> strided_group(pod, 8, 4), strided_group(pod, 16, 1).per_domain
    (GroupShape(num_members=8, per_domain=2, num_domains=4, fabric_tier=1), 8)
    """
    domain = cluster.used_per_domain
    inside = max(1, min(size, domain // stride)) if stride < domain else 1
    while size % inside:
        inside -= 1
    domains = size // inside
    tier = fabric_tier(cluster, (size - 1) * stride) if domains > 1 else 1
    return GroupShape(size, inside, domains, tier)


def rank_groups(cluster: Cluster, split: Split) -> dict[str, GroupShape]:
    """Shape of every group of a split, by the names of `GROUPS`."""
    known = cluster.memo.get(("step groups", split))
    if known is None:
        shards, expert_shards = shard_ranks(split), expert_shard_ranks(split)
        inner = split.ep * split.etp
        sizes = {
            "tp": (split.tp, 1),
            "cp": (split.cp, split.tp),
            "ep": (split.ep, split.etp),
            "etp": (split.etp, 1),
            "dp": (split.data_ranks, split.tp),
            "shard": (shards, split.tp),
            "replica": (split.data_ranks // shards, split.tp * shards),
            "expert_dp": (split.expert_data_ranks, inner),
            "expert_shard": (expert_shards, inner),
            "expert_replica": (split.expert_data_ranks // expert_shards, inner * expert_shards),
            "pp": (split.pp, split.num_ranks // split.pp),
            "embedding": (min(2, split.pp), split.num_ranks - split.num_ranks // split.pp),
        }
        known = {name: strided_group(cluster, size, max(1, stride)) for name, (size, stride) in sizes.items()}
        cluster.memo["step groups", split] = known
    return known  # type: ignore[return-value]


def shard_ranks(split: Split) -> int:
    """Data ranks that a shard of the dense state spreads over."""
    ranks = split.data_ranks
    return split.shards if 1 < split.shards < ranks and ranks % split.shards == 0 else ranks


def expert_shard_ranks(split: Split) -> int:
    """Data ranks that a shard of the experts' state spreads over."""
    ranks, copies = split.expert_data_ranks, split.data_ranks // shard_ranks(split)
    return max(1, ranks // copies) if ranks % copies == 0 else ranks


def collective_ns(cluster: Cluster, collective: str, shape: GroupShape, num_bytes: float) -> float:
    """Time of a collective over a group in ns; a group of one takes none."""
    if shape.num_members == 1 or num_bytes <= 0:
        return 0.0
    return float(collective_time(cluster, Collective(collective), shape, int(num_bytes)).time_ns)


def pipeline_hop(cluster: Cluster, split: Split, source: int, target: int, num_bytes: float) -> Hop:
    """Message from one pipeline rank to another; every rank of a stage sends its own at once."""
    stride = split.num_ranks // split.pp
    if source == target:
        return Hop(Tier.SELF, 0.0, 0.0)
    # Any rank of the stage whose partner is in another domain holds the others up.
    used = cluster.used_per_domain
    low, high = sorted((source, target))
    inside = low * stride // used == ((high + 1) * stride - 1) // used
    tier = Tier.SCALE_UP if inside else Tier.SCALE_OUT
    climb = 1 if inside else fabric_tier(cluster, (high - low) * stride)
    time = hop_time(cluster, tier, int(num_bytes), climb)
    return Hop(tier, time.wire_ns, time.lat_ns)
