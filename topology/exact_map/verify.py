"""A map that came from a file: checked rank by rank, each fault with the line that has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.exact_map.constraints import find_breach
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.exclusions import excluded_gpus
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.request import MapRequest
from exactmap.topology.exact_map.seats import find_seats
from exactmap.topology.exact_map.tiers import FabricOf
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Mesh

__all__ = ["RankLines", "verified_map"]


@dataclass(frozen=True, slots=True, eq=False)
class RankLines:
    """GPUs of ranks as a file lists them.

    Parameters
    ----------
    file
        The file.
    gpu
        [ranks] physical GPU of each.
    line
        [ranks] line that says so, counted from 1.
    last_line
        The file's last line.
    """

    file: str | Path
    gpu: Ints
    line: Ints
    last_line: int

    def place(self, rank: int) -> Place:
        """Where a rank stands; the file's end for one that it lacks."""
        return Place(self.file, int(self.line[rank]) if rank < len(self.line) else self.last_line)


def verified_map(
    read: RankLines, mesh: Mesh, machine: Machine, request: MapRequest, fabric_of: FabricOf | None
) -> ExactMap:
    """Make a map of what a file says.

    Parameters
    ----------
    read
        Ranks and GPUs.
    mesh, machine, request
        What the map is of, and what it promises.
    fabric_of
        Builds the fabric; None: one switch joins all.

    Raises
    ------
    InvalidInputError
        If a rank is missing or one too many, a GPU is not there, is excluded or stands twice, or a group is
        split that must not be.
    """
    _check_ranks(read, mesh)
    _check_gpus(read, machine)
    excluded = excluded_gpus(machine, request.exclude, fabric_of)
    banned = excluded[read.gpu]
    if banned.any():
        rank = int(np.argmax(banned))
        raise InvalidInputError(
            "an excluded GPU takes a rank", where=read.place(rank), got=f"rank {rank} on GPU {read.gpu[rank]}"
        )
    num_usable = int(find_seats(machine, request, excluded).in_rack.sum())
    out = ExactMap(mesh, machine, request, read.gpu, excluded, num_usable, fabric_of)
    for constraint in request.require:
        breach = find_breach(out, constraint)
        if breach is not None:
            raise InvalidInputError(
                f"the map does not keep '{constraint}'",
                where=read.place(int(breach.ranks[0])),
                got=breach.text,
            )
    return out


def _check_ranks(read: RankLines, mesh: Mesh) -> None:
    num = len(read.gpu)
    if num != mesh.num_ranks:
        extra = num > mesh.num_ranks
        raise InvalidInputError(
            f"rank {mesh.num_ranks} is one too many" if extra else f"rank {num} is missing",
            where=read.place(min(num, mesh.num_ranks)),
            got=f"{num} ranks",
            expected=f"{mesh.num_ranks} of the mesh",
        )


def _check_gpus(read: RankLines, machine: Machine) -> None:
    outside = (read.gpu < 0) | (read.gpu >= machine.num_gpus)
    if outside.any():
        rank = int(np.argmax(outside))
        raise InvalidInputError(
            "no such GPU",
            where=read.place(rank),
            got=f"rank {rank} on GPU {read.gpu[rank]}",
            expected=f"0 to {machine.num_gpus - 1}",
        )
    counts = np.bincount(read.gpu, minlength=machine.num_gpus)
    if counts.max(initial=0) > 1:
        # The first rank, in order, whose GPU an earlier rank has.
        order = np.argsort(read.gpu, kind="stable")
        again = order[1:][np.diff(read.gpu[order]) == 0]
        rank = int(again.min())
        first = int(np.argmax(read.gpu == read.gpu[rank]))
        raise InvalidInputError(
            f"GPU {read.gpu[rank]} stands twice",
            where=read.place(rank),
            got=f"rank {rank}; rank {first} has it in line {read.line[first]}",
        )
