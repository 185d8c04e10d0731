"""How long the passes of a step take under each schedule, with uneven stages and messages, in closed form.

1F1B is solved: a path through it goes down to the last rank and back, and turns on its way between some rank
a and some rank b. A turn between a and b advances b - a + 1 microbatches, since rank a has at most p - a
under way, so the slowest window of ranks sets the pace; going in, the path either waits for the first
microbatch to come back to rank a or for the forward passes that a does meanwhile, and going out likewise ::

    pace(a) = max over b of (sum of T in a..b + 2 sum of c) / (b - a + 1)
    back(a) = sum of T + 2 sum of c beyond a
    time    = max over a of  sum of T + 2 sum of c before a + 2 T_a + (m - 1 - p + a) pace(a)
              + max(back, (p-1-a) F_a) + max(back, (p-1-a) B_a)

The others are published forms with the other ranks' average for the equal stages of those; interleaved 1F1B
(Narayanan et al., arXiv:2104.04473), ZB-H1 and ZB-H2 (Qi et al., arXiv:2401.10241), ZB-V (arXiv:2405.15362),
DualPipe and DualPipeV (deepseek-ai/DualPipe: (p/2 - 1)(F&B + B - 3W)), with what few microbatches and hops
change read off walks of the orders. All end at a barrier: the optimizer waits for the last rank. Tests hold
them against those walks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

__all__ = ["StageTimes", "passes_ns"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Passes of one microbatch through each stage, in ns, front to back."""

    forward: Sequence[float]
    input: Sequence[float]
    weight: Sequence[float]


def passes_ns(
    schedule: str,
    times: StageTimes,
    rank_ns: Sequence[float],
    m: int,
    hops: Sequence[float] = (),
    *,
    blocking: bool = False,
) -> float:
    """Time of the passes of a step.

    Parameters
    ----------
    schedule, times
        As in `exactmap.sim.step.pipeline.pipeline_time`.
    rank_ns
        Passes of one microbatch by rank.
    m
        Microbatches.
    hops, blocking
        Messages between stages; whether they block.
    """
    p = len(rank_ns)
    if schedule == "1f1b":
        return _one_f_one_b(times, rank_ns, m, hops, blocking=blocking)
    if schedule == "gpipe":
        # A rank does all its chunks of a microbatch in turn.
        forward = [sum(times.forward[rank::p]) for rank in range(p)]
        backward = max(sum(times.input[rank::p]) + sum(times.weight[rank::p]) for rank in range(p))
        wire = max(hops, default=0.0) * blocking
        return sum(rank_ns) + 2 * sum(hops) + (m - 1) * (max(forward) + backward + 2 * wire)
    busy = max(rank_ns)
    idle = _idle_ns(schedule, times, rank_ns, m, len(times.forward) // p)
    return m * busy + idle + _hops_ns(schedule, hops, m, p, blocking=blocking)


def _one_f_one_b(
    times: StageTimes, rank_ns: Sequence[float], m: int, hops: Sequence[float], *, blocking: bool
) -> float:
    p = len(rank_ns)
    work = np.array([0.0, *accumulate(rank_ns)])
    wire = np.array([0.0, *accumulate(hops)]) if hops else np.zeros(p)
    before = work[:-1] + 2.0 * wire
    own, total = np.array(rank_ns), work[-1] + 2.0 * wire[-1]
    back = total - before - own
    length, ranks = _windows(p)
    span = work[None, 1:] - work[:-1, None] + 2.0 * (wire[None, :] - wire[:, None])
    forward = np.array(times.forward)
    backward = own - forward
    if blocking and hops:
        ends = np.array([0.0, *hops, 0.0])
        span = span + ends[:-1, None] + ends[None, 1:]
        forward, backward = forward + ends[1:], backward + ends[:-1]
    turns = m - 1 - p + ranks
    fits = (length > 0) & (length <= np.maximum(1, turns)[:, None])
    pace = np.where(fits, span / np.where(length > 0, length, 1.0), 0.0).max(axis=1)
    ahead = p - 1 - ranks
    steady = (
        before
        + 2.0 * own
        + np.maximum(back, ahead * forward)
        + np.maximum(back, ahead * backward)
        + np.maximum(turns, 0) * pace
    )
    few = total + (m - 1) * np.maximum(forward, backward)
    return float(np.where(turns >= 0, steady, few).max())


@lru_cache(maxsize=256)
def _windows(p: int) -> tuple[Floats, Floats]:
    """Ranks in each window a..b, shape [p, p], not positive where b < a; ranks, shape [p]."""
    ranks = np.arange(p, dtype=float)
    return ranks[None, :] - ranks[:, None] + 1.0, ranks


def _idle_ns(schedule: str, times: StageTimes, rank_ns: Sequence[float], m: int, chunks: int) -> float:
    """Idle time of the busiest rank if messages took nothing."""
    p = len(rank_ns)
    others = sum(rank_ns) - max(rank_ns)
    forward, input_, weight = (sum(each) * (p - 1) / p for each in (times.forward, times.input, times.weight))
    few, fewer = max(0, p - m) / (p - 1), max(0.0, 2 * p - 2 - m) / max(1, 2 * p - 3)
    match schedule:
        case "interleaved-1f1b":
            return others / chunks * (1.0 + few * (chunks - 1))
        case "zb-h1":
            return max(0.0, others - 2 * weight) + few * weight
        case "zb-h2":
            return forward + fewer * input_
        case "zb-2p":
            # 2p microbatches under way, and no barrier: only the first microbatch's way back is waited for.
            return max(0.0, input_ - forward * p / (p - 1))
        case "interleaved-zb":
            more = few * (chunks - 1) * (forward + input_)
            return (max(0.0, forward + input_ - weight) + more) / chunks
        case "zb-v" | "v-half" | "v-min":
            full = max(input_ / 2, forward - input_ / 2)
            if m < p:
                return input_ + few * forward
            return full + max(0.0, input_ - full) * max(0, 2 * p - m) / p
        case "dualpipe":
            return max(0.0, forward + 2 * input_ - weight) * max(0, p - 2) / (2 * (p - 1))
        case "dualpipe-v":
            return max(0.0, forward + 2 * input_ - weight) / 2
        case _:
            return others


def _hops_ns(schedule: str, hops: Sequence[float], m: int, p: int, *, blocking: bool) -> float:
    """What messages add where they only delay, and where they block."""
    if not hops:
        return 0.0
    mean, chunks = sum(hops) / len(hops), (len(hops) + 1) / p
    match schedule:
        case "interleaved-1f1b":
            # In the steady state one exchange carries what F and B of a chunk send.
            return 2.0 * sum(hops) + (chunks * (m - 1) * mean if blocking else 0.0)
        case "zb-h1":
            count = 2.0 * (p - 1 + min(max(m - 2, 0), p - 1))
        case "zb-v" | "v-half" | "v-min" | "interleaved-zb":
            count = 5.0 * p - 6
        case "dualpipe":
            return mean * (m * (p - 1) / p + 1.5 * p - 3)
        case "dualpipe-v":
            return mean * (2.0 * m * (p - 1) / p + 3 * p - 8)
        case _:
            count = float(p - 1)
    return mean * (count + (2.0 * chunks * (m - 1) if blocking else 0.0))
