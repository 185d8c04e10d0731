"""The replay engine: the model of time as a longest path.

Every rule of the model reads t >= t' + constant on a graph that text, mover and depths fix, so the least
solution is a longest path (plan format, section 3). A plan is compiled once
(`exactmap.sim.engine.compiled`): the graph, reduced to what can decide anything, in levels. To replay it is
to put numbers on its edges and to settle it level by level, for one set of durations or for many at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, overload

import numpy as np

from exactmap.sim.engine.assemble import ActorTimes, assemble
from exactmap.sim.engine.compiled import CompiledPlan, LineTimes, compile_plan
from exactmap.sim.engine.encoded import Ints
from exactmap.sim.engine.levels import solve
from exactmap.sim.engine.unfold import all_times, ends_and_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

_DRAWS_AT_ONCE = 8  # each takes 16 bytes per edge

__all__ = ["ReplayTimes", "replay", "replay_many", "replay_times", "settle_all"]


@overload
def replay(plan: Plan, durations: Durations, *, plan_sha256: str = "") -> Trace: ...
@overload
def replay(plan: CompiledPlan, durations: Durations | None = None, *, plan_sha256: str = "") -> Trace: ...
def replay(plan: Plan | CompiledPlan, durations: Durations | None = None, *, plan_sha256: str = "") -> Trace:
    """Times of one step from 0, by longest path.

    Parameters
    ----------
    plan
        A plan that passed its checks, compiled or not.
    durations
        Its durations and mover (`exactmap.sim.engine.durations.resolve`); for a compiled plan, if left out,
        those that it was compiled with.
    plan_sha256
        Hash of the plan file's bytes, for the trace's header.

    Returns
    -------
    Trace
        One row per instruction of each lane's ranks; equal to the event engine's to the nanosecond.

    Raises
    ------
    DeadlockError
        If ranks wait for each other.
    InvalidInputError
        If posts and waits, sends and receives, or members of a group do not pair up, or the durations do not
        belong to the compiled plan.
    """
    if isinstance(plan, CompiledPlan):
        compiled = plan
    else:
        assert durations is not None
        compiled = compile_plan(plan, durations)
    chosen = compiled.durations if durations is None else durations
    times = compiled.line_times(chosen)
    actors = settle_all(compiled, times)
    return assemble("replay", compiled.plan, chosen, actors, plan_sha256=plan_sha256)


@dataclass(frozen=True, slots=True, eq=False)
class ReplayTimes:
    """When the actors of one step end, in ns; with several draws each array has their axis last.

    Parameters
    ----------
    keys
        (lane number, pipeline rank) of each actor.
    end_ns
        [actors] its END.
    span_ns
        [actors] from the start of its first F I W B RC FB to the end of its last; 0 where it has none.
    """

    keys: tuple[tuple[int, int], ...]
    end_ns: Ints
    span_ns: Ints

    @property
    def makespan_ns(self) -> Ints:
        """The last END: the barrier clock."""
        return np.asarray(self.end_ns.max(axis=0))

    @property
    def period_ns(self) -> Ints:
        """The longest span: the free clock."""
        return np.asarray(self.span_ns.max(axis=0))


def replay_times(compiled: CompiledPlan, durations: Durations | None = None) -> ReplayTimes:
    """Ends of all actors, without a trace: the fast way where only makespan and period count.

    Parameters
    ----------
    compiled
        The plan (`compile_plan`).
    durations
        Of that plan; if left out, those that it was compiled with.

    Raises
    ------
    InvalidInputError
        If the durations do not belong to the compiled plan.
    """
    times = compiled.line_times(durations)
    ends, spans = ends_and_spans(compiled, times, _settle(compiled, [times])[0])
    return ReplayTimes(compiled.linked.keys, ends, spans)


def replay_many(compiled: CompiledPlan, batch: Iterable[Durations]) -> ReplayTimes:
    """Ends of all actors for many sets of durations: jitter draws, stragglers, profiles.

    Parameters
    ----------
    compiled
        The plan (`compile_plan`).
    batch
        Durations of that plan; taken up a few at a time, so a generator need not hold them all.

    Returns
    -------
    ReplayTimes
        Arrays of shape [actors, draws].

    Raises
    ------
    InvalidInputError
        If durations do not belong to the compiled plan.
    """
    ends: list[Ints] = []
    spans: list[Ints] = []
    draws = iter(batch)
    while some := [compiled.line_times(durations) for durations in islice(draws, _DRAWS_AT_ONCE)]:
        for times, nodes in zip(some, _settle(compiled, some), strict=True):
            end, span = ends_and_spans(compiled, times, nodes)
            ends.append(end)
            spans.append(span)
    num_actors = len(compiled.linked.keys)
    stacked = (np.array(rows, dtype=np.int64).reshape(-1, num_actors).T for rows in (ends, spans))
    return ReplayTimes(compiled.linked.keys, *stacked)


def settle_all(compiled: CompiledPlan, times: LineTimes) -> dict[tuple[int, int], ActorTimes]:
    """Times of all instructions by (lane number, pipeline rank), as columns of their own."""
    return all_times(compiled, times, _settle(compiled, [times])[0])


def _settle(compiled: CompiledPlan, some: Sequence[LineTimes]) -> Ints:
    """Times of the nodes, [draws, nodes]."""
    return solve(compiled.levels, *compiled.edge_times(some))
