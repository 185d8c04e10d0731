"""Measured times of collectives inside a scale-up domain, by size and number of ranks.

The table (``catalog/nvlink-collectives.csv``) holds NCCL times for 2, 4 and 8 ranks from 512 B to 512 MiB.
Between two sizes the time is interpolated on logarithmic axes; beyond the largest it grows at the rate of
the last doubling. More ranks than measured: the bytes that a link carries grow by the ring's (n-1)/n, and
each further rank adds the latency that each rank added between the two largest groups measured; an
all-reduce may take a tree instead, whose latency grows with the logarithm of the ranks.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from importlib.resources import files
from math import exp, log, log2
from typing import NamedTuple

__all__ = ["Curve", "curve_names", "measured_time_ns", "small_message_ns"]

_FILE = "nvlink-collectives.csv"


class Curve(NamedTuple):
    """Times of one collective on one group size: sizes ascending, and a time for each."""

    num_bytes: tuple[int, ...]
    time_ns: tuple[float, ...]

    def at(self, num_bytes: int) -> float:
        """Time in ns at a size."""
        sizes, times = self
        if num_bytes <= sizes[0]:
            return times[0]
        if num_bytes >= sizes[-1]:
            per_byte = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
            return times[-1] + (num_bytes - sizes[-1]) * per_byte
        right = bisect_left(sizes, num_bytes)
        share = log(num_bytes / sizes[right - 1]) / log(sizes[right] / sizes[right - 1])
        return exp((1.0 - share) * log(times[right - 1]) + share * log(times[right]))


@cache
def _tables() -> dict[tuple[str, str], dict[int, Curve]]:
    """(GPU, collective) -> number of ranks -> curve."""
    points: dict[tuple[str, str], dict[int, list[tuple[int, float]]]] = {}
    text = files("exactmap.topology").joinpath("catalog", _FILE).read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    for row in rows[1:]:
        gpu, op, ranks, num_bytes, micros = row.split(",")
        by_ranks = points.setdefault((gpu, op), {})
        by_ranks.setdefault(int(ranks), []).append((int(num_bytes), float(micros) * 1000.0))
    return {
        key: {
            ranks: Curve(tuple(size for size, _ in sorted(curve)), tuple(time for _, time in sorted(curve)))
            for ranks, curve in by_ranks.items()
        }
        for key, by_ranks in points.items()
    }


def curve_names() -> frozenset[str]:
    """GPUs that have measured collectives."""
    return frozenset(gpu for gpu, _ in _tables())


def small_message_ns(curves: str, op: str, num_ranks: int) -> float:
    """Time in ns of the smallest measured message: the latency of the collective."""
    return measured_time_ns(curves, op, num_ranks, 1)


def measured_time_ns(curves: str, op: str, num_ranks: int, num_bytes: int) -> float:
    """Time of a collective inside one domain, from the measured curves.

    Parameters
    ----------
    curves
        Name of the curves (`GPU.curves`).
    op
        ``all_reduce``, ``all_gather``, ``reduce_scatter`` or ``all_to_all``.
    num_ranks
        Ranks, at least 2.
    num_bytes
        Full buffer: the sum over ranks for gather and scatter.

    Returns
    -------
    float
        Time in ns.

    Raises
    ------
    KeyError
        If there are no such curves.
    """
    by_ranks = _tables()[curves, op]
    known = sorted(by_ranks)
    if num_ranks in by_ranks:
        return by_ranks[num_ranks].at(num_bytes)
    if num_ranks < known[-1]:
        above = known[bisect_left(known, num_ranks)]
        below = known[known.index(above) - 1]
        share = log(num_ranks / below) / log(above / below)
        return (1.0 - share) * by_ranks[below].at(num_bytes) + share * by_ranks[above].at(num_bytes)
    largest, before = known[-1], known[-2]
    # The same bytes per link as in the largest measured group, plus the latency of the further ranks.
    same_link = num_bytes * ((num_ranks - 1) / num_ranks) / ((largest - 1) / largest)
    per_rank = (by_ranks[largest].time_ns[0] - by_ranks[before].time_ns[0]) / (largest - before)
    further = float(num_ranks - largest)
    if op == "all_reduce":
        # A tree goes up and down log2(n) levels; a level costs about what two ring steps do.
        further = min(further, 4.0 * log2(num_ranks / largest))
    return by_ranks[largest].at(round(same_link)) + further * max(per_rank, 0.0)
