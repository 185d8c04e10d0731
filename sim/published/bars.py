"""What predictions are to reach on rows that were not used for fitting, and whether they do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exactmap.sim.published.accuracy import Accuracy, Judged
from exactmap.sim.published.statistics import ErrorStatistics, error_statistics

__all__ = ["Bar", "bars_of"]

_MODERN = ("H100", "GB200", "GB300")
_KORTHIKANTI = ("korthikanti_t4", "korthikanti_t5")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what, the limit, what was found; `at_least` where more is better."""

    what: str
    limit: float
    found: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the bar is reached."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit


def bars_of(accuracy: Accuracy) -> list[Bar]:
    """Return every bar with what was found."""
    return list(_bars(accuracy))


def _statistics(rows: list[Judged]) -> ErrorStatistics | None:
    return error_statistics([row.case for row in rows]) if rows else None


def _bars(accuracy: Accuracy) -> Iterator[Bar]:
    held = accuracy.held_out()
    grids = accuracy.grids()
    limits = {"vtrain_multi": (0.06, 0.25, 0.007, 0.8), "vtrain_single": (0.08, None, 0.02, 0.75)}
    for name, (mean, worst, regret, tau) in limits.items():
        found = _statistics([row for row in held if row.set_name == name])
        if found is None:
            continue
        yield Bar(f"{name}: mean error", mean, found.mape)
        if worst is not None:
            yield Bar(f"{name}: worst error", worst, found.worst)
        yield Bar(f"{name}: mean regret", regret, grids[name].mean_regret)
        yield Bar(f"{name}: Kendall's tau", tau, grids[name].tau, at_least=True)
    found = _statistics([row for row in held if row.set_name in _KORTHIKANTI])
    if found is not None:
        yield Bar("Korthikanti tables 4 and 5: mean error", 0.03, found.mape)
        yield Bar("Korthikanti tables 4 and 5: worst error", 0.06, found.worst)
    found = _statistics([row for row in held if row.set_name == "b200_8gpu"])
    if found is not None:
        yield Bar("8 B200: mean error of the step", 0.06, found.mape)
    yield from _memory(held)
    for gpu in _MODERN:
        found = _statistics([row for row in held if row.gpu == gpu])
        if found is not None:
            yield Bar(f"{gpu}: median error", 0.08, found.median)
            yield Bar(f"{gpu}: 90th percentile of the error", 0.2, found.p90)
    found = _statistics([row for row in held if row.set_name == "zero_bubble"])
    if found is not None:
        yield Bar("Zero Bubble's throughputs: mean error", 0.04, found.mape)
    for gpu in sorted({row.gpu for row in held}):
        rows = [row for row in held if row.gpu == gpu and row.set_name != "zero_bubble"]
        found = _statistics(rows)
        if found is not None and found.n >= 20:
            yield Bar(f"{gpu}: 80 % intervals cover at least", 0.7, found.coverage, at_least=True)
            yield Bar(f"{gpu}: 80 % intervals cover at most", 0.9, found.coverage)
            yield Bar(f"{gpu}: median width of the intervals", 1.4, found.width)
    shares = accuracy.share_predicted()
    yield Bar("rows predicted, lowest share of a set", 0.9, min(shares.values()), at_least=True)
    every = len(accuracy.rows) / (len(accuracy.rows) + len(accuracy.refused))
    yield Bar("rows predicted, share of all", 0.95, every, at_least=True)


def _memory(held: tuple[Judged, ...]) -> Iterator[Bar]:
    for name, limit in (("b200_8gpu", 0.02), ("korthikanti_t5", 0.03)):
        errors = [
            abs(row.memory[1] / row.memory[0] - 1.0)
            for row in held
            if row.set_name == name and row.memory is not None
        ]
        if errors:
            yield Bar(f"{name}: mean error of the memory", limit, sum(errors) / len(errors))
