"""Make the exact map of a mesh on a machine, or say why there is none.

Ranks take seats in order (`exactmap.topology.exact_map.seats`); what was required is then checked on the map
itself, group by group, so that a promise in a map never rests on how it was made. Where no map keeps a
constraint, the message names the first group that the plain map breaks it with.
"""

from __future__ import annotations

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.exact_map.constraints import find_breach
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.exclusions import excluded_gpus
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.request import Constraint, MapRequest, Rule
from exactmap.topology.exact_map.seats import Bools, block_of, find_seats, run_of_stage, take_seats
from exactmap.topology.exact_map.tiers import FabricOf
from exactmap.topology.mesh import Mesh

__all__ = ["build_map", "usable_gpus"]


def build_map(
    mesh: Mesh, machine: Machine, request: MapRequest | None = None, fabric_of: FabricOf | None = None
) -> ExactMap:
    """Lay a mesh onto a machine as asked.

    Parameters
    ----------
    mesh
        The mesh, its own order of axes included.
    machine
        Counts of the cluster.
    request
        Spares, exclusions, constraints.
    fabric_of
        Builds the fabric; None: one switch joins all.

    Raises
    ------
    InvalidInputError
        If the request names what is not there.
    InfeasibleError
        If the mesh does not fit, or a constraint cannot be kept.

    Examples
    --------
    >>> machine = Machine(num_gpus=144, domain_size=72, gpus_per_host=4, used_per_domain=64)
    >>> build_map(Mesh(tp=64, dp=2), machine).gpu[[0, 63, 64]].tolist()
    [0, 63, 72]
    """
    request = request or MapRequest()
    excluded = _excluded(machine, request, fabric_of)
    num_usable = int(find_seats(machine, request, excluded).in_rack.sum())
    if mesh.num_ranks > num_usable:
        raise _too_large(mesh, machine, excluded, num_usable)
    if any(constraint.rule is Rule.ALONG_RAILS for constraint in request.require) and machine.num_rails == 1:
        raise InvalidInputError(
            "the cluster's fabric has no rails to go along",
            where=Place(field="map.require"),
            got="cluster.fabric.rails 1",
            expected="2 or more",
        )
    blocks = {
        rule: max((block_of(mesh, each) for each in request.require if each.rule is rule), default=1)
        for rule in (Rule.WITHIN_HOST, Rule.WITHIN_RACK)
    }
    seats = find_seats(
        machine,
        request,
        excluded,
        host_block=blocks[Rule.WITHIN_HOST],
        rack_block=blocks[Rule.WITHIN_RACK],
    )
    gpu = take_seats(seats, mesh.num_ranks, run_of_stage(mesh, request))
    if gpu is None:
        raise _cannot_keep(mesh, machine, request, fabric_of, len(seats.gpu))
    gpu.flags.writeable = False
    out = ExactMap(mesh, machine, request, gpu, excluded, num_usable, fabric_of)
    for constraint in request.require:
        breach = find_breach(out, constraint)
        if breach is not None:
            raise _broken(constraint, breach.text)
    return out


def usable_gpus(machine: Machine, request: MapRequest, fabric_of: FabricOf | None = None) -> int:
    """GPUs that may take ranks of some mesh: what exclusions and the rule for spares leave of each rack."""
    return int(find_seats(machine, request, _excluded(machine, request, fabric_of)).in_rack.sum())


def _excluded(machine: Machine, request: MapRequest, fabric_of: FabricOf | None) -> Bools:
    out = excluded_gpus(machine, request.exclude, fabric_of)
    out.flags.writeable = False
    return out


def _too_large(mesh: Mesh, machine: Machine, excluded: Bools, num_usable: int) -> InfeasibleError:
    num_excluded = int(excluded.sum())
    without = f", {num_excluded:,} of them excluded" if num_excluded else ""
    return InfeasibleError(
        "the mesh is larger than the cluster",
        got=f"{mesh.num_ranks} ranks",
        expected=f"at most {num_usable} usable GPUs of {machine.num_gpus} installed{without} "
        f"({machine.used_per_domain} of {machine.domain_size} per scale-up domain)",
        hint="lower a parallel axis, or raise cluster.num_gpus or cluster.used_per_domain",
    )


def _cannot_keep(
    mesh: Mesh, machine: Machine, request: MapRequest, fabric_of: FabricOf | None, num_seats: int
) -> InfeasibleError:
    """Too few seats remain when constraints are kept: the group that breaks one, and what is lacking."""
    loose = MapRequest(request.order, request.spares, request.exclude)
    plain = build_map(mesh, machine, loose, fabric_of)
    for constraint in request.require:
        breach = find_breach(plain, constraint)
        if breach is not None:
            size = {Rule.WITHIN_HOST: machine.gpus_per_host, Rule.WITHIN_RACK: machine.used_per_domain}
            limit = size.get(constraint.rule)
            block = block_of(mesh, constraint)
            if limit is not None and block > limit:
                word = "host" if constraint.rule is Rule.WITHIN_HOST else "rack"
                expected = f"at most {limit} GPUs to use in a {word}; such a group spans {block} ranks"
            elif constraint.rule is Rule.WHOLE_RACKS:
                run = run_of_stage(mesh, request)
                racks = -(-run // machine.used_per_domain)
                num_runs = mesh.num_ranks // run
                expected = (
                    f"at most {machine.num_racks:,} racks; {num_runs} runs of {run:,} ranks take {racks:,} "
                    f"each, {num_runs * racks:,} in all"
                )
            else:
                expected = f"{mesh.num_ranks:,} GPUs for it; {num_seats:,} can be used with whole groups"
            return _broken(constraint, breach.text, expected)
    # Only the constraints together leave too little.
    return _broken(request.require[0], f"{num_seats:,} GPUs that keep all constraints", f"{mesh.num_ranks:,}")


def _broken(constraint: Constraint, got: str, expected: str | None = None) -> InfeasibleError:
    hints = {
        Rule.WITHIN_RACK: "make the axis smaller or more inward, or use fewer GPUs of a rack",
        Rule.WITHIN_HOST: "make the axis smaller or more inward",
        Rule.WHOLE_RACKS: "put pp outermost, or lower a parallel axis so that racks stay free",
        Rule.ALONG_RAILS: "set map.spares to rails or trays; "
        "the ranks inside the axis should be a multiple of the rails",
    }
    return InfeasibleError(
        f"no map keeps '{constraint}'",
        where=Place(field="map.require"),
        got=got,
        expected=expected,
        hint=hints[constraint.rule],
    )
