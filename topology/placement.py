"""A mesh laid onto scale-up domains in rank order, by arithmetic.

Ranks fill scale-up domains (racks or hosts) one after the other, `used_per_domain` GPUs of each, and the rest
of a domain are spares: 64 of 72 in an NVL72 rack, say. A group of ranks therefore crosses domains exactly
when a domain's end falls inside one of the blocks that the group spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import gcd

import numpy as np

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.exact_map.pieces import find_pieces, mesh_offsets
from exactmap.topology.exact_map.tiers import FabricOf, highest_tier
from exactmap.topology.group_shape import GpuBudget, GroupShape, Tier
from exactmap.topology.links import Ints
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
    fabric_of
        Builds the fabric between domains; None: one switch joins all.

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
    fabric_of: FabricOf | None = field(default=None, compare=False, repr=False)
    _known: dict[object, int] = field(default_factory=dict, init=False, compare=False, repr=False)

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

    def gpus(self, ranks: Ints) -> Ints:
        """Physical GPUs of many ranks."""
        return ranks // self.used_per_domain * self.domain_size + ranks % self.used_per_domain

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
        smallest piece, say 8 members of 64, has the fewest interfaces for all that it lacks, and the group is
        taken as pieces of that size. The fabric's tier is the highest that a hop from piece to piece climbs
        to (`exactmap.topology.exact_map.pieces`).
        """
        chosen = [axis for axis in self.mesh.order if axis in set(axes)]
        num_members = self.mesh.group_size(chosen)
        if not self.crosses_domains(chosen):
            return GroupShape(num_members, per_domain=num_members, num_domains=1)
        per_domain = self._once(("piece", *chosen), lambda: self._smallest_piece(chosen))
        tier = self._once(("tier", *chosen), lambda: self._group_fabric_tier(chosen))
        return GroupShape(num_members, per_domain, -(-num_members // per_domain), tier)

    def hop_tier(self, axis: Axis) -> Tier:
        """Furthest tier that a transfer between neighbours on an axis crosses, over all ranks."""
        if self.mesh.size(axis) == 1:
            return Tier.SELF
        return Tier.SCALE_OUT if self.crosses_domains([axis]) else Tier.SCALE_UP

    def hop_fabric_tier(self, axis: Axis) -> int:
        """Highest tier of the fabric between neighbours on an axis that lie in different domains; else 1."""
        if self.mesh.size(axis) == 1 or not self.crosses_domains([axis]):
            return 1
        return self._once(
            ("hop", axis), lambda: self._pairs_fabric_tier(axis, self.mesh.size(axis) - 1, 0, 1)
        )

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

    def pair_fabric_tier(self, axis: Axis, source: int, target: int) -> int:
        """Highest tier of the fabric between two places of an axis that lie in different domains; else 1."""
        if source == target or not self.crosses_domains([axis]):
            return 1
        low, high = sorted((source, target))
        key = ("pair", axis, low, high)
        return self._once(key, lambda: self._pairs_fabric_tier(axis, 1, low, high - low))

    def _once(self, key: object, compute: Callable[[], int]) -> int:
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = compute()
        return found

    def _pairs_fabric_tier(self, axis: Axis, num_places: int, first: int, step: int) -> int:
        """Over ranks at `num_places` places of an axis from `first` on, and those `step` places further."""
        if self.fabric_of is None:
            return 1
        stride, size = self.mesh.stride(axis), self.mesh.size(axis)

        def pairs(items: Ints) -> tuple[Ints, Ints]:
            rest, inner = np.divmod(items, stride)
            outer, place = np.divmod(rest, num_places)
            source = inner + stride * (first + place + size * outer)
            target = source + stride * step
            apart = source // self.used_per_domain != target // self.used_per_domain
            return self.gpus(source[apart]), self.gpus(target[apart])

        return highest_tier(self.fabric_of(), self.mesh.num_ranks // size * num_places, pairs)

    def _group_fabric_tier(self, axes: list[Axis]) -> int:
        if self.fabric_of is None:
            return 1
        firsts = mesh_offsets(self.mesh, set(Axis) - set(axes))
        members = mesh_offsets(self.mesh, axes)

        def pairs(items: Ints) -> tuple[Ints, Ints]:
            ranks = firsts[items][:, None] + members
            pieces = find_pieces(ranks // self.used_per_domain)
            others = np.take_along_axis(ranks, pieces.counterparts(), axis=1)
            apart = ranks // self.used_per_domain != others // self.used_per_domain
            return self.gpus(ranks[apart]), self.gpus(others[apart])

        return highest_tier(self.fabric_of(), len(firsts), pairs, each=len(members))

    def _smallest_piece(self, axes: list[Axis]) -> int:
        """Fewest members of a group in one domain, over the groups that a domain's end cuts.

        How a group is cut hangs on where its first rank lies in a domain, and there are few such places.
        """
        used = self.used_per_domain
        firsts = np.unique(mesh_offsets(self.mesh, set(Axis) - set(axes)) % used)
        pieces = find_pieces((firsts[:, None] + mesh_offsets(self.mesh, axes)) // used)
        return int(pieces.fewest[pieces.num_domains > 1].min())

    def _num_phases(self, block: int) -> int:
        """Blocks after which the places of their starts inside a domain repeat."""
        return min(self.mesh.num_ranks // block, self.used_per_domain // gcd(block, self.used_per_domain))
