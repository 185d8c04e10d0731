"""Hiccups: now and then a GPU stands still for a while (a clock drop, a page fault, garbage collection).

In a step of nominal time T a GPU has Poisson(rate x T) of them; each falls on one of its works, a longer one
the more often. Hiccups are rare, so they are held as a list: (work, column).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.state.streams import Stream, stream_keys, uniforms

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.work_rows import WorkRows
    from exactmap.topology.state.cluster_state import ClusterState

__all__ = ["MOST_EXPECTED", "Hiccups", "expected_hiccups", "find_hiccups"]

_NS_PER_HOUR = 3_600_000_000_000
_MOST = 64  # in one step of one GPU
MOST_EXPECTED = 16.0  #: on average: more than `_MOST` then come once in 10^18 steps


@dataclass(frozen=True, slots=True, eq=False)
class Hiccups:
    """Hiccups of one pipeline rank in some columns, by work."""

    work: Ints
    column: Ints
    hiccup_ns: int

    def add_to(self, rows: Ints, low: int) -> None:
        """Lengthen works low, low + 1, .. of shape [works, columns]."""
        if not len(self.work):
            return
        first, last = np.searchsorted(self.work, (low, low + len(rows)))
        if last > first:
            np.add.at(rows, (self.work[first:last] - low, self.column[first:last]), self.hiccup_ns)


def expected_hiccups(per_gpu_hour: float, step_ns: int) -> float:
    """How many hiccups a GPU has in a step, on average."""
    return per_gpu_hour * step_ns / _NS_PER_HOUR


def find_hiccups(state: ClusterState, rows: WorkRows, gpu: Ints, step: Ints, step_ns: int) -> Hiccups:
    """Draw the hiccups of a pipeline rank's GPUs.

    Parameters
    ----------
    state
        The cluster's.
    rows
        Works of the pipeline rank.
    gpu, step
        [columns] who, and in which step.
    step_ns
        Nominal time of a step.
    """
    spec = state.spec
    none = np.empty(0, dtype=np.int64)
    expected = expected_hiccups(spec.hiccups_per_gpu_hour, step_ns)
    if not expected or not spec.hiccup_ns or not len(rows.at):
        return Hiccups(none, none, 0)
    keys = stream_keys(spec.seed, Stream.HICCUP, gpu, step)
    count = _poisson(uniforms(keys)[0], expected)
    if state.healed_gpus:
        count[np.isin(gpu, sorted(state.healed_gpus))] = 0
    most = int(count.max(initial=0))
    has = np.flatnonzero(count)
    draws = uniforms(keys[has], 1, most + 1)
    ends = np.cumsum(np.array([kind.base_ns for kind in rows.kinds], dtype=np.int64)[rows.which])
    at, place = np.nonzero(np.arange(most)[:, None] < count[has])
    work = np.searchsorted(ends, (draws[at, place] * int(ends[-1])).astype(np.int64), side="right")
    order = np.argsort(work, kind="stable")
    return Hiccups(work[order].astype(np.int64), has[place][order], spec.hiccup_ns)


def _poisson(uniform: np.ndarray[tuple[int], np.dtype[np.float64]], expected: float) -> Ints:
    """Counts by inverting the distribution function."""
    count = np.zeros(len(uniform), dtype=np.int64)
    term = below = exp(-expected)
    for number in range(1, _MOST + 1):
        more = uniform >= below
        if not more.any():
            break
        count += more
        term *= expected / number
        below += term
    return count
