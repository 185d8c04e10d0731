"""What is said of groups of ranks on a machine: their shape, the furthest network that they cross."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["GpuBudget", "GroupShape", "Tier"]


class Tier(StrEnum):
    """Which network a transfer uses."""

    SELF = "self"
    """One GPU: nothing moves."""
    SCALE_UP = "scale_up"
    """Inside one scale-up domain (NVLink)."""
    SCALE_OUT = "scale_out"
    """Between domains, through network interfaces."""


@dataclass(frozen=True, slots=True)
class GroupShape:
    """How a group of ranks lies on the machine.

    Parameters
    ----------
    num_members
        Members of the group.
    per_domain
        Members that share one scale-up domain: their interfaces together carry what the domain exchanges
        with others.
    num_domains
        Scale-up domains with that many members each.
    fabric_tier
        Highest tier of the fabric that members in different domains meet at: 1 if they share a leaf.
    """

    num_members: int
    per_domain: int
    num_domains: int
    fabric_tier: int = 1

    @property
    def tier(self) -> Tier:
        """The furthest tier that the group's traffic crosses."""
        if self.num_members == 1:
            return Tier.SELF
        return Tier.SCALE_UP if self.num_domains == 1 else Tier.SCALE_OUT


@dataclass(frozen=True, slots=True)
class GpuBudget:
    """GPUs by what becomes of them.

    Parameters
    ----------
    installed
        GPUs in the cluster.
    usable
        GPUs that a map may use: `used_per_domain` of each domain.
    used
        Ranks of the mesh.
    """

    installed: int
    usable: int
    used: int

    @property
    def spare(self) -> int:
        """Installed and not used: in-rack spares and whole idle domains together."""
        return self.installed - self.used
