"""Where I and W may become one B: they follow each other and nobody waits for I before W ends."""

from __future__ import annotations

from itertools import pairwise

from exactmap.sim.schedules.auto.problem import Problem, Sequences
from exactmap.sim.schedules.auto.timing import Timing

__all__ = ["fusable"]


def fusable(problem: Problem, sequences: Sequences, timing: Timing) -> list[set[int]]:
    """By rank, items whose I and W can be one pass without any work starting later."""
    items, m = problem.num_stages * problem.num_microbatches, problem.num_microbatches
    end_ns, duration_ns = timing.end_ns, problem.duration_ns
    found: list[set[int]] = []
    for sequence in sequences:
        mine: set[int] = set()
        for early, late in pairwise(sequence):
            if late < 2 * items or late - early != items:
                continue
            consumer = early - m
            if consumer >= items:
                starts_ns = end_ns[consumer] - duration_ns[consumer]
                if end_ns[late] + problem.delay_ns[consumer] > starts_ns:
                    continue
            mine.add(late - 2 * items)
        found.append(mine)
    return found
