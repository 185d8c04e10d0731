"""The account of a hand-over as a page: ``cannot.md``."""

from __future__ import annotations

from exactmap.sim.handover.handover import Job
from exactmap.sim.handover.sources import source_of
from exactmap.sim.handover.verdict import Grade, Verdict

__all__ = ["cannot_page"]

_SECTIONS = (
    (Grade.REFUSED, "Refused", "why"),
    (Grade.APPROXIMATE, "Cannot be said", "what happens instead"),
    (Grade.OWN, "Left to it", "how it does it"),
    (Grade.EXACT, "Said exactly", "how"),
)


def cannot_page(job: Job, verdict: Verdict) -> str:
    """What a target cannot be told, what happens instead, and all the rest of the plan."""
    lines = [
        f"# {job.name} for {verdict.target}: {verdict.grade.value}",
        "",
        f"Plan sha256 {job.sha256}. Names as in {source_of(verdict.target)}.",
    ]
    for grade, title, column in _SECTIONS:
        found = verdict.of(grade)
        if found:
            lines += ["", f"## {title}", "", f"| fact | the plan says | {column} |", "|---|---|---|"]
            lines += [f"| {line.fact} | {_cell(line.says)} | {_cell(line.how)} |" for line in found]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
