"""Price published runs, or any rows in their layout, in one go."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exactmap.files import write_atomically
from exactmap.sim.published.batch import OUTPUT_COLUMNS, result_line
from exactmap.sim.verbs.row_table import read_row_table

__all__ = ["PredictReport", "predict"]


@dataclass(frozen=True, slots=True)
class PredictReport:
    """Predictions of a table's rows, in its order; `lines` are the result's, by column."""

    source: Path
    lines: tuple[dict[str, str], ...]

    @property
    def num_predicted(self) -> int:
        """Rows that have a price."""
        return sum(line["status"] == "predicted" for line in self.lines)

    def to_csv(self) -> str:
        """The result as a table."""
        text = io.StringIO()
        writer = csv.DictWriter(text, OUTPUT_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.lines)
        return text.getvalue()

    def to_dict(self) -> dict[str, object]:
        """The result as plain data."""
        return {
            "schema_version": 1,
            "kind": "prediction-table",
            "num_rows": len(self.lines),
            "num_predicted": self.num_predicted,
            "predictions": list(self.lines),
        }


def predict(
    rows: str | Path, *, out: str | Path | None = None, progress: Callable[[float, str], None] | None = None
) -> PredictReport:
    """Predict the step of every row of a table.

    Parameters
    ----------
    rows
        A CSV table in the layout of the published runs (docs/reference/rows.md). Names, sources, notes and
        results are not read.
    out
        Where to write the predictions: one line per row, in order; nothing is written if the table is
        invalid.
    progress
        Told the fraction done.

    Returns
    -------
    PredictReport
        A line per row; a row that cannot be priced has the status ``refused`` and a reason.

    Raises
    ------
    InvalidInputError
        If the file is no such table.
    """
    source = Path(rows)
    read = read_row_table(source)
    lines = []
    for number, row in enumerate(read):
        lines.append(result_line(row))
        if progress is not None and number % 256 == 0:
            progress(number / len(read), "pricing rows")
    report = PredictReport(source, tuple(lines))
    if out is not None:
        write_atomically(out, report.to_csv())
    return report
