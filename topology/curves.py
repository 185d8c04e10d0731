"""Measured times of collectives, by operation, ranks, domains and size.

The catalog's table (``catalog/nvlink-collectives.csv``) holds NCCL times for 2, 4 and 8 ranks inside a
domain, from 512 B to 512 MiB. A user's own come from nccl-tests (`exactmap.topology.nccl_tests`) or from a
CSV of the same form. What is between, beside and beyond the points is for `exactmap.topology.collectives`
to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from exactmap.errors import InvalidInputError, Place

__all__ = [
    "Curve",
    "CurveKey",
    "Curves",
    "Point",
    "curve_names",
    "find_curves",
    "make_curves",
    "read_curves",
]

_MOST = 2**63
_FILE = "nvlink-collectives.csv"
_HEADS = (["gpu", "op", "ranks", "bytes", "us"], ["gpu", "op", "ranks", "domains", "bytes", "us"])
_OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "point_to_point")


class CurveKey(NamedTuple):
    """What a curve is of: operation, ranks, and the scale-up domains that they lie in."""

    op: str
    num_ranks: int
    num_domains: int = 1


class Point(NamedTuple):
    """One measured time."""

    key: CurveKey
    num_bytes: int
    time_ns: float


class Curve(NamedTuple):
    """Times of one collective on one group: sizes ascending, and a time for each."""

    num_bytes: tuple[int, ...]
    time_ns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """Measured collectives of one kind of machine.

    Parameters
    ----------
    name
        Whose they are.
    release
        What was measured: library, version, settings.
    by_key
        The curves.
    files
        Where a user's own were read.
    """

    name: str
    release: str
    by_key: Mapping[CurveKey, Curve]
    files: tuple[str, ...] = ()

    def ranks(self, op: str, num_domains: int = 1) -> tuple[int, ...]:
        """Group sizes measured, ascending."""
        return tuple(
            sorted(key.num_ranks for key in self.by_key if (key.op, key.num_domains) == (op, num_domains))
        )

    def over(self, other: Curves | None) -> Curves:
        """These curves, and those of `other` that are not among them."""
        if other is None:
            return self
        return Curves(self.name, self.release, {**other.by_key, **self.by_key}, self.files + other.files)

    def without(self, *keys: CurveKey) -> Curves:
        """All but some curves."""
        kept = {key: curve for key, curve in self.by_key.items() if key not in keys}
        return Curves(self.name, self.release, kept, self.files)


def make_curves(name: str, release: str, points: Iterable[Point], sources: tuple[str, ...] = ()) -> Curves:
    """Sort points into curves; of points at one size the fastest counts."""
    by_key: dict[CurveKey, dict[int, float]] = {}
    for key, num_bytes, time_ns in points:
        curve = by_key.setdefault(key, {})
        curve[num_bytes] = min(time_ns, curve.get(num_bytes, time_ns))
    curves = {
        key: Curve(tuple(sorted(curve)), tuple(curve[size] for size in sorted(curve)))
        for key, curve in sorted(by_key.items())
    }
    return Curves(name, release, curves, sources)


def read_curves(text: str, path: str | Path) -> dict[str, Curves]:
    """Read a CSV of the catalog's form: columns gpu, op, ranks, (domains,) bytes, us; ``#`` begins a comment.

    Raises
    ------
    InvalidInputError
        If a line is no point; it is named.
    """
    points: dict[str, list[Point]] = {}
    head: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip() for cell in line.split(",")]
        if not line.strip() or line.startswith("#"):
            continue
        if head is None:
            head = cells
            if head not in _HEADS:
                raise InvalidInputError(
                    "not a table of collectives",
                    where=Place(str(path), number),
                    got=line[:80],
                    expected=" or ".join(",".join(columns) for columns in _HEADS),
                )
            continue
        gpu, point = _point(dict(zip(head, cells, strict=False)), len(cells) == len(head), path, number, line)
        points.setdefault(gpu, []).append(point)
    if not points:
        raise InvalidInputError("a table of collectives without points", where=Place(str(path)))
    release = text.partition("\n")[0].removeprefix("#").strip() if text.startswith("#") else ""
    return {gpu: make_curves(gpu, release, of_gpu, (str(path),)) for gpu, of_gpu in points.items()}


def _point(
    cells: Mapping[str, str], is_whole: bool, path: str | Path, number: int, line: str
) -> tuple[str, Point]:
    def wrong(what: str, expected: str) -> InvalidInputError:
        return InvalidInputError(what, where=Place(str(path), number), got=line[:80], expected=expected)

    if not is_whole:
        raise wrong("a line of the table is cut short or too long", "one value per column")
    try:
        ranks, domains = int(cells["ranks"]), int(cells.get("domains", "1"))
        num_bytes, time_ns = int(cells["bytes"]), float(cells["us"]) * 1000.0
    except ValueError:
        raise wrong("a line of the table holds no numbers", "whole ranks and bytes, us") from None
    if ranks < 2 or domains < 1 or ranks % domains:
        raise wrong("a number is out of range", "ranks from 2 that domains divide")
    if not 1 <= num_bytes < _MOST or not 1.0 <= time_ns < _MOST:
        raise wrong("a number is out of range", "bytes from 1 and us from 0.001, in 63 bits as bytes and ns")
    if cells["op"] not in _OPS:
        raise wrong("unknown operation", ", ".join(_OPS))
    return cells["gpu"], Point(CurveKey(cells["op"], ranks, domains), num_bytes, time_ns)


@cache
def _tables() -> dict[str, Curves]:
    text = files("exactmap.topology").joinpath("catalog", _FILE).read_text(encoding="utf-8")
    return read_curves(text, _FILE)


def curve_names() -> frozenset[str]:
    """GPUs that have measured collectives in the catalog."""
    return frozenset(_tables())


def find_curves(name: str) -> Curves | None:
    """Curves of the catalog by name, or None."""
    return _tables().get(name)
