"""Shared links of a simulation: which cluster, and what its transfers take alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.topology.fabric.fabric import Spread

if TYPE_CHECKING:
    from exactmap.sim.cost.profile import Profile
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.hardware import Cluster

__all__ = ["LinkSharing", "priced_alone"]

MAX_PATHS = 64


@dataclass(frozen=True, slots=True)
class LinkSharing:
    """How flows choose their paths on a cluster.

    Parameters
    ----------
    cluster
        Its fabric is shared.
    spread
        ``ecmp`` or ``spray``.
    seed
        Of ECMP's draws.
    paths
        Paths by ECMP that each flow is striped over.

    Raises
    ------
    InvalidInputError
        If a value is unknown or out of range.
    """

    cluster: Cluster
    spread: str = "spray"
    seed: int = 0
    paths: int = 1

    def __post_init__(self) -> None:
        """Check what a user chose."""
        if self.spread not in list(Spread):
            raise InvalidInputError("unknown spread", got=repr(self.spread), expected=" or ".join(Spread))
        if self.seed < 0:
            raise InvalidInputError("a seed is negative", got=str(self.seed), expected="0 or more")
        if not 1 <= self.paths <= MAX_PATHS:
            raise InvalidInputError("too many paths", got=str(self.paths), expected=f"1 to {MAX_PATHS}")


def priced_alone(plan: Plan, costs: Profile, cluster: Cluster) -> Profile:
    """Costs with channels and groups at what they take alone.

    On a tapered fabric a plan's own costs have them at the rate that is left when all GPUs send at once;
    where links are shared that is found out, and must not be counted twice.
    """
    if all(ratio == 1.0 for ratio in cluster.fabric.oversubscription):
        return costs
    from exactmap.sim.cost.links import price_channels, price_groups
    from exactmap.sim.cost.plan_header import formats_of, mesh_of

    mesh = mesh_of(plan.mesh)
    return replace(
        costs,
        channel={**costs.channel, **price_channels(plan.channels, mesh, cluster, alone=True)},
        group_ns={
            **costs.group_ns,
            **price_groups(plan.groups, plan.buckets, mesh, cluster, formats_of(plan), alone=True),
        },
    )
