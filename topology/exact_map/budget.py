"""What becomes of the GPUs, and why.

Installed = used + spare in racks at work + idle in racks without a rank + excluded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.topology.exact_map.exact_map import ExactMap

__all__ = ["MapBudget", "RackCount", "count_gpus"]


@dataclass(frozen=True, slots=True)
class RackCount:
    """Racks of one kind: how many there are, and what each has."""

    num_racks: int
    used: int
    spare: int
    excluded: int


@dataclass(frozen=True, slots=True)
class MapBudget:
    """GPUs by what becomes of them.

    Parameters
    ----------
    installed
        GPUs in the cluster.
    excluded
        GPUs that may not be used, wherever they are.
    usable
        GPUs that may take ranks of some mesh.
    used
        GPUs that take ranks of this one.
    spare
        GPUs neither used nor excluded in racks at work.
    idle
        The same in racks without a rank.
    racks
        Racks by what they have, the most frequent kind first.
    reasons
        Why not all are used, in sentences.
    """

    installed: int
    excluded: int
    usable: int
    used: int
    spare: int
    idle: int
    racks: tuple[RackCount, ...]
    reasons: tuple[str, ...]

    @property
    def num_racks_at_work(self) -> int:
        """Racks with a rank."""
        return sum(rack.num_racks for rack in self.racks if rack.used)

    @property
    def num_idle_racks(self) -> int:
        """Racks without a rank."""
        return sum(rack.num_racks for rack in self.racks if not rack.used)


def count_gpus(exact_map: ExactMap) -> MapBudget:
    """Count the GPUs of a map, rack by rack.

    Parameters
    ----------
    exact_map
        The map.

    Examples
    --------
    >>> from exactmap.topology.exact_map.build import build_map
    >>> from exactmap.topology.exact_map.machine import Machine
    >>> from exactmap.topology.mesh import Mesh
    >>> budget = count_gpus(build_map(Mesh(tp=64), Machine(150, 72, 4, 64)))
    >>> budget.used, budget.spare, budget.idle, budget.num_idle_racks
    (64, 8, 78, 2)
    """
    machine = exact_map.machine
    gpus = np.arange(machine.num_gpus, dtype=np.int64)
    racks = machine.rack(gpus)
    num = machine.num_racks
    size = np.bincount(racks, minlength=num)
    used = np.bincount(machine.rack(exact_map.gpu), minlength=num)
    excluded = np.bincount(racks[exact_map.excluded], minlength=num)
    spare = size - used - excluded
    each = machine.domain_size + 1
    keys, counts = np.unique((used * each + spare) * each + excluded, return_counts=True)
    kinds = tuple(
        RackCount(count, key // each // each, key // each % each, key % each)
        for key, count in sorted(
            zip(keys.tolist(), counts.tolist(), strict=True), key=lambda kind: (-kind[1], -kind[0])
        )
    )
    at_work = used > 0
    return MapBudget(
        installed=machine.num_gpus,
        excluded=int(excluded.sum()),
        usable=exact_map.num_usable,
        used=exact_map.mesh.num_ranks,
        spare=int(spare[at_work].sum()),
        idle=int(spare[~at_work].sum()),
        racks=kinds,
        reasons=tuple(_reasons(exact_map, int(excluded.sum()))),
    )


def _reasons(exact_map: ExactMap, num_excluded: int) -> list[str]:
    machine, mesh = exact_map.machine, exact_map.mesh
    word = machine.rack_word
    out: list[str] = []
    full, rest = divmod(machine.num_gpus, machine.domain_size)
    if full and rest:
        out.append(
            f"{machine.num_gpus:,} is no multiple of {machine.domain_size}: "
            f"{full:,} {word}s of {machine.domain_size} and {rest} GPUs"
        )
    kept = machine.domain_size - machine.used_per_domain
    if kept:
        how = {"gpus": "", "rails": ", as many of each rail", "trays": ", in whole trays"}
        out.append(
            f"{machine.used_per_domain} of {machine.domain_size} GPUs of a {word} may take ranks"
            f"{how[exact_map.request.spares]}: {kept} stay spare in each"
        )
    if num_excluded:
        named = ", ".join(map(str, exact_map.request.exclude[:4]))
        more = len(exact_map.request.exclude) - 4
        out.append(f"{num_excluded:,} excluded: {named}{f' and {more} more' if more > 0 else ''}")
    sizes = " x ".join(f"{axis} {mesh.size(axis)}" for axis in mesh.order if mesh.size(axis) > 1)
    left = exact_map.num_usable - mesh.num_ranks
    replica = mesh.num_ranks // mesh.dp
    if left:
        room = (
            f"room for {left // replica} more replicas of {replica:,}"
            if left >= replica
            else f"one more replica takes {replica:,}"
        )
        out.append(f"{sizes or 'one rank'} = {mesh.num_ranks:,}; {left:,} usable GPUs remain, {room}")
    return out
