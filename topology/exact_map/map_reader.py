"""Read a map file: strictly, and with the line of each fault.

What a line says twice (coordinates, host, place, rack, leaf of its first rank) must agree with what follows
from rank and GPU, so that a file that was changed by hand is either right or refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.host_list import expand_hosts
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.map_file import MAJOR, RankRuns, describe_rank
from exactmap.topology.exact_map.request import Constraint, Exclusion, MapRequest, Spares
from exactmap.topology.exact_map.tiers import FabricOf
from exactmap.topology.exact_map.verify import RankLines, verified_map
from exactmap.topology.links import Ints
from exactmap.topology.mesh import Axis, Mesh

__all__ = ["MAX_MAP_BYTES", "MapFile", "read_map"]

_T = TypeVar("_T")

MAX_MAP_BYTES = 2**28
_INT = r"(\d{1,9})"
_HEAD = re.compile(rf"exactmap-map {_INT}\.{_INT}")
_BODY = re.compile(r"body sha256=([0-9a-f]{64})")
_PLAN = re.compile(r"plan sha256=([0-9a-f]{64})")
_CLUSTER = re.compile(rf"cluster name=([!-~]+) gpus={_INT} rack={_INT} host={_INT} used={_INT} rails={_INT}")
_MESH = re.compile(rf"mesh tp={_INT} cp={_INT} ep={_INT} pp={_INT} dp={_INT} order=([a-z,]+)")
_RANKS = re.compile(
    rf"ranks {_INT} n={_INT} gpu={_INT}(?: x={_INT} step=(-?\d{{1,9}}))?"
    rf" at=([a-z0-9,]+) host={_INT} place={_INT} rack={_INT} leaf=(-|\d{{1,9}})"
)
_END = re.compile(rf"end ranks={_INT}")
_MAX_RANKS = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class MapFile:
    """What a map file says: the map, its cluster's name, the plan's hash if any, names of hosts if any."""

    exact_map: ExactMap
    cluster: str
    plan_sha256: str | None
    hosts: tuple[str, ...]


class _Lines:
    """Lines of the file, one after the other."""

    def __init__(self, lines: list[str], file: str | Path) -> None:
        self.lines = lines
        self.file = file
        self.at = 0

    @property
    def place(self) -> Place:
        """Where the next line stands."""
        return Place(self.file, min(self.at, max(len(self.lines) - 1, 0)) + 1)

    def next(self, pattern: re.Pattern[str], expected: str) -> re.Match[str]:
        """The next line, which must have a form."""
        line = self.lines[self.at] if self.at < len(self.lines) else ""
        found = pattern.fullmatch(line)
        if found is None:
            got = repr(line)[:80] if self.at < len(self.lines) else "the end of the file"
            raise InvalidInputError("not a line of a map", where=self.place, got=got, expected=expected)
        self.at += 1
        return found

    def while_word(self, word: str) -> list[tuple[str, Place]]:
        """What stands behind a word on the lines that begin with it."""
        out: list[tuple[str, Place]] = []
        while self.at < len(self.lines) and self.lines[self.at].startswith(f"{word} "):
            out.append((self.lines[self.at].removeprefix(f"{word} "), self.place))
            self.at += 1
        return out


def read_map(
    data: bytes,
    file: str | Path = "map",
    fabric_of: Callable[[Machine], FabricOf | None] | None = None,
    *,
    extra: MapRequest | None = None,
) -> MapFile:
    """Read a map.

    Parameters
    ----------
    data
        Bytes of the file.
    file
        Its name, for messages.
    fabric_of
        Gives the fabric of the machine that the file names: leaves are then checked, too, and tiers known.
    extra
        What to exclude and require beside what the file says.

    Raises
    ------
    InvalidInputError
        If it is no map, or one that cannot be: a GPU twice or not there, a rank missing, a group split that
        the map promises not to split; with file and line.
    """
    lines = _Lines(_decoded(data, file), file)
    head = lines.next(_HEAD, "exactmap-map 1.0")
    if int(head[1]) != MAJOR:
        raise InvalidInputError(
            "a map of another version", where=Place(file, 1), got=f"{head[1]}.{head[2]}", expected=f"{MAJOR}"
        )
    stated = lines.next(_BODY, "body sha256=..")[1]
    body = data.split(b"\n", 2)[2]
    if sha256(body).hexdigest() != stated:
        raise InvalidInputError(
            "the body has another hash",
            where=Place(file, 2),
            got=sha256(body).hexdigest(),
            expected=stated,
            hint="the file was changed after it was written, or is cut short",
        )
    plan = lines.next(_PLAN, "plan sha256=..")[1] if _next_is(lines, "plan ") else None
    cluster = lines.next(_CLUSTER, "cluster name= gpus= rack= host= used= rails=")
    machine = _machine(cluster, Place(file, lines.at))
    mesh_place = lines.place
    mesh = _mesh(lines.next(_MESH, "mesh tp= cp= ep= pp= dp= order="), mesh_place)
    spares = lines.next(re.compile("spares (gpus|rails|trays)"), "spares gpus, rails or trays")[1]
    request = MapRequest(
        mesh.order,
        Spares(spares),
        tuple(_parsed(Exclusion.parse, *each) for each in lines.while_word("exclude")),
        tuple(_parsed(Constraint.parse, *each) for each in lines.while_word("require")),
    )
    hosts = [name for text, place in lines.while_word("hosts") for name in expand_hosts(text, place)]
    if hosts and (len(hosts) != machine.num_hosts or len(set(hosts)) != len(hosts)):
        raise InvalidInputError(
            "the hosts are not those of the cluster",
            where=Place(file, lines.at),
            got=f"{len(set(hosts))} names",
            expected=f"{machine.num_hosts}",
        )
    if extra is not None:
        request = replace(
            request,
            exclude=tuple(dict.fromkeys((*request.exclude, *extra.exclude))),
            require=tuple(dict.fromkeys((*request.require, *extra.require))),
        )
    built = None if fabric_of is None else fabric_of(machine)
    read = _ranks(lines, mesh, machine, built)
    return MapFile(verified_map(read, mesh, machine, request, built), cluster[1], plan, tuple(hosts))


def _decoded(data: bytes, file: str | Path) -> list[str]:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidInputError("a map is ASCII text", where=Place(file, line)) from None
    if not text.endswith("\n"):
        raise InvalidInputError("the last line has no end", where=Place(file, text.count("\n") + 1))
    return text[:-1].split("\n")


def _next_is(lines: _Lines, word: str) -> bool:
    return lines.at < len(lines.lines) and lines.lines[lines.at].startswith(word)


def _machine(found: re.Match[str], place: Place) -> Machine:
    num_gpus, rack, host, used, rails = (int(found[number]) for number in range(2, 7))
    if min(num_gpus, rack, host, used, rails) < 1 or used > rack or num_gpus > _MAX_RANKS:
        raise InvalidInputError(
            "no such cluster",
            where=place,
            got=found[0][:80],
            expected=f"counts from 1, used at most rack, at most {_MAX_RANKS} GPUs",
        )
    return Machine(num_gpus, rack, host, used, rails)


def _mesh(found: re.Match[str], place: Place) -> Mesh:
    names = found[6].split(",")
    if not set(names) <= set(Axis):
        raise InvalidInputError("no such axis", where=place, got=found[6], expected=",".join(Axis))
    try:
        tp, cp, ep, pp, dp = (int(found[number]) for number in range(1, 6))
        return Mesh(tp, cp, ep, pp, dp, order=tuple(Axis(name) for name in names))
    except InvalidInputError as error:
        raise InvalidInputError(error.what, where=place, got=error.got, expected=error.expected) from None


def _parsed(parse: Callable[[str], _T], text: str, place: Place) -> _T:
    try:
        return parse(text)
    except InvalidInputError as error:
        raise InvalidInputError(error.what, where=place, got=error.got, expected=error.expected) from None


def _ranks(lines: _Lines, mesh: Mesh, machine: Machine, fabric_of: FabricOf | None) -> RankLines:
    """GPUs of all ranks, from lines that follow each other without a gap."""
    parts: list[Ints] = []
    sizes: list[int] = []
    at_lines: list[int] = []
    firsts: list[int] = []
    leaves: list[str] = []
    num = 0
    while not _next_is(lines, "end "):
        place = lines.place
        found = lines.next(
            _RANKS, "ranks R n=.. gpu=.. [x=.. step=..] at=.. host=.. place=.. rack=.. leaf=.."
        )
        run = RankRuns(int(found[1]), int(found[2]), int(found[3]), int(found[4] or 1), int(found[5] or 0))
        _check_order(run, num, place)
        _check_first(found, run, mesh, machine, place)
        starts = run.gpu + run.step * np.arange(run.count, dtype=np.int64)
        parts.append((starts[:, None] + np.arange(run.length, dtype=np.int64)).ravel())
        sizes.append(run.length * run.count)
        num += sizes[-1]
        at_lines.append(lines.at)
        firsts.append(run.gpu)
        leaves.append(found[10])
        if num > _MAX_RANKS:
            raise InvalidInputError(
                "too many ranks", where=place, got=str(num), expected=f"at most {_MAX_RANKS}"
            )
    end = lines.next(_END, "end ranks=..")
    if lines.at != len(lines.lines):
        raise InvalidInputError(
            "a line after the end", where=lines.place, got=repr(lines.lines[lines.at])[:80]
        )
    gpu = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    read = RankLines(lines.file, gpu, np.repeat(np.array(at_lines, dtype=np.int64), sizes), len(lines.lines))
    if int(end[1]) != num:
        raise InvalidInputError(
            f"rank {num} is missing" if num < int(end[1]) else f"rank {end[1]} is one too many",
            where=Place(lines.file, lines.at),
            got=f"{num} ranks before the end",
            expected=end[1],
        )
    if fabric_of is not None and firsts and max(firsts) < machine.num_gpus:
        right = fabric_of().leaf(np.array(firsts, dtype=np.int64)).tolist()
        for leaf, says, at in zip(right, leaves, at_lines, strict=True):
            if says not in {"-", str(leaf)}:
                raise InvalidInputError(
                    "the leaf is another", where=Place(lines.file, at), got=says, expected=str(leaf)
                )
    return read


def _check_order(run: RankRuns, num: int, place: Place) -> None:
    if run.length < 1 or run.count < 1:
        raise InvalidInputError("a line without ranks", where=place, got=f"n={run.length} x={run.count}")
    if run.rank != num:
        what = f"rank {num} is missing" if run.rank > num else f"rank {run.rank} stands twice"
        raise InvalidInputError(what, where=place, got=f"rank {run.rank}", expected=f"rank {num}")
    if run.count * run.length > _MAX_RANKS:
        raise InvalidInputError("too many ranks", where=place, got=str(run.count * run.length))


def _check_first(found: re.Match[str], run: RankRuns, mesh: Mesh, machine: Machine, place: Place) -> None:
    if run.rank >= mesh.num_ranks:
        raise InvalidInputError(
            f"rank {run.rank} is one too many",
            where=place,
            got="a further line",
            expected=f"{mesh.num_ranks} ranks",
        )
    says = (found[6], found[7], found[8], found[9])
    right = (
        describe_rank(mesh, run.rank),
        str(run.gpu // machine.gpus_per_host),
        str(run.gpu % machine.gpus_per_host),
        str(run.gpu // machine.domain_size),
    )
    for name, said, is_right in zip(("at", "host", "place", "rack"), says, right, strict=True):
        if said != is_right:
            raise InvalidInputError(
                f"{name} does not fit rank and GPU",
                where=place,
                got=f"{name}={said}",
                expected=f"{name}={is_right} for rank {run.rank} on GPU {run.gpu}",
            )
