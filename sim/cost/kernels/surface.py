"""How far measured products are from their physics, between and beyond the measured shapes.

Measurements over (m, n, k) give the logarithm of measured over physical time. m and n count alike (the
transposed product has the same tiles), so both orders of a shape are one place, and the mean holds. On the
grid of all m, n and k, places without a measurement are filled by Gaussian-process regression from the
others; between them the logarithm is linear in the logarithms of the sides; beyond them the nearest edge
holds. At a measured shape the model so gives the mean of its two orders.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log

import numpy as np

from exactmap.errors import InvalidInputError

__all__ = ["Residuals", "Shape"]

Shape = tuple[int, int, int]

_REACH = 1.3
"""Length over which deviations stay alike, in logarithms of a side: 1.0 to 2.0 do equally well."""
_NOISE = 0.2
"""Deviation of a measurement over that of the surface: the same shapes repeat within a few percent."""
_MOST = 0.5
"""Logarithm that a deviation is held to: above it a measurement is taken for a wrong one."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Logarithms of measured over physical time on a grid.

    Parameters
    ----------
    sides
        Logarithms of m and n on the grid, ascending.
    depths
        Logarithms of k.
    values
        By place: index of m, then n, then k.
    """

    sides: tuple[float, ...]
    depths: tuple[float, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, deviations: Mapping[Shape, float]) -> Residuals:
        """Build the grid from deviations by shape.

        Raises
        ------
        InvalidInputError
            If they are fewer than a grid of two sides and two depths.
        """
        sides = sorted({side for m, n, _ in deviations for side in (m, n)})
        depths = sorted({k for _, _, k in deviations})
        if len(sides) < 2 or len(depths) < 2:
            raise InvalidInputError(
                "too few measured products for a surface", got=f"{len(deviations)}", expected="a grid"
            )
        known = [
            (np.log((m, n, k)), max(-_MOST, min(_MOST, value)))
            for (a, b, k), value in deviations.items()
            for m, n in ((a, b), (b, a))
        ]
        at = np.array([place for place, _ in known])
        seen = np.array([value for _, value in known])
        places = np.log([(m, n, k) for m in sides for n in sides for k in depths])
        usual = float(np.median(seen))
        weights = np.linalg.solve(_alike(at, at) + _NOISE**2 * np.eye(len(at)), seen - usual)
        filled = usual + _alike(places, at) @ weights
        means: dict[Shape, list[float]] = {}
        for (m, n, k), value in deviations.items():
            for shape in ((m, n, k), (n, m, k)):
                means.setdefault(shape, []).append(max(-_MOST, min(_MOST, value)))
        values = [
            sum(found) / len(found) if (found := means.get((m, n, k))) else float(guess)
            for (m, n, k), guess in zip(
                ((m, n, k) for m in sides for n in sides for k in depths), filled, strict=True
            )
        ]
        return cls(tuple(map(log, sides)), tuple(map(log, depths)), tuple(values))

    def factor(self, m: int, n: int, k: int) -> float:
        """Measured over physical time."""
        i, x = _locate(self.sides, m)
        j, y = _locate(self.sides, n)
        l, z = _locate(self.depths, k)
        rows, deep, values = len(self.sides), len(self.depths), self.values
        total = 0.0
        for row, row_share in ((i, 1.0 - x), (i + 1, x)):
            for column, share in ((j, (1.0 - y) * row_share), (j + 1, y * row_share)):
                if share:
                    place = (row * rows + column) * deep + l
                    total += share * ((1.0 - z) * values[place] + (z * values[place + 1] if z else 0.0))
        return exp(total)

    def outside(self, m: int, n: int, k: int) -> float:
        """How many times a shape lies outside of the measured ones: 1 inside."""
        sides, depths = self.sides, self.depths
        small, large, depth = log(min(m, n)), log(max(m, n)), log(k)
        return exp(
            max(0.0, sides[0] - small, large - sides[-1], depths[0] - depth, depth - depths[-1]),
        )


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
    result: np.ndarray = np.exp(-squares / (2 * _REACH**2))
    return result


def _locate(axis: tuple[float, ...], size: int) -> tuple[int, float]:
    """Left neighbour and share of the right one; the ends hold beyond them."""
    x = log(size)
    if x <= axis[0]:
        return 0, 0.0
    if x >= axis[-1]:
        return len(axis) - 2, 1.0
    left = bisect_right(axis, x) - 1
    return left, (x - axis[left]) / (axis[left + 1] - axis[left])
