"""Step time of a schedule in closed form: what ranks thousands of candidates in milliseconds.

With T the busiest rank's F + B of one microbatch, E the average rank's, W the average weight gradient, c the
latency of a hop between ranks, p ranks, m microbatches, v chunks, barrier clock::

    gpipe             m T + (p-1) E
    1f1b              m T + (p-1) E
    interleaved-1f1b  m T + (p-1) E/v + max(0, p-m) (v-1) E/v
    zb-h1             m T + (p-1) (E - 2 W) + max(0, p-m) W
    1f1b-recompute    m (T + F) + (p-1) E: a rank computes again while it waits for the gradient

and for the hops, twice c times

    gpipe             p-1
    1f1b              p-1 + m-1 - ceil((m-1)/p)
    interleaved-1f1b  p v - 1
    zb-h1             p-1 + min(max(m-2, 0), p-1)
    1f1b-recompute    p-1

The first terms are published (Narayanan et al., arXiv:2104.04473; Qi et al., arXiv:2401.10241); the others,
for fewer microbatches than ranks and for hops, were read off walks of the orders. With equal stages and hops
that are short beside F, I and W, all are exact, interleaved-1f1b where p divides m or m <= p. The finalists
are priced again from their orders and then from their plans: these forms only decide who is a finalist.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["CLOSED_FORMS", "fused_times_ns", "peak_stash_chunks", "pipeline_time_ns", "rank_times_ns"]

CLOSED_FORMS = ("gpipe", "1f1b", "interleaved-1f1b", "zb-h1", "1f1b-recompute")
"""Schedules that have a form here: what a search considers unless it is told otherwise."""


def rank_times_ns(
    work_ns: Mapping[tuple[str, int], int], placement: Sequence[Sequence[int]], num_ranks: int
) -> tuple[list[int], list[int]]:
    """Per rank: (F + I + W, W alone) of one microbatch over its stages, in ns."""
    total, weight = [0] * num_ranks, [0] * num_ranks
    for stage, ranks in enumerate(placement):
        for rank in ranks:
            total[rank] += sum(work_ns[op, stage] for op in ("F", "I", "W")) // len(ranks)
            weight[rank] += work_ns["W", stage] // len(ranks)
    return total, weight


def fused_times_ns(
    work_ns: Mapping[tuple[str, int], int], placement: Sequence[Sequence[int]], num_ranks: int
) -> tuple[list[int], list[int]]:
    """Per rank: (F + B, F alone) of one microbatch over its stages, in ns; B untimed is I + W."""
    total, forward = [0] * num_ranks, [0] * num_ranks
    for stage, ranks in enumerate(placement):
        backward = work_ns.get(("B", stage), work_ns["I", stage] + work_ns["W", stage])
        for rank in ranks:
            total[rank] += (work_ns["F", stage] + backward) // len(ranks)
            forward[rank] += work_ns["F", stage] // len(ranks)
    return total, forward


def pipeline_time_ns(
    schedule: str,
    rank_ns: Sequence[int],
    weight_ns: Sequence[int],
    *,
    num_microbatches: int,
    chunks: int,
    hop_ns: int,
    forward_ns: Sequence[int] = (),
) -> int:
    """Barrier makespan of the passes of one step, without optimizer and gradient reduction, in ns.

    `forward_ns`, F alone by rank, is what recomputation does again.

    Examples
    --------
    >>> pipeline_time_ns("1f1b", [3, 3, 3, 3], [1] * 4, num_microbatches=8, chunks=1, hop_ns=0)
    33
    >>> pipeline_time_ns("zb-h1", [3, 3, 3, 3], [1] * 4, num_microbatches=8, chunks=1, hop_ns=0)
    27
    """
    num_ranks, m = len(rank_ns), num_microbatches
    others = num_ranks - 1
    average, weight = sum(rank_ns) / num_ranks, sum(weight_ns) / num_ranks
    too_few = max(0, num_ranks - m)
    match schedule:
        case "interleaved-1f1b":
            fill = (others + too_few * (chunks - 1)) * average / chunks
            num_hops = num_ranks * chunks - 1
        case "zb-h1":
            fill = others * (average - 2 * weight) + too_few * weight
            num_hops = others + min(max(m - 2, 0), others)
        case "1f1b":
            fill = others * average
            num_hops = others + m - 1 - -(-(m - 1) // num_ranks)
        case _:
            fill = others * average
            num_hops = others
    busiest = max(rank_ns)
    if schedule == "1f1b-recompute":
        busiest = max(passes + again for passes, again in zip(rank_ns, forward_ns, strict=True))
    return round(m * busiest + fill + 2 * num_hops * hop_ns)


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
