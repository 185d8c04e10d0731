"""Cells of a row as numbers and words, with errors that name the column."""

from __future__ import annotations

from math import isfinite

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.published.row import Row

__all__ = ["decimal", "flag_number", "integer", "is_on", "number", "optional_integer", "words"]

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
    return decimal(row[column].removesuffix(".0"))


def decimal(text: str) -> int:
    """Whole number that a text is, up to nine digits; 0 if it is something else.

    Examples
    --------
    >>> decimal("64"), decimal("four"), decimal("9" * 5000)
    (64, 0, 0)
    """
    return int(text) if text.isdecimal() and len(text) < 10 else 0


def is_on(row: Row, column: str) -> bool:
    """Whether a switch is on: 1, also as tables with gaps are often written (1.0), or a word for it."""
    return row[column].lower() in ("1", "1.0", "true", "yes", "on")


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


def flag_number(row: Row, name: str) -> int | None:
    """Number of a word ``name=number`` among the flags; None if there is no such word."""
    for word in words(row):
        head, _, tail = word.partition("=")
        if head == name and tail.isdecimal() and len(tail) < 7:
            return int(tail)
    return None
