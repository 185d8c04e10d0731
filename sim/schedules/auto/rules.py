"""The grid of rules that list scheduling is tried with."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from exactmap.sim.schedules.auto.dispatch import Rule
from exactmap.sim.schedules.auto.pattern import least_gaps, period_of
from exactmap.sim.schedules.auto.problem import Problem

__all__ = ["rules"]

_NONE = 1 << 40
_FIRST = 1e15


def rules(problem: Problem) -> Iterator[Rule]:
    """Rules, the ones that win most often first."""
    return _one_chunk(problem) if problem.num_stages == problem.num_ranks else _many_chunks(problem)


def _one_chunk(problem: Problem) -> Iterator[Rule]:
    """F or I first; how patient; how W waits; how deep the warm-up is."""
    p, num_stages = problem.num_ranks, problem.num_stages
    fifo = ((0.0, 1.0),) * num_stages
    first = ((-_FIRST, 1.0),) * num_stages
    second = ((-_FIRST / 2, 1.0),) * num_stages
    warm = {
        "": (_NONE,) * num_stages,
        "h2": tuple(2 * (p - 1 - s) + 1 for s in range(num_stages)),
        "h1": tuple(p - s for s in range(num_stages)),
        "h1.5": tuple(3 * (p - s) // 2 for s in range(num_stages)),
    }
    wait = {
        "": (_NONE,) * p,
        "4r": tuple(4 * r for r in range(p)),
        "2r": tuple(2 * r for r in range(p)),
        "1r": tuple(range(p)),
    }
    for (depth, flight), (late, backlog), input_first, patience, gap_share in product(
        warm.items(), wait.items(), (True, False), (0.0, 0.3, 0.7), (0.0, 0.5, 1.0)
    ):
        if patience == 0.7 and depth not in {"", "h1"}:
            continue
        yield Rule(
            second if input_first else first,
            first if input_first else second,
            fifo,
            flight,
            backlog,
            gap_share,
            patience,
            False,
            f"list {'I' if input_first else 'F'} first {depth} {late} patience {patience} gap {gap_share}",
        )


def _many_chunks(problem: Problem) -> Iterator[Rule]:
    """Deep warm-ups and turns of F and I for the V placement; ideal times as keys for all."""
    if problem.placement[0] != problem.placement[problem.num_ranks]:
        yield from _vee(problem)
    yield from _by_time(problem)


def _vee(problem: Problem) -> Iterator[Rule]:
    """Caps on the flight of both chunks as in ZB-V, scaled to the memory; the later stage first."""
    p, num_stages = problem.num_ranks, problem.num_stages
    if num_stages != 2 * p:
        return
    most = min(problem.limits[0] // max(problem.adds[0], 1), 2 * problem.num_microbatches)
    share = most / (2 * p)
    deep = tuple((-float(stage) - _FIRST, 0.0) for stage in range(num_stages))
    old = tuple((-float(stage) - _FIRST, 1e4) for stage in range(num_stages))
    fifo = ((0.0, 1.0),) * num_stages
    for first, second, key, gap_share, patience in product(
        (1.0, 0.5, 1.33), (1.0, 0.67, 0.34), (deep, old), (1.0, 0.5), (0.5, 0.0, 1.0)
    ):
        flight = [1] * num_stages
        for rank in range(p):
            flight[rank] = max(1, round(most - 1 - first * share * rank))
            flight[2 * p - 1 - rank] = max(1, round(1 + second * share * rank))
        name = f"list in turn, caps {first}/{second}, patience {patience} gap {gap_share}"
        yield Rule(deep, key, fifo, tuple(flight), (_NONE,) * p, gap_share, patience, True, name)


def _by_time(problem: Problem) -> Iterator[Rule]:
    """Ideal times as keys: how fast a microbatch moves down and up; whether F and I take turns."""
    p, num_stages, period = problem.num_ranks, problem.num_stages, period_of(problem)
    least = least_gaps(problem) * period
    fifo = ((0.0, 1.0),) * num_stages
    none = (_NONE,) * num_stages
    wait = {"": (_NONE,) * p, "2r": tuple(2 * r for r in range(p))}
    chunks = num_stages / p
    steps = sorted({1.0, 2.0, 2.5, 3.0, chunks})
    for (late, backlog), takes_turns, down, up, patience in product(
        wait.items(), (False, True), steps, steps, (0.0, 0.5, 1.0)
    ):
        stretch = np.where(np.arange(2 * num_stages - 1) < num_stages, down, up)
        at = np.concatenate(([0.0], np.cumsum(least * stretch))) - _FIRST
        forward = tuple((float(at[s]), float(period)) for s in range(num_stages))
        inputs = tuple((float(at[2 * num_stages - 1 - s]), float(period)) for s in range(num_stages))
        name = f"list by time {down}/{up} {late} patience {patience}{' in turn' if takes_turns else ''}"
        yield Rule(forward, inputs, fifo, none, backlog, 0.5, patience, takes_turns, name)
