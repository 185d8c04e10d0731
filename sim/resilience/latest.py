"""The latest replica of a step, found exactly without looking at all of them closely.

The wide replay says when each rank first waits for other replicas. What follows on that rank is known
(`exactmap.sim.resilience.replica`), which bounds when the step would end if a replica were the latest ::

    bound(r) = max over ranks of (own(rank, r) + what follows at most)

Replicas are replayed exactly in order of their bounds, until no bound exceeds the latest time found. A
replica's exact time is a better bound from then on, and it only falls when components are healed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.replay import replay_times, settle_all
from exactmap.sim.resilience.replica import find_meeting, rank_durations, replica_durations
from exactmap.topology.state.components import Component, ComponentKind

if TYPE_CHECKING:
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.cluster_times import ClusterTimes
    from exactmap.sim.resilience.whole_cluster import WholeCluster

__all__ = ["Latest", "nominal_own_ns", "touched_by"]

_MOST_KEPT = 32  # replicas whose durations are kept: a few MB each


class Latest:
    """Latest replica of one step.

    Parameters
    ----------
    whole
        Plan and cluster.
    times
        Durations of all columns.
    step
        Which step, from the first of `times`.
    own_ns
        [pp, columns of the step] when each rank first waits for other replicas.
    """

    def __init__(self, whole: WholeCluster, times: ClusterTimes, step: int, own_ns: Ints) -> None:
        self.whole, self.times, self.step = whole, times, step
        self.meeting, follows = find_meeting(whole, times, step)
        # Times of the slowest member of each replica's groups.
        by_replica = own_ns.reshape(len(own_ns), times.columns.dp, -1).max(axis=2)
        self.bound_ns: Ints = (by_replica + follows[:, None]).max(axis=0)
        self.is_exact = np.zeros(times.columns.dp, dtype=np.bool_)
        self.num_replayed = 0
        self._known: dict[int, Durations] = {}
        self._class: Ints | None = None

    def find(self) -> tuple[int, int]:
        """The latest replica, and when it is through."""
        while True:
            first = np.flatnonzero(self.bound_ns == self.bound_ns.max())
            known = first[self.is_exact[first]]
            if len(known):
                return int(known[0]), int(self.bound_ns[known[0]])
            dp = int(first[0])
            alike = self._alike(dp)
            self.bound_ns[alike] = int(replay_times(self.whole.compiled, self.durations(dp)).makespan_ns)
            self.is_exact[alike] = True
            self.num_replayed += 1

    def _alike(self, dp: int) -> Ints:
        """Replicas that take equal times: where there is no jitter, all with the factors of replica `dp`."""
        if self.whole.state.spec.has_jitter:
            return np.array([dp])
        if self._class is None:
            self._class = _classes(self.whole, self.times)
        return np.flatnonzero(self._class == self._class[dp])

    def durations(self, dp: int) -> Durations:
        """Durations of a replica, as one lane."""
        known = self._known.pop(dp, None) or replica_durations(
            self.whole, self.times, self.step, dp, self.meeting
        )
        if len(self._known) >= _MOST_KEPT:
            del self._known[next(iter(self._known))]
        self._known[dp] = known
        return known

    def heal(self, whole: WholeCluster, times: ClusterTimes, component: Component) -> None:
        """Go on with a state in which one more component is healed."""
        self.whole, self.times, self._class = whole, times, None
        ranks, touched = touched_by(whole, component)
        self.is_exact[touched] = False
        transfers = component.kind in {ComponentKind.INTERFACE, ComponentKind.LEAF}
        if transfers or self.meeting.tail in touched:
            # Messages, shared operations or what follows them may be shorter now, for everybody.
            meeting, _ = find_meeting(whole, times, self.step)
            self._known.clear()
            if meeting != self.meeting or meeting.tail in touched:
                self.meeting = meeting
                self.is_exact[:] = False
            return
        for dp in set(touched) & self._known.keys():
            actors = {(0, pp): rank_durations(whole, times, self.step, dp, pp, self.meeting) for pp in ranks}
            self._known[dp] = replace(self._known[dp], actors={**self._known[dp].actors, **actors})


def touched_by(whole: WholeCluster, component: Component) -> tuple[list[int], list[int]]:
    """Pipeline ranks, and replicas, that have a GPU on a component."""
    # [pp, dp, ep, cp, tp]: both ends of a message lie in one replica.
    on_it = whole.owners(component.kind) == component.number
    ranks, replicas = on_it.any(axis=(1, 2, 3, 4)), on_it.any(axis=(0, 2, 3, 4))
    return np.flatnonzero(ranks).tolist(), np.flatnonzero(replicas).tolist()


def _classes(whole: WholeCluster, times: ClusterTimes) -> Ints:
    """[dp] a number for each replica, equal where all factors on their durations are."""
    dp = times.columns.dp
    works = whole.state.work_factor(whole.gpu, 0)
    messages = [times.links.message(channel).reshape(dp, -1) for channel in range(len(whole.plan.channels))]
    table = np.concatenate([np.moveaxis(works, 1, 0).reshape(dp, -1), *messages], axis=1)
    rows = np.ascontiguousarray(table).view(np.dtype((np.void, table.itemsize * table.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def nominal_own_ns(whole: WholeCluster) -> int:
    """When every replica first waits for the others, after its last pass, if all components are alike."""
    actors = settle_all(whole.compiled, whole.compiled.line_times())
    return max(int(actors[0, pp].a_ns[stop]) for pp, stop in enumerate(whole.first_waits))
