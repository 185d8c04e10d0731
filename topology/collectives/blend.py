"""Model and measurement together: inside the data it is the data, outside it relaxes to the model.

What is interpolated is log(measured / model), by a monotone cubic (Fritsch and Carlson 1980) in log size.
The model knows where a protocol changes, so a jump between two sizes that were measured stays where it is.
For ranks that were not measured the ratio is taken at the same bytes per member and interpolated in log
ranks; beyond the most ranks it counts half (leaving out the curves of the most ranks, that errs least),
beyond the largest size it fades by half every four doublings.
"""

from __future__ import annotations

from bisect import bisect_left
from math import log

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.collectives.constants import LinkConstants, find_constants
from exactmap.topology.collectives.model import inside_ns
from exactmap.topology.collectives.operations import Collective
from exactmap.topology.curves import Curve, CurveKey, Curves, find_curves

__all__ = ["blended_ns", "faded_ratio", "log_ratio", "monotone"]

Floats = NDArray[np.float64]

_FADE_DOUBLINGS = 4.0
_BEYOND_RANKS = 0.5


def monotone(x: Floats, y: Floats, at: Floats) -> Floats:
    """Monotone cubic through points, constant beyond them.

    Examples
    --------
    >>> monotone(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0]), np.array([-1.0, 1.0, 1.5])).tolist()
    [0.0, 1.0, 1.0]
    """
    if len(x) == 1:
        return np.full(len(at), y[0])
    width = np.diff(x)
    slope = np.diff(y) / width
    tangent = np.zeros(len(x))
    tangent[0], tangent[-1] = slope[0], slope[-1]
    if len(x) > 2:
        before, after = slope[:-1], slope[1:]
        first, second = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
        same = before * after > 0
        mean = np.zeros(len(before))
        mean[same] = (first + second)[same] / (first[same] / before[same] + second[same] / after[same])
        tangent[1:-1] = mean
    at = np.clip(at, x[0], x[-1])
    left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
    h, t = width[left], (at - x[left]) / width[left]
    low = y[left] * (1 + 2 * t) * (1 - t) ** 2 + h * tangent[left] * t * (1 - t) ** 2
    return low + y[left + 1] * t * t * (3 - 2 * t) + h * tangent[left + 1] * t * t * (t - 1)


def faded_ratio(curve: Curve, model_ns: Floats, sizes: Floats) -> Floats:
    """log(measured / model) at any size.

    Parameters
    ----------
    curve
        What was measured.
    model_ns
        The model at the curve's sizes.
    sizes
        Where it is asked for.
    """
    x = np.log2(np.array(curve.num_bytes, dtype=float))
    out = monotone(x, np.log(np.array(curve.time_ns) / model_ns), np.log2(sizes))
    beyond = np.maximum(np.log2(sizes) - x[-1], 0.0)
    faded: Floats = out * 0.5 ** (beyond / _FADE_DOUBLINGS)
    return faded


def _own_ratio(curves: Curves, k: LinkConstants, op: Collective, num_ranks: int, sizes: Floats) -> Floats:
    """log(measured / model) of a measured group size."""
    curve = curves.by_key[CurveKey(op, num_ranks)]
    return faded_ratio(curve, inside_ns(k, op, num_ranks, np.array(curve.num_bytes, dtype=float)), sizes)


def _with_sibling(
    curves: Curves, k: LinkConstants, op: Collective
) -> list[tuple[int, Curves, LinkConstants]]:
    """(ranks, whose curves, whose constants) of what was measured, and beyond it on the same link."""
    own = [(ranks, curves, k) for ranks in curves.ranks(op)]
    for name in k.siblings:
        other, theirs = find_curves(name), find_constants(name)
        if other is not None and theirs is not None and own:
            most = own[-1][0]
            own += [(ranks, other, theirs) for ranks in other.ranks(op) if ranks > most]
    return own


def log_ratio(
    curves: Curves | None, k: LinkConstants, op: Collective, num_ranks: int, sizes: Floats
) -> Floats:
    """log(measured / model) for any number of ranks in one domain; 0 where nothing is known."""
    known = _with_sibling(curves, k, op) if curves else []
    if not known:
        return np.zeros(len(sizes))
    ranks = [entry[0] for entry in known]

    def at(index: int) -> Floats:
        of, theirs, their_constants = known[index]
        # The same bytes per member.
        return _own_ratio(theirs, their_constants, op, of, sizes * (of / num_ranks))

    right = bisect_left(ranks, num_ranks)
    if right == len(ranks):
        return _BEYOND_RANKS * at(-1)
    if ranks[right] == num_ranks or right == 0:
        return at(right)
    share = log(num_ranks / ranks[right - 1]) / log(ranks[right] / ranks[right - 1])
    return (1.0 - share) * at(right - 1) + share * at(right)


def blended_ns(
    curves: Curves | None, k: LinkConstants, op: Collective, num_ranks: int, sizes: Floats
) -> Floats:
    """Time of a collective inside one domain, as measured where it was and by the model elsewhere."""
    if op is Collective.POINT_TO_POINT and not (curves and curves.ranks(op)):
        # Half of an all-to-all of two, in which each sends half of the buffer.
        return blended_ns(curves, k, Collective.ALL_TO_ALL, 2, 2 * sizes)
    return inside_ns(k, op, num_ranks, sizes) * np.exp(log_ratio(curves, k, op, num_ranks, sizes))
