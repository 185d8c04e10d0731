"""One replica of a whole cluster, as the ordinary engines see it.

A replica becomes one lane: members of its tensor and context groups are folded into one, each duration the longest of
theirs (exact where these groups have one member; else a message counts as its slowest member's). An operation
over replicas takes what it takes in the step, the longest part of any member, so the lane ends when the step
would end if no other replica were later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.durations import ActorDurations, ChannelDurations, Durations

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.wide.cluster_times import ClusterTimes
    from exactmap.sim.resilience.whole_cluster import WholeCluster

__all__ = ["Operations", "rank_durations", "replica_durations", "shared_operations", "shared_posts"]

Operations = dict[tuple[int, int], int]
"""(pipeline rank, post) -> duration of an operation over replicas, in ns."""


def shared_operations(whole: WholeCluster, times: ClusterTimes, step: int) -> Operations:
    """Durations in one step of all operations that replicas share; `step` counts from the first of `times`."""
    columns = times.columns
    per_step = len(columns) // columns.num_steps
    part = slice(step * per_step, (step + 1) * per_step)
    return {
        (pp, post): int(times.op_ns(pp, post, part).max())
        for pp in range(whole.plan.mesh.pp)
        for post in shared_posts(whole, pp)
    }


def shared_posts(whole: WholeCluster, pp: int) -> list[int]:
    """Posts of a pipeline rank that start an operation over replicas."""
    return [post for post, group in _group_posts(whole, pp) if "dp" in whole.plan.groups[group].axes]


def replica_durations(
    whole: WholeCluster, times: ClusterTimes, step: int, dp: int, operations: Operations
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
    operations
        `shared_operations` of that step.
    """
    base = whole.compiled.durations
    part = _part(times, step, dp)
    actors = {
        (0, pp): rank_durations(whole, times, step, dp, pp, operations) for pp in range(whole.plan.mesh.pp)
    }
    number_of = {channel.name: number for number, channel in enumerate(whole.plan.channels)}
    channels = {
        (lane, name): ChannelDurations(
            _longest(times.wire_ns(number_of[name], 0, len(nominal.wire_ns), part)), nominal.lat_ns, nominal.copy_ns
        )
        for (lane, name), nominal in base.channels.items()
    }
    return Durations(base.mover, base.lanes, actors, channels)


def rank_durations(
    whole: WholeCluster, times: ClusterTimes, step: int, dp: int, pp: int, operations: Operations
) -> ActorDurations:
    """The same of one of its pipeline ranks."""
    own, rows = whole.compiled.durations.actors[0, pp], times.rows(pp)
    part = _part(times, step, dp)
    comp_ns = rows.cost_ns.copy()
    comp_ns[rows.at] = _longest(times.works_ns(pp, rows.at, part))
    op_ns = own.op_ns.copy()
    for post, _ in _group_posts(whole, pp):
        shared = operations.get((pp, post))
        op_ns[post] = int(times.op_ns(pp, post, part).max()) if shared is None else shared
    return ActorDurations(own.program, comp_ns, op_ns, own.issue_ns)


def _part(times: ClusterTimes, step: int, dp: int) -> slice:
    """Columns of a replica."""
    columns = times.columns
    inner = columns.ep * columns.cp * columns.tp
    first = (step * columns.dp + dp) * inner
    return slice(first, first + inner)


def _longest(rows: Ints) -> Ints:
    return np.ascontiguousarray(rows.max(axis=1))


def _group_posts(whole: WholeCluster, pp: int) -> list[tuple[int, int]]:
    """Posts of group operations and their groups."""
    program = whole.compiled.durations.actors[0, pp].program
    first, num = 2 * len(whole.plan.channels), len(whole.plan.groups)
    group = program.queue[program.post_at] - first
    chosen = (group >= 0) & (group < num)
    return list(zip(program.post_at[chosen].tolist(), group[chosen].tolist(), strict=True))
