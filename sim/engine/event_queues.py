"""Channels, groups and copy queues of the event engine: what posts start, and when it is over.

Each begins what it has to do as soon as all that it starts after is known, and is told by an event when that
is over: simpy's clock runs from end to end of such pieces. Rules: plan format, section 3, 5 to 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from exactmap.sim.engine.carrier import PlainCarrier, call_at

if TYPE_CHECKING:
    import simpy

    from exactmap.sim.engine.carrier import Carrier
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.event_rank import Rank

__all__ = [
    "ChannelEngine",
    "ChannelInline",
    "CoupledWork",
    "Member",
    "OperationQueue",
    "ReceiveEnd",
    "SendEnd",
]


class ChannelEngine:
    """One wire that moves bytes beside compute: one transfer after another, k receive buffers."""

    def __init__(
        self,
        env: simpy.Environment,
        source: Rank,
        sink: Rank,
        times: tuple[list[int], list[int], list[int]],
        depth: int,
        carrier: Carrier,
        num_bytes: int,
    ) -> None:
        self.env, self.source, self.sink, self.depth = env, source, sink, depth
        self.carrier, self.num_bytes = carrier, num_bytes
        self.wire_ns, self.lat_ns, self.copy_ns = times
        self.sends: list[tuple[int, int]] = []  # (instruction, when posted)
        self.receives: list[tuple[int, int]] = []
        self.started: list[int] = []
        self.landed: dict[
            int, int
        ] = {}  # transfers in a receive buffer whose receive is not posted: since when
        self.received: list[int] = [-1] * len(self.wire_ns)
        self.free_ns = 0
        self.busy = False

    def send(self, index: int, time_ns: int) -> None:
        """The sender posts."""
        self.sends.append((index, time_ns))
        if not self.busy:
            self.begin()

    def receive(self, index: int, time_ns: int) -> None:
        """The receiver posts."""
        number = len(self.receives)
        self.receives.append((index, time_ns))
        if number in self.landed:
            self.empty(number, self.landed.pop(number), time_ns)
        if not self.busy:
            self.begin()

    def reach(self, time_ns: int) -> None:
        """A wait moves nothing here."""

    def begin(self) -> None:
        """Start the next transfer if all that it starts after is known."""
        number = len(self.started)
        if number == len(self.sends):
            return
        start = max(self.sends[number][1], self.free_ns)
        if self.depth == 0:
            if number == len(self.receives):
                return
            start = max(start, self.receives[number][1])
        elif number >= self.depth:
            emptied = self.received[number - self.depth]
            if emptied < 0:
                return
            start = max(start, emptied)
        self.busy = True
        self.started.append(start)
        self.carrier.carry(start, self.wire_ns[number], self.num_bytes, self.free)

    def free(self, _: simpy.Event) -> None:
        """The wire is free, and the sender with it."""
        number = len(self.started) - 1
        start, now = self.started[number], int(self.env.now)
        self.busy, self.free_ns = False, now
        over = now + self.lat_ns[number]
        if self.depth == 0:
            call_at(self.env, over, self.deliver, number)
        elif number < len(self.receives):
            self.empty(number, over, self.receives[number][1])
        else:
            self.landed[number] = over
        self.source.finish(self.sends[number][0], start, now)
        if not self.busy:
            self.begin()

    def empty(self, number: int, landed_ns: int, posted_ns: int) -> None:
        """Copy a message out of its receive buffer, once it is there and the receive is posted."""
        call_at(self.env, max(landed_ns, posted_ns) + self.copy_ns[number], self.deliver, number)

    def deliver(self, event: simpy.Event) -> None:
        """A message has arrived where its receive wants it."""
        number = cast(int, event.value)
        now = int(self.env.now)
        self.received[number] = now
        self.sink.finish(self.receives[number][0], self.started[number], now)
        if not self.busy:
            self.begin()


class ChannelInline:
    """A channel whose receiver moves each message itself, in its WR."""

    def __init__(
        self,
        env: simpy.Environment,
        source: Rank,
        sink: Rank,
        times: tuple[list[int], list[int], list[int]],
        depth: int,
        carrier: Carrier,
        num_bytes: int,
    ) -> None:
        del depth  # plays no part
        self.env, self.source, self.sink = env, source, sink
        self.carrier, self.num_bytes = carrier, num_bytes
        self.wire_ns, self.lat_ns, _ = times
        self.sends: list[tuple[int, int]] = []
        self.receives: list[int] = []
        self.reached: list[int] = []
        self.started: dict[int, int] = {}  # transfers that are under way

    def send(self, index: int, time_ns: int) -> None:
        """The sender posts."""
        number = len(self.sends)
        self.sends.append((index, time_ns))
        if number < len(self.reached):
            self.move(number)

    def receive(self, index: int, time_ns: int) -> None:
        """The receiver posts, which moves nothing here."""
        del time_ns
        self.receives.append(index)

    def reach(self, time_ns: int) -> None:
        """The receiver reaches its next WR."""
        number = len(self.reached)
        self.reached.append(time_ns)
        if number < len(self.sends):
            self.move(number)

    def move(self, number: int) -> None:
        """Start a transfer whose two ends are known."""
        start = max(self.sends[number][1], self.reached[number])
        self.started[number] = start
        wire_ns, lat_ns = self.wire_ns[number], self.lat_ns[number]
        self.carrier.carry(start, wire_ns, self.num_bytes, self.deliver, number, after_ns=lat_ns)

    def deliver(self, event: simpy.Event) -> None:
        """A message has been moved."""
        number, now = cast(int, event.value), int(self.env.now)
        start = self.started.pop(number)
        self.source.finish(self.sends[number][0], start, now)
        self.sink.finish(self.receives[number], start, now)


class SendEnd:
    """The sender's end of a channel."""

    def __init__(self, channel: ChannelEngine | ChannelInline) -> None:
        self.post = channel.send

    def reach(self, time_ns: int) -> None:
        """Reaching a WS moves nothing."""


class ReceiveEnd:
    """The receiver's end of a channel."""

    def __init__(self, channel: ChannelEngine | ChannelInline) -> None:
        self.post = channel.receive
        self.reach = channel.reach


class Operation:
    """What members do together: starts at the latest of its conditions, is over for all at once."""

    def __init__(self, env: simpy.Environment, missing: int, carrier: Carrier) -> None:
        self.env, self.carrier = env, carrier
        self.missing = missing  #: conditions of which nothing is known yet
        self.start_ns = 0  #: the latest of those that are known
        self.duration_ns = self.num_bytes = 0
        self.over_ns = -1
        self.ends: list[tuple[Rank, int]] = []
        self.followers: list[Operation] = []

    def know(self, time_ns: int) -> None:
        """One condition is fulfilled from `time_ns` on."""
        self.start_ns = max(self.start_ns, time_ns)
        self.missing -= 1
        if not self.missing:
            self.carrier.carry(self.start_ns, self.duration_ns, self.num_bytes, self.end)

    def lasts(self, rank: Rank, index: int, duration_ns: int, num_bytes: int = 0) -> None:
        """A member takes part with its instruction `index`."""
        self.duration_ns = max(self.duration_ns, duration_ns)
        self.num_bytes = max(self.num_bytes, num_bytes)
        self.ends.append((rank, index))

    def follow(self, other: Operation) -> None:
        """Start after `other` is over."""
        self.missing += 1
        if other.over_ns >= 0:
            self.know(other.over_ns)
        else:
            other.followers.append(self)

    def end(self, _: simpy.Event) -> None:
        """It is over."""
        self.over_ns = int(self.env.now)
        for follower in self.followers:
            follower.know(self.over_ns)
        for rank, index in self.ends:
            rank.finish(index, self.start_ns, self.over_ns)


class OperationQueue:
    """Operations of one group, one scan's member or one copy queue, each after the one before."""

    def __init__(self, env: simpy.Environment, num_members: int, carrier: Carrier, *, inline: bool) -> None:
        self.env, self.carrier = env, carrier
        self.conditions = num_members * (2 if inline else 1)
        self.ahead: OperationQueue | None = None  #: of a scan: the member before
        self.operations: list[Operation] = []

    def operation(self, number: int) -> Operation:
        """The n-th operation, as soon as anyone speaks of it."""
        while len(self.operations) <= number:
            operation = Operation(self.env, self.conditions, self.carrier)
            if self.operations:
                operation.follow(self.operations[-1])
            if self.ahead is not None:
                operation.follow(self.ahead.operation(len(self.operations)))
            self.operations.append(operation)
        return self.operations[number]


class Member:
    """A rank's place in an `OperationQueue`."""

    def __init__(
        self, queue: OperationQueue, rank: Rank, op_bytes: Ints | None, *, inline: bool, scan: bool
    ) -> None:
        self.queue, self.rank, self.inline, self.scan = queue, rank, inline, scan
        self.op_bytes = op_bytes  #: [instructions] what its operations move, where that is known
        self.num_posted = self.num_reached = 0

    def post(self, index: int, time_ns: int) -> None:
        """The rank posts its part of its next operation."""
        operation = self.queue.operation(self.num_posted)
        self.num_posted += 1
        num_bytes = 0 if self.op_bytes is None else int(self.op_bytes[index])
        operation.lasts(self.rank, index, int(self.rank.actor.op_ns[index]), num_bytes)
        before = self.rank.bucket_before
        if before >= 0 and not self.scan:
            self.rank.watch(before, operation)
        operation.know(time_ns)

    def reach(self, time_ns: int) -> None:
        """The rank reaches its next wait."""
        if self.inline:
            self.queue.operation(self.num_reached).know(time_ns)
            self.num_reached += 1


class CoupledWork:
    """A work that ranks of several lanes start together; it takes the longest of their durations."""

    def __init__(self, env: simpy.Environment, num_members: int) -> None:
        self.operation = Operation(env, num_members, PlainCarrier(env))

    def arrive(self, rank: Rank, index: int, comp_ns: int, time_ns: int) -> None:
        """A member reaches it."""
        self.operation.lasts(rank, index, comp_ns)
        self.operation.know(time_ns)
