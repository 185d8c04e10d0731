"""Time of a step's passes through a pipeline in closed form, with uneven stages and messages between them.

With T_r = F + I + W of rank r for one microbatch, m microbatches, p ranks, v chunks, c_e the time of the hop
over edge e:

1F1B: a rank has at most p - r microbatches under way, so every window of ranks a..b turns round once per
b - a + 1 microbatches, and the slowest window sets the pace ::

    pace = max over a <= b of (sum of T + 2 sum of c inside the window) / (b - a + 1)
    time = sum of T + 2 sum of c + (m - 1) pace

A rank whose messages block its stream (a send and a receive posted together and waited for, as Megatron
without overlap does) also stands still for the hops at the window's two ends. The other forms start from
published ones (Narayanan et al., arXiv:2104.04473; Qi et al., arXiv:2401.10241) with the average of the other
ranks where those have equal stages; tests hold all of them against walks of the schedules' orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["PipelineTime", "StageTimes", "pipeline_time", "schedule_name"]

_NAMES = {
    "none": "none",
    "": "",
    "1f1b": "1f1b",
    "dualpipev": "dualpipe-v",
    "zb-1p": "zb-h1",
    "zb-2p": "zb-h2",
}


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Passes of one microbatch through each stage, in ns, front to back."""

    forward: Sequence[float]
    input: Sequence[float]
    weight: Sequence[float]


@dataclass(frozen=True, slots=True)
class PipelineTime:
    """Passes of a step.

    Parameters
    ----------
    total_ns
        From the first pass to the end of the last.
    busiest
        The rank with most to do.
    busy_ns
        What it does.
    bubble_ns, hop_ns
        What it waits for: other ranks; messages.
    early_ns
        By rank: how long before the end its last pass ends.
    """

    total_ns: float
    busiest: int
    busy_ns: float
    bubble_ns: float
    hop_ns: float
    early_ns: tuple[float, ...]


def schedule_name(name: str, ranks: int, chunks: int) -> str:
    """Name of a schedule as `exactmap.sim.schedules.registry` has it, of one as published or not stated."""
    short = name.lower().split(" ")[0]
    if ranks == 1:
        return "none"
    short = _NAMES.get(short, short)
    if short in ("", "none", "not", "1f1b", "interleaved-1f1b"):
        return "interleaved-1f1b" if chunks > 1 else "1f1b"
    return short


def pipeline_time(
    schedule: str,
    times: StageTimes,
    ranks_of: Sequence[Sequence[int]],
    *,
    num_microbatches: int,
    hops_ns: Sequence[float] = (),
    blocking: bool = False,
) -> PipelineTime:
    """Time of the passes of one step.

    Parameters
    ----------
    schedule
        As `schedule_name` has it.
    times
        Passes of each stage.
    ranks_of
        Ranks that hold each stage.
    num_microbatches
        m.
    hops_ns
        Time of the message between each stage and the next; empty: none.
    blocking
        Whether messages block the streams of both ends.

    Examples
    --------
    >>> times = StageTimes([1.0] * 4, [1.0] * 4, [1.0] * 4)
    >>> pipeline_time("1f1b", times, [[0], [1], [2], [3]], num_microbatches=8).total_ns
    33.0
    """
    p = max(rank for ranks in ranks_of for rank in ranks) + 1
    stages, m = len(ranks_of), num_microbatches
    rank_ns = [0.0] * p
    for stage, ranks in enumerate(ranks_of):
        each = (times.forward[stage] + times.input[stage] + times.weight[stage]) / len(ranks)
        for rank in ranks:
            rank_ns[rank] += each
    busiest = max(range(p), key=rank_ns.__getitem__)
    busy = m * rank_ns[busiest]
    hops = list(hops_ns) or [0.0] * (stages - 1)
    if p == 1:
        return PipelineTime(busy, 0, busy, 0.0, 0.0, (0.0,))
    fill = _fill_ns(schedule, times, rank_ns, m, stages // p)
    hop = _hops_ns(schedule, rank_ns, hops, m, p, blocking=blocking)
    # Backward of the last microbatch runs down the ranks: what is left when each has done its own.
    early, left = [0.0] * p, 0.0
    if schedule in ("none", "gpipe", "1f1b", "interleaved-1f1b"):
        for rank in range(1, p):
            left += times.input[rank - 1] + times.weight[rank - 1] + hops[rank - 1]
            early[rank] = left
    return PipelineTime(busy + fill + hop, busiest, busy, fill, hop, tuple(early))


def _fill_ns(schedule: str, times: StageTimes, rank_ns: list[float], m: int, chunks: int) -> float:
    """Idle time of the busiest rank if messages took nothing."""
    p = len(rank_ns)
    others = sum(rank_ns) - max(rank_ns)
    weight = sum(times.weight) / p * (p - 1)
    few = max(0, p - m)
    match schedule:
        case "interleaved-1f1b":
            return others / chunks + few * (chunks - 1) / chunks * others / (p - 1)
        case "zb-h1":
            return max(0.0, others - 2 * weight) + few * weight / (p - 1)
        case "zb-h2" | "auto":
            return max(0.0, others - 2 * weight) / 2
        case "zb-v" | "v-half" | "v-min":
            return max(0.0, others - 2 * weight) / 2
        case "dualpipe" | "dualpipe-v":
            return max(0.0, others - 2 * weight) / 2
        case _:
            return others


def _hops_ns(
    schedule: str, rank_ns: list[float], hops: list[float], m: int, p: int, *, blocking: bool
) -> float:
    """What messages add."""
    if not any(hops):
        return 0.0
    mean = sum(hops) / len(hops)
    if schedule == "1f1b":
        through = 2.0 * sum(hops)
        return through + (m - 1) * (_pace_ns(rank_ns, hops, m, blocking=blocking) - max(rank_ns))
    steady = 0.0
    if blocking:
        steady = 2.0 * mean * (m - 1) * (len(hops) + 1) / p
    if schedule == "interleaved-1f1b":
        return 2.0 * sum(hops) + steady
    if schedule == "gpipe":
        return 2.0 * sum(hops)
    return 2.0 * mean * (p - 1 + min(max(m - 2, 0), p - 1)) + steady


def _pace_ns(rank_ns: list[float], hops: list[float], m: int, *, blocking: bool) -> float:
    """Time per microbatch of the slowest window of ranks under 1F1B."""
    p = len(rank_ns)
    work = np.concatenate([[0.0], np.cumsum(rank_ns)])
    wire = np.concatenate([[0.0], np.cumsum(hops)])
    span = work[None, 1:] - work[:-1, None] + 2.0 * (wire[None, :] - wire[:, None])
    length, allowed = _windows(p, m)
    if blocking:
        ends = np.array([0.0, *hops, 0.0])
        span = span + ends[:-1, None] + ends[None, 1:]
    return float(np.max(np.where(allowed, span / length, 0.0)))


@lru_cache(maxsize=512)
def _windows(p: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Ranks in each window a..b, shape [p, p], and which windows turn round within m microbatches."""
    length = np.arange(p)[None, :] - np.arange(p)[:, None] + 1.0
    return np.where(length > 0, length, 1.0), (length > 0) & (length <= max(1, m - 1))
