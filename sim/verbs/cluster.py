"""What a cluster is made of: GPUs and racks, the fabric between them, what it takes and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exactmap.topology.fabric.build import BuiltFabric
from exactmap.topology.fabric.needs import FabricNeeds
from exactmap.topology.hardware import Cluster

__all__ = ["ClusterReport", "TierReach", "cluster"]


@dataclass(frozen=True, slots=True)
class TierReach:
    """What a GPU has of a tier of the fabric.

    Parameters
    ----------
    tier
        Counted from 1: what shares a leaf.
    num_gpus
        GPUs that the first GPU reaches through this tier or lower ones, itself included.
    latency_ns
        Time of a small message to the furthest of them.
    bytes_per_s
        Rate of each GPU when all send large messages that climb to this tier.
    """

    tier: int
    num_gpus: int
    latency_ns: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """A cluster and its built fabric."""

    cluster: Cluster
    fabric: BuiltFabric
    needs: FabricNeeds
    tiers: tuple[TierReach, ...]

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        it, needs, spec = self.cluster, self.needs, self.fabric.spec
        return {
            "schema_version": 1,
            "kind": "cluster",
            "name": it.name,
            "gpu": it.gpu.name,
            "num_gpus": it.num_gpus,
            "usable_gpus": it.usable_gpus,
            "num_hosts": it.num_hosts,
            "num_racks": it.num_racks,
            "num_domains": -(-it.num_gpus // it.scale_up.domain_size),
            "fabric": {
                "shape": spec.kind.value,
                "tiers": len(self.tiers),
                "planes": self.fabric.links.num_planes,
                "rails": spec.rails,
                "port_bytes_per_s": it.scale_out.bytes_per_s / spec.planes,
                "bisection_bytes_per_s": self.fabric.bisection_bytes_per_s,
                "reach_gpus": needs.reach_gpus,
                "links": self.fabric.links.num_links,
            },
            "refused": [{"tiers": tiers, "reach_gpus": most} for tiers, most in needs.refused],
            "switches": [
                {
                    "tier": row.tier,
                    "role": row.role,
                    "switch": None if row.switch is None else row.switch.name,
                    "count": row.num_switches,
                    "radix": row.radix,
                    "ports_used": row.ports_used,
                    "ports_free": row.ports_free,
                    "power_w": row.power_w,
                }
                for row in needs.tiers
            ],
            "cables": [
                {
                    "tier": row.tier,
                    "cable": None if row.cable is None else row.cable.name,
                    "count": row.num_cables,
                    "copper": row.is_copper,
                    "length_m": row.length_m,
                    "optical_modules": row.num_modules,
                    "power_w": row.power_w,
                }
                for row in needs.cables
            ],
            "power_w": needs.switch_power_w + needs.cable_power_w,
            "by_tier": [
                {
                    "tier": row.tier,
                    "gpus": row.num_gpus,
                    "latency_ns": row.latency_ns,
                    "bytes_per_s": row.bytes_per_s,
                }
                for row in self.tiers
            ],
        }


def cluster(
    source: str | Path, overrides: Sequence[str] = (), *, num_gpus: int | None = None
) -> ClusterReport:
    """Build a cluster's fabric and say what it takes.

    Parameters
    ----------
    source
        A cluster of the catalog, a cluster file, or a scenario.
    overrides
        ``fabric.planes=4`` and the like.
    num_gpus
        GPUs installed, instead of what the source says.

    Raises
    ------
    InvalidInputError
        If the cluster is not described well; all problems are listed.
    InfeasibleError
        If its switches cannot join so many GPUs: why, and what would.
    """
    from exactmap.sim.scenario.cluster_source import read_cluster
    from exactmap.topology.fabric.build import build_fabric
    from exactmap.topology.fabric.needs import fabric_needs

    machine = read_cluster(source, overrides, num_gpus=num_gpus)
    fabric = build_fabric(machine)
    return ClusterReport(machine, fabric, fabric_needs(machine, fabric), _by_tier(machine, fabric))


def _by_tier(machine: Cluster, fabric: BuiltFabric) -> tuple[TierReach, ...]:
    """What the first GPU reaches, tier by tier."""
    import numpy as np

    gpus = np.arange(machine.num_gpus)
    first = np.zeros_like(gpus)
    tier, latency = fabric.tier_between(gpus, first), fabric.latency_ns(gpus, first)
    within = np.flatnonzero(tier == 1)
    leaf_ns = int(latency[within[0]]) if len(within) else 0
    achieved = machine.scale_out.achieved_bytes_per_s
    # What crosses the middle is shared by half of the GPUs.
    half = machine.num_gpus // 2
    across = fabric.bisection_bytes_per_s / half * machine.scale_out.efficiency if half else achieved
    highest = int(tier.max())
    rows: list[TierReach] = []
    for here in range(1, max(highest, 1) + 1):
        beyond = int(latency[tier <= here].max()) - leaf_ns
        rate = achieved * fabric.spec.taper(here)
        if here == highest and here > 1:
            rate = min(rate, across)
        reached = int((tier <= here).sum())
        rows.append(TierReach(here, reached, machine.scale_out.latency_ns + max(beyond, 0), rate))
    return tuple(rows)
