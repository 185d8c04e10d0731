"""Two results side by side: step time, bubble, time per op class, peak bytes, each with its difference.

The difference of a time is b/a - 1, of a share b - a. A prediction belongs on the left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from exactmap.sim.report.quantity import show_bytes, show_share, show_time
from exactmap.sim.report.result import StepResult

__all__ = ["Comparison", "Row", "compare_results"]


@dataclass(frozen=True, slots=True)
class Row:
    """One quantity of both sides; `difference` is relative for times and bytes, absolute for shares."""

    name: str
    a: float
    b: float
    unit: str

    @property
    def difference(self) -> float | None:
        """b/a - 1, or b - a for shares; None where a is 0 and b is not."""
        if self.unit == "share":
            return self.b - self.a
        if self.a == 0:
            return 0.0 if self.b == 0 else None
        return self.b / self.a - 1

    def shown(self) -> tuple[str, str, str, str]:
        """Name, both values and the difference as text."""
        show = {"ns": show_time, "bytes": show_bytes, "share": show_share}[self.unit]
        difference = self.difference
        text = (
            "new"
            if difference is None
            else f"{100 * difference:+.1f} {'points' if self.unit == 'share' else '%'}"
        )
        return self.name, show(self.a), show(self.b), text


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, and the two results they come from."""

    a: StepResult
    b: StepResult
    rows: tuple[Row, ...]

    @property
    def same_plan(self) -> bool:
        """Whether both sides ran the same bytes."""
        return self.a.plan_sha256 == self.b.plan_sha256

    @property
    def step_time_difference(self) -> float:
        """Relative difference of the step time, b/a - 1; infinite where a takes no time and b does."""
        difference = self.rows[0].difference
        return inf if difference is None else difference

    def to_dict(self) -> dict[str, object]:
        """The comparison as a JSON-ready document."""
        rows = [
            {"name": row.name, "unit": row.unit, "a": row.a, "b": row.b, "difference": row.difference}
            for row in self.rows
        ]
        return {
            "schema_version": 1,
            "kind": "comparison",
            "same_plan": self.same_plan,
            "a": {"kind": self.a.kind, "source": self.a.source, "plan_sha256": self.a.plan_sha256},
            "b": {"kind": self.b.kind, "source": self.b.source, "plan_sha256": self.b.plan_sha256},
            "step_time_difference": self.rows[0].difference,
            "rows": rows,
        }


def compare_results(a: StepResult, b: StepResult) -> Comparison:
    """Compare two results quantity by quantity; the plans need not be the same."""
    return Comparison(a, b, tuple(_rows(a, b)))


def _rows(a: StepResult, b: StepResult) -> Iterator[Row]:
    yield Row("step time", a.step_time_ns, b.step_time_ns, "ns")
    yield Row("period", a.period_ns, b.period_ns, "ns")
    yield Row("bubble", a.bubble, b.bubble, "share")
    yield Row("steady bubble", a.steady_bubble, b.steady_bubble, "share")
    for waiting, what in ((False, "in"), (True, "waiting in")):
        mine, theirs = a.total_ns(waiting=waiting), b.total_ns(waiting=waiting)
        for word in sorted({*mine, *theirs}, key=lambda word: -max(mine.get(word, 0), theirs.get(word, 0))):
            yield Row(f"{what} {word}, all ranks", mine.get(word, 0), theirs.get(word, 0), "ns")
    ranks_a = {(rank.dp, rank.pp): rank for rank in a.ranks}
    ranks_b = {(rank.dp, rank.pp): rank for rank in b.ranks}
    for key in sorted(ranks_a.keys() & ranks_b.keys()):
        name = f"arena of rank {key[1]}" + (f" dp {key[0]}" if len({dp for dp, _ in ranks_a}) > 1 else "")
        yield Row(name, ranks_a[key].arena_bytes, ranks_b[key].arena_bytes, "bytes")
