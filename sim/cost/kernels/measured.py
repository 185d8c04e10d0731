"""Tables of measured kernels and of the physics fitted to them, as packaged.

``data/gemm-points.csv``, ``data/attention-points.csv``: measured times, each with its source in its head.
``data/product-physics.csv``, ``data/attention-physics.csv``: parameters that ``tests/bench/kernels.py --fit``
found on those.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

__all__ = ["attention_points", "gemm_points", "has_products", "table"]

Shape = tuple[int, int, int]


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Rows of a packaged table; lines that begin with # are its head."""
    text = files("exactmap.sim.cost.kernels").joinpath("data", name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(line for line in text.splitlines() if line and not line.startswith("#")))


@cache
def _all_products() -> dict[tuple[str, str], dict[Shape, float]]:
    out: dict[tuple[str, str], dict[Shape, float]] = {}
    for row in table("gemm-points.csv"):
        shape = (int(row["m"]), int(row["n"]), int(row["k"]))
        out.setdefault((row["gpu"], row["dtype"]), {})[shape] = float(row["us"]) * 1e3
    return out


def has_products(gpu: str, dtype: str) -> bool:
    """Whether products of a number format were measured on a GPU."""
    return any(row["gpu"] == gpu and row["dtype"] == dtype for row in table("product-physics.csv"))


def gemm_points(gpu: str, dtype: str) -> dict[Shape, float]:
    """Measured products: (m, n, k) -> time in ns, casts of A included in narrow formats."""
    return _all_products().get((gpu, dtype), {})


@cache
def attention_points(gpu: str) -> dict[tuple[int, int], float]:
    """Measured attention: (sequences x query heads, tokens) -> time of forward in ns."""
    return {
        (int(row["rows"]), int(row["seq"])): float(row["us"]) * 1e3
        for row in table("attention-points.csv")
        if row["gpu"] == gpu
    }
