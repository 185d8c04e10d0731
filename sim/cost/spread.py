"""How much the slowest of many ranks holds all of them up.

Equal GPUs at equal work differ by a few percent: clocks under power limits, memory, the operating system. A
step waits for the slowest of N. Published weak-scaling runs grow by 1 to 5 % from tens to thousands of GPUs
though no message gets longer, as the largest of N draws from a normal distribution does.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

__all__ = ["largest_of"]


@lru_cache(maxsize=1024)
def largest_of(count: int) -> float:
    """Expected largest of so many standard normal draws (Blom 1958).

    Examples
    --------
    >>> [round(largest_of(count), 2) for count in (1, 2, 8, 64, 2048)]
    [0.0, 0.59, 1.43, 2.34, 3.43]
    """
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0
