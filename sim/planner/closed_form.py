"""Step time of a schedule in closed form: what ranks thousands of candidates in milliseconds.

With T the busiest rank's F + B of one microbatch, E the average rank's, c the latency of a hop between ranks,
W_avg the weight gradient, p ranks, m microbatches, v chunks, barrier clock (Narayanan et al.,
arXiv:2104.04473; Qi et al., arXiv:2401.10241)::

    gpipe, 1f1b       m T + (p-1) E + 2 (p-1) c
    interleaved-1f1b  m T + (p-1) E / v + 2 (p-1) c     (v groups of hops overlap with work)
    zb-h1             m T + (p-1) (E - 2 W_avg) + 2 (p-1) c

The finalists are priced again from their orders and then from their plans, so these forms only decide who is
a finalist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["peak_stash_chunks", "pipeline_time_ns", "rank_times_ns"]


def rank_times_ns(
    work_ns: Mapping[tuple[str, int], int], placement: Sequence[int], num_ranks: int
) -> tuple[list[int], list[int]]:
    """Per rank: (F + I + W, W alone) of one microbatch over its stages, in ns."""
    total, weight = [0] * num_ranks, [0] * num_ranks
    for stage, rank in enumerate(placement):
        total[rank] += sum(work_ns[op, stage] for op in ("F", "I", "W"))
        weight[rank] += work_ns["W", stage]
    return total, weight


def pipeline_time_ns(
    schedule: str,
    rank_ns: Sequence[int],
    weight_ns: Sequence[int],
    *,
    num_microbatches: int,
    chunks: int,
    hop_ns: int,
) -> int:
    """Barrier makespan of the passes of one step, without optimizer and gradient reduction, in ns.

    Examples
    --------
    >>> pipeline_time_ns("1f1b", [3, 3, 3, 3], [1] * 4, num_microbatches=8, chunks=1, hop_ns=0)
    33
    >>> pipeline_time_ns("zb-h1", [3, 3, 3, 3], [1] * 4, num_microbatches=8, chunks=1, hop_ns=0)
    27
    """
    num_ranks = len(rank_ns)
    average = sum(rank_ns) / num_ranks
    fill = average / chunks if schedule == "interleaved-1f1b" else average
    if schedule == "zb-h1":
        fill -= 2 * sum(weight_ns) / num_ranks
    hops = 2 * (num_ranks - 1) * hop_ns
    return round(num_microbatches * max(rank_ns) + (num_ranks - 1) * fill + hops)


def peak_stash_chunks(schedule: str, rank: int, num_ranks: int, num_microbatches: int, chunks: int) -> int:
    """Most (stage, microbatch) stashes alive at once on a rank.

    Examples
    --------
    >>> [peak_stash_chunks("1f1b", rank, 4, 8, 1) for rank in range(4)]
    [4, 3, 2, 1]
    """
    if schedule == "gpipe":
        return num_microbatches
    if schedule == "interleaved-1f1b":
        group = min(num_microbatches, num_ranks)
        warmup = 2 * (num_ranks - 1 - rank) + (chunks - 1) * group
        return min(warmup + 1, num_microbatches * chunks)
    if schedule == "zb-h1":
        # W of rank r waits for r more microbatches, so every rank holds as much as the first.
        return min(num_ranks, num_microbatches)
    return min(num_ranks - rank, num_microbatches)
