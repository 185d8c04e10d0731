"""Sizes of a fat tree: how many GPUs hang on a leaf, leaves in a pod, spines above; and what a radix forbids.

A plane is a parallel-port generalised fat tree, PGFT(T; m; w; p) of Zahavi ("Fat-tree routing and node
ordering providing contention free traffic for MPI global collectives", JPDC 2012). A subtree of tier t holds
m_t subtrees of tier t - 1 (a leaf holds m_1 GPUs); each switch of tier t - 1 has w_t parents with p_t cables
to each. With W_t = w_2 x .. x w_t, a subtree of tier t has W_t switches, which use

    down ports  m_t p_t        up ports  w_(t+1) p_(t+1) = ceil(m_t p_t / oversubscription_t)

and fit if down + up <= radix. Equal splits give k^2/2 GPUs in two tiers and k^3/4 in three. A tree that is
not full has whole pods, the last one filled in part, and as few switches on top as carry the pods' uplinks:
where n pods leave room each has p cables to a top switch, n p <= radix.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

__all__ = ["TreeShape"]


@dataclass(frozen=True, slots=True)
class TreeShape:
    """One plane of a fat tree; index 0 of each tuple is tier 1, the leaves.

    Parameters
    ----------
    num_gpus
        GPUs attached.
    gpus_per_host
        GPUs of one host.
    rails
        Leaves that a host's GPUs are spread over.
    hosts_per_leaf
        Hosts that a leaf has ports for.
    children
        m: GPUs per leaf, then subtrees of the tier below per subtree.
    parents, trunks
        w and p: switches above a switch of the tier below, and cables to each; 1 for the leaves.
    radix
        Ports of a switch of each tier at the rate of a cable.
    """

    num_gpus: int
    gpus_per_host: int
    rails: int
    hosts_per_leaf: int
    children: tuple[int, ...]
    parents: tuple[int, ...]
    trunks: tuple[int, ...]
    radix: tuple[int, ...]

    @property
    def num_tiers(self) -> int:
        """Tiers of switches."""
        return len(self.children)

    @property
    def num_leaves(self) -> int:
        """Leaves of one plane."""
        if self.num_tiers == 1:
            return 1
        return ceil(self.num_gpus / (self.gpus_per_host * self.hosts_per_leaf)) * self.rails

    def num_subtrees(self, tier: int) -> int:
        """Subtrees of a tier that are there."""
        return ceil(self.num_leaves / prod(self.children[1:tier]))

    def columns(self, tier: int) -> int:
        """Switches of one subtree of a tier."""
        return prod(self.parents[:tier])

    def num_switches(self, tier: int) -> int:
        """Switches of a tier in one plane."""
        return self.num_subtrees(tier) * self.columns(tier)

    def down_ports(self, tier: int) -> int:
        """Ports downwards that a switch of a full subtree uses."""
        return self.children[tier - 1] * self.trunks[tier - 1]

    def up_ports(self, tier: int) -> int:
        """Ports upwards that a switch uses; 0 on top."""
        return self.parents[tier] * self.trunks[tier] if tier < self.num_tiers else 0

    def num_up_links(self, tier: int) -> int:
        """Cables from the switches of a tier to the tier above."""
        return self.num_switches(tier) * self.up_ports(tier)

    @property
    def taper(self) -> float:
        """Share of its interface that each GPU has if all send across the top."""
        share = 1.0
        gpus = 1
        for tier in range(1, self.num_tiers):
            gpus *= self.children[tier - 1]
            share = min(share, self.columns(tier) * self.up_ports(tier) / gpus)
        return share
