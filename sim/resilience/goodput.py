"""Expected goodput in closed form: what interruptions, restarts and checkpoints leave of a run's time.

Interruptions come at random at a constant rate, one every M seconds of the whole machine. Work is saved every
t seconds; saving stalls it for C, and what is saved can be restored a lag L later. An interruption costs what
was not saved and a restart of R, which may be interrupted itself. A stretch of work then takes ::

    E = e^(R/M) M (e^((t+C)/M) - 1) (1 + L/M)        goodput = t / E

on average (Daly, A higher order estimate of the optimum checkpoint interval, Future Generation Computer
Systems 22(3), 2006; the factor with L is ours). The best interval solves e^((t+C)/M) (1 - t/M) = 1; for C far
below M it is Young's sqrt(2 C M). All functions take numbers or arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exactmap.errors import InvalidInputError

__all__ = ["LLAMA3_PER_GPU_HOUR", "Goodput", "best_interval_s", "expected_goodput", "mean_time_s"]

Floats = NDArray[np.float64]

LLAMA3_PER_GPU_HOUR = 419 / (54 * 24 * 16_384)
"""Unexpected interruptions: 419 in 54 days on 16,384 H100 (The Llama 3 Herd of Models, arXiv:2407.21783)."""

_NEWTON_STEPS = 40


@dataclass(frozen=True, slots=True)
class Goodput:
    """Shares of a run's time; they sum to 1. Scalars are arrays of no dimension.

    Parameters
    ----------
    goodput
        Work that was not lost.
    stalled
        Checkpoints that held the work up, those of lost stretches not counted.
    lost
        Work, and checkpoints, that were done again.
    restarting
        Restarts, interrupted ones included.
    interval_s
        Work between checkpoints, in seconds.
    mean_time_s
        Mean time between interruptions, in seconds.
    """

    goodput: Floats
    stalled: Floats
    lost: Floats
    restarting: Floats
    interval_s: Floats
    mean_time_s: Floats


def mean_time_s(num_gpus: ArrayLike, per_gpu_hour: float = LLAMA3_PER_GPU_HOUR) -> Floats:
    """Mean time between interruptions of so many GPUs, in seconds; infinite without any.

    Examples
    --------
    >>> round(float(mean_time_s(16_384)) / 3600, 2), round(float(mean_time_s(220_000)) / 60, 1)
    (3.09, 13.8)
    """
    gpus = np.asarray(num_gpus, dtype=np.float64)
    if (gpus < 1).any() or per_gpu_hour < 0:
        raise InvalidInputError(
            "no such rate of interruptions",
            got=f"{per_gpu_hour} per GPU-hour, {gpus.min():g} GPUs",
            expected="at least 0, at least one GPU",
        )
    with np.errstate(divide="ignore"):
        return np.asarray(3600.0 / (gpus * per_gpu_hour))


def best_interval_s(stall_s: ArrayLike, mean_s: ArrayLike) -> Floats:
    """Work between checkpoints that loses least, in seconds; infinite where nothing interrupts.

    Examples
    --------
    Young's interval is near where stalls are short:

    >>> round(float(best_interval_s(10.0, 36_000.0))), round((2 * 10 * 36_000) ** 0.5)
    (842, 849)
    """
    stall, mean = np.broadcast_arrays(np.asarray(stall_s, np.float64), np.asarray(mean_s, np.float64))
    safe = np.where(np.isfinite(mean), mean, 1.0)
    # In x = t/M: log(1 - x) + x + C/M = 0, which falls from C/M on (0, 1); Newton from the left of Young's.
    c = stall / safe
    x = np.minimum(np.sqrt(2 * c), 1 - 0.5 * np.exp(-1 - c))
    for _ in range(_NEWTON_STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(x > 0, (np.log1p(-x) + x + c) * (1 - x) / x, 0.0)
        x = np.clip(x + step, 0.0, 1 - 1e-15)
    return np.where(np.isfinite(mean), x * safe, np.inf)


def expected_goodput(
    mean_s: ArrayLike,
    *,
    stall_s: ArrayLike,
    restart_s: ArrayLike,
    lag_s: ArrayLike = 0.0,
    interval_s: ArrayLike | None = None,
) -> Goodput:
    """What is left of a run's time.

    Parameters
    ----------
    mean_s
        M, in seconds (`mean_time_s`).
    stall_s
        C: how long a checkpoint holds the work up, in seconds.
    restart_s
        R: from an interruption to the next work, in seconds: found, replaced, started, loaded, warm.
    lag_s
        L: how long after the stall a checkpoint can be restored, in seconds: what an asynchronous one still
        writes.
    interval_s
        t, in seconds; None: the best.

    Examples
    --------
    Llama 3's machine, saving in 5 s and back in 10 minutes, does work that lasts for 92 % of its time:

    >>> round(float(expected_goodput(mean_time_s(16_384), stall_s=5.0, restart_s=600.0).goodput), 3)
    0.919
    """
    given = {"stall_s": stall_s, "restart_s": restart_s, "lag_s": lag_s}
    for name, value in given.items():
        if (np.asarray(value, dtype=np.float64) < 0).any():
            raise InvalidInputError("a time below nothing", where=name, got=str(value), expected="at least 0")
    mean, stall, restart, lag = np.broadcast_arrays(
        *(np.asarray(value, dtype=np.float64) for value in (mean_s, *given.values()))
    )
    interval = best_interval_s(stall, mean) if interval_s is None else np.asarray(interval_s, np.float64)
    if (interval <= 0).any() and (stall > 0).any():
        raise InvalidInputError("no work between checkpoints", where="interval_s", expected="more than 0")
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = (interval + stall) / mean
        # Nothing interrupts, or saving is free: the limits of the formula.
        stretch = np.where(share > 0, np.expm1(share) / np.where(share > 0, share, 1.0), 1.0)
        longer = np.exp(restart / mean) * stretch * (1 + lag / mean)
        of_work = np.where(np.isfinite(interval), interval / (interval + stall), 1.0)
        of_work = np.where(interval + stall > 0, of_work, 1.0)
    longer = np.where(np.isfinite(mean), longer, 1.0)
    goodput = of_work / longer
    stalled = (1 - of_work) / longer
    restarting = -np.expm1(-restart / mean)
    lost = 1 - goodput - stalled - restarting
    return Goodput(goodput, stalled, lost, np.asarray(restarting), np.asarray(interval), mean)
