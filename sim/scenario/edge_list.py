"""A fabric of one's own as a file: one cable per line, ``a,b,rate,tier``.

::

    a,b,rate,tier
    gpu 0,leaf 0,400 Gb/s,0
    leaf 0,spine 0,800 Gb/s,1

Nodes named ``gpu N`` are GPUs, all others switches; the rate is that of each direction; the tier is 0 at a
GPU. Lines that are empty or begin with ``#`` are left out. What the edges must be as a whole is
`exactmap.topology.fabric.user_graph`'s to say; here its problems get their lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from exactmap.errors import ExactmapError, InfeasibleError, InvalidInputError, Place
from exactmap.files import read_bytes
from exactmap.sim.scenario.units import parse_bytes_per_s
from exactmap.topology.fabric.spec import Switch
from exactmap.topology.fabric.user_graph import Edge, check_edges

__all__ = ["EDGE_COLUMNS", "find_graph_problems", "read_edge_list"]

EDGE_COLUMNS = ("a", "b", "rate", "tier")
_MAX_SIZE_BYTES = 16 * 2**20
_MAX_LISTED = 20
_GRAPH = "cluster.fabric.graph."


def read_edge_list(path: str | Path) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
    """Read the edges of a file, and the line of each.

    Raises
    ------
    InvalidInputError
        If the file cannot be read or a line is no edge; all problems are listed, each with its line.
    """
    try:
        text = read_bytes(path, _MAX_SIZE_BYTES, "graph of the fabric").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            "the file is not UTF-8", where=Place(path), got=f"a wrong byte at offset {error.start}"
        ) from None
    numbered = [
        (number, [cell.strip() for cell in line.split(",")])
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    header = ",".join(EDGE_COLUMNS)
    if not numbered or numbered[0][1] != list(EDGE_COLUMNS):
        raise InvalidInputError(
            "not a list of edges",
            where=Place(path, numbered[0][0] if numbered else 1),
            got=repr(",".join(numbered[0][1])[:60]) if numbered else "nothing",
            expected=f"the columns {header} in the first line",
        )
    edges: list[Edge] = []
    problems: list[ExactmapError] = []
    for number, cells in numbered[1:]:
        try:
            edges.append(_edge(Path(path), number, cells))
        except InvalidInputError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise InvalidInputError(f"{len(problems)} problems in {path}", problems=problems[:_MAX_LISTED])
    return tuple(edges), tuple(number for number, _ in numbered[1:])


def find_graph_problems(
    edges: Sequence[Edge], num_gpus: int, switches: Sequence[Switch], place: Callable[[int | None], Place]
) -> list[ExactmapError]:
    """What is wrong with edges as a fabric, each problem at the `place` of its edge (None: of all)."""
    try:
        check_edges(edges, num_gpus, switches)
    except (InvalidInputError, InfeasibleError) as error:
        found = list(error.problems or (error,))
        for problem in found:
            field = problem.where.field if isinstance(problem.where, Place) else None
            is_one = field is not None and field.startswith(_GRAPH)
            problem.where = place(int(field.removeprefix(_GRAPH)) if is_one and field else None)
        return found
    return []


def _edge(path: Path, number: int, cells: list[str]) -> Edge:
    if len(cells) != len(EDGE_COLUMNS):
        raise InvalidInputError(
            "a row of another length",
            where=Place(path, number),
            got=f"{len(cells)} cells",
            expected=f"{len(EDGE_COLUMNS)}: {','.join(EDGE_COLUMNS)}",
        )
    first, second, rate, tier = cells
    if not first or not second:
        raise InvalidInputError("an edge joins two nodes", where=Place(path, number), got=",".join(cells))
    try:
        rate_bytes_per_s = parse_bytes_per_s(rate)
    except InvalidInputError as error:
        error.where = Place(path, number, "rate")
        raise
    if not (tier.isascii() and tier.isdigit() and len(tier) <= 2):
        raise InvalidInputError(
            "not a tier", where=Place(path, number, "tier"), got=repr(tier), expected="a whole number from 0"
        )
    return first, second, float(rate_bytes_per_s), int(tier)
