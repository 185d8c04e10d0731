"""One published run as its row states it, and the columns that a prediction may read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from zlib import crc32

__all__ = ["RESULT_COLUMNS", "UNREAD_COLUMNS", "Row", "may_fit", "published_rows"]

RESULT_COLUMNS = ("step_time_s", "step_time_kind", "tok_s_gpu", "tflops_gpu", "mfu_pct", "mem_gib")
"""What was measured."""
UNREAD_COLUMNS = ("id", "set", "mark", "source", "notes", "other", *RESULT_COLUMNS)
"""Columns that no prediction reads."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: text by column; a column that is not there is empty."""

    values: Mapping[str, str]
    line: int = 0

    def __getitem__(self, column: str) -> str:
        """Text of a column."""
        return (self.values.get(column) or "").strip()


def may_fit(row: Row) -> bool:
    """Whether constants may be fitted on a row: one in three, by the checksum of its id; never vtrain_multi.

    In vtrain_single groups of equal model, GPU count and batch stay together, one group in four.
    """
    name = row["set"]
    if name == "vtrain_multi":
        return False
    if name == "vtrain_single":
        return crc32(f"{row['model']}/{row['n_gpus']}/{row['gbs']}".encode()) % 4 == 0
    return crc32(row["id"].encode()) % 3 == 0


def published_rows(name: str = "published.csv") -> Iterator[Row]:
    """Yield the rows of a packaged table."""
    text = files("exactmap.sim.published").joinpath("data", name).read_text(encoding="utf-8")
    for number, values in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        yield Row(values, number)
