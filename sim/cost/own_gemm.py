"""A user's own timings of products, in place of the measured curves or laid over them.

Timings that are a whole grid over (m, n, k) stand in place of the curve of their number format. Any others
correct it: at a shape x the rate is ::

    rate(x) = base(x) exp( sum_i w_i c_i / sum_i w_i ),   c_i = ln(rate_i / base(x_i)),   w_i = |x - x_i|^-4

with distances between logarithms of (m, n, k). It meets every timing, keeps the curve's shape between them,
and far from all of them scales the curve by about their mean (Shepard's inverse distance weighting, "A
two-dimensional interpolation function for irregularly-spaced data", 1968).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.cost.grid import LogGrid, Point, Surface, is_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exactmap.topology.gemm_table import GemmTable

__all__ = ["own_surfaces"]

_POWER = 4
_SAME = 1e-9
"""Squared distance of logarithms below which two shapes are one."""


@dataclass(frozen=True, slots=True, eq=False)
class _Corrected:
    """A base curve scaled so that it meets some points."""

    base: Callable[[Point], float]
    shapes: NDArray[np.float64]
    corrections: NDArray[np.float64]

    def at(self, point: Point) -> float:
        """Rate at a shape (m, n, k)."""
        squares = ((self.shapes - np.log(point)) ** 2).sum(axis=1)
        nearest = int(squares.argmin())
        if squares[nearest] < _SAME:
            mean = float(self.corrections[nearest])
        else:
            weights = (squares / squares[nearest]) ** (-_POWER / 2)
            mean = float(weights @ self.corrections / weights.sum())
        return self.base(point) * exp(mean)


def own_surfaces(table: GemmTable, base: Callable[[str, Point], float]) -> Mapping[str, Surface]:
    """Number format -> rate over (m, n, k) in flop/s, for the formats that a table has timings of.

    Parameters
    ----------
    table
        The timings.
    base
        Rate of a format at a shape without them.
    """
    by_format: dict[str, dict[tuple[int, ...], float]] = {}
    for row in table.rows:
        by_format.setdefault(row.dtype, {})[row.m, row.n, row.k] = row.flop_per_s
    return {
        dtype: LogGrid.of(points) if is_grid(points) else _corrected(dtype, points, base)
        for dtype, points in sorted(by_format.items())
    }


def _corrected(
    dtype: str, points: Mapping[tuple[int, ...], float], base: Callable[[str, Point], float]
) -> _Corrected:
    def base_of(point: Point) -> float:
        return base(dtype, point)

    shapes = sorted(points)
    return _Corrected(
        base_of,
        np.log(np.array(shapes, dtype=np.float64)),
        np.array([log(points[shape] / base_of(tuple(map(float, shape)))) for shape in shapes]),
    )
