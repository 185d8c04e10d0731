"""Factors on durations: whole numbers in units of 2^-20, and tables of random ones.

A factor of `ONE` changes nothing, to the ns. A random factor is a quantile of a lognormal distribution with
mean 1 and a given coefficient of variation c ::

    factor(u) = exp(sigma z(u) - sigma^2 / 2),   sigma^2 = ln(1 + c^2),   z = quantile of the normal

read off a table of 65,536 entries at u = (k + 1/2) / 65,536: never below 0, skewed to the slow side as times
of kernels and messages are, cut at 4.2 standard deviations. The table is scaled so that its mean is 1
exactly, up to its rounding.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, fsum, log, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exactmap.topology.links import Ints

__all__ = ["FACTOR_BITS", "ONE", "factor_of_rate", "factor_table", "scale"]

FACTOR_BITS = 20
ONE = 1 << FACTOR_BITS
_HALF = ONE >> 1
_NUM_QUANTILES = 1 << 16


def factor_of_rate(rate: float) -> int:
    """Factor on durations of something that works at `rate` times its usual rate.

    Examples
    --------
    >>> factor_of_rate(1.0) == ONE, factor_of_rate(0.5) / ONE
    (True, 2.0)
    """
    return round(ONE / rate)


def scale(duration_ns: Ints, factor: Ints | int) -> Ints:
    """Durations times factors, rounded to whole ns; the product must stay below 2^63.

    Examples
    --------
    >>> import numpy as np
    >>> scale(np.array([1000, 1001]), factor_of_rate(0.8)).tolist()
    [1250, 1251]
    """
    return (duration_ns * factor + _HALF) >> FACTOR_BITS


@lru_cache(maxsize=32)
def factor_table(variation: float) -> Ints:
    """Factors by 16-bit draw: mean 1, coefficient of variation `variation`; all `ONE` for 0.

    Examples
    --------
    >>> table = factor_table(0.05)
    >>> bool(abs(table.mean() / ONE - 1) < 1e-6), bool(abs(table.std() / ONE - 0.05) < 1e-4)
    (True, True)
    """
    if variation == 0.0:
        table = np.full(_NUM_QUANTILES, ONE, dtype=np.int64)
    else:
        sigma = sqrt(log(1.0 + variation * variation))
        normal = NormalDist()
        raw = [exp(sigma * normal.inv_cdf((place + 0.5) / _NUM_QUANTILES)) for place in range(_NUM_QUANTILES)]
        per_unit = ONE * _NUM_QUANTILES / fsum(raw)
        table = np.array([round(value * per_unit) for value in raw], dtype=np.int64)
    table.setflags(write=False)
    return table
