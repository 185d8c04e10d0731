"""Time of a step's passes through a pipeline in closed form, with uneven stages and messages between them.

With T_r = F + I + W of rank r for one microbatch, B = I + W, m microbatches, p ranks, v chunks, c the time of
a hop: a step takes m T of the busiest rank, what that rank waits for others (`exactmap.sim.step.bubbles`),
and what messages add (`hop_ns`).

A message that blocks (a send and a receive posted together and waited for, as Megatron without overlap does)
stops the streams of both ends, and the host has launched nothing ahead when it is through: every pass then
begins with the time to launch its first kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from exactmap.sim.step.bubbles import StageTimes, passes_ns

__all__ = ["PipelineTime", "pipeline_time", "schedule_name"]

_NAMES = {
    "none": "none",
    "": "",
    "dualpipev": "dualpipe-v",
    "zb-1p": "zb-h1",
    "zbv": "zb-v",
}


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
    bubble_ns, hop_ns, host_ns
        What it waits for: other ranks; messages; the host after a message that blocked.
    early_ns
        By rank: how long before the end its last pass ends.
    """

    total_ns: float
    busiest: int
    busy_ns: float
    bubble_ns: float
    hop_ns: float
    host_ns: float
    early_ns: tuple[float, ...]


def schedule_name(name: str, ranks: int, chunks: int) -> str:
    """Name of a schedule as `exactmap.sim.schedules.registry` has it, of one as published or not stated.

    Examples
    --------
    >>> schedule_name("1F1B", 4, 2), schedule_name("DualPipe", 4, 2), schedule_name("not stated", 1, 1)
    ('interleaved-1f1b', 'dualpipe', 'none')
    """
    short = name.lower().split(" ", maxsplit=1)[0]
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
    handover_ns: float = 0.0,
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
    handover_ns
        Host time that a pass begins with after a message that blocked.

    Examples
    --------
    >>> times = StageTimes([1.0] * 4, [1.0] * 4, [1.0] * 4)
    >>> pipeline_time("1f1b", times, [[0], [1], [2], [3]], num_microbatches=8).total_ns
    33.0
    """
    p = max(rank for ranks in ranks_of for rank in ranks) + 1
    m, stages = num_microbatches, len(ranks_of)
    if p == 1:
        busy = m * sum(map(sum, (times.forward, times.input, times.weight)))
        return PipelineTime(busy, 0, busy, 0.0, 0.0, 0.0, (0.0,))
    hops = list(hops_ns) or [0.0] * (stages - 1)
    handover = handover_ns if blocking else 0.0
    rank_ns = _rank_ns(times, ranks_of, p)
    busiest = max(range(p), key=rank_ns.__getitem__)
    busy = m * rank_ns[busiest]
    bubble = passes_ns(schedule, times, rank_ns, m) - busy
    host = 0.0
    if handover:
        later = replace(
            times,
            forward=[each + handover for each in times.forward],
            input=[each + handover for each in times.input],
        )
        slower = _rank_ns(later, ranks_of, p)
        host = passes_ns(schedule, later, slower, m) - bubble - busy
        times, rank_ns = later, slower
    with_hops = passes_ns(schedule, times, rank_ns, m, hops, blocking=blocking)
    hop = max(0.0, with_hops - busy - bubble - host)
    early = _early_ns(schedule, times, hops, p)
    return PipelineTime(busy + bubble + host + hop, busiest, busy, bubble, hop, host, early)


def _rank_ns(times: StageTimes, ranks_of: Sequence[Sequence[int]], p: int) -> list[float]:
    rank_ns = [0.0] * p
    for forward, input_, weight, ranks in zip(
        times.forward, times.input, times.weight, ranks_of, strict=True
    ):
        for rank in ranks:
            rank_ns[rank] += (forward + input_ + weight) / len(ranks)
    return rank_ns


def _early_ns(schedule: str, times: StageTimes, hops: list[float], p: int) -> tuple[float, ...]:
    """How long before the end each rank is through: backward of the last microbatch runs down the ranks."""
    early, left = [0.0] * p, 0.0
    if schedule in ("gpipe", "1f1b", "interleaved-1f1b"):
        for rank in range(1, p):
            left += times.input[rank - 1] + times.weight[rank - 1] + hops[rank - 1]
            early[rank] = left
    return tuple(early)
