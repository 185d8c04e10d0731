"""Fit the constants of `LinkConstants` on measured curves.

Levenberg-Marquardt on the logarithms of the constants, for the logarithm of the time. Residuals count as
sqrt(1 + (r/0.05)^2), so that a protocol's jump at another size pulls no constant far, and a weak pull
towards the start keeps a constant finite that the data does not show. The change of protocol is the
library's choice, not the GPU's: one threshold for all types on a link, taken from a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.collectives.constants import PAIR, RING, LinkConstants
from exactmap.topology.collectives.model import inside_ns, nvls_ns
from exactmap.topology.collectives.operations import Collective
from exactmap.topology.collectives.published import Published
from exactmap.topology.curves import Curves

__all__ = ["RING_OPS", "START", "fit_link", "fit_nvls"]

Floats = NDArray[np.float64]

RING_OPS = (Collective.ALL_REDUCE, Collective.ALL_GATHER, Collective.REDUCE_SCATTER)

START = LinkConstants(
    name="start",
    link_bytes_per_s=inf,
    base_ns=8e3,
    ll_step_ns=1e3,
    ll_bytes_per_s=150e9,
    ll128_step_ns=2e3,
    ll128_bytes_per_s=300e9,
    simple_step_ns=8e3,
    simple_bytes_per_s=500e9,
    copy_bytes_per_s=800e9,
    sharpness=1.5,
    switch_bytes=2e6,
    pair_base_ns=8e3,
    pair_doubling_ns=500.0,
    pair_ll_bytes_per_s=8e9,
    pair_simple_ns=15e3,
    pair_bytes_per_s=500e9,
    pair_copy_bytes_per_s=800e9,
    pair_sharpness=1.5,
)
_THRESHOLDS = tuple(float(x) for x in np.geomspace(0.3e6, 6e6, 61))
_SCALE = 0.05
_PULL = 0.003


Fits = dict[tuple[int, float], tuple[LinkConstants, float]]
"""What was fitted before: (identity of the curves, threshold) -> constants, cost."""


def fit_link(
    curves: Mapping[str, Curves], start: Mapping[str, LinkConstants] | None = None, known: Fits | None = None
) -> dict[str, LinkConstants]:
    """Fit the types on one link.

    Parameters
    ----------
    curves
        Type -> its curves inside one domain.
    start
        Type -> constants whose other numbers are kept; default: `START`.
    known
        Keeps the fits, for callers that fit again with few curves changed.

    Returns
    -------
    dict
        Type -> constants, all with the same `switch_bytes`.
    """
    fits: Fits = {} if known is None else known
    begin = {
        name: replace((start or {}).get(name, START), name=name).with_numbers(_numbers(START, RING + PAIR))
        for name in curves
    }
    best: tuple[float, dict[str, LinkConstants]] | None = None
    for threshold in _THRESHOLDS:
        fitted, total = {}, 0.0
        for name, of_type in curves.items():
            key = id(of_type), threshold
            if key not in fits:
                points = _points(of_type, RING_OPS)
                fits[key] = _fit(replace(begin[name], switch_bytes=threshold), RING, points)
            fitted[name] = fits[key][0]
            total += fits[key][1]
        if best is None or total < best[0]:
            best = total, fitted
    assert best is not None, "the grid of thresholds is not empty"
    return {
        name: _fit(k, PAIR, _points(curves[name], (Collective.ALL_TO_ALL,)))[0] for name, k in best[1].items()
    }


_Group = tuple[Collective, int, Floats, Floats]


def _points(curves: Curves, ops: Sequence[Collective]) -> list[_Group]:
    return [
        (Collective(key.op), key.num_ranks, np.array(curve.num_bytes, float), np.log(curve.time_ns))
        for key, curve in curves.by_key.items()
        if key.op in ops and key.num_domains == 1
    ]


def _numbers(k: LinkConstants, names: Sequence[str]) -> dict[str, float]:
    return {name: float(getattr(k, name)) for name in names}


def _fit(k: LinkConstants, names: Sequence[str], groups: list[_Group]) -> tuple[LinkConstants, float]:
    if not groups:
        return k, 0.0
    log_times: Floats = np.concatenate([group[3] for group in groups])
    first = np.log(list(_numbers(k, names).values()))

    def with_(logs: Floats) -> LinkConstants:
        return k.with_numbers(dict(zip(names, map(float, np.exp(logs)), strict=True)))

    def error(logs: Floats) -> Floats:
        now = with_(logs)
        times: Floats = np.concatenate([inside_ns(now, op, n, sizes) for op, n, sizes, _ in groups])
        return np.log(times) - log_times

    logs, cost = _levenberg_marquardt(error, first, _PULL * len(log_times))
    return with_(logs), cost


def _levenberg_marquardt(
    error: Callable[[Floats], Floats], first: Floats, pull: float
) -> tuple[Floats, float]:
    def cost_of(residual: Floats, at: Floats) -> float:
        return float(np.sum(np.sqrt(1.0 + (residual / _SCALE) ** 2) - 1.0) + pull * np.sum((at - first) ** 2))

    at, damping = first.copy(), 1e-2
    residual = error(at)
    cost = cost_of(residual, at)
    for _ in range(40):
        slopes = np.stack([(error(at + step) - residual) / 1e-4 for step in 1e-4 * np.eye(len(at))], axis=1)
        weight = 1.0 / np.sqrt(1.0 + (residual / _SCALE) ** 2) / _SCALE**2
        curvature = slopes.T @ (slopes * weight[:, None]) + 2 * pull * np.eye(len(at))
        slope = slopes.T @ (weight * residual) + 2 * pull * (at - first)
        for _ in range(8):
            move = -np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), slope)
            tried = at + np.clip(move, -0.5, 0.5)
            tried_residual = error(tried)
            tried_cost = cost_of(tried_residual, tried)
            if tried_cost < cost:
                break
            damping *= 4.0
        else:
            break
        gain = cost - tried_cost
        at, residual, cost = tried, tried_residual, tried_cost
        damping = max(damping / 5.0, 1e-6)
        if gain < 1e-5 * cost:
            break
    return at, cost


def fit_nvls(
    points: Sequence[Published], channels: float, like: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Fit in-switch reduction on published all-reduces: latency, rate, loops until the pipeline is full.

    Parameters
    ----------
    points
        Results that it carried out.
    channels
        Channels that the library gives it.
    like
        Constants of another link: latency and loops are kept and only the rate is fitted, for where large
        sizes alone are published.
    """
    names = ("nvls_bytes_per_s",) if like else ("nvls_base_ns", "nvls_bytes_per_s", "nvls_stages")
    begin = {"nvls_base_ns": 25e3, "nvls_bytes_per_s": 270e9, "nvls_stages": 2.0}
    kept = {name: value for name, value in (like or {}).items() if name in begin}
    k = START.with_numbers({**begin, **kept, "nvls_channels": channels})
    log_times: Floats = np.log([point.time_ns for point in points])

    def with_(logs: Floats) -> LinkConstants:
        return k.with_numbers(dict(zip(names, map(float, np.exp(logs)), strict=True)))

    def error(logs: Floats) -> Floats:
        now = with_(logs)
        each = [nvls_ns(now, point.num_ranks, np.array([float(point.num_bytes)])) for point in points]
        times: Floats = np.concatenate(each)
        return np.log(times) - log_times

    logs, _ = _levenberg_marquardt(error, np.log(list(_numbers(k, names).values())), _PULL * len(points))
    fitted = with_(logs)
    return _numbers(fitted, (*begin, "nvls_channels"))
