"""Groups of ranks as rows of a matrix, cut into pieces by scale-up domains, and the hops between pieces.

A group's members, in rank order, are sorted by domain; those of one domain are a *piece*. Collectives that
cross domains pass data from piece to piece round a ring, each member to its *counterpart* in the next piece:
the member at the same place of it, or its last one where the next piece is smaller. A group with one member
per domain gives the plain ring. Only hops between pieces use the fabric.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["Pieces", "find_pieces", "group_ranks", "mesh_offsets"]


def mesh_offsets(mesh: Mesh, axes: Iterable[Axis]) -> Ints:
    """Distances of a group's members from its first rank, ascending.

    Examples
    --------
    >>> mesh_offsets(Mesh(tp=2, pp=3), [Axis.PP]).tolist()
    [0, 2, 4]
    """
    chosen = set(axes)
    offsets = np.zeros(1, dtype=np.int64)
    for axis in mesh.order:
        if axis in chosen and mesh.size(axis) > 1:
            places = np.arange(mesh.size(axis), dtype=np.int64) * mesh.stride(axis)
            offsets = (places[:, None] + offsets).ravel()
    return offsets


def group_ranks(mesh: Mesh, axes: Iterable[Axis]) -> Ints:
    """[groups, members] all groups along `axes`, in order of their first ranks."""
    chosen = set(axes)
    return mesh_offsets(mesh, set(Axis) - chosen)[:, None] + mesh_offsets(mesh, chosen)


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Where the pieces of each group begin and end.

    Parameters
    ----------
    start, end
        [groups, members] first member of the piece that a member is in, and the one after its last.
    """

    start: Ints
    end: Ints

    @property
    def size(self) -> Ints:
        """[groups, members] members in the piece of each."""
        return self.end - self.start

    @property
    def num_domains(self) -> Ints:
        """[groups] pieces of each group."""
        count: Ints = np.count_nonzero(self.start == np.arange(self.start.shape[1]), axis=1)
        return count

    @property
    def fewest(self) -> Ints:
        """[groups] members in its smallest piece."""
        least: Ints = self.size.min(axis=1)
        return least

    @property
    def most(self) -> Ints:
        """[groups] members in its largest piece."""
        largest: Ints = self.size.max(axis=1)
        return largest

    def counterparts(self) -> Ints:
        """[groups, members] whom of the next piece each sends to; itself in groups of one piece."""
        num_members = self.start.shape[1]
        here = np.broadcast_to(np.arange(num_members), self.start.shape)
        next_start = np.where(self.end == num_members, 0, self.end)
        next_size = np.take_along_axis(self.size, next_start, axis=1)
        partner = next_start + np.minimum(here - self.start, next_size - 1)
        return np.where((self.num_domains == 1)[:, None], here, partner)

    def neighbours(self) -> Ints:
        """[groups, members] the next member of the same piece, round a ring."""
        after = np.arange(1, self.start.shape[1] + 1)
        return np.where(after == self.end, self.start, after)


def find_pieces(domains: Ints) -> Pieces:
    """Pieces of groups whose members are sorted by domain.

    Parameters
    ----------
    domains
        [groups, members] the scale-up domain of each member; equal ones stand together.

    Examples
    --------
    >>> pieces = find_pieces(np.array([[0, 0, 1, 1, 2]]))
    >>> pieces.size.tolist(), pieces.counterparts().tolist()
    ([[2, 2, 2, 2, 1]], [[2, 3, 4, 4, 0]])
    """
    num_groups, num_members = domains.shape
    here = np.arange(num_members)
    opens = np.ones((num_groups, num_members), dtype=bool)
    opens[:, 1:] = domains[:, 1:] != domains[:, :-1]
    start = np.maximum.accumulate(np.where(opens, here, 0), axis=1)
    closes = np.ones((num_groups, num_members), dtype=bool)
    closes[:, :-1] = opens[:, 1:]
    ends = np.where(closes, here + 1, num_members)
    end = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    return Pieces(start, end)
