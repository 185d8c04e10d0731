"""Maps as the files that launch jobs: Open MPI's rank file and host file, Slurm's list of a host per task.

=============  ==========================  =======================================================
rank file      ``rank 0=node007 slot=3``   the place in the host is said: any map
host file      ``node007 slots=4``         ranks fill hosts in order: GPU i of a host is its i-th
Slurm          ``node007``, line by line   the same, for ``SLURM_HOSTFILE`` and
                                           ``--distribution=arbitrary``
=============  ==========================  =======================================================

In the latter two a host's ranks take its GPUs in order, excluded ones left out, as a launcher's local rank
does. A map that lies otherwise cannot be said so and is refused. Sources: Open MPI manual, mpirun(1),
"Rankfiles" and "Specifying hosts"; Slurm manual, srun(1), ``SLURM_HOSTFILE``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.pieces import find_pieces
from exactmap.topology.exact_map.seats import Bools
from exactmap.topology.exact_map.verify import RankLines
from exactmap.topology.links import Ints

__all__ = [
    "read_host_file",
    "read_rank_file",
    "read_slurm_file",
    "write_host_file",
    "write_rank_file",
    "write_slurm_file",
]

_RANK = re.compile(r"rank\s+(\d{1,9})\s*=\s*(\S+)\s+slots?\s*=\s*(\d{1,9})")
_HOST = re.compile(r"(\S+?)(?:\s+slots\s*=\s*(\d{1,9}))?(?:\s+max[_-]slots\s*=\s*\d{1,9})?")


def write_rank_file(exact_map: ExactMap, hosts: Sequence[str]) -> str:
    """Open MPI's rank file.

    Parameters
    ----------
    exact_map
        The map.
    hosts
        Name of each host of the cluster.
    """
    machine = exact_map.machine
    rows = zip(machine.host(exact_map.gpu).tolist(), machine.place(exact_map.gpu).tolist(), strict=True)
    return "".join(f"rank {rank}={hosts[host]} slot={place}\n" for rank, (host, place) in enumerate(rows))


def write_host_file(exact_map: ExactMap, hosts: Sequence[str]) -> str:
    """Open MPI's host file, hosts in the order in which ranks fill them.

    Raises
    ------
    InfeasibleError
        If ranks do not fill the hosts in order.
    """
    _check_local(exact_map, "a host file")
    used = exact_map.machine.host(exact_map.gpu)
    starts = np.flatnonzero(np.diff(used, prepend=-1))
    counts = np.diff(starts, append=len(used))
    if len(np.unique(used[starts])) < len(starts):
        raise _unsayable("a host file", "a host's ranks do not follow each other")
    return "".join(
        f"{hosts[host]} slots={count}\n"
        for host, count in zip(used[starts].tolist(), counts.tolist(), strict=True)
    )


def write_slurm_file(exact_map: ExactMap, hosts: Sequence[str]) -> str:
    """A host per task, for ``SLURM_HOSTFILE``.

    Raises
    ------
    InfeasibleError
        If a host's ranks do not take its GPUs in order.
    """
    _check_local(exact_map, "a list of a host per task")
    return "".join(f"{hosts[host]}\n" for host in exact_map.machine.host(exact_map.gpu).tolist())


def read_rank_file(
    text: str, file: str | Path, machine: Machine, excluded: Bools, hosts: Sequence[str]
) -> RankLines:
    """Ranks of a rank file; its lines may stand in any order.

    Parameters
    ----------
    text, file
        The file.
    machine
        The machine.
    excluded
        [GPUs] which may not be used.
    hosts
        Name of each host of the cluster.

    Raises
    ------
    InvalidInputError
        If a line is none of a rank file, names an unknown host or place, or a rank again.
    """
    del excluded  # places are said
    number = _numbers(hosts)
    found: dict[int, tuple[int, int]] = {}
    lines = text.splitlines()
    for at, line in _content(lines):
        match = _RANK.fullmatch(line)
        if match is None:
            raise InvalidInputError(
                "not a line of a rank file",
                where=Place(file, at),
                got=repr(line)[:80],
                expected="rank 0=node slot=0",
            )
        rank, place = int(match[1]), int(match[3])
        host = _host(number, match[2], Place(file, at))
        if rank in found:
            raise InvalidInputError(
                f"rank {rank} stands twice", where=Place(file, at), got=f"line {found[rank][1]} has it, too"
            )
        if place >= machine.gpus_per_host:
            raise InvalidInputError(
                "no such place in a host",
                where=Place(file, at),
                got=f"slot={place}",
                expected=f"0 to {machine.gpus_per_host - 1}",
            )
        found[rank] = (host * machine.gpus_per_host + place, at)
    missing = next((rank for rank in range(len(found)) if rank not in found), None)
    if missing is not None:
        raise InvalidInputError(
            f"rank {missing} is missing",
            where=Place(file, max(len(lines), 1)),
            got=f"ranks up to {max(found)}",
        )
    ranks = [found[rank] for rank in range(len(found))]
    return RankLines(
        file, _ints([gpu for gpu, _ in ranks]), _ints([at for _, at in ranks]), max(len(lines), 1)
    )


def read_host_file(
    text: str, file: str | Path, machine: Machine, excluded: Bools, hosts: Sequence[str]
) -> RankLines:
    """Ranks that fill the hosts of a host file in order.

    Raises
    ------
    InvalidInputError
        If a line is none of a host file, names an unknown host, or more slots than it has GPUs to use.
    """
    number = _numbers(hosts)
    lines = text.splitlines()
    tasks: list[int] = []
    at_lines: list[int] = []
    for at, line in _content(lines):
        match = _HOST.fullmatch(line)
        if match is None:
            raise InvalidInputError(
                "not a line of a host file",
                where=Place(file, at),
                got=repr(line)[:80],
                expected="node slots=4",
            )
        host, slots = _host(number, match[1], Place(file, at)), int(match[2] or 1)
        if slots > machine.gpus_per_host:
            raise _too_many(Place(file, at), match[1], slots, machine.gpus_per_host)
        tasks += [host] * slots
        at_lines += [at] * slots
    return _local(_ints(tasks), _ints(at_lines), file, len(lines), machine, excluded, hosts)


def read_slurm_file(
    text: str, file: str | Path, machine: Machine, excluded: Bools, hosts: Sequence[str]
) -> RankLines:
    """Ranks of a list of a host per task.

    Raises
    ------
    InvalidInputError
        If it names an unknown host, or one more often than it has GPUs to use.
    """
    number = _numbers(hosts)
    lines = text.splitlines()
    rows = [(_host(number, line, Place(file, at)), at) for at, line in _content(lines)]
    return _local(
        _ints([host for host, _ in rows]),
        _ints([at for _, at in rows]),
        file,
        len(lines),
        machine,
        excluded,
        hosts,
    )


def _local(
    host: Ints,
    line: Ints,
    file: str | Path,
    num_lines: int,
    machine: Machine,
    excluded: Bools,
    hosts: Sequence[str],
) -> RankLines:
    """GPUs of tasks on hosts: the i-th task of a host has its i-th GPU that may be used."""
    gpu, lacking = _in_order(host, machine, excluded)
    if lacking.any():
        rank = int(np.argmax(lacking))
        free = np.count_nonzero(~excluded[machine.host(np.arange(machine.num_gpus)) == host[rank]])
        raise _too_many(
            Place(file, int(line[rank])),
            hosts[int(host[rank])],
            int(np.count_nonzero(host == host[rank])),
            int(free),
        )
    return RankLines(file, gpu, line, max(num_lines, 1))


def _in_order(host: Ints, machine: Machine, excluded: Bools) -> tuple[Ints, Bools]:
    """GPU of each task, and whether its host has none left for it."""
    free = np.flatnonzero(~excluded)
    num_free = np.bincount(machine.host(free), minlength=machine.num_hosts)
    first = np.cumsum(num_free) - num_free
    order = np.argsort(host, kind="stable")
    local = np.empty_like(host)
    if len(host):
        pieces = find_pieces(host[order][None, :])
        local[order] = np.arange(len(host)) - pieces.start[0]
    lacking = local >= num_free[host]
    at = np.where(lacking, 0, first[host] + local)
    gpu = free[at] if len(free) else np.zeros_like(host)
    return gpu, lacking


def _check_local(exact_map: ExactMap, what: str) -> None:
    host = exact_map.machine.host(exact_map.gpu)
    gpu, _ = _in_order(host, exact_map.machine, exact_map.excluded)
    if np.array_equal(gpu, exact_map.gpu):
        return
    rank = int(np.argmax(gpu != exact_map.gpu))
    raise _unsayable(
        what,
        f"rank {rank} has GPU {exact_map.gpu[rank]}, a launcher would give it GPU {gpu[rank]} "
        f"of host {host[rank]}",
    )


def _unsayable(what: str, got: str) -> InfeasibleError:
    return InfeasibleError(
        f"this map cannot be said by {what}",
        got=got,
        hint="a rank file says the place of each rank: --rankfile",
    )


def _content(lines: list[str]) -> list[tuple[int, str]]:
    """Lines with their numbers, without comments and empty ones."""
    found = ((at, line.partition("#")[0].strip()) for at, line in enumerate(lines, 1))
    return [(at, line) for at, line in found if line]


def _numbers(hosts: Sequence[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(hosts)}


def _host(number: dict[str, int], name: str, where: Place) -> int:
    if name not in number:
        raise InvalidInputError(
            "no such host in the cluster",
            where=where,
            got=repr(name)[:80],
            hint="name the cluster's hosts in order with --hosts",
        )
    return number[name]


def _too_many(where: Place, name: str, got: int, free: int) -> InvalidInputError:
    return InvalidInputError(
        f"more ranks on {name} than it has GPUs to use", where=where, got=str(got), expected=f"at most {free}"
    )


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)
