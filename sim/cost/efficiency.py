"""How much of a GPU's peak an operator reaches, from measured kernels.

Products: a table of measured times over (m, n, k) gives the share of peak; between its points the share is
interpolated on logarithmic axes, above them the last value holds, below them the trend of the last two
points goes on. Attention: a table of rates over (batch x heads, tokens), the same way; backward reaches a
fixed share of the forward's rate. A device without tables (a CPU core whose "peak" is already a measured
rate) has constant shares. Products that a user has timed go before all of these
(`exactmap.sim.cost.own_gemm`).

Sources: ``data/gemm.csv`` and ``data/attention.csv``, reduced from ai-dynamo/aiconfigurator systems data
(Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

from exactmap.sim.cost.grid import LogGrid, Point, Surface
from exactmap.sim.cost.own_gemm import own_surfaces
from exactmap.topology.gemm_table import GemmTable
from exactmap.topology.hardware import GPU

__all__ = ["Efficiency", "efficiency_names", "efficiency_of", "find_efficiency"]

ATTENTION_BACKWARD_SHARE = 0.7
"""Backward attention's FLOP rate over forward's: 0.65 to 0.8 on Hopper (arXiv:2407.08608)."""

_MIN_SHARE = 0.002


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of peak for one type of device.

    Parameters
    ----------
    name
        Whose curves they are.
    gemm
        Number format -> rate in flop/s over (m, n, k).
    attention
        Rate in flop/s of forward attention over (batch x heads, tokens); None: a constant share.
    gemm_share, attention_share
        Shares of peak where there is no table.
    """

    name: str
    gemm: Mapping[str, Surface]
    attention: Surface | None
    gemm_share: float = 0.85
    attention_share: float = 0.5

    __hash__ = None  # type: ignore[assignment]

    def gemm_flop_per_s(self, dtype: str, peak_flop_per_s: float, m: int, n: int, k: int) -> float:
        """Rate of a product C[m,n] = A[m,k] B[k,n] in flop/s."""
        grid = self.gemm.get(dtype)
        if grid is None:
            return self.gemm_share * peak_flop_per_s
        rate = grid.at((float(m), float(n), float(k)))
        return min(max(rate, _MIN_SHARE * peak_flop_per_s), peak_flop_per_s)

    def attention_flop_per_s(
        self, peak_flop_per_s: float, batch_heads: int, seq: int, *, backward: bool
    ) -> float:
        """Rate of causal attention in flop/s, causal FLOPs counted."""
        if self.attention is None:
            rate = self.attention_share * peak_flop_per_s
        else:
            rate = self.attention.at((float(batch_heads), float(seq)))
            rate = min(max(rate, _MIN_SHARE * peak_flop_per_s), peak_flop_per_s)
        return rate * (ATTENTION_BACKWARD_SHARE if backward else 1.0)


def _rows(name: str) -> list[list[str]]:
    text = files("exactmap.sim.cost").joinpath("data", name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [line.split(",") for line in lines[1:]]


@cache
def _gemm_points() -> dict[str, dict[str, dict[tuple[int, ...], float]]]:
    out: dict[str, dict[str, dict[tuple[int, ...], float]]] = {}
    for gpu, dtype, m, n, k, micros in _rows("gemm.csv"):
        shape = (int(m), int(n), int(k))
        rate = 2 * shape[0] * shape[1] * shape[2] / (float(micros) * 1e-6)
        out.setdefault(gpu, {}).setdefault(dtype, {})[shape] = rate
    return out


@cache
def _attention_points() -> dict[str, dict[tuple[int, ...], float]]:
    out: dict[str, dict[tuple[int, ...], float]] = {}
    for gpu, batch_heads, seq, rate in _rows("attention.csv"):
        out.setdefault(gpu, {})[int(batch_heads), int(seq)] = float(rate) * 1e12
    return out


def efficiency_names() -> frozenset[str]:
    """Devices that have measured kernels."""
    return frozenset(_gemm_points())


@cache
def find_efficiency(curves: str) -> Efficiency:
    """Efficiency of a device by the name of its curves; an unknown or empty name gives constant shares."""
    gemm = {dtype: LogGrid.of(points) for dtype, points in _gemm_points().get(curves, {}).items()}
    attention = _attention_points().get(curves)
    if not gemm:
        return Efficiency(curves, {}, None, gemm_share=1.0, attention_share=0.4)
    return Efficiency(curves, gemm, None if attention is None else LogGrid.of(attention))


def efficiency_of(gpu: GPU) -> Efficiency:
    """Efficiency of a GPU: what its user has timed, then what was measured, then its constant shares."""
    shares = (gpu.gemm_efficiency, gpu.attention_efficiency)
    return _efficiency(gpu.kernels or gpu.curves, shares, gpu.gemm, tuple(gpu.peak_flop_per_s.items()))


@cache
def _efficiency(
    kernels: str, shares: tuple[float, float], table: GemmTable | None, peaks: tuple[tuple[str, int], ...]
) -> Efficiency:
    """As `efficiency_of`; it is asked for by every stage, so it is kept."""
    measured = find_efficiency(kernels)
    if not measured.gemm:
        measured = replace(measured, gemm_share=shares[0], attention_share=shares[1])
    if table is None:
        return measured
    peak = dict(peaks)

    def base(dtype: str, point: Point) -> float:
        m, n, k = (round(size) for size in point)
        return measured.gemm_flop_per_s(dtype, float(peak[dtype]), m, n, k)

    return replace(measured, gemm={**measured.gemm, **own_surfaces(table, base)})
