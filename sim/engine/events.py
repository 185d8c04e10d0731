"""The event engine: the model of time acted out, event by event, in simpy.

Each actor's compute, each channel, each member set of a group and each copy queue does what the plan format,
section 3, says of it, rule by rule; what is over is an event on simpy's clock, and wakes whom it concerns.
Nothing here knows of graphs or longest paths: the replay engine, built the other way round, must agree to the
nanosecond.

It is slower than replay by an order of magnitude, and is what replay is held against. What replay cannot
do is let transfers share links (`exactmap.sim.engine.shared_links`): then a transfer's end depends on what
runs beside it, and a channel or group hands its transfers to a carrier that knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import simpy

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.assemble import assemble
from exactmap.sim.engine.carrier import PlainCarrier, call_at
from exactmap.sim.engine.compiled import compile_plan
from exactmap.sim.engine.coordinates import coupled_works, group_instances
from exactmap.sim.engine.deadlock import deadlock_of
from exactmap.sim.engine.event_queues import (
    ChannelEngine,
    ChannelInline,
    CoupledWork,
    Member,
    OperationQueue,
    ReceiveEnd,
    SendEnd,
)
from exactmap.sim.engine.event_rank import Rank
from exactmap.sim.engine.link_clock import LinkClock, StreamCarrier
from exactmap.sim.engine.link_use import LinkUse, link_use
from exactmap.sim.engine.replay import replay_times

if TYPE_CHECKING:
    from exactmap.sim.engine.carrier import Carrier
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.shared_links import SharedLinks
    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

__all__ = ["SharedStep", "simulate_events", "simulate_shared"]


@dataclass(frozen=True, slots=True)
class SharedStep:
    """A step with shared links, and what sharing cost it."""

    trace: Trace
    use: LinkUse


def simulate_events(
    plan: Plan, durations: Durations, *, links: SharedLinks | None = None, plan_sha256: str = ""
) -> Trace:
    """Times of one step from 0, by discrete events.

    Parameters
    ----------
    plan
        A plan that passed its checks.
    durations
        Its durations and mover (`exactmap.sim.engine.durations.resolve`).
    links
        What its transfers share; left out, each takes its nominal time.
    plan_sha256
        Hash of the plan file's bytes, for the trace's header.

    Returns
    -------
    Trace
        One row per instruction of each lane's ranks.

    Raises
    ------
    DeadlockError
        If ranks wait for each other.
    InvalidInputError
        If posts and waits, sends and receives, or members of a group do not pair up.
    """
    return _run(_World(plan, durations, links), plan_sha256)


def simulate_shared(
    plan: Plan, durations: Durations, links: SharedLinks, *, plan_sha256: str = ""
) -> SharedStep:
    """Times of one step from 0 with shared links, and what sharing cost.

    Raises as `simulate_events` does.

    Parameters
    ----------
    plan, durations
        As for `simulate_events`.
    links
        What its transfers share (`exactmap.sim.engine.shared_links.share_links`).
    plan_sha256
        Hash of the plan file's bytes, for the trace's header.
    """
    world = _World(plan, durations, links)
    trace = _run(world, plan_sha256)
    assert world.clock is not None
    unshared_ns = int(replay_times(compile_plan(plan, durations)).makespan_ns)
    return SharedStep(trace, link_use(links, world.clock, trace.summary().makespan_ns, unshared_ns))


def _run(world: _World, plan_sha256: str) -> Trace:
    world.env.run()
    if not all(rank.ended for rank in world.ranks.values()):
        raise deadlock_of(world.plan)
    times = {key: rank.times() for key, rank in world.ranks.items()}
    return assemble("events", world.plan, world.durations, times, plan_sha256=plan_sha256)


class _World:
    """All ranks, channels and groups of one step; queues are numbered as in `EncodedProgram`."""

    def __init__(self, plan: Plan, durations: Durations, links: SharedLinks | None) -> None:
        if links is not None and links.durations is not durations:
            raise InvalidInputError(
                "links were shared out for other durations",
                hint="call share_links with the durations that are simulated",
            )
        self.plan, self.durations, self.links = plan, durations, links
        self.env = simpy.Environment(initial_time=0)
        self.plain = PlainCarrier(self.env)
        self.clock = None if links is None else LinkClock(self.env, links)
        self.inline = durations.mover is Mover.INLINE
        self.ranks = {key: Rank(actor) for key, actor in durations.actors.items()}
        self.num_posts = {
            key: np.bincount(actor.program.queue[actor.program.post_at], minlength=actor.program.num_queues)
            for key, actor in durations.actors.items()
        }
        self._open_channels(plan, durations)
        self._open_groups(plan, durations)
        for key, rank in self.ranks.items():
            queue = rank.actor.program.num_queues - 1
            if self.num_posts[key][queue]:
                self._join(queue, [key], scan=False)
        for works in coupled_works(plan, durations):
            for index in works.at.tolist():
                work = CoupledWork(self.env, len(works.members))
                for key in works.members:
                    self.ranks[key].together[index] = work
        for rank in self.ranks.values():
            call_at(self.env, 0, rank.go_on)

    def _carrier(self, stream: int | None) -> Carrier:
        return self.plain if self.clock is None or stream is None else StreamCarrier(self.clock, stream)

    def _open_channels(self, plan: Plan, durations: Durations) -> None:
        streams = {} if self.links is None else self.links.channel_stream
        for lane in range(len(durations.lanes)):
            for number, channel in enumerate(plan.channels):
                source, sink = (lane, channel.src), (lane, channel.dst)
                num = int(self.num_posts[source][2 * number])
                if num != self.num_posts[sink][2 * number + 1]:
                    raise InvalidInputError("a message lacks its partner", got=f"channel {channel.name}")
                if not num:
                    continue
                times = durations.channels[lane, channel.name]
                made = (ChannelInline if self.inline else ChannelEngine)(
                    self.env,
                    self.ranks[source],
                    self.ranks[sink],
                    (times.wire_ns.tolist(), times.lat_ns.tolist(), times.copy_ns.tolist()),
                    channel.depth,
                    self._carrier(streams.get((lane, channel.name))),
                    channel.bytes,
                )
                self.ranks[source].queues[2 * number] = SendEnd(made)
                self.ranks[sink].queues[2 * number + 1] = ReceiveEnd(made)

    def _open_groups(self, plan: Plan, durations: Durations) -> None:
        streams = {} if self.links is None else self.links.group_stream
        for number, instance in enumerate(group_instances(plan, durations)):
            queue = 2 * len(plan.channels) + instance.group
            if len({int(self.num_posts[key][queue]) for key in instance.members}) > 1:
                name = plan.groups[instance.group].name
                raise InvalidInputError("members of a group post different numbers of operations", got=name)
            carrier = self._carrier(streams.get(number))
            self._join(queue, list(instance.members), scan=instance.scan, carrier=carrier)

    def _join(
        self, queue: int, members: list[tuple[int, int]], *, scan: bool, carrier: Carrier | None = None
    ) -> None:
        """Give each member its place; a scan is a queue per member, each behind the one ahead."""
        carrier = carrier or self.plain
        operations = OperationQueue(self.env, len(members), carrier, inline=self.inline)
        ahead: OperationQueue | None = None
        for key in members:
            if scan:
                operations = OperationQueue(self.env, 1, carrier, inline=self.inline)
                operations.ahead, ahead = ahead, operations
            rank = self.ranks[key]
            op_bytes = None if self.links is None or carrier is self.plain else self.links.op_bytes[key]
            rank.queues[queue] = Member(operations, rank, op_bytes, inline=self.inline, scan=scan)
