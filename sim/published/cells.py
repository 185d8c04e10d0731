"""Cells of a row as numbers and words, with errors that name the column."""

from __future__ import annotations

from math import isfinite

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.published.row import Row

__all__ = ["integer", "number", "optional_integer", "words"]

_MOST = 10**9


def integer(row: Row, column: str, default: int | None = None, *, least: int = 1) -> int:
    """Whole number in a column; without a default it must be there.

    Raises
    ------
    InvalidInputError
        If it is missing, no whole number, or out of range.
    """
    text = row[column]
    if not text:
        if default is None:
            raise InvalidInputError(
                "a field is empty without which there is no price", where=Place(field=column), got="nothing"
            )
        return default
    value = number(row, column)
    if value != int(value) or not least <= value <= _MOST:
        raise InvalidInputError(
            "not a whole number in range",
            where=Place(field=column),
            got=text[:40],
            expected=f"{least} to {_MOST}",
        )
    return int(value)


def optional_integer(row: Row, column: str) -> int:
    """Whole number in a column, 0 if it is empty or not a number (words are read elsewhere)."""
    text = row[column]
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def number(row: Row, column: str) -> float:
    """Finite number in a column."""
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise InvalidInputError("not a number", where=Place(field=column), got=row[column][:40])
    return value


def words(row: Row, column: str = "flags") -> frozenset[str]:
    """Words of a column, commas and semicolons dropped, in lower case."""
    text = row[column].lower().replace(",", " ").replace(";", " ")
    return frozenset(text.split())
