"""Time of products on a known GPU: physics of the shape times what measurements say it is off by.

Measured narrow products (8 and 4 bits) come from serving libraries, which cast A from 16 bits in the same
call. The cast shows in the times as a part that grows with m x k and not with n x k: a product of 16384 x
1024 takes up to twice as long as one of 1024 x 16384. Fitted, it has 5.3 bytes per element of A with one
factor per tensor (two reads of 16 bits, one write of 8), 3.9 with block factors, 3.1 for NVFP4. It is taken
off here, as training casts in kernels of its own, which `exactmap.sim.workload.layer_work` counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from math import log

from exactmap.sim.cost.kernels.measured import gemm_points, table
from exactmap.sim.cost.kernels.products import ProductPhysics
from exactmap.sim.cost.kernels.surface import Residuals, Shape

__all__ = ["ProductModel", "deviations", "physics_of", "product_model"]

_LEAST = 0.1
"""Share of a measured time that its cast leaves at least: below it the rest is noise."""


@dataclass(frozen=True, slots=True)
class ProductModel:
    """Products of one number format on one GPU.

    Parameters
    ----------
    physics
        Time by shape.
    residuals
        What measurements say on top.
    """

    physics: ProductPhysics
    residuals: Residuals
    known: dict[tuple[int, int, int, int], float] = field(default_factory=dict, compare=False, repr=False)

    def time_ns(self, m: int, n: int, k: int, products: int = 1) -> float:
        """Time of `products` equal products that run together, in ns.

        What measurements say of several is what they say of one product with as many rows.
        """
        key = (m, n, k, products)
        time = self.known.get(key)
        if time is None:
            time = self.physics.time_ns(m, n, k, products) * self.residuals.factor(m * products, n, k)
            self.known[key] = time
        return time


def physics_of(gpu: str, dtype: str) -> tuple[ProductPhysics, float, float] | None:
    """Fitted physics of products, and of the cast within measured ones: ns per element of A, ns."""
    for row in table("product-physics.csv"):
        if row["gpu"] == gpu and row["dtype"] == dtype:
            names = (
                "sm_flop_per_ns",
                "depth",
                "floor_ns",
                "bytes_per_ns",
                "middle_share",
                "small_share",
                "element_bytes",
            )
            physics = ProductPhysics(int(row["num_sms"]), *(float(row[name]) for name in names))
            return physics, float(row["cast_ns"]), float(row["cast_floor_ns"])
    return None


def deviations(
    points: dict[Shape, float], physics: ProductPhysics, cast_ns: float, cast_floor_ns: float
) -> dict[Shape, float]:
    """Logarithm of measured over physical time by shape, without casts."""
    out = {}
    for (m, n, k), time in points.items():
        own = max(_LEAST * time, time - cast_floor_ns - cast_ns * m * k)
        out[m, n, k] = log(own / physics.time_ns(m, n, k))
    return out


@cache
def product_model(gpu: str, dtype: str) -> ProductModel | None:
    """Model of a GPU's products by the name of its kernels; None if they were not measured."""
    found = physics_of(gpu, dtype)
    points = gemm_points(gpu, dtype)
    if found is None or not points:
        return None
    return ProductModel(found[0], Residuals.of(deviations(points, *found)))
