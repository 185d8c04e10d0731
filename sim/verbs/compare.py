"""Two results side by side: a prediction and an execution, two predictions, or two executions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.errors import CheckFailedError, InvalidInputError
from exactmap.files import write_atomically
from exactmap.sim.report.comparison import Comparison, compare_results
from exactmap.sim.report.result import StepResult, read_result
from exactmap.sim.verbs.folders import make_folder
from exactmap.sim.verbs.input_kind import InputKind, refuse_others

if TYPE_CHECKING:
    from exactmap.sim.engine.trace import Trace

__all__ = ["RESULT_FILES", "ComparisonReport", "compare", "find_result", "trace_of"]

RESULT_FILES = ("prediction.json", "execution.json")
RESULT_HINT = "write one with: exactmap simulate PLAN --out DIR, or exactmap run PLAN --out DIR"


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """The comparison and the files that were written."""

    comparison: Comparison
    files: tuple[Path, ...]

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        return self.comparison.to_dict() | {"files": [str(path) for path in self.files]}

    def require(self, fail_over: float) -> None:
        """Refuse step times that differ too much.

        Parameters
        ----------
        fail_over
            Largest difference that passes, as a share of the first result.

        Raises
        ------
        CheckFailedError
            If they differ by more.
        """
        difference = self.comparison.step_time_difference
        if abs(difference) > fail_over:
            raise CheckFailedError(
                "the step times differ too much",
                got=f"{100 * difference:+.2f} %",
                expected=f"at most {100 * fail_over:g} %",
            )


def compare(
    a: str | Path, b: str | Path, *, out: str | Path | None = None, fail_over: float | None = None
) -> ComparisonReport:
    """Compare two results.

    Parameters
    ----------
    a, b
        Each the folder that `simulate` or `run` wrote, or its JSON document. A prediction belongs first.
    out
        Folder for ``comparison.json`` and, where both traces are there, ``comparison.png`` (two lanes a rank)
        and ``comparison.trace.json``.
    fail_over
        Largest difference of the step time that passes, as a share of `a`.

    Raises
    ------
    InvalidInputError
        If one is no result.
    CheckFailedError
        If the step times differ by more than `fail_over`; what was asked for is written first.
    """
    if fail_over is not None and not 0 <= fail_over < inf:
        raise InvalidInputError(
            "the bound of the difference is no share", got=str(fail_over), expected="a share, such as 0.1"
        )
    paths = find_result(a), find_result(b)
    comparison = compare_results(read_result(paths[0]), read_result(paths[1]))
    files: list[Path] = []
    if out is not None:
        folder = make_folder(out)
        files += [folder / "comparison.json", *_draw(comparison, paths, folder)]
        document = ComparisonReport(comparison, tuple(files)).to_dict()
        write_atomically(files[0], json.dumps(document, indent=1, allow_nan=False) + "\n")
    report = ComparisonReport(comparison, tuple(files))
    if fail_over is not None:
        report.require(fail_over)
    return report


def find_result(path: str | Path) -> Path:
    """The result document that `path` is, or that lies in it."""
    here = Path(path)
    if not here.is_dir():
        refuse_others(here, "a result", InputKind.DOCUMENT, hint=RESULT_HINT)
        return here
    for name in RESULT_FILES:
        if (here / name).is_file():
            return here / name
    raise InvalidInputError(
        "no result in this folder",
        where=str(path),
        expected=" or ".join(RESULT_FILES),
        hint=RESULT_HINT,
    )


def trace_of(result: StepResult, document: Path) -> Trace | None:
    """One step of the trace beside a result: the one whose makespan is the median; None without trace."""
    from exactmap.sim.engine.trace_file import read_trace

    path = document.parent / result.trace
    if not result.trace or not path.is_file():
        return None
    trace = read_trace(path)
    steps = [trace.of_step(step) for step in trace.steps]
    steps.sort(key=lambda step: step.summary().makespan_ns)
    return steps[(len(steps) - 1) // 2]


def _draw(comparison: Comparison, paths: tuple[Path, Path], folder: Path) -> list[Path]:
    first, second = trace_of(comparison.a, paths[0]), trace_of(comparison.b, paths[1])
    if first is None or second is None:
        return []
    from exactmap.sim.report.lanes import chrome_lanes, paired_timeline
    from exactmap.sim.report.pictures import save_figure
    from exactmap.sim.report.timeline import draw_timeline, to_chrome_trace

    words = {"prediction": "predicted", "execution": "executed"}
    names = words[comparison.a.kind], words[comparison.b.kind]
    if names[0] == names[1]:
        names = f"{names[0]} a", f"{names[1]} b"
    title = f"step time {100 * comparison.step_time_difference:+.1f} %, {names[1]} against {names[0]}"
    files = [folder / "comparison.png", folder / "comparison.trace.json"]
    save_figure(draw_timeline(paired_timeline(first, second, names, title)), files[0])
    lanes = [chrome_lanes(trace, name) for trace, name in zip((first, second), names, strict=True)]
    write_atomically(files[1], to_chrome_trace(lanes))
    return files
