"""What one step of a trace comes to; definitions in `docs/reference/trace.md`, section 3.

Bubble = 1 - mean over ranks of busy time / clock, for two clocks that are never mixed: the barrier makespan
(all ranks start the next step together) and the period (each rank starts it at its own END).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.encoded import BUSY_KINDS, KINDS, WAIT_KINDS, WORK_KINDS

if TYPE_CHECKING:
    from exactmap.sim.engine.trace import Trace

__all__ = ["RankSummary", "StepSummary", "summarize"]


@dataclass(frozen=True, slots=True)
class RankSummary:
    """One rank's step; times in ns, keys are instruction words."""

    dp: int
    inner: int
    pp: int
    num_replicas: int  #: how many equal replicas it stands for
    end_ns: int  #: its END
    span_ns: int  #: last end minus first start among F I W B RC FB
    busy_ns: dict[str, int]  #: kind of work -> time in it
    exposed_ns: dict[str, int]  #: kind of wait -> time in it; `couple`: works that wait for coupled ranks

    @property
    def pass_ns(self) -> int:
        """Time in F I W B RC FB."""
        return sum(self.busy_ns.get(KINDS[code].value, 0) for code in np.flatnonzero(BUSY_KINDS).tolist())


@dataclass(frozen=True, slots=True)
class StepSummary:
    """One step; times in ns, `bubble` and `steady_bubble` as shares of 1."""

    step: int
    makespan_ns: int  #: barrier clock: the last END
    period_ns: int  #: free clock
    bubble: float  #: idle share of the barrier makespan
    steady_bubble: float  #: idle share of the period
    ranks: tuple[RankSummary, ...]

    @property
    def busy_ns(self) -> dict[str, int]:
        """Kind of work -> time, summed over the ranks that the trace holds."""
        return _total([rank.busy_ns for rank in self.ranks])

    @property
    def exposed_ns(self) -> dict[str, int]:
        """Kind of wait -> time, summed over the ranks that the trace holds."""
        return _total([rank.exposed_ns for rank in self.ranks])


def _total(parts: list[dict[str, int]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for part in parts:
        for word, ns in part.items():
            out[word] = out.get(word, 0) + ns
    return out


def summarize(trace: Trace) -> StepSummary:
    """Summary of a trace that holds a single step."""
    starts = trace.actor_starts().tolist()
    ranks = tuple(_rank(trace, first, last) for first, last in pairwise(starts))
    makespan_ns = max((rank.end_ns for rank in ranks), default=0)
    period_ns = max((rank.span_ns for rank in ranks), default=0)
    weight = sum(rank.num_replicas for rank in ranks)
    busy = sum(rank.num_replicas * rank.pass_ns for rank in ranks)

    def idle_share(clock_ns: int) -> float:
        return 1 - busy / (weight * clock_ns) if clock_ns else 0.0

    step = int(trace.step[0]) if len(trace) else 0
    return StepSummary(step, makespan_ns, period_ns, idle_share(makespan_ns), idle_share(period_ns), ranks)


def _rank(trace: Trace, first: int, last: int) -> RankSummary:
    rows = slice(first, last)
    kind, a_ns, s_ns, e_ns = trace.kind[rows], trace.a_ns[rows], trace.s_ns[rows], trace.e_ns[rows]
    is_work, is_wait, is_pass = WORK_KINDS[kind], WAIT_KINDS[kind], BUSY_KINDS[kind]

    def by_kind(
        num_ns: np.ndarray[tuple[int], np.dtype[np.int64]], where: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> dict[str, int]:
        out: dict[str, int] = {}
        for code in np.unique(kind[where]).tolist():
            out[KINDS[code].value] = int(num_ns[where & (kind == code)].sum())
        return out

    exposed = by_kind(e_ns - a_ns, is_wait)
    coupled = int((s_ns - a_ns)[is_work].sum())
    if coupled:
        exposed["couple"] = coupled
    dp = int(trace.dp[first])
    return RankSummary(
        dp=dp,
        inner=int(trace.inner[first]),
        pp=int(trace.pp[first]),
        num_replicas=trace.replicas.get(dp, 1),
        end_ns=int(e_ns[-1]),
        span_ns=int(e_ns[is_pass].max() - s_ns[is_pass].min()) if is_pass.any() else 0,
        busy_ns=by_kind(e_ns - s_ns, is_work),
        exposed_ns=exposed,
    )
