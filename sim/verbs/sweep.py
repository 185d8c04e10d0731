"""Plan a scenario at every combination of some settings; finished points are kept."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from exactmap.errors import InvalidInputError
from exactmap.files import write_atomically
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.verbs.input_kind import InputKind, refuse_others
from exactmap.sim.verbs.sweep_grid import Setting, overrides_of, points_of, read_settings
from exactmap.sim.verbs.sweep_point import RESULT_COLUMNS, Job, Row, key_of, read_kept, work

__all__ = ["Sweep", "sweep"]

Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep that is done.

    Parameters
    ----------
    scenario
        Its file.
    settings
        What was swept.
    rows
        A row for each point, in the order of the points: the settings' values, then `RESULT_COLUMNS`.
    num_kept
        Points that were done before.
    path
        The table, if one was written.
    """

    scenario: Path
    settings: tuple[Setting, ...]
    rows: tuple[Row, ...]
    num_kept: int
    path: Path | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of a row's values: settings, then results that are not settings."""
        names = [setting.name for setting in self.settings]
        return (*names, *(name for name in RESULT_COLUMNS if name not in names))

    @property
    def best(self) -> Row | None:
        """The point with most tokens per second; None if no point has a plan."""
        done = [row for row in self.rows if row["status"] == "done"]
        return max(done, key=_rate, default=None)

    def to_csv(self) -> str:
        """The rows as CSV; what is not known is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def to_dict(self) -> dict[str, object]:
        """The sweep as a JSON-ready document."""
        return {
            "schema_version": 1,
            "kind": "sweep",
            "scenario": str(self.scenario),
            "settings": {setting.name: list(setting.values) for setting in self.settings},
            "num_points": len(self.rows),
            "num_kept": self.num_kept,
            "rows": list(self.rows),
            "path": None if self.path is None else str(self.path),
        }


def _rate(row: Row) -> float:
    return float(row["tokens_per_s"] or 0.0)


def sweep(
    scenario: str | Path,
    settings: Sequence[str],
    *,
    out: str | Path | None = None,
    num_finalists: int = 1,
    jobs: int | None = None,
    keep_plans: bool = False,
    progress: Progress | None = None,
) -> Sweep:
    """Plan a scenario at every combination of the settings' values.

    A point that is wrong, or that no plan fits, is a row that says so.

    Parameters
    ----------
    scenario
        Its file.
    settings
        ``name=value,value``: a field of the scenario, or a short name (`sweep_grid.SHORT_NAMES`).
    out
        Folder for ``results.csv`` and the finished points; points that are there already are not done again.
        None: nothing is kept.
    num_finalists
        Candidates of each point that are simulated as whole plans.
    jobs
        Processes; None: one for each core.
    keep_plans
        Whether the plan of each point is written, too.
    progress
        Told how far the sweep is.

    Raises
    ------
    InvalidInputError
        If the scenario itself is wrong, or a setting is.
    """
    path = Path(scenario)
    refuse_others(path, "a scenario", InputKind.SCENARIO)
    load_scenario(path)
    if keep_plans and out is None:
        raise InvalidInputError("no folder for the plans", where="--keep-plans", hint="give -o FOLDER")
    asked = read_settings(settings)
    points = points_of(asked)
    content = path.read_bytes()
    folder = None if out is None else Path(out)
    todo = [Job(str(path), overrides_of(asked, point), num_finalists) for point in points]
    if folder is not None:
        (folder / "points").mkdir(parents=True, exist_ok=True)
        todo = [_in_folder(job, folder, key_of(job, content), keep_plans=keep_plans) for job in todo]
    found: dict[int, Row] = {}
    for number, job in enumerate(todo):
        kept = None if job.kept is None else read_kept(Path(job.kept))
        if kept is not None and (job.plan is None or kept["status"] != "done" or Path(job.plan).exists()):
            found[number] = kept
    num_kept = len(found)
    left = {number: job for number, job in enumerate(todo) if number not in found}
    # Closed at once, not when it is collected: a sweep that is stopped must not work off its queue.
    with closing(_work_all(left, jobs or os.cpu_count() or 1)) as results:
        for number, row in results:
            found[number] = row
            if progress is not None:
                progress(len(found) / len(todo), ", ".join(points[number]))
    rows = tuple(
        found[number] | {setting.name: value for setting, value in zip(asked, point, strict=True)}
        for number, point in enumerate(points)
    )
    outcome = Sweep(path, asked, rows, num_kept, None)
    if folder is not None:
        outcome = replace(outcome, path=folder / "results.csv")
        write_atomically(folder / "results.csv", outcome.to_csv().encode())
    return outcome


def _in_folder(job: Job, folder: Path, key: str, *, keep_plans: bool) -> Job:
    plan = str(folder / "points" / f"{key}.plan") if keep_plans else None
    return replace(job, kept=str(folder / "points" / f"{key}.json"), plan=plan)


def _work_all(todo: dict[int, Job], jobs: int) -> Generator[tuple[int, Row]]:
    """Rows as they are done; in processes of their own where there are several points and cores."""
    if jobs == 1 or len(todo) < 2:
        for number, job in todo.items():
            yield number, work(job)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(todo)), mp_context=context)
    try:
        futures = {pool.submit(work, job): number for number, job in todo.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        # Waited for: a pool that is collected before its thread wakes works off the queue that was cancelled.
        pool.shutdown(wait=True, cancel_futures=True)
