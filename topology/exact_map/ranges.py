"""Sets of numbers as people write them: ``0..3, 7``."""

from __future__ import annotations

import numpy as np

from exactmap.topology.links import Ints

__all__ = ["runs_of", "show_numbers"]


def runs_of(numbers: Ints) -> tuple[Ints, Ints]:
    """First numbers and lengths of runs that count up by one, in the order given.

    Examples
    --------
    >>> [part.tolist() for part in runs_of(np.array([4, 5, 6, 9, 1]))]
    [[4, 9, 1], [3, 1, 1]]
    """
    if not len(numbers):
        return numbers, numbers
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 2) != 1)
    return numbers[starts], np.diff(starts, append=len(numbers))


def show_numbers(numbers: Ints, most: int = 6) -> str:
    """Write runs as ranges, and how many more there are beyond `most` of them.

    Examples
    --------
    >>> show_numbers(np.array([4, 5, 6, 9, 1])), show_numbers(np.array([2, 4, 6]), most=2)
    ('4..6, 9, 1', '2, 4 and 1 more')
    """
    firsts, lengths = runs_of(numbers)
    shown = [
        str(first) if length == 1 else f"{first}..{first + length - 1}"
        for first, length in zip(firsts[:most].tolist(), lengths[:most].tolist(), strict=True)
    ]
    rest = int(lengths[most:].sum())
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")
