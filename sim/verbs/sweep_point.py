"""One point of a sweep: planned, put into a row of plain values, and kept in a file of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from exactmap import __version__
from exactmap.errors import ExactmapError, InfeasibleError
from exactmap.files import write_atomically

__all__ = ["RESULT_COLUMNS", "Job", "Row", "key_of", "read_kept", "work"]

Row = dict[str, str | int | float | None]

RESULT_COLUMNS = (
    "status",
    "layout",
    "tp",
    "cp",
    "pp",
    "dp",
    "chunks",
    "microbatch",
    "num_microbatches",
    "schedule",
    "zero",
    "num_gpus",
    "step_s",
    "tokens_per_s",
    "bubble",
    "peak_gib",
    "num_candidates",
    "reason",
)
"""Columns of a row behind those of the settings."""

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs for a point; `kept` is the file that its row goes to, `plan` that of its plan."""

    scenario: str
    overrides: tuple[str, ...]
    num_finalists: int
    kept: str | None = None
    plan: str | None = None


def key_of(job: Job, content: bytes) -> str:
    """Name of a point, from everything that its row depends on: scenario, overrides, finalists, version."""
    said = json.dumps([__version__, content.decode(errors="replace"), job.overrides, job.num_finalists])
    return sha256(said.encode()).hexdigest()[:24]


def read_kept(path: Path) -> Row | None:
    """The row of a point that is done; None if it is not, or its file is broken."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and set(found) == set(RESULT_COLUMNS) else None


def work(job: Job) -> Row:
    """Plan a point; what is wrong with it, or fits nowhere, is said in its row."""
    from exactmap.sim.verbs.plan import plan

    row: Row = dict.fromkeys(RESULT_COLUMNS)
    try:
        outcome = plan(job.scenario, job.overrides, out=job.plan, num_finalists=job.num_finalists)
    except InfeasibleError as error:
        row |= {"status": "infeasible", "reason": _one_line(error)}
    except ExactmapError as error:
        row |= {"status": "refused", "reason": _one_line(error)}
    else:
        best = outcome.ranking.winner
        row |= {
            **asdict(best.candidate),
            "status": "done",
            "layout": best.candidate.label,
            "num_gpus": best.candidate.num_gpus,
            "step_s": best.step_ns / 1e9,
            "tokens_per_s": outcome.scenario.training.batch_tokens * 1e9 / best.step_ns,
            "bubble": best.summary.bubble,
            "peak_gib": best.peak_bytes / _GIB,
            "num_candidates": outcome.ranking.num_candidates,
        }
    if job.kept is not None:
        write_atomically(Path(job.kept), json.dumps(row, indent=1).encode())
    return row


def _one_line(error: ExactmapError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines())
