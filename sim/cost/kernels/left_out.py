"""How well the kernel model foretells measured kernels that its surfaces have not seen.

Every fifth shape is left out in turn, with its transposed twin, and foretold from the others. The physics
below the surface has seven parameters for 252 shapes and keeps those that were fitted on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.grid import LogGrid
from exactmap.sim.cost.kernels.attention import attention_physics
from exactmap.sim.cost.kernels.gemm import deviations, physics_of
from exactmap.sim.cost.kernels.measured import attention_points, gemm_points
from exactmap.sim.cost.kernels.surface import Residuals

__all__ = ["left_out_attention", "left_out_products", "quantile"]

_FOLDS = 5


def left_out_products(gpu: str, dtype: str) -> tuple[list[float], list[float]]:
    """|predicted / measured - 1| of each product: by physics alone, and left out of the surface."""
    found = physics_of(gpu, dtype)
    if found is None:
        raise InvalidInputError("no such products were measured", got=f"{gpu} {dtype}")
    points = gemm_points(gpu, dtype)
    off = deviations(points, *found)
    shapes = sorted(off)
    alone = [abs(exp(-off[shape]) - 1) for shape in shapes]
    errors: list[float] = []
    for fold in range(_FOLDS):
        left = shapes[fold::_FOLDS]
        # A shape's transposed twin would give it away.
        hidden = {*left, *((n, m, k) for m, n, k in left)}
        surface = Residuals.of({shape: value for shape, value in off.items() if shape not in hidden})
        errors += [abs(surface.factor(*shape) / exp(off[shape]) - 1) for shape in left]
    return alone, errors


def left_out_attention(gpu: str) -> tuple[list[float], list[float]]:
    """As `left_out_products`; a size is left out by taking the mean of its neighbours along tokens."""
    physics = attention_physics(gpu)
    if physics is None:
        raise InvalidInputError("no attention was measured", got=gpu)
    points = attention_points(gpu)
    off = {place: time / physics.time_ns(*place) for place, time in points.items()}
    alone = [abs(1 / value - 1) for value in off.values()]
    errors: list[float] = []
    for left in sorted({seq for _, seq in off})[1:-1]:
        surface = LogGrid.of({place: value for place, value in off.items() if place[1] != left})
        errors += [
            abs(surface.at((float(rows), float(seq))) / value - 1)
            for (rows, seq), value in off.items()
            if seq == left
        ]
    return alone, errors


def quantile(values: Sequence[float], share: float) -> float:
    """Value below which a share of them lies."""
    return sorted(values)[int(share * (len(values) - 1))]
