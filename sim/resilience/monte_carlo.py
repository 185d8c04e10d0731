"""Many steps of a whole cluster: stepped in batches that fit the memory, a few of them looked at closely."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.critical_path import PathFinder
from exactmap.sim.engine.wide.replay_wide import Progress, replay_wide
from exactmap.sim.resilience.blame import StepBlame, charge_path
from exactmap.sim.resilience.healing import Healed, heal_worst
from exactmap.sim.resilience.latest import Latest

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.resilience.whole_cluster import WholeCluster

__all__ = ["WholeSteps", "step_whole"]

_MOST_ENTRIES = 2**25  # of [pp, columns] in a batch: results take 16 bytes each
MOST_BLAMED_STEPS = 32


@dataclass(frozen=True, slots=True, eq=False)
class WholeSteps:
    """What was found.

    Parameters
    ----------
    makespan_ns, period_ns
        [steps] barrier and free clock.
    replica_ns
        [steps, dp] when each replica would be through without waiting for others.
    blames
        Of the steps that were looked at closely, in order.
    healed
        Components healed in the first step.
    first_step_ns
        Time of the first step as its latest replica shows it.
    num_works, num_messages
        How many were stepped.
    stepping_s, blame_s, healing_s
        Time that it took.
    """

    makespan_ns: Ints
    period_ns: Ints
    replica_ns: Ints
    blames: tuple[StepBlame, ...]
    healed: tuple[Healed, ...]
    first_step_ns: int
    num_works: int
    num_messages: int
    stepping_s: float
    blame_s: float
    healing_s: float


def step_whole(
    whole: WholeCluster,
    num_steps: int = 1,
    *,
    num_threads: int = 2,
    most_healed: int = 16,
    progress: Progress | None = None,
) -> WholeSteps:
    """Step a whole cluster.

    Parameters
    ----------
    whole
        Plan, cluster, state.
    num_steps
        Steps 0..num_steps-1; in each, all jitter is drawn anew.
    num_threads
        Threads that step.
    most_healed
        How many components to heal at most.
    progress
        Told how far it is.
    """
    tell = progress or _silent
    mesh = whole.plan.mesh
    per_step = mesh.dp * mesh.ep * mesh.cp * mesh.tp
    at_once = max(1, _MOST_ENTRIES // (mesh.pp * per_step))
    close = set(
        np.unique(np.linspace(0, num_steps - 1, min(num_steps, MOST_BLAMED_STEPS)).astype(int)).tolist()
    )
    paths = PathFinder(whole.compiled)
    makespans: list[Ints] = []
    periods: list[Ints] = []
    replicas: list[Ints] = []
    blames: list[StepBlame] = []
    healed: tuple[Healed, ...] = ()
    first_step_ns = num_works = num_messages = 0
    stepping_s = blame_s = healing_s = 0.0
    for first in range(0, num_steps, at_once):
        num = min(at_once, num_steps - first)
        times = whole.times(num, first)
        start = perf_counter()
        result = replay_wide(
            whole.compiled,
            times,
            num_threads=num_threads,
            progress=_within(tell, first / num_steps, num / num_steps),
        )
        stepping_s += perf_counter() - start
        num_works += times.num_works
        num_messages += times.num_messages
        makespans.append(result.makespan_ns)
        periods.append(result.period_ns)
        replicas.append(result.replica_own_ns)
        for step in sorted(close & set(range(first, first + num))):
            start = perf_counter()
            tell((step + 1) / num_steps, "finding who was waited for")
            part = slice((step - first) * per_step, (step - first + 1) * per_step)
            latest = Latest(whole, times, step - first, result.own_ns[:, part])
            blames.append(_blame(whole, latest, paths, step, int(result.makespan_ns[step - first])))
            blame_s += perf_counter() - start
            if step == 0:
                start = perf_counter()
                first_step_ns = blames[0].path_ns
                tell(1 / num_steps, "healing the worst components")
                healed = heal_worst(whole, latest, paths, most=most_healed)
                healing_s = perf_counter() - start
    tell(1.0, "done")
    return WholeSteps(
        makespan_ns=np.concatenate(makespans),
        period_ns=np.concatenate(periods),
        replica_ns=np.concatenate(replicas),
        blames=tuple(blames),
        healed=healed,
        first_step_ns=first_step_ns,
        num_works=num_works,
        num_messages=num_messages,
        stepping_s=stepping_s,
        blame_s=blame_s,
        healing_s=healing_s,
    )


def _blame(whole: WholeCluster, latest: Latest, paths: PathFinder, step: int, makespan_ns: int) -> StepBlame:
    dp, path_ns = latest.find()
    path = paths.find(latest.durations(dp))
    charges = charge_path(whole, latest.times, latest.step, dp, latest.meeting.tail, path)
    return StepBlame(
        step=step,
        dp=dp,
        makespan_ns=makespan_ns,
        path_ns=path_ns,
        nominal_path_ns=path_ns - sum(charge.total_ns for charge in charges),
        charges=charges,
    )


def _silent(_fraction: float, _what: str) -> None:
    """Progress that nobody watches."""


def _within(tell: Progress, start: float, share: float) -> Progress:
    """Progress of a part of the whole."""
    return lambda done, what: tell(start + share * done, what)
