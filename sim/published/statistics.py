"""How right predictions are: errors, ranking inside groups, coverage of intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log, sqrt
from statistics import median

__all__ = ["Case", "ErrorStatistics", "Ranking", "error_statistics", "ranking"]


@dataclass(frozen=True, slots=True)
class Case:
    """A row with its prediction.

    Parameters
    ----------
    id
        The row's name.
    measured, predicted, low, high
        Seconds, or whatever the set measures, and the ends of the 80 % interval.
    """

    id: str
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Signed relative error of the prediction."""
        return self.predicted / self.measured - 1.0


@dataclass(frozen=True, slots=True)
class ErrorStatistics:
    """Of some cases.

    Parameters
    ----------
    n
        Cases.
    mape, median, p90, worst
        Mean, median, 90th percentile (the smallest that nine in ten do not exceed) and largest of the
        absolute relative error.
    worst_id
        Whose the largest is.
    bias
        Median of the signed relative error.
    r2
        Share of the variance of log(measured) that the predictions explain.
    coverage, width
        Share of cases inside their 80 % interval; median of high over low.
    """

    n: int
    mape: float
    median: float
    p90: float
    worst: float
    worst_id: str
    bias: float
    r2: float
    coverage: float
    width: float


def error_statistics(cases: Sequence[Case]) -> ErrorStatistics:
    """Return the statistics of at least one case.

    Examples
    --------
    >>> cases = [Case("a", 1.0, 1.1, 0.9, 1.2), Case("b", 2.0, 1.6, 1.5, 1.9)]
    >>> found = error_statistics(cases)
    >>> round(found.mape, 3), round(found.bias, 3), found.worst_id, found.coverage
    (0.15, -0.05, 'b', 0.5)
    """
    sizes = sorted(abs(case.error) for case in cases)
    worst = max(cases, key=lambda case: abs(case.error))
    logs = [log(case.measured) for case in cases]
    mean = sum(logs) / len(logs)
    spread = sum((value - mean) ** 2 for value in logs)
    left = sum((log(case.predicted) - value) ** 2 for case, value in zip(cases, logs, strict=True))
    return ErrorStatistics(
        n=len(cases),
        mape=sum(sizes) / len(sizes),
        median=median(sizes),
        p90=sizes[-(-9 * len(sizes) // 10) - 1],
        worst=abs(worst.error),
        worst_id=worst.id,
        bias=median(case.error for case in cases),
        r2=1.0 - left / spread if spread > 0 else 0.0,
        coverage=sum(case.low <= case.measured <= case.high for case in cases) / len(cases),
        width=median(case.high / case.low for case in cases),
    )


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well predictions choose inside groups of three and more.

    Parameters
    ----------
    groups
        How many.
    mean_regret, worst_regret
        What the layout predicted fastest loses against the one measured fastest.
    tau
        Kendall's tau-b, averaged over the groups: pairs that agree less those that do not, over the
        geometric mean of the pairs untied in each; 0 where one of them ties all.
    """

    groups: int
    mean_regret: float
    worst_regret: float
    tau: float


def ranking(groups: Iterable[Sequence[Case]]) -> Ranking:
    """Return regret and Kendall's tau over groups; smaller groups are left out.

    Examples
    --------
    >>> def case(measured: float, predicted: float) -> Case:
    ...     return Case("", measured, predicted, 0.0, 0.0)
    >>> found = ranking([[case(1.0, 2.0), case(1.1, 1.0), case(2.0, 3.0)]])
    >>> round(found.mean_regret, 3), round(found.tau, 3)
    (0.1, 0.333)
    """
    regrets: list[float] = []
    taus: list[float] = []
    for group in groups:
        if len(group) < 3:
            continue
        fastest = min(case.predicted for case in group)
        picked = [case.measured for case in group if case.predicted == fastest]
        regrets.append(sum(picked) / len(picked) / min(case.measured for case in group) - 1.0)
        taus.append(_kendall_tau_b(group))
    if not regrets:
        return Ranking(0, 0.0, 0.0, 0.0)
    return Ranking(len(regrets), sum(regrets) / len(regrets), max(regrets), sum(taus) / len(taus))


def _kendall_tau_b(group: Sequence[Case]) -> float:
    """Kendall's tau-b of predicted against measured."""
    signs = [
        (_sign(a.predicted - b.predicted), _sign(a.measured - b.measured)) for a, b in combinations(group, 2)
    ]
    untied = sqrt(sum(x * x for x, _ in signs) * sum(y * y for _, y in signs))
    return sum(x * y for x, y in signs) / untied if untied else 0.0


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
