"""A mesh laid onto scale-up domains in rank order, by arithmetic.

Ranks fill scale-up domains (racks or hosts) one after the other, `used_per_domain` GPUs of each, and the rest
of a domain are spares: 64 of 72 in an NVL72 rack, say. A group of ranks therefore crosses domains exactly
when a domain's end falls inside one of the blocks that the group spans.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.group_shape import GpuBudget, GroupShape, Tier
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["Placement"]


@dataclass(frozen=True, slots=True)
class Placement:
    """A mesh laid onto scale-up domains in rank order.

    Parameters
    ----------
    mesh
        The mesh.
    num_gpus
        GPUs installed, numbered domain after domain.
    domain_size
        GPUs in a scale-up domain (72 in an NVL72 rack, 8 in an HGX host).
    used_per_domain
        GPUs of a domain that take ranks; the others are spares.

    Raises
    ------
    InvalidInputError
        If a size is out of range.
    InfeasibleError
        If the mesh does not fit the machine.

    Examples
    --------
    >>> place = Placement(Mesh(tp=64, pp=16, dp=190), num_gpus=220_000, domain_size=72, used_per_domain=64)
    >>> place.budget.used, place.budget.spare
    (194560, 25440)
    >>> place.group_shape([Axis.TP]).tier, place.group_shape([Axis.PP]).tier
    (<Tier.SCALE_UP: 'scale_up'>, <Tier.SCALE_OUT: 'scale_out'>)
    >>> place.gpu(64)
    72
    """

    mesh: Mesh
    num_gpus: int
    domain_size: int
    used_per_domain: int

    def __post_init__(self) -> None:
        """Check the sizes and that the mesh fits."""
        if self.num_gpus < 1 or self.domain_size < 1:
            raise InvalidInputError(
                "a cluster needs GPUs", got=f"{self.num_gpus} GPUs in domains of {self.domain_size}"
            )
        if not 1 <= self.used_per_domain <= self.domain_size:
            raise InvalidInputError(
                "GPUs used per scale-up domain are out of range",
                where=Place(field="cluster.used_per_domain"),
                got=str(self.used_per_domain),
                expected=f"1 to {self.domain_size}",
            )
        if self.mesh.num_ranks > self.budget.usable:
            raise InfeasibleError(
                "the mesh is larger than the cluster",
                got=f"{self.mesh.num_ranks} ranks",
                expected=f"at most {self.budget.usable} usable GPUs of {self.num_gpus} installed "
                f"({self.used_per_domain} of {self.domain_size} per scale-up domain)",
                hint="lower a parallel axis, or raise cluster.num_gpus or cluster.used_per_domain",
            )

    @property
    def budget(self) -> GpuBudget:
        """GPUs installed, usable and used; a last, partly filled domain counts as far as it goes."""
        full, rest = divmod(self.num_gpus, self.domain_size)
        usable = full * self.used_per_domain + min(rest, self.used_per_domain)
        return GpuBudget(installed=self.num_gpus, usable=usable, used=self.mesh.num_ranks)

    def domain(self, rank: int) -> int:
        """Scale-up domain of a rank."""
        return rank // self.used_per_domain

    def gpu(self, rank: int) -> int:
        """Physical GPU of a rank, counted over the whole cluster, spares included."""
        domain, slot = divmod(rank, self.used_per_domain)
        return domain * self.domain_size + slot

    def rank_of_gpu(self, gpu: int) -> int | None:
        """Rank on a physical GPU, or None for a spare; the inverse of `gpu`."""
        if not 0 <= gpu < self.num_gpus:
            raise InvalidInputError("no such GPU", got=str(gpu), expected=f"0 to {self.num_gpus - 1}")
        domain, slot = divmod(gpu, self.domain_size)
        rank = domain * self.used_per_domain + slot
        return rank if slot < self.used_per_domain and rank < self.mesh.num_ranks else None

    def crosses_domains(self, axes: Iterable[Axis]) -> bool:
        """Whether some group along `axes` touches more than one scale-up domain.

        A group lies in a block of (stride x size of its outermost axis) ranks, and blocks follow each other
        from rank 0. The first domain ends at rank `used_per_domain`: if that is no multiple of the block,
        it cuts one.
        """
        wide = [axis for axis in set(axes) if self.mesh.size(axis) > 1]
        if not wide or self.mesh.num_ranks <= self.used_per_domain:
            return False
        outermost = max(wide, key=self.mesh.order.index)
        block = self.mesh.stride(outermost) * self.mesh.size(outermost)
        return self.used_per_domain % block != 0

    def group_shape(self, axes: Iterable[Axis]) -> GroupShape:
        """Shape of the groups along `axes`.

        Where domains cut groups unevenly the worst cut counts, since others wait for the slowest group: its
        smaller piece, say 8 members of 64, has the fewest interfaces for all that it lacks, and the group is
        taken as pieces of that size. Groups that span more than a domain are taken as the one of rank 0 lies.
        """
        chosen = [axis for axis in self.mesh.order if axis in set(axes)]
        num_members = self.mesh.group_size(chosen)
        if not self.crosses_domains(chosen):
            return GroupShape(num_members, per_domain=num_members, num_domains=1)
        per_domain = self._smallest_piece(chosen)
        return GroupShape(num_members, per_domain=per_domain, num_domains=-(-num_members // per_domain))

    def hop_tier(self, axis: Axis) -> Tier:
        """Furthest tier that a transfer between neighbours on an axis crosses, over all ranks."""
        if self.mesh.size(axis) == 1:
            return Tier.SELF
        return Tier.SCALE_OUT if self.crosses_domains([axis]) else Tier.SCALE_UP

    def pair_tier(self, axis: Axis, source: int, target: int) -> Tier:
        """Furthest tier of the transfers from place `source` to place `target` of an axis, over all ranks."""
        if source == target:
            return Tier.SELF
        if not self.crosses_domains([axis]):
            return Tier.SCALE_UP
        stride = self.mesh.stride(axis)
        block = stride * self.mesh.size(axis)
        if abs(target - source) * stride >= self.used_per_domain:
            return Tier.SCALE_OUT
        for phase in range(self._num_phases(block)):
            for offset in range(stride):
                base = phase * block + offset
                if self.domain(base + source * stride) != self.domain(base + target * stride):
                    return Tier.SCALE_OUT
        return Tier.SCALE_UP

    def _smallest_piece(self, axes: list[Axis]) -> int:
        """Fewest members of a group in one domain, over the groups that a domain's end cuts."""
        used = self.used_per_domain
        outermost = max((axis for axis in axes if self.mesh.size(axis) > 1), key=self.mesh.order.index)
        block = self.mesh.stride(outermost) * self.mesh.size(outermost)
        places = self.mesh.group(0, axes)
        if block > used:
            return bisect_left(places, used)
        firsts = [rank for rank in self.mesh.group(0, set(Axis) - set(axes)) if rank < block]
        smallest = len(places)
        # A block meets one end at most.
        for phase in range(self._num_phases(block)):
            end = used - phase * block % used
            for first in firsts:
                below = sum(first + place < end for place in places)
                if 0 < below < len(places):
                    smallest = min(smallest, below, len(places) - below)
        return smallest

    def _num_phases(self, block: int) -> int:
        """Blocks after which the places of their starts inside a domain repeat."""
        return min(self.mesh.num_ranks // block, self.used_per_domain // gcd(block, self.used_per_domain))
