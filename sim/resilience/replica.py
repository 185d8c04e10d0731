"""One replica of a whole cluster, as the ordinary engines see it.

A replica becomes one lane: members of its tensor and context groups are folded into one, each duration the
longest of theirs (exact where these groups have one member; else a message counts as its slowest member's).
An operation over replicas takes what it takes in the step, the longest part of any member. What follows the
first such meeting is done by all replicas at once, so it is taken from the one that needs longest for it, the
*tail*. The lane then ends when the step would end if no other replica came later to the meeting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.durations import ActorDurations, ChannelDurations, Durations

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.cluster_times import ClusterTimes
    from exactmap.sim.resilience.whole_cluster import WholeCluster

__all__ = [
    "Meeting",
    "find_meeting",
    "group_posts",
    "rank_durations",
    "replica_columns",
    "replica_durations",
    "shared_operations",
    "step_columns",
]

Operations = dict[tuple[int, int], int]
"""(pipeline rank, post) -> duration of an operation over replicas, in ns."""


def shared_operations(whole: WholeCluster, times: ClusterTimes, step: int) -> Operations:
    """Durations in one step of all operations that replicas share; `step` counts within `times`."""
    part = step_columns(times, step)
    return {
        (pp, post): int(times.op_ns(pp, post, part).max())
        for pp in range(whole.plan.mesh.pp)
        for post, group in group_posts(whole, pp)
        if "dp" in whole.plan.groups[group].axes
    }


@dataclass(frozen=True, slots=True)
class Meeting:
    """What replicas share in one step: their operations, and the replica that needs longest afterwards."""

    operations: Operations
    tail: int


def replica_durations(
    whole: WholeCluster, times: ClusterTimes, step: int, dp: int, meeting: Meeting
) -> Durations:
    """Durations of replica `dp` in one step, as one lane of the compiled plan.

    Parameters
    ----------
    whole
        Plan and cluster.
    times
        Durations of all columns.
    step, dp
        Which replica; `step` counts from the first of `times`.
    meeting
        What replicas share in that step.
    """
    base = whole.compiled.durations
    part = replica_columns(times, step, dp)
    actors = {
        (0, pp): rank_durations(whole, times, step, dp, pp, meeting) for pp in range(whole.plan.mesh.pp)
    }
    number_of = {channel.name: number for number, channel in enumerate(whole.plan.channels)}
    channels = {
        (lane, name): ChannelDurations(
            _longest(times.wire_ns(number_of[name], 0, len(nominal.wire_ns), part)),
            nominal.lat_ns,
            nominal.copy_ns,
        )
        for (lane, name), nominal in base.channels.items()
    }
    return Durations(base.mover, base.lanes, actors, channels)


def rank_durations(
    whole: WholeCluster, times: ClusterTimes, step: int, dp: int, pp: int, meeting: Meeting
) -> ActorDurations:
    """The same of one of its pipeline ranks."""
    own, rows = whole.compiled.durations.actors[0, pp], times.rows(pp)
    head, tail = (replica_columns(times, step, replica) for replica in (dp, meeting.tail))
    stop = whole.first_waits[pp]
    comp_ns, op_ns = rows.cost_ns.copy(), own.op_ns.copy()
    before = int(np.searchsorted(rows.at, stop))
    for at, part in ((rows.at[:before], head), (rows.at[before:], tail)):
        if len(at):
            comp_ns[at] = _longest(times.works_ns(pp, at, part))
    for post, _ in group_posts(whole, pp):
        shared = meeting.operations.get((pp, post))
        part = head if post < stop else tail
        op_ns[post] = int(times.op_ns(pp, post, part).max()) if shared is None else shared
    return ActorDurations(own.program, comp_ns, op_ns, own.issue_ns)


def find_meeting(whole: WholeCluster, times: ClusterTimes, step: int) -> tuple[Meeting, Ints]:
    """What replicas share in a step, and [pp] what follows at most from a rank's first wait for others on.

    A rank's own operations over replicas, then what the tail needs: its operations over ranks and its works.
    """
    operations = shared_operations(whole, times, step)
    num, columns = whole.plan.mesh.pp, times.columns
    part = step_columns(times, step)
    works = np.zeros((num, columns.dp), dtype=np.int64)
    over_ranks = np.zeros((num, columns.dp), dtype=np.int64)
    early, late = np.zeros(num, dtype=np.int64), np.zeros(num, dtype=np.int64)
    for pp, stop in enumerate(whole.first_waits):
        at = times.rows(pp).at
        at = at[at > stop]
        if len(at):
            works[pp] = times.works_ns(pp, at, part).reshape(len(at), columns.dp, -1).max(axis=2).sum(axis=0)
        for post, _ in group_posts(whole, pp):
            if (pp, post) in operations:
                (early if post < stop else late)[pp] += operations[pp, post]
            elif post > stop:
                over_ranks[pp] += times.op_ns(pp, post, part).reshape(columns.dp, -1).max(axis=1)
    needs = works.max(axis=0) + over_ranks.max(axis=0)
    return Meeting(operations, int(np.argmax(needs))), early + int(late.max() + needs.max())


def step_columns(times: ClusterTimes, step: int) -> slice:
    """Columns of a step."""
    num = len(times.columns) // times.columns.num_steps
    return slice(step * num, (step + 1) * num)


def replica_columns(times: ClusterTimes, step: int, dp: int) -> slice:
    """Columns of a replica."""
    columns = times.columns
    inner = columns.ep * columns.cp * columns.tp
    first = (step * columns.dp + dp) * inner
    return slice(first, first + inner)


def _longest(rows: Ints) -> Ints:
    return np.ascontiguousarray(rows.max(axis=1))


def group_posts(whole: WholeCluster, pp: int) -> list[tuple[int, int]]:
    """Posts of group operations and their groups."""
    program = whole.compiled.durations.actors[0, pp].program
    first, num = 2 * len(whole.plan.channels), len(whole.plan.groups)
    group = program.queue[program.post_at] - first
    chosen = (group >= 0) & (group < num)
    return list(zip(program.post_at[chosen].tolist(), group[chosen].tolist(), strict=True))
