"""The exact map: an array, rank to physical GPU, and all that costs and people ask of it.

It answers what `exactmap.topology.placement.Placement` answers by arithmetic, from the array: for maps that
simply fill racks both say the same, as tests prove; a map with dead GPUs, constraints or an order of its own
has the array alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.pieces import Pieces, find_pieces, group_ranks, mesh_offsets
from exactmap.topology.exact_map.request import MapRequest
from exactmap.topology.exact_map.seats import Bools
from exactmap.topology.exact_map.tiers import FabricOf, highest_tier
from exactmap.topology.group_shape import GpuBudget, GroupShape, Tier
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["ExactMap", "GroupCount", "LaidGroups"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GroupCount:
    """Groups of one shape.

    Parameters
    ----------
    num_groups
        How many there are.
    num_members, num_racks
        Members of each, and racks that they lie in.
    fewest, most
        Members in the rack with the fewest of them, and with the most.
    fabric_tier
        Highest tier that a hop from rack to rack climbs to; 0 where none leaves its rack.
    """

    num_groups: int
    num_members: int
    num_racks: int
    fewest: int
    most: int
    fabric_tier: int


@dataclass(frozen=True, slots=True, eq=False)
class LaidGroups:
    """All groups along some axes, each sorted by rack.

    Parameters
    ----------
    gpu
        [groups, members] physical GPUs.
    pieces
        How racks cut them.
    """

    gpu: Ints
    pieces: Pieces

    def hops(self) -> tuple[Ints, Ints]:
        """GPUs of both ends of all hops from rack to rack, group after group."""
        partner = np.take_along_axis(self.gpu, self.pieces.counterparts(), axis=1)
        crossing = np.broadcast_to((self.pieces.num_domains > 1)[:, None], self.gpu.shape)
        return self.gpu[crossing], partner[crossing]


@dataclass(frozen=True, slots=True, eq=False)
class ExactMap:
    """A mesh on named GPUs.

    Parameters
    ----------
    mesh
        The mesh.
    machine
        Counts of the cluster.
    request
        What was asked for.
    gpu
        [ranks] physical GPU of each rank, no GPU twice.
    excluded
        [GPUs] which may not be used.
    num_usable
        GPUs that may take ranks of some mesh.
    fabric_of
        Builds the fabric; None: one switch joins all.
    """

    mesh: Mesh
    machine: Machine
    request: MapRequest
    gpu: Ints
    excluded: Bools
    num_usable: int
    fabric_of: FabricOf | None = None
    _known: dict[object, object] = field(default_factory=dict, init=False, repr=False)

    @property
    def budget(self) -> GpuBudget:
        """GPUs installed, usable and used."""
        return GpuBudget(self.machine.num_gpus, self.num_usable, self.mesh.num_ranks)

    def gpus(self, ranks: Ints) -> Ints:
        """Physical GPUs of many ranks."""
        return self.gpu[ranks]

    def rank_of_gpus(self) -> Ints:
        """[GPUs] the rank on each, or -1 on those that have none."""
        out = np.full(self.machine.num_gpus, -1, dtype=np.int64)
        out[self.gpu] = np.arange(self.mesh.num_ranks, dtype=np.int64)
        return out

    def groups(self, axes: Iterable[Axis]) -> LaidGroups:
        """All groups along `axes`."""
        return self._laid(group_ranks(self.mesh, axes))

    def crosses_domains(self, axes: Iterable[Axis]) -> bool:
        """Whether some group along `axes` lies in more than one rack."""
        return self._pieces_of(axes)[1]

    def group_shape(self, axes: Iterable[Axis]) -> GroupShape:
        """Shape of the groups along `axes`: the worst cut of any, the highest tier of any hop."""
        chosen = frozenset(axes)
        num_members = self.mesh.group_size(chosen)
        fewest, crosses = self._pieces_of(chosen)
        if not crosses:
            return GroupShape(num_members, per_domain=num_members, num_domains=1)
        tier = self._once(("tier", chosen), lambda: self._group_fabric_tier(chosen))
        return GroupShape(num_members, fewest, -(-num_members // fewest), tier)

    def count_shapes(self, axes: Iterable[Axis]) -> tuple[GroupCount, ...]:
        """How many groups along `axes` have which shape, the most frequent first."""
        laid = self.groups(axes)
        pieces = laid.pieces
        tiers = np.zeros(len(laid.gpu), dtype=np.int64)
        crossing = pieces.num_domains > 1
        if crossing.any():
            source, target = laid.hops()
            found = np.ones(len(source), dtype=np.int64)
            if self.fabric_of is not None:
                found = self.fabric_of().tier_between(source, target)
            tiers[crossing] = found.reshape(np.count_nonzero(crossing), -1).max(axis=1)
        facts = (pieces.num_domains, pieces.fewest, pieces.most, tiers)
        # One number for each shape: np.unique is far slower on rows.
        sizes = tuple(int(each.max(initial=0)) + 1 for each in facts)
        keys, counts = np.unique(np.ravel_multi_index(facts, sizes), return_counts=True)
        shapes = np.stack(np.unravel_index(keys, sizes), axis=1)
        found_shapes = [
            GroupCount(count, laid.gpu.shape[1], *shape)
            for shape, count in zip(shapes.tolist(), counts.tolist(), strict=True)
        ]
        return tuple(sorted(found_shapes, key=lambda shape: -shape.num_groups))

    def hop_tier(self, axis: Axis) -> Tier:
        """Furthest tier that a transfer between neighbours on an axis crosses, over all ranks."""
        if self.mesh.size(axis) == 1:
            return Tier.SELF
        return Tier.SCALE_OUT if self.crosses_domains([axis]) else Tier.SCALE_UP

    def hop_fabric_tier(self, axis: Axis) -> int:
        """Highest tier of the fabric between neighbours on an axis that lie in different racks; else 1."""
        places = range(self.mesh.size(axis) - 1)
        return max((self.pair_fabric_tier(axis, place, place + 1) for place in places), default=1)

    def pair_tier(self, axis: Axis, source: int, target: int) -> Tier:
        """Furthest tier of the transfers from place `source` to place `target` of an axis, over all ranks."""
        if source == target:
            return Tier.SELF
        return Tier.SCALE_OUT if len(self._apart(axis, source, target)[0]) else Tier.SCALE_UP

    def pair_fabric_tier(self, axis: Axis, source: int, target: int) -> int:
        """Highest tier of the fabric between two places of an axis that lie in different racks; else 1."""
        fabric_of = self.fabric_of
        if source == target or fabric_of is None:
            return 1
        first, second = self._apart(axis, source, target)
        return self._once(
            ("pair", axis, *sorted((source, target))),
            lambda: highest_tier(fabric_of(), len(first), lambda items: (first[items], second[items])),
        )

    def pairs(self, axis: Axis, source: int, target: int) -> tuple[Ints, Ints]:
        """GPUs at two places of an axis, pair by pair."""
        for place in (source, target):
            if not 0 <= place < self.mesh.size(axis):
                raise InvalidInputError(
                    "no such place on the mesh",
                    got=f"{axis} {place}",
                    expected=f"0 to {self.mesh.size(axis) - 1}",
                )
        firsts = mesh_offsets(self.mesh, set(Axis) - {axis})
        stride = self.mesh.stride(axis)
        return self.gpu[firsts + source * stride], self.gpu[firsts + target * stride]

    def _apart(self, axis: Axis, source: int, target: int) -> tuple[Ints, Ints]:
        first, second = self.pairs(axis, source, target)
        apart = self.machine.rack(first) != self.machine.rack(second)
        return first[apart], second[apart]

    def _laid(self, ranks: Ints) -> LaidGroups:
        gpus = self.gpu[ranks]
        racks = self.machine.rack(gpus)
        if np.any(racks[:, 1:] < racks[:, :-1]):
            order = np.argsort(racks, axis=1, kind="stable")
            gpus, racks = np.take_along_axis(gpus, order, axis=1), np.take_along_axis(racks, order, axis=1)
        return LaidGroups(gpus, find_pieces(racks))

    def _pieces_of(self, axes: Iterable[Axis]) -> tuple[int, bool]:
        """Fewest members in a piece of a group that racks cut; whether they cut any."""
        chosen = frozenset(axes)

        def find() -> tuple[int, bool]:
            pieces = self.groups(chosen).pieces
            cut = pieces.fewest[pieces.num_domains > 1]
            return int(cut.min(initial=self.mesh.group_size(chosen))), bool(len(cut))

        return self._once(("pieces", chosen), find)

    def _group_fabric_tier(self, axes: Iterable[Axis]) -> int:
        if self.fabric_of is None:
            return 1
        ranks = group_ranks(self.mesh, axes)
        return highest_tier(
            self.fabric_of(), len(ranks), lambda items: self._laid(ranks[items]).hops(), each=ranks.shape[1]
        )

    def _once(self, key: object, compute: Callable[[], _T]) -> _T:
        if key not in self._known:
            self._known[key] = compute()
        found: _T = self._known[key]  # type: ignore[assignment]
        return found
