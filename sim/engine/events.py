"""The event engine: the model of time acted out by processes, in simpy.

Each actor's compute, each channel, each member set of a group and each copy queue is a process of its own
that does what the plan format, section 3, says of it, rule by rule; a post, a wait that is reached and a
thing that is over are events. Nothing here knows of graphs or longest paths: the replay engine, built the
other way round, must agree to the nanosecond.

It is slower than replay by an order of magnitude, and is what replay is held against.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
import simpy

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import Mover
from exactmap.sim.engine.assemble import ActorTimes, assemble
from exactmap.sim.engine.coordinates import coupled_works, group_instances
from exactmap.sim.engine.deadlock import deadlock_of
from exactmap.sim.plan.instruction import POSTS, WAITS, WORK, Instruction, Op

if TYPE_CHECKING:
    from exactmap.sim.engine.durations import ActorDurations, ChannelDurations, Durations
    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

__all__ = ["simulate_events"]

_Process = Generator[simpy.Event, object, None]
_SENDS = frozenset({Op.SF, Op.SB})
_RECEIVES = frozenset({Op.RF, Op.RB})
_ON_BUCKET = frozenset({Op.AG, Op.RS, Op.AR})


def simulate_events(plan: Plan, durations: Durations, *, plan_sha256: str = "") -> Trace:
    """Times of one step from 0, by discrete events.

    Parameters
    ----------
    plan
        A plan that passed its checks.
    durations
        Its durations and mover (`exactmap.sim.engine.durations.resolve`).
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
    world = _World(plan, durations)
    world.env.run()
    if not all(actor.ended for actor in world.actors.values()):
        raise deadlock_of(plan)
    times = {key: actor.times() for key, actor in world.actors.items()}
    return assemble("events", plan, durations, times, plan_sha256=plan_sha256)


class _Post:
    """One post: what happens to it, as events, and when what it started began."""

    __slots__ = ("before_on_bucket", "done", "index", "made", "op_ns", "reached", "start_ns")

    def __init__(
        self, env: simpy.Environment, index: int, op_ns: int, before_on_bucket: _Post | None
    ) -> None:
        self.index = index
        self.op_ns = op_ns
        self.before_on_bucket = before_on_bucket
        self.made = env.event()  #: at P
        self.reached = env.event()  #: comp has reached its wait
        self.done = env.event()
        self.start_ns = -1


class _ActorState:
    """One rank: its compute as a process, its posts queue by queue, the times that it notes."""

    def __init__(self, env: simpy.Environment, actor: ActorDurations) -> None:
        self.env = env
        self.durations = actor
        self.instructions = actor.program.program.instructions
        num = len(self.instructions)
        self.a_ns, self.e_ns = [-1] * num, [-1] * num
        self.s_ns, self.done_ns = [-1] * num, [-1] * num
        self.ended = False
        self.queues: defaultdict[tuple[str, str], list[_Post]] = defaultdict(list)
        self.posts: dict[int, _Post] = {}
        self.awaited: dict[int, _Post] = {}
        self.together: dict[int, _Together] = {}
        self._pair()

    def _pair(self) -> None:
        """The n-th wait on a queue awaits its n-th post."""
        open_posts: defaultdict[tuple[str, str], deque[_Post]] = defaultdict(deque)
        last_on_bucket: dict[tuple[int, int], _Post] = {}
        for index, instruction in enumerate(self.instructions):
            queue = _queue_of(instruction)
            if instruction.op in POSTS:
                bucket = (instruction.stage, instruction.bucket) if instruction.op in _ON_BUCKET else None
                before = last_on_bucket.get(bucket) if bucket else None
                post = _Post(self.env, index, int(self.durations.op_ns[index]), before)
                if bucket:
                    last_on_bucket[bucket] = post
                self.posts[index] = post
                self.queues[queue].append(post)
                open_posts[queue].append(post)
            elif instruction.op in WAITS:
                if not open_posts[queue]:
                    raise InvalidInputError("a wait without its post", got=f"instruction {index}")
                self.awaited[index] = open_posts[queue].popleft()
        if any(open_posts.values()):
            raise InvalidInputError("a post without its wait")

    def run(self) -> _Process:
        """Compute: the program, strictly in order."""
        env, actor = self.env, self.durations
        host_ns = 0
        for index, instruction in enumerate(self.instructions):
            host_ns += int(actor.issue_ns[index])
            if host_ns > _now(env):
                yield env.timeout(host_ns - _now(env))
            self.a_ns[index] = _now(env)
            comp_ns = int(actor.comp_ns[index])
            if instruction.op in WORK:
                together = self.together.get(index)
                if together is not None:
                    yield together.arrive(comp_ns)
                    comp_ns = together.longest_ns
                self.s_ns[index] = _now(env)
                yield env.timeout(comp_ns)
            elif instruction.op in POSTS:
                yield env.timeout(comp_ns)
                self.posts[index].made.succeed()
            elif instruction.op in WAITS:
                post = self.awaited[index]
                post.reached.succeed()
                yield post.done
            self.e_ns[index] = _now(env)
        self.ended = True

    def finish(self, post: _Post, start_ns: int) -> None:
        """What a post started is over now."""
        self.s_ns[post.index], self.done_ns[post.index] = start_ns, _now(self.env)
        post.done.succeed()

    def times(self) -> ActorTimes:
        columns = (self.a_ns, self.s_ns, self.e_ns, self.done_ns)
        return ActorTimes(*(np.array(column, dtype=np.int64) for column in columns))


class _Together:
    """A work that actors of several lanes start together; it takes the longest of their durations."""

    def __init__(self, env: simpy.Environment, num_members: int) -> None:
        self.missing = num_members
        self.longest_ns = 0
        self.all_there = env.event()

    def arrive(self, comp_ns: int) -> simpy.Event:
        self.longest_ns = max(self.longest_ns, comp_ns)
        self.missing -= 1
        if not self.missing:
            self.all_there.succeed()
        return self.all_there


class _World:
    """All processes of one step."""

    def __init__(self, plan: Plan, durations: Durations) -> None:
        self.env = simpy.Environment(initial_time=0)
        self.inline = durations.mover is Mover.INLINE
        self.actors = {key: _ActorState(self.env, actor) for key, actor in durations.actors.items()}
        self._couple(plan, durations)
        self._open_channels(plan, durations)
        self._open_groups(plan, durations)
        for actor in self.actors.values():
            copies = actor.queues.get(("copy", ""))
            if copies:
                self.env.process(self._queue([(actor, copies)]))
        for actor in self.actors.values():
            self.env.process(actor.run())

    def _couple(self, plan: Plan, durations: Durations) -> None:
        for works in coupled_works(plan, durations):
            for index in works.at.tolist():
                together = _Together(self.env, len(works.members))
                for key in works.members:
                    self.actors[key].together[index] = together

    def _open_channels(self, plan: Plan, durations: Durations) -> None:
        for lane in range(len(durations.lanes)):
            for channel in plan.channels:
                source, sink = self.actors[lane, channel.src], self.actors[lane, channel.dst]
                sends = source.queues.get(("send", channel.name), [])
                receives = sink.queues.get(("recv", channel.name), [])
                if len(sends) != len(receives):
                    raise InvalidInputError("a message lacks its partner", got=f"channel {channel.name}")
                if not sends:
                    continue
                times = durations.channels[lane, channel.name]
                pairs = list(zip(sends, receives, strict=True))
                if self.inline:
                    self.env.process(self._channel_inline(source, sink, pairs, times))
                else:
                    self.env.process(self._channel_engine(source, sink, pairs, times, channel.depth))

    def _channel_engine(
        self,
        source: _ActorState,
        sink: _ActorState,
        pairs: list[tuple[_Post, _Post]],
        times: ChannelDurations,
        depth: int,
    ) -> _Process:
        """One wire: a transfer after another, each freeing the wire and its sender after `wire`."""
        for n, (send, receive) in enumerate(pairs):
            yield send.made
            if depth == 0:
                yield receive.made
            elif n >= depth:
                yield pairs[n - depth][1].done
            start_ns = _now(self.env)
            yield self.env.timeout(int(times.wire_ns[n]))
            source.finish(send, start_ns)
            copy_ns = int(times.copy_ns[n]) if depth else 0
            self.env.process(self._deliver(sink, receive, start_ns, int(times.lat_ns[n]), copy_ns))

    def _deliver(
        self, sink: _ActorState, receive: _Post, start_ns: int, lat_ns: int, copy_ns: int
    ) -> _Process:
        """From the wire's end to the receiver's slot; the buffer is emptied once the receive is posted."""
        yield self.env.timeout(lat_ns)
        yield receive.made
        yield self.env.timeout(copy_ns)
        sink.finish(receive, start_ns)

    def _channel_inline(
        self,
        source: _ActorState,
        sink: _ActorState,
        pairs: list[tuple[_Post, _Post]],
        times: ChannelDurations,
    ) -> _Process:
        """The receiver moves each message in its wait."""
        for n, (send, receive) in enumerate(pairs):
            yield send.made
            yield receive.reached
            start_ns = _now(self.env)
            yield self.env.timeout(int(times.wire_ns[n]) + int(times.lat_ns[n]))
            source.finish(send, start_ns)
            sink.finish(receive, start_ns)

    def _open_groups(self, plan: Plan, durations: Durations) -> None:
        for instance in group_instances(plan, durations):
            name = plan.groups[instance.group].name
            members = [
                (self.actors[key], self.actors[key].queues.get(("group", name), []))
                for key in instance.members
            ]
            if len({len(posts) for _, posts in members}) > 1:
                raise InvalidInputError("members of a group post different numbers of operations", got=name)
            if instance.scan:
                ahead: list[_Post] | None = None
                for actor, posts in members:
                    self.env.process(self._scan(actor, posts, ahead))
                    ahead = posts
            else:
                self.env.process(self._queue(members))

    def _queue(self, members: list[tuple[_ActorState, list[_Post]]]) -> _Process:
        """A group, or a rank's copy queue: one operation after another, for all members at once."""
        for n in range(len(members[0][1])):
            posts = [(actor, posts[n]) for actor, posts in members]
            for _, post in posts:
                yield post.made
                if self.inline:
                    yield post.reached
                if post.before_on_bucket is not None:
                    yield post.before_on_bucket.done
            start_ns = _now(self.env)
            yield self.env.timeout(max(post.op_ns for _, post in posts))
            for actor, post in posts:
                actor.finish(post, start_ns)

    def _scan(self, actor: _ActorState, posts: list[_Post], ahead: list[_Post] | None) -> _Process:
        """One member of a scan: each operation after the member ahead has finished its own."""
        for n, post in enumerate(posts):
            yield post.made
            if self.inline:
                yield post.reached
            if ahead is not None:
                yield ahead[n].done
            start_ns = _now(self.env)
            yield self.env.timeout(post.op_ns)
            actor.finish(post, start_ns)


def _now(env: simpy.Environment) -> int:
    """Simulated time; all delays are whole ns, so it is a whole number."""
    return int(env.now)


def _queue_of(instruction: Instruction) -> tuple[str, str]:
    """The queue that a post or wait stands on."""
    op = instruction.op
    if op in _SENDS or op is Op.WS:
        return "send", instruction.queue
    if op in _RECEIVES or op is Op.WR:
        return "recv", instruction.queue
    if op in {Op.OFF, Op.LD, Op.WOFF, Op.WLD}:
        return "copy", ""
    return "group", instruction.queue
