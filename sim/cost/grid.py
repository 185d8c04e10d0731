"""A positive quantity on a rectangular grid, interpolated on logarithmic axes.

Above the grid the last value holds, below it the trend of the first two points goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, prod
from typing import Protocol

__all__ = ["LogGrid", "Point", "Surface", "is_grid"]

Point = tuple[float, ...]
"""Plain coordinates, such as (m, n, k)."""


class Surface(Protocol):
    """A quantity over several sizes."""

    def at(self, point: Point) -> float:
        """Its value at a point given in plain coordinates."""
        ...


@dataclass(frozen=True, slots=True)
class LogGrid:
    """Logarithms of a positive quantity on a rectangular grid.

    Parameters
    ----------
    axes
        Logarithms of the coordinates, ascending.
    values
        Index on each axis -> logarithm of the quantity.
    """

    axes: tuple[Point, ...]
    values: Mapping[tuple[int, ...], float]

    @staticmethod
    def of(points: Mapping[tuple[int, ...], float]) -> LogGrid:
        """A grid from points; every combination of their coordinates must be there.

        Examples
        --------
        >>> grid = LogGrid.of({(1, 1): 1.0, (1, 4): 4.0, (4, 1): 4.0, (4, 4): 16.0})
        >>> round(grid.at((2.0, 2.0)), 9), round(grid.at((8.0, 4.0)), 9)
        (4.0, 16.0)
        """
        axes = _axes(points)
        values = {
            tuple(axes[axis].index(coordinate) for axis, coordinate in enumerate(point)): log(value)
            for point, value in points.items()
        }
        return LogGrid(tuple(tuple(log(coordinate) for coordinate in axis) for axis in axes), values)

    def at(self, point: Point) -> float:
        """Interpolated value (not its logarithm) at a point given in plain coordinates."""
        corners: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
        for axis, coordinate in zip(self.axes, point, strict=True):
            left, share = _locate(axis, log(coordinate))
            corners = [
                ((*index, left + step), weight * part)
                for index, weight in corners
                for step, part in ((0, 1.0 - share), (1, share))
                if part != 0.0
            ]
        return exp(sum(weight * self.values[index] for index, weight in corners))


def is_grid(points: Mapping[tuple[int, ...], float]) -> bool:
    """Whether points are a whole grid with at least two coordinates on each axis."""
    axes = _axes(points)
    return all(len(axis) > 1 for axis in axes) and len(points) == prod(len(axis) for axis in axes)


def _axes(points: Mapping[tuple[int, ...], float]) -> list[list[int]]:
    num_axes = len(next(iter(points)))
    return [sorted({point[axis] for point in points}) for axis in range(num_axes)]


def _locate(axis: Point, x: float) -> tuple[int, float]:
    """Left neighbour and share of the right one; no more than the last value above, the trend below."""
    if x >= axis[-1]:
        return len(axis) - 2, 1.0
    left = max(0, bisect_right(axis, x) - 1)
    return left, (x - axis[left]) / (axis[left + 1] - axis[left])
