"""Which GPUs exclusions take out: `gpu 17`, `tray 3`, `rack 12`, `leaf 7` on a machine of a given size."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.request import Exclusion, Part
from exactmap.topology.exact_map.seats import Bools
from exactmap.topology.exact_map.tiers import FabricOf

__all__ = ["excluded_gpus"]


def excluded_gpus(
    machine: Machine, exclusions: Iterable[Exclusion], fabric_of: FabricOf | None = None
) -> Bools:
    """[GPUs] whether any exclusion names it.

    Parameters
    ----------
    machine
        The machine.
    exclusions
        What may not be used.
    fabric_of
        The fabric, for excluded leaves: a leaf takes the GPUs with it whose first port it has.

    Raises
    ------
    InvalidInputError
        If one names what is not there.
    """
    out = np.zeros(machine.num_gpus, dtype=np.bool_)
    for exclusion in exclusions:
        if exclusion.part is Part.LEAF:
            out |= _of_leaves(machine, exclusion, fabric_of)
            continue
        begin, end = _span(machine, exclusion)
        out[begin:end] = True
    return out


def _span(machine: Machine, exclusion: Exclusion) -> tuple[int, int]:
    sizes = {Part.GPU: 1, Part.HOST: machine.gpus_per_host, Part.RACK: machine.domain_size}
    each = sizes[exclusion.part]
    first_gpu, num_gpus = 0, machine.num_gpus
    if exclusion.rack is not None:
        _refuse(exclusion, "rack", exclusion.rack, machine.num_racks)
        first_gpu = exclusion.rack * machine.domain_size
        num_gpus = machine.size_of_rack(exclusion.rack)
    _refuse(exclusion, exclusion.part.value, exclusion.last, -(-num_gpus // each))
    begin = first_gpu + exclusion.first * each
    return begin, min(first_gpu + (exclusion.last + 1) * each, first_gpu + num_gpus)


def _of_leaves(machine: Machine, exclusion: Exclusion, fabric_of: FabricOf | None) -> Bools:
    if fabric_of is None:
        raise InvalidInputError(
            "the cluster's fabric has no leaves to leave out",
            where=Place(field="map.exclude"),
            got=str(exclusion),
            hint="give the cluster a fabric: cluster.fabric.kind",
        )
    leaves = fabric_of().leaf(np.arange(machine.num_gpus, dtype=np.int64))
    _refuse(exclusion, "leaf", exclusion.last, int(leaves.max()) + 1)
    return (leaves >= exclusion.first) & (leaves <= exclusion.last)


def _refuse(exclusion: Exclusion, what: str, number: int, num: int) -> None:
    if number >= num:
        raise InvalidInputError(
            f"no such {what} to leave out",
            where=Place(field="map.exclude"),
            got=str(exclusion),
            expected=f"0 to {num - 1}",
        )
