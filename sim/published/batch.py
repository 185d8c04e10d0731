"""Many rows from a user's file, priced one by one into a table; a row that cannot be priced says why."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from exactmap.errors import ExactmapError, InvalidInputError, Place
from exactmap.sim.published.row import Row
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.step.parts import PartGroup, group_of
from exactmap.sim.step.predict import StepPrediction, predict_step

__all__ = ["OUTPUT_COLUMNS", "read_rows", "result_line"]

_NEEDED = ("gpu", "n_gpus", "hidden", "layers", "seq_len", "gbs")
_AXES = ("tp", "cp", "ep", "dp", "pp")
OUTPUT_COLUMNS = (
    "id",
    "predicted_s",
    "low_s",
    "high_s",
    "mem_gib",
    "status",
    "reason",
    "compute_s",
    *(f"{axis}_s" for axis in _AXES),
    "bubble_s",
    "optimizer_s",
    "host_s",
    "assumed",
    "warnings",
)


def read_rows(path: str | Path, text: str) -> Iterator[Row]:
    """Yield the rows of a table in the layout of published runs; columns may be in any order.

    Raises
    ------
    InvalidInputError
        If the text is no such table.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        head = next(reader, None)
        if not head or not any(name.strip() for name in head):
            raise InvalidInputError(
                "an empty table", where=Place(path, 1), expected="a first line that names the columns"
            )
        columns = [name.strip().lower().lstrip("\ufeff") for name in head]
        missing = [name for name in _NEEDED if name not in columns]
        if missing:
            raise InvalidInputError(
                "the table has not the columns of a published run",
                where=Place(path, 1),
                got=", ".join(columns)[:80],
                expected=", ".join(missing) + " as well",
            )
        twice = {name for name in columns if name and columns.count(name) > 1}
        if twice:
            raise InvalidInputError(
                "a column stands twice", where=Place(path, 1), got=", ".join(sorted(twice))
            )
        for cells in reader:
            if cells:
                padded = cells[: len(columns)] + [""] * (len(columns) - len(cells))
                yield Row(dict(zip(columns, padded, strict=True)), reader.line_num)
    except csv.Error as error:
        raise InvalidInputError(
            "not a CSV table", where=Place(path, reader.line_num), got=str(error)
        ) from None


def result_line(row: Row) -> dict[str, str]:
    """Price a row: its line of the result, by column."""
    out = dict.fromkeys(OUTPUT_COLUMNS, "")
    out["id"] = row["id"]
    try:
        setup = setup_of(row)
        prediction = predict_step(setup)
    except ExactmapError as error:
        out["status"], out["reason"] = "refused", " ".join(str(error).split())
        return out
    except (ArithmeticError, MemoryError, RecursionError) as error:
        out["status"], out["reason"] = "refused", f"sizes beyond what can be priced ({type(error).__name__})"
        return out
    out["status"] = "predicted"
    _fill(out, prediction)
    out["assumed"] = "; ".join(setup.assumed)
    return out


def _fill(out: dict[str, str], prediction: StepPrediction) -> None:
    def seconds(time_ns: float) -> str:
        return f"{time_ns / 1e9:.6g}"

    out["predicted_s"] = seconds(prediction.step_ns)
    out["low_s"], out["high_s"] = seconds(prediction.low_ns), seconds(prediction.high_ns)
    if prediction.memory_bytes:
        out["mem_gib"] = f"{prediction.memory_bytes / 2**30:.5g}"
    sums: dict[str, float] = {}
    for name, time in prediction.parts_ns.items():
        group = group_of(name)
        key = group.value
        if group is PartGroup.COMMUNICATION:
            axis = name.split(" ", maxsplit=1)[0]
            key = axis if axis in _AXES else "tp" if axis == "etp" else "dp"
        sums[key] = sums.get(key, 0.0) + time
    for key, time in sums.items():
        out[f"{key}_s"] = seconds(time)
    out["warnings"] = "; ".join(prediction.warnings)
