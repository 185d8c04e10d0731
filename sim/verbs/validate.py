"""How right predictions are, on every published run that the inputs cover."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import CheckFailedError, InvalidInputError
from exactmap.files import write_atomically
from exactmap.sim.published.accuracy import Accuracy, judge_published, published_and_b200
from exactmap.sim.published.bars import Bar, bars_of
from exactmap.sim.published.checked_range import checked_range_csv
from exactmap.sim.published.gate import gate_problems, read_record

if TYPE_CHECKING:
    from exactmap.sim.published.fit import FreeConstant

__all__ = ["ValidateReport", "validate"]


@dataclass(frozen=True, slots=True)
class ValidateReport:
    """What was judged, the bars, and what a record was held against."""

    accuracy: Accuracy
    bars: tuple[Bar, ...]
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The report as plain data."""
        return {
            **self.accuracy.to_dict(),
            "bars": [
                {
                    "what": bar.what,
                    "limit": bar.limit,
                    "found": bar.found,
                    "at_least": bar.at_least,
                    "reached": bar.reached,
                }
                for bar in self.bars
            ],
            "problems": list(self.problems),
        }


def validate(
    *,
    gate: str | Path | None = None,
    record: str | Path | None = None,
    page: str | Path | None = None,
    picture: str | Path | None = None,
) -> ValidateReport:
    """Predict all published rows and compare.

    Parameters
    ----------
    gate
        A record to hold the result against.
    record
        Where to write one.
    page
        A Markdown page whose marked region is replaced by the tables.
    picture
        Where to draw predicted against measured.

    Raises
    ------
    InvalidInputError
        If `gate` is no record.
    CheckFailedError
        If a part got worse than `gate` by a tenth, or a row stopped predicting.
    """
    before = read_record(gate) if gate is not None else None
    accuracy = judge_published()
    problems = tuple(gate_problems(before, accuracy)) if before is not None else ()
    report = ValidateReport(accuracy, tuple(bars_of(accuracy)), problems)
    if record is not None:
        write_atomically(record, json.dumps(_rounded(accuracy.to_dict()), indent=1, sort_keys=True) + "\n")
    if page is not None or picture is not None:
        from exactmap.sim.report.accuracy import draw_accuracy, write_accuracy_page

        if page is not None:
            write_accuracy_page(page, accuracy, report.bars)
        if picture is not None:
            draw_accuracy(picture, accuracy)
    if problems:
        raise CheckFailedError(
            f"predictions got worse than {gate}: " + "; ".join(problems[:8]),
            hint="refresh the record with --record if that is meant",
        )
    return report


def _rounded(value: object) -> object:
    """Floats to five digits: a record does not move with the last bit."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def fit_constants(
    folder: str | Path, *, only: str = "", report: Callable[[str], None] = lambda _: None
) -> dict[FreeConstant, tuple[float, int]]:
    """Fit the free constants and write ``constants.csv`` and ``checked-range.csv`` into a folder.

    Parameters
    ----------
    folder
        Where to write.
    only
        Scopes to fit, as ``gpu:H100,software:nemo``; empty: all.
    report
        Told of each round.

    Raises
    ------
    InvalidInputError
        If `only` names a scope that has no free constant.
    """
    from exactmap.sim.cost.kernels.constants import constants_text
    from exactmap.sim.published.fit import Fitter, fit_scatter, free_constants

    wanted = {word.strip() for word in only.split(",") if word.strip()}
    scopes = {f"{each.scope}:{each.whose}" for each in free_constants()}
    if unknown := sorted(wanted - scopes):
        raise InvalidInputError(
            "no constant of this scope may be fitted", got=unknown[0], expected=", ".join(sorted(scopes))
        )
    free = [each for each in free_constants() if not wanted or f"{each.scope}:{each.whose}" in wanted]
    fitter = Fitter(published_and_b200())
    found = fitter.fit(free, report)
    head = [line for line in constants_text().splitlines() if line.startswith(("#", "scope"))]
    rows = {
        tuple(cells[:3]): cells
        for cells in csv.reader(line for line in constants_text().splitlines() if line not in head)
        if cells
    }
    for constant, (value, number) in found.items():
        key = (constant.scope, constant.whose, constant.name)
        rows[key] = [*key, f"{value:.4g}", f"fitted on {number} rows"]
    for (gpu, name), (value, number) in fit_scatter(fitter).items():
        rows["gpu", gpu, name] = ["gpu", gpu, name, f"{value:.3g}", f"three quarters of {number} fitted rows"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows(rows[key] for key in sorted(rows))
    write_atomically(Path(folder) / "constants.csv", "\n".join(head) + "\n" + text.getvalue())
    write_atomically(Path(folder) / "checked-range.csv", checked_range_csv(published_and_b200()))
    return found
