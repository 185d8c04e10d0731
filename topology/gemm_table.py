"""Matrix products that a user has timed on a GPU: a CSV file with the columns ``dtype,m,n,k,us``.

A row is one product C[m,n] = A[m,k] B[k,n] in a number format (``fp32 bf16 fp8 fp4``) and its time in
microseconds. The first line names the columns; empty lines and lines that start with ``#`` are skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

from exactmap.errors import InvalidInputError, Place

__all__ = ["GEMM_COLUMNS", "GemmTable", "GemmTiming", "read_gemm_table"]

GEMM_COLUMNS: Final = ("dtype", "m", "n", "k", "us")
_DTYPES = ("fp32", "bf16", "fp8", "fp4")
_MAX_LISTED = 20
_MAX_SIZE_BYTES = 16 * 2**20


class GemmTiming(NamedTuple):
    """One timed product; `line` is its line in the file."""

    dtype: str
    m: int
    n: int
    k: int
    us: float
    line: int = 0

    @property
    def flop_per_s(self) -> float:
        """Rate that the product reached."""
        return 2e6 * self.m * self.n * self.k / self.us


@dataclass(frozen=True, slots=True)
class GemmTable:
    """Timed products of one GPU.

    Parameters
    ----------
    path
        The file that they were read from, absolute.
    rows
        The products, each shape of a format once.
    """

    path: Path
    rows: tuple[GemmTiming, ...] = field(repr=False, hash=False)


def read_gemm_table(path: str | Path) -> GemmTable:
    """Read timed products strictly.

    Parameters
    ----------
    path
        The CSV file.

    Raises
    ------
    InvalidInputError
        If the file cannot be read, has other columns, or rows that are no timings; all problems are listed,
        each with its line.
    """
    path = Path(path).resolve()
    lines = _lines(path)
    numbered = [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and line.lstrip()[0] != "#"
    ]
    header = ",".join(GEMM_COLUMNS)
    if not numbered or _cells(numbered[0][1]) != list(GEMM_COLUMNS):
        raise InvalidInputError(
            "not a table of matrix products",
            where=Place(path, numbered[0][0] if numbered else 1),
            got=repr(numbered[0][1][:60]) if numbered else "nothing",
            expected=f"the columns {header} in the first line",
        )
    problems: list[InvalidInputError] = []
    rows: dict[tuple[str, int, int, int], GemmTiming] = {}
    for number, line in numbered[1:]:
        try:
            row = _row(path, number, _cells(line))
            first = rows.setdefault(row[:4], row)
            if first is not row:
                shape = f"{row.dtype} {row.m} x {row.n} x {row.k}"
                raise InvalidInputError(
                    "a product stands twice",
                    where=Place(path, number),
                    got=f"{shape}, also in line {first.line}",
                )
        except InvalidInputError as error:
            problems.append(error)
    if not rows and not problems:
        place = Place(path, numbered[0][0])
        raise InvalidInputError("the table has no rows", where=place, expected=f"rows below {header}")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        more = len(problems) - _MAX_LISTED
        raise InvalidInputError(
            f"{len(problems)} problems in {path}",
            problems=problems[:_MAX_LISTED],
            hint=f"{more} more follow from there" if more > 0 else None,
        )
    return GemmTable(path, tuple(rows.values()))


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_SIZE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise InvalidInputError(
            "cannot read the table of matrix products", where=Place(path), got=error.strerror or str(error)
        ) from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            "the file is not UTF-8", where=Place(path), got=f"a wrong byte at offset {error.start}"
        ) from None
    if len(data) > _MAX_SIZE_BYTES:
        raise InvalidInputError(
            "the file is too large", where=Place(path), got="more than 16 MiB", expected="at most 16 MiB"
        )
    return text.splitlines()


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _row(path: Path, number: int, cells: list[str]) -> GemmTiming:
    if len(cells) != len(GEMM_COLUMNS):
        raise InvalidInputError(
            "a row of another length",
            where=Place(path, number),
            got=f"{len(cells)} cells",
            expected=f"{len(GEMM_COLUMNS)}: {','.join(GEMM_COLUMNS)}",
        )
    dtype, *sizes, micros = cells
    if dtype not in _DTYPES:
        raise InvalidInputError(
            "unknown number format",
            where=Place(path, number, "dtype"),
            got=repr(dtype),
            expected=" or ".join(_DTYPES),
        )
    m, n, k = (_size(path, number, name, cell) for name, cell in zip("mnk", sizes, strict=True))
    try:
        us = float(micros)
    except ValueError:
        us = 0.0
    if not (isfinite(us) and us > 0.0):
        raise InvalidInputError(
            "not a time", where=Place(path, number, "us"), got=repr(micros), expected="microseconds, above 0"
        )
    return GemmTiming(dtype, m, n, k, us, number)


def _size(path: Path, number: int, name: str, cell: str) -> int:
    if not (cell.isascii() and cell.isdigit() and 0 < len(cell) <= 12 and int(cell) > 0):
        raise InvalidInputError(
            "not a size", where=Place(path, number, name), got=repr(cell), expected="a whole number from 1 on"
        )
    return int(cell)
