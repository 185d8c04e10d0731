"""A table of runs that a user names: read, or the one that comes with exactmap; one of its rows chosen."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.batch import read_rows
from exactmap.sim.published.row import Row

__all__ = ["PUBLISHED", "choose_row", "read_row_table", "rows_of"]

PUBLISHED = "published"
"""Stands for the runs that come with exactmap."""
_MOST_BYTES = 512 * 2**20
_NAMED = 3


def read_row_table(source: Path) -> list[Row]:
    """Read a CSV table in the layout of the published runs.

    Raises
    ------
    InvalidInputError
        If the file is no such table.
    """
    content = read_bytes(source, _MOST_BYTES, "table")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InvalidInputError("not UTF-8 text", where=Place(source, line)) from None
    if "\0" in text:
        raise InvalidInputError(
            "not a CSV table: it has NUL bytes", where=Place(source, text[: text.index("\0")].count("\n") + 1)
        )
    return list(read_rows(source, text))


def rows_of(source: str | Path) -> list[Row]:
    """Rows of a file, or of `PUBLISHED`."""
    return list(published_and_b200()) if str(source) == PUBLISHED else read_row_table(Path(source))


def choose_row(source: str | Path, rows: Sequence[Row], name: str | None, number: int | None) -> Row:
    """One row of a table.

    Parameters
    ----------
    source
        The table's name, for messages.
    rows
        All of them.
    name
        The row's ``id``; None: not chosen by name.
    number
        Which row, from 1; None: not chosen by number. Without both the table has one row.

    Raises
    ------
    InvalidInputError
        If there is no such row, or no telling which one.
    """
    where = str(source)
    if name is not None and number is not None:
        raise InvalidInputError("a row is chosen by id or by number", where=where, got="both", expected="one")
    if name is not None:
        found = [row for row in rows if row["id"] == name]
        if not found:
            near = get_close_matches(name, [row["id"] for row in rows], n=_NAMED, cutoff=0.6)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else None
            raise InvalidInputError("no row has this id", where=where, got=repr(name), hint=hint)
        if len(found) > 1:
            lines = ", ".join(str(row.line) for row in found[:_NAMED])
            raise InvalidInputError(
                "several rows have this id", where=where, got=f"lines {lines}", hint="choose one with --row"
            )
        return found[0]
    if number is not None:
        if not 1 <= number <= len(rows):
            raise InvalidInputError(
                "there is no such row", where=where, got=str(number), expected=f"1 to {len(rows):,}"
            )
        return rows[number - 1]
    if len(rows) != 1:
        first = ", ".join(row["id"] for row in rows[:_NAMED] if row["id"])
        raise InvalidInputError(
            "which row?",
            where=where,
            got=f"{len(rows):,} rows",
            expected="--id or --row",
            hint=f"the first are {first}" if first else None,
        )
    return rows[0]
