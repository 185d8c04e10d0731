"""A distribution of times in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exactmap.topology.links import Ints

__all__ = ["Distribution", "describe"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Times in whole ns; quantiles are times that occurred (the lowest that enough do not exceed).

    Parameters
    ----------
    num
        How many there are.
    mean_ns, std_ns
        Mean and standard deviation, rounded.
    variation
        Coefficient of variation.
    min_ns, p50_ns, p90_ns, p99_ns, max_ns
        Quantiles.
    """

    num: int
    mean_ns: int
    std_ns: int
    variation: float
    min_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int


def describe(times_ns: Ints) -> Distribution:
    """Describe some times.

    Examples
    --------
    >>> import numpy as np
    >>> one = describe(np.arange(1, 101))
    >>> one.mean_ns, one.p50_ns, one.p90_ns, one.p99_ns, one.max_ns
    (50, 50, 90, 99, 100)
    """
    flat = np.sort(times_ns, axis=None)
    low = int(flat[0])
    # Differences to the least: exact where the times themselves would lose digits.
    above = (flat - low).astype(np.float64)
    mean, std = low + float(above.mean()), float(above.std())
    picked = [int(flat[max(0, -(-len(flat) * percent // 100) - 1)]) for percent in (50, 90, 99)]
    return Distribution(
        num=len(flat),
        mean_ns=round(mean),
        std_ns=round(std),
        variation=round(std / mean, 9) if mean else 0.0,
        min_ns=low,
        p50_ns=picked[0],
        p90_ns=picked[1],
        p99_ns=picked[2],
        max_ns=int(flat[-1]),
    )
