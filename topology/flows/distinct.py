"""Distinct values of long arrays by sorting and marking: what `numpy.unique` does too, but more slowly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.links import Ints

__all__ = ["distinct", "first_of_class", "num_distinct"]


def distinct(values: Ints) -> Ints:
    """Distinct values, ascending.

    Examples
    --------
    >>> distinct(np.array([3, 1, 3]))
    array([1, 3])
    """
    ordered = np.sort(values)
    is_first = np.ones(len(ordered), dtype=np.bool_)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first]


def num_distinct(values: NDArray[np.uint64]) -> int:
    """How many values differ."""
    ordered = np.sort(values)
    return int(np.count_nonzero(ordered[1:] != ordered[:-1])) + min(len(ordered), 1)


def first_of_class(number: Ints, num_classes: int) -> Ints:
    """Lowest place of each class.

    Examples
    --------
    >>> first_of_class(np.array([1, 0, 1, 2]), 3)
    array([1, 0, 3])
    """
    out = np.zeros(num_classes, dtype=np.int64)
    # Of several assignments the last stays.
    out[number[::-1]] = np.arange(len(number) - 1, -1, -1)
    return out
