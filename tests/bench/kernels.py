"""How well the kernel model meets measured kernels, and the fit of its physics.

``python tests/bench/kernels.py`` leaves out every fifth measured point in turn, fits nothing anew but the
surface over the physics, and prints the error on what was left out, by GPU and number format.
``python tests/bench/kernels.py --fit`` fits the physics and writes ``sim/cost/kernels/data/*-physics.csv``.
The search is a descent along each parameter in turn on the mean of |log(measured / predicted)|, in a fixed
order: the same points give the same parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path

from exactmap.sim.cost.kernels.attention import AttentionPhysics
from exactmap.sim.cost.kernels.left_out import left_out_attention, left_out_products, quantile
from exactmap.sim.cost.kernels.measured import attention_points, gemm_points, table
from exactmap.sim.cost.kernels.products import ProductPhysics

_DATA = Path(__file__).parents[2] / "sim/cost/kernels/data"
_SMS = {"A100-80G": 108, "H100": 132, "H200": 132, "B200": 148, "B300": 148, "GB200": 152, "GB300": 152}
"""NVIDIA's white papers of A100 and H100; what drivers report of Blackwell."""
_TERA = {
    "A100-80G": (312, 2.04),
    "H100": (989, 3.35),
    "H200": (989, 4.8),
    "B200": (2250, 8.0),
    "B300": (2250, 8.0),
    "GB200": (2500, 8.0),
    "GB300": (2500, 8.0),
}
"""Dense 16-bit peak in TFLOP/s and memory in TB/s: where the search begins and ends."""
_PRODUCT_SHARES = {
    "A100-80G": 0.9,
    "H100": 0.7,
    "H200": 0.7,
    "B200": 0.7,
    "B300": 0.75,
    "GB200": 0.7,
    "GB300": 0.75,
}
_SPEED = {"bf16": 1, "fp8": 2, "fp8_block": 2, "fp4": 4}
_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.03, "fp4": 0.5625}


def _descend(
    loss: Callable[[Sequence[float]], float],
    start: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
) -> list[float]:
    values = list(start)
    best = loss(values)
    step = 0.3
    while step > 0.01:
        moved = False
        for index in range(len(values)):
            for sign in (1, -1):
                tried = list(values)
                tried[index] = min(max(values[index] * (1 + sign * step), low[index]), high[index])
                found = loss(tried)
                if found < best - 1e-6:
                    values, best, moved = tried, found, True
        if not moved:
            step /= 1.6
    return values


def _fit_products(gpu: str, dtype: str) -> tuple[ProductPhysics, float, float]:
    points = gemm_points(gpu, dtype)
    narrow = dtype != "bf16"
    flop, memory = _TERA[gpu]
    sm_peak = flop * 1e3 * _SPEED[dtype] / _SMS[gpu]
    if dtype == "fp4" and gpu in ("B300", "GB300"):
        sm_peak *= 1.5
    start = [0.75 * sm_peak, 200.0, 2000.0, 0.8e3 * memory, 0.9, 0.65]
    low = [0.2 * sm_peak, 1.0, 1500.0 if narrow else 500.0, 0.5e3 * memory, 0.6, 0.4]
    high = [sm_peak, 1500.0, 4000.0, 1e3 * memory, 1.0, 1.0]
    if narrow:
        start += [4.0, 3000.0]
        low += [0.0, 0.0]
        high += [8.0, 8000.0]

    def build(values: Sequence[float]) -> tuple[ProductPhysics, float, float]:
        physics = ProductPhysics(_SMS[gpu], *values[:6], _BYTES[dtype])
        # Bytes of an element that is cast, at the memory's peak.
        return physics, *((values[6] / (1e3 * memory), values[7]) if narrow else (0.0, 0.0))

    def loss(values: Sequence[float]) -> float:
        physics, cast, cast_floor = build(values)
        return sum(
            abs(log(time / (physics.time_ns(m, n, k) + cast_floor + cast * m * k)))
            for (m, n, k), time in points.items()
        ) / len(points)

    return build(_descend(loss, start, low, high))


def _fit_attention(gpu: str) -> AttentionPhysics:
    points = attention_points(gpu)
    flop = _TERA[gpu][0] * 1e3
    block = 4 * 128**3 / (0.65 * flop / _SMS[gpu])

    def build(values: Sequence[float]) -> AttentionPhysics:
        return AttentionPhysics(_SMS[gpu], *values, _PRODUCT_SHARES[gpu])

    def loss(values: Sequence[float]) -> float:
        physics = build(values)
        return sum(abs(log(time / physics.time_ns(*place))) for place, time in points.items()) / len(points)

    return build(
        _descend(loss, [block, block, 5e3], [0.5 * block, 0.1 * block, 1e3], [3 * block, 20 * block, 30e3])
    )


def _tables() -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["gpu"], row["dtype"]) for row in table("gemm-points.csv")))


def _fit() -> None:
    names = "num_sms,sm_flop_per_ns,depth,floor_ns,bytes_per_ns,middle_share,small_share,element_bytes"
    lines = [
        "# Fitted by tests/bench/kernels.py --fit on gemm-points.csv (sim.cost.kernels.products).",
        "# cast_ns: time of casting an element of A in a measured narrow product; cast_floor_ns: its floor.",
        f"gpu,dtype,{names},cast_ns,cast_floor_ns",
    ]
    for gpu, dtype in _tables():
        physics, cast, cast_floor = _fit_products(gpu, dtype)
        values = [f"{getattr(physics, name):.5g}" for name in names.split(",")]
        lines.append(",".join([gpu, dtype, *values, f"{cast:.4g}", f"{cast_floor:.4g}"]))
        print(lines[-1], flush=True)
    (_DATA / "product-physics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [
        "# Fitted by tests/bench/kernels.py --fit on attention-points.csv (sim.cost.kernels.attention).",
        "gpu,num_sms,block_ns,start_ns,floor_ns,product_share",
    ]
    for gpu in dict.fromkeys(gpu for gpu, _ in _tables()):
        found = _fit_attention(gpu)
        lines.append(
            f"{gpu},{found.num_sms},{found.block_ns:.5g},{found.start_ns:.4g},{found.floor_ns:.4g},"
            f"{found.product_share}"
        )
        print(lines[-1], flush=True)
    (_DATA / "attention-physics.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Fit, or print errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the physics and write it")
    if parser.parse_args().fit:
        _fit()
        return
    print("| GPU | kernels | points | physics: median | p90 | left out: median | p90 |")
    print("|---|---|---|---|---|---|---|")
    for gpu, dtype in _tables():
        _show(gpu, f"products {dtype}", *left_out_products(gpu, dtype))
    for gpu in dict.fromkeys(gpu for gpu, _ in _tables()):
        _show(gpu, "attention", *left_out_attention(gpu))


def _show(gpu: str, what: str, alone: list[float], errors: list[float]) -> None:
    cells = [f"{quantile(values, share):.1%}" for values in (alone, errors) for share in (0.5, 0.9)]
    print(f"| {gpu} | {what} | {len(alone)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
