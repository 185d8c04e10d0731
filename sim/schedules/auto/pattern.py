"""Patterns: the frame of F and I that repeats with every microbatch, described by when a microbatch moves on.

A microbatch passes 2S stations: F of stages 0 to S-1, then I of stages S-1 to 0. A pattern says how long it
stays between one station and the next, and each rank does its passes in the order of these times, microbatch
j one period T behind j-1. The orders of the literature are points of this family: 1F1B and its kin for v = 1,
the V schedules of arXiv:2405.15362 (building blocks repeated with a uniform interval) for the V placement.
With groups of g microbatches, those of a group follow each other at a shorter spacing and the next group
comes g periods later: interleaving is g = p.

What a rank holds is the time that microbatches stay there, divided by T: that is how a pattern is scaled to a
memory limit before it is tried. Actual starts are as early as the order allows, so times need not be
possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.schedules.auto.problem import Problem, Sequences

__all__ = ["Pattern", "frames_of", "least_gaps", "period_of", "scaled", "slowdown"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A repeating frame, and how weight gradients are woven into it.

    Parameters
    ----------
    gaps
        Time between the starts of a microbatch at neighbouring stations, in periods; shape [2S-1].
    group
        Microbatches that follow each other at `spacing`.
    spacing
        In units of the period; 1 for a group of one.
    slowdown
        How many periods lie between microbatches where memory does not allow one each; at least 1.
    gap_share, backlog
        As `exactmap.sim.schedules.auto.weave.weave` takes them.
    """

    gaps: tuple[float, ...]
    group: int
    spacing: float
    slowdown: float
    gap_share: float
    backlog: tuple[int, ...]


def period_of(problem: Problem) -> int:
    """Work of the busiest rank for one microbatch: the shortest period."""
    return max(
        sum(problem.forward_ns[s] + problem.input_ns[s] + problem.weight_ns[s] for s in stages)
        for stages in problem.stages_of
    )


def least_gaps(problem: Problem) -> Floats:
    """Shortest time between stations, in units of the period; shape [2S-1]."""
    rank_of = problem.rank_of
    hops = [problem.hop_ns if a != b else 0 for a, b in pairwise(rank_of)]
    down = [work + hop for work, hop in zip(problem.forward_ns[:-1], hops, strict=True)]
    up = [work + hop for work, hop in zip(problem.input_ns[:0:-1], reversed(hops), strict=True)]
    return np.array([*down, problem.forward_ns[-1], *up], dtype=np.float64) / period_of(problem)


def _stations(problem: Problem, gaps: Floats) -> Floats:
    """Start of a microbatch at each station; shape [2S]."""
    return np.concatenate(([0.0], np.cumsum(np.maximum(gaps, least_gaps(problem)))))


def _held(problem: Problem, gaps: Floats) -> float:
    """Largest share of its limit that a rank fills when the pattern repeats exactly."""
    at, num_stages, period = _stations(problem, gaps), problem.num_stages, period_of(problem)
    share = 0.0
    for rank, stages in enumerate(problem.stages_of):
        held = 0.0
        for stage in stages:
            stays = at[2 * num_stages - 1 - stage] - at[stage]
            own = (problem.input_ns[stage] + problem.weight_ns[stage]) / period
            held += problem.adds[stage] * stays + (problem.adds[stage] - problem.frees[stage]) * own
        share = max(share, held / problem.limits[rank])
    return share


def scaled(problem: Problem, gaps: Sequence[float] | Floats, share: float) -> tuple[float, ...]:
    """Gaps stretched or shrunk so that the fullest rank holds `share` of its limit, as far as they can."""
    start = np.asarray(gaps, dtype=np.float64)
    low, high = 0.0, 64.0
    for _ in range(24):
        factor = (low + high) / 2
        if _held(problem, start * factor) > share:
            high = factor
        else:
            low = factor
    return tuple((start * low).tolist())


def slowdown(problem: Problem, gaps: Sequence[float] | Floats, share: float) -> float:
    """How many periods must lie between microbatches for the fullest rank to hold `share` of its limit."""
    return max(1.0, _held(problem, np.asarray(gaps, dtype=np.float64)) / share)


def frames_of(problem: Problem, pattern: Pattern) -> Sequences:
    """The passes F and I of each rank in the order of the pattern's times."""
    num_stages, m = problem.num_stages, problem.num_microbatches
    at = _stations(problem, np.array(pattern.gaps))
    microbatch = np.arange(m)
    turn, inside = np.divmod(microbatch, pattern.group)
    begins = (turn * float(pattern.group) + inside * pattern.spacing) * pattern.slowdown
    # Starts by station and microbatch, works in the same layout as their numbers.
    starts = at[:, None] + begins[None, :]
    starts = np.concatenate((starts[:num_stages], starts[: num_stages - 1 : -1]))
    numbers = np.arange(2 * num_stages * m).reshape(2 * num_stages, m)
    frames: Sequences = []
    for stages in problem.stages_of:
        rows = [*stages, *(num_stages + stage for stage in stages)]
        order = np.argsort(starts[rows].reshape(-1), kind="stable")
        frames.append(numbers[rows].reshape(-1)[order].tolist())
    return frames
