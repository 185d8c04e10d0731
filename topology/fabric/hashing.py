"""Seeded choices among equal paths, as a switch makes them: by a hash of what identifies a flow.

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), applied word by word to the identity of a flow. It is the same on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.links import Ints

__all__ = ["Chooser"]

_Words = NDArray[np.uint64]
_MASK = 2**64 - 1


def _mix(words: _Words) -> _Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _word(number: int) -> np.uint64:
    return np.uint64((number * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & _MASK)


class Chooser:
    """Independent choices for each flow of a list.

    Parameters
    ----------
    first, second
        Ends of each flow.
    seed
        Other seeds give other choices.

    Examples
    --------
    >>> flows = np.arange(4)
    >>> chooser = Chooser(flows, flows + 1, seed=7)
    >>> bool((chooser.choose(0, 8) == chooser.choose(0, 8)).all()), int(chooser.choose(1, 1).max())
    (True, 0)
    """

    def __init__(self, first: Ints, second: Ints, seed: int) -> None:
        place = np.arange(len(first), dtype=np.uint64)
        words = _mix(first.astype(np.uint64) + _word(seed))
        words = _mix(words ^ (second.astype(np.uint64) + _word(1)))
        self._words = _mix(words ^ (place + _word(2)))

    def choose(self, which: int, size: int) -> Ints:
        """One of `size` for each flow; choices with other numbers `which` are independent."""
        if size == 1:
            return np.zeros(len(self._words), dtype=np.int64)
        return (self.word(which) % np.uint64(size)).astype(np.int64)

    def choose_among(self, which: int, sizes: Ints) -> Ints:
        """One of `sizes` for each flow, its own size each."""
        return (self.word(which) % sizes.astype(np.uint64)).astype(np.int64)

    def word(self, which: int) -> _Words:
        """Random bits of each flow."""
        return _mix(self._words ^ _word(which + 3))
