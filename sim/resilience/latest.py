"""The latest replica of a step, found exactly without looking at all of them closely.

The wide replay says when each rank first waits for other replicas. What follows on that rank (operations over
replicas, norm, optimizer) takes at most a known time, which bounds when the replica would be through ::

    bound(r) = max over ranks of (own(rank, r) + what may follow)

Replicas are replayed exactly in order of their bounds, until no bound exceeds the latest time found. A replica's
exact time is a better bound from then on, and it only falls when components are healed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.encoded import BUSY_KINDS
from exactmap.sim.engine.replay import replay_times, settle_all
from exactmap.sim.resilience.replica import (
    Operations,
    rank_durations,
    replica_durations,
    shared_operations,
    shared_posts,
)
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
        self.operations: Operations = shared_operations(whole, times, step)
        # Times of the slowest member of each replica's groups.
        by_replica = own_ns.reshape(len(own_ns), times.columns.dp, -1).max(axis=2)
        follows = self._follows()
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
            self.whole, self.times, self.step, dp, self.operations
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
        if component.kind in {ComponentKind.INTERFACE, ComponentKind.LEAF}:
            # Messages and shared operations may be shorter now, for everybody.
            self._known.clear()
            operations = shared_operations(whole, times, self.step)
            if operations != self.operations:
                self.operations = operations
                self.is_exact[:] = False
            return
        for dp in set(touched) & self._known.keys():
            actors = {
                (0, pp): rank_durations(whole, times, self.step, dp, pp, self.operations) for pp in ranks
            }
            self._known[dp] = replace(self._known[dp], actors={**self._known[dp].actors, **actors})

    def _follows(self) -> Ints:
        """[pp] what may follow after a rank first waits for other replicas, at most.

        All its operations over replicas, then the most that any rank still does or posts after its first wait.
        """
        times, num = self.times, self.whole.plan.mesh.pp
        per_step = len(times.columns) // times.columns.num_steps
        part = slice(self.step * per_step, (self.step + 1) * per_step)
        shared = np.zeros(num, dtype=np.int64)
        after = np.zeros(num, dtype=np.int64)
        for pp in range(num):
            posts = shared_posts(self.whole, pp)
            shared[pp] = sum(self.operations[pp, post] for post in posts)
            actor = self.whole.compiled.durations.actors[0, pp]
            passes = np.flatnonzero(BUSY_KINDS[actor.program.kind])
            if not len(passes):
                continue
            last, stop = int(passes[-1]), _first_wait(self.whole, pp)
            works = np.arange(stop + 1, len(actor.comp_ns), dtype=np.int64)
            after[pp] = int(times.works_ns(pp, works, part).max(axis=1).sum()) if len(works) else 0
            # Operations posted later; those over replicas that are waited for first stand in `shared`.
            for post in actor.program.post_at[actor.op_ns[actor.program.post_at] > 0].tolist():
                if post > stop:
                    after[pp] += self.operations.get((pp, post)) or int(times.op_ns(pp, post, part).max())
        return shared + int(after.max())


def touched_by(whole: WholeCluster, component: Component) -> tuple[list[int], list[int]]:
    """Pipeline ranks, and replicas, that have a GPU on a component."""
    state = whole.state
    owner = {
        ComponentKind.GPU: whole.gpu,
        ComponentKind.INTERFACE: whole.gpu,
        ComponentKind.HOST: state.host_of(whole.gpu),
        ComponentKind.RACK: state.rack_of(whole.gpu),
        ComponentKind.LEAF: state.leaves.leaf[whole.gpu],
    }[component.kind]
    # [pp, dp, ep, cp, tp]: both ends of a message lie in one replica.
    on_it = owner == component.number
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
    return max(int(actors[0, pp].a_ns[_first_wait(whole, pp)]) for pp in range(whole.plan.mesh.pp))


def _first_wait(whole: WholeCluster, pp: int) -> int:
    """First wait for an operation over replicas after a rank's last pass; its END if there is none."""
    program = whole.compiled.durations.actors[0, pp].program
    posts = shared_posts(whole, pp)
    passes = np.flatnonzero(BUSY_KINDS[program.kind])
    last = int(passes[-1]) if len(passes) else -1
    wait = np.empty(len(program.post_at), dtype=np.int64)
    wait[program.post_of_wait] = program.wait_at
    waits = np.sort(wait[np.searchsorted(program.post_at, posts)])
    later = waits[waits > last]
    return int(later[0]) if len(later) else program.num_instructions - 1
