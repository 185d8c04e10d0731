"""Which GPUs take ranks: the seats of each rack, in the order in which ranks fill them.

A rack gives at most `used_per_domain` of the GPUs that are neither excluded nor left out by the rule for
spares. A constraint makes it give whole blocks: with tp innermost a tp group is a block of TP ranks, so a
rack of 62 GPUs gives 48 to groups of 16 and none to groups of 64. Along rails seat j of a rack is on rail
j mod r. With `pp stages whole racks` each run of ranks of one stage starts at a rack of its own. All of it is
counting along arrays: no loop over GPUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.request import Constraint, MapRequest, Rule, Spares
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["Bools", "Seats", "block_of", "find_seats", "run_of_stage", "take_seats"]

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Seats:
    """GPUs that may take ranks.

    Parameters
    ----------
    gpu
        [seats] GPUs, rack after rack.
    in_rack
        [racks] how many each gives.
    """

    gpu: Ints
    in_rack: Ints


def block_of(mesh: Mesh, constraint: Constraint) -> int:
    """Ranks from the start of a constraint's group to its end, other groups between its members included."""
    wide = [axis for axis in constraint.axes if mesh.size(axis) > 1]
    return max((mesh.stride(axis) * mesh.size(axis) for axis in wide), default=1)


def run_of_stage(mesh: Mesh, request: MapRequest) -> int:
    """Ranks that follow each other in one pipeline stage, if stages take whole racks; else all."""
    rules = {constraint.rule for constraint in request.require}
    is_cut = Rule.WHOLE_RACKS in rules and mesh.pp > 1
    return mesh.stride(Axis.PP) if is_cut else mesh.num_ranks


def find_seats(
    machine: Machine, request: MapRequest, excluded: Bools, *, host_block: int = 1, rack_block: int = 1
) -> Seats:
    """Seats of all racks.

    Parameters
    ----------
    machine
        The machine.
    request
        The rule for spares.
    excluded
        [GPUs] which may not be used.
    host_block, rack_block
        Seats come in whole blocks of so many per host, per rack.
    """
    gpus = np.arange(machine.num_gpus, dtype=np.int64)
    racks = machine.rack(gpus)
    free = ~excluded
    along_rails = request.spares is Spares.RAILS
    # Whole groups of a host do not go with one GPU from each rail; whole hosts do, and they have all rails.
    by_lane = along_rails and host_block == 1
    if request.spares is Spares.TRAYS:
        _check_trays(machine)
    if request.spares is Spares.TRAYS or (along_rails and not by_lane):
        hosts = machine.host(gpus)
        whole = np.bincount(hosts[free], minlength=machine.num_hosts) == machine.gpus_per_host
        free &= whole[hosts]
    if host_block > 1:
        hosts = machine.host(gpus)
        in_host = np.bincount(hosts[free], minlength=machine.num_hosts)
        free &= _number_within(free, hosts) < (in_host // host_block * host_block)[hosts]
    num_free = np.bincount(racks[free], minlength=machine.num_racks)
    seat = _number_within(free, racks)
    # Blocks are products of the innermost axes: one divides the other.
    unit = lcm(max(rack_block, host_block), machine.num_rails if along_rails else 1)
    if by_lane:
        num_rails = machine.num_rails
        rails = machine.rail(gpus)
        lanes = racks * num_rails + rails
        in_lane = np.bincount(lanes[free], minlength=machine.num_racks * num_rails).reshape(-1, num_rails)
        seat = _number_within(free, lanes) * num_rails + rails
        num_free = in_lane.min(axis=1) * num_rails
    in_rack = np.minimum(num_free, machine.used_per_domain) // unit * unit
    taken = free & (seat < in_rack[racks])
    chosen = gpus[taken]
    if by_lane:
        chosen = chosen[np.argsort(racks[taken] * machine.domain_size + seat[taken], kind="stable")]
    return Seats(chosen, in_rack)


def take_seats(seats: Seats, num_ranks: int, run: int) -> Ints | None:
    """GPU of each rank: runs of `run` ranks fill seats in order, each from a rack of its own on.

    None if there are too few seats.
    """
    ends = np.cumsum(seats.in_rack)
    begin = 0
    parts: list[Ints] = []
    for _ in range(num_ranks // run):
        if begin + run > len(seats.gpu):
            return None
        parts.append(seats.gpu[begin : begin + run])
        # The next run starts behind the rack in which this one ends.
        begin = int(ends[np.searchsorted(ends, begin + run)])
    return np.concatenate(parts)


def _number_within(free: Bools, of: Ints) -> Ints:
    """How many free GPUs of the same rack (host, lane) come before each."""
    if np.all(of[1:] >= of[:-1]):
        before: Ints = np.cumsum(free) - free
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        return before - before[starts].repeat(np.diff(starts, append=len(of)))
    order = np.argsort(of, kind="stable")
    out = np.empty_like(of)
    out[order] = _number_within(free[order], of[order])
    return out


def _check_trays(machine: Machine) -> None:
    if machine.domain_size % machine.gpus_per_host or machine.used_per_domain % machine.gpus_per_host:
        raise InvalidInputError(
            "a rack cannot leave out whole trays",
            where=Place(field="map.spares"),
            got=f"{machine.used_per_domain} of {machine.domain_size} GPUs used, "
            f"{machine.gpus_per_host} in a host",
            expected=f"cluster.used_per_domain in multiples of {machine.gpus_per_host}",
        )
