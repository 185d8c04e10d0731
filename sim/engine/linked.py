"""The plan as one graph over all actors: messages, operations and the waits that need them, in flat lists.

An actor's compute is a line of fixed pieces between waits. With D(x) the sum of its own durations up to and
including instruction x, and H(x) the delay that the issuing host has put on the line by then,

    e(x) = D(x) + max(M, H(x)),

where M is the largest delay that a wait has put on the line so far: it changes at waits only. A *segment* is
the stretch before a wait, so one M per segment is all that an actor tells the others, and what a post offers
them is a segment, its D and the floor D + H. Works that are coupled to other lanes count as waits here.

All of it is array arithmetic over whole programs; only the engine's own loop walks waits one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.engine.coordinates import coupled_works, group_instances
from exactmap.sim.engine.encoded import WAIT_KINDS, Ints

if TYPE_CHECKING:
    from exactmap.sim.engine.coordinates import CoupledWorks, GroupInstance
    from exactmap.sim.engine.durations import ActorDurations, Durations
    from exactmap.sim.plan.plan import Plan

__all__ = ["ActorLine", "Linked", "Messages", "Operations", "WaitCode", "link"]


class WaitCode:
    """What a wait on the line waits for."""

    RECEIVE = 0
    SEND = 1
    OPERATION = 2


@dataclass(slots=True, eq=False)
class ActorLine:
    """One actor's line; `x` counts instructions, `l` line waits (waits and coupled works)."""

    durations: ActorDurations
    number: int  #: of the actor
    line_at: Ints  #: [l] instruction of each line wait
    passed: Ints  #: [x] line waits up to and including x
    sum_ns: Ints  #: [x] D
    host_ns: Ints | None  #: [x] H; None where the host never delays
    first_wait: int  #: global number of its first line wait
    base: Ints  #: [queues] global number of the first message or operation of each queue
    coupled: Ints  #: [x] the operation that a work shares with other lanes, or -1

    @property
    def first_segment(self) -> int:
        """Global number of its first segment: an actor has one segment more than line waits."""
        return self.first_wait + self.number

    def targets(self, instructions: Ints, orders: Ints) -> Ints:
        """Messages or operations that posts, given by instruction and order on their queue, belong to."""
        return self.base[self.durations.program.queue[instructions]] + orders

    def point(self, instructions: Ints, *, leaving: bool) -> tuple[Ints, Ints, Ints]:
        """Segment, D and floor D + H of e (leaving) or a (reaching) of some instructions."""
        segment = self.first_segment + self.passed[instructions]
        sums = self.sum_ns[instructions]
        if not leaving:
            # Only line waits are asked when they are reached, and each stands at the end of its segment.
            segment = segment - 1
        floor = sums if self.host_ns is None else sums + self.host_ns[instructions]
        return segment, sums, floor


@dataclass(slots=True)
class Messages:
    """All messages, channel after channel and in order; each list has an entry per message."""

    send_segment: list[int] = field(default_factory=list)
    send_sum: list[int] = field(default_factory=list)
    send_floor: list[int] = field(default_factory=list)
    recv_segment: list[int] = field(default_factory=list)
    recv_sum: list[int] = field(default_factory=list)
    recv_floor: list[int] = field(default_factory=list)
    wait_segment: list[int] = field(default_factory=list)  #: the segment that the message's WR closes
    before: list[int] = field(default_factory=list)  #: message n-1 of the channel, or -1: none
    behind: list[int] = field(default_factory=list)  #: message n-k; -1: none; -2: depth 0
    wire: list[int] = field(default_factory=list)
    lat: list[int] = field(default_factory=list)
    copy: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of messages."""
        return len(self.wire)


@dataclass(slots=True)
class Operations:
    """All group operations, copies and coupled works.

    `points` of an operation are the (segment, D, floor) that it starts after, `after` the operations that it
    starts after.
    """

    points: list[tuple[tuple[int, int, int], ...]] = field(default_factory=list)
    after: list[tuple[int, ...]] = field(default_factory=list)
    duration: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of operations."""
        return len(self.duration)


@dataclass(slots=True, eq=False)
class Linked:
    """All actors, messages and operations of a plan with its durations."""

    lines: dict[tuple[int, int], ActorLine]
    messages: Messages
    operations: Operations
    num_waits: int
    issues: bool  #: whether a host that issues can delay an actor
    code: list[int]  #: [waits] `WaitCode`
    target: list[int]  #: [waits] message or operation
    wait_sum: list[int]  #: [waits] D
    wait_floor: list[int]  #: [waits] D + H


def link(plan: Plan, durations: Durations, *, inline: bool) -> Linked:
    """Link the posts of all actors.

    Raises
    ------
    InvalidInputError
        If the ends of a channel or the members of a group differ in how many they post.
    """
    instances = group_instances(plan, durations)
    coupled = coupled_works(plan, durations)
    lines: dict[tuple[int, int], ActorLine] = {}
    num_waits = 0
    for key, actor in durations.actors.items():
        is_coupled = np.zeros(actor.program.num_instructions, dtype=np.bool_)
        for works in coupled:
            if key in works.members:
                is_coupled[works.at] = True
        line = _line(actor, len(lines), num_waits, is_coupled)
        lines[key] = line
        num_waits += len(line.line_at)
    messages = _link_messages(plan, durations, lines)
    operations = _link_operations(plan, instances, coupled, lines, inline=inline)
    code, target, wait_sum, wait_floor = _waits(plan, lines)
    return Linked(
        lines,
        messages,
        operations,
        num_waits,
        any(line.host_ns is not None for line in lines.values()),
        code,
        target,
        wait_sum,
        wait_floor,
    )


def _line(actor: ActorDurations, number: int, first_wait: int, is_coupled: NDArray[np.bool_]) -> ActorLine:
    program = actor.program
    is_stop = WAIT_KINDS[program.kind] | is_coupled
    sum_ns = np.cumsum(np.where(is_coupled, 0, actor.comp_ns))
    host_ns: Ints | None = None
    if actor.issue_ns.any():
        before = np.concatenate(([0], sum_ns[:-1]))
        host_ns = np.maximum.accumulate(np.cumsum(actor.issue_ns) - before)
    base = np.full(program.num_queues, -1, dtype=np.int64)
    return ActorLine(
        durations=actor,
        number=number,
        line_at=np.flatnonzero(is_stop),
        passed=np.cumsum(is_stop, dtype=np.int64),
        sum_ns=sum_ns,
        host_ns=host_ns,
        first_wait=first_wait,
        base=base,
        coupled=np.full(program.num_instructions, -1, dtype=np.int64),
    )


def _posts_on(line: ActorLine, queue: int) -> Ints:
    """Posts of one queue, as numbers of post."""
    program = line.durations.program
    return np.flatnonzero(program.queue[program.post_at] == queue)


def _link_messages(plan: Plan, durations: Durations, lines: dict[tuple[int, int], ActorLine]) -> Messages:
    out = Messages()
    for lane in range(len(durations.lanes)):
        for number, channel in enumerate(plan.channels):
            source, sink = lines[lane, channel.src], lines[lane, channel.dst]
            sends, receives = _posts_on(source, 2 * number), _posts_on(sink, 2 * number + 1)
            num = len(sends)
            if num != len(receives):
                raise InvalidInputError(
                    "a message lacks its partner",
                    where=Place(field=f"channel {channel.name}"),
                    got=f"{num} sends and {len(receives)} receives",
                    hint="check the plan: exactmap check PLAN",
                )
            if not num:
                continue
            first = len(out)
            source.base[2 * number] = sink.base[2 * number + 1] = first
            program = sink.durations.program
            for lists, points in (
                ((out.send_segment, out.send_sum, out.send_floor), _post_points(source, sends)),
                ((out.recv_segment, out.recv_sum, out.recv_floor), _post_points(sink, receives)),
            ):
                for values, points_part in zip(lists, points, strict=True):
                    values.extend(points_part.tolist())
            waits = program.wait_at[program.wait_of_post[receives]]
            out.wait_segment.extend(sink.point(waits, leaving=False)[0].tolist())
            out.before.extend((-1, *range(first, first + num - 1)))
            depth = channel.depth
            out.behind.extend([-1] * min(depth, num) if depth else [-2] * num)
            if depth:
                out.behind.extend(range(first, first + num - depth))
            times = durations.channels[lane, channel.name]
            out.wire.extend(times.wire_ns.tolist())
            out.lat.extend(times.lat_ns.tolist())
            out.copy.extend(times.copy_ns.tolist())
    return out


def _post_points(line: ActorLine, posts: Ints) -> tuple[Ints, Ints, Ints]:
    return line.point(line.durations.program.post_at[posts], leaving=True)


def _link_operations(
    plan: Plan,
    instances: list[GroupInstance],
    coupled: list[CoupledWorks],
    lines: dict[tuple[int, int], ActorLine],
    *,
    inline: bool,
) -> Operations:
    out = Operations()
    num_channels, copy_queue = len(plan.channels), 2 * len(plan.channels) + len(plan.groups)
    # First all numbers, for an operation may come after one of another group.
    pending: list[tuple[list[tuple[ActorLine, Ints]], int, list[int], bool]] = []
    total = 0
    for instance in instances:
        queue = 2 * num_channels + instance.group
        members = [(lines[key], _posts_on(lines[key], queue)) for key in instance.members]
        counts = {len(posts) for _, posts in members}
        if len(counts) > 1:
            raise InvalidInputError(
                "members of a group post different numbers of operations",
                where=Place(field=f"group {plan.groups[instance.group].name}"),
                got=", ".join(str(len(posts)) for _, posts in members),
                hint="check the plan: exactmap check PLAN",
            )
        ahead: list[int] = []
        for part in [[member] for member in members] if instance.scan else [members]:
            for line, _ in part:
                line.base[queue] = total
            pending.append((part, total, ahead, instance.scan))
            ahead = [total] if instance.scan else []
            total += len(part[0][1])
    for line in lines.values():
        posts = _posts_on(line, copy_queue)
        if len(posts):
            line.base[copy_queue] = total
            pending.append(([(line, posts)], total, [], False))
            total += len(posts)
    for part, first, ahead, scan in pending:
        _add_operations(out, part, first, ahead, scan=scan, inline=inline)
    for works in coupled:
        _add_coupled(out, [lines[key] for key in works.members], works.at)
    return out


def _add_operations(
    out: Operations,
    members: list[tuple[ActorLine, Ints]],
    first: int,
    ahead: list[int],
    *,
    scan: bool,
    inline: bool,
) -> None:
    """Operations of one queue; `ahead`: first operation of the member before, in a scan."""
    num = len(members[0][1])
    if not num:
        return
    points: list[list[tuple[int, int, int]]] = []
    after: list[list[int]] = [[-1, *range(first, first + num - 1)]]
    after.extend(list(range(base, base + num)) for base in ahead)
    longest = np.zeros(num, dtype=np.int64)
    for line, posts in members:
        program = line.durations.program
        points.append(_tuples(_post_points(line, posts)))
        if inline:
            waits = program.wait_at[program.wait_of_post[posts]]
            points.append(_tuples(line.point(waits, leaving=False)))
        before = program.bucket_before[posts]
        if (before >= 0).any() and not scan:
            targets = line.targets(program.post_at[before], program.order_of_post[before])
            after.append(np.where(before >= 0, targets, -1).tolist())
        longest = np.maximum(longest, line.durations.op_ns[program.post_at[posts]])
    out.points.extend(zip(*points, strict=True))
    out.after.extend(tuple(op for op in ops if op >= 0) for ops in zip(*after, strict=True))
    out.duration.extend(longest.tolist())


def _add_coupled(out: Operations, members: list[ActorLine], at: Ints) -> None:
    """One operation per coupled work: it starts when all have reached it and takes the longest duration."""
    numbers = np.arange(len(out), len(out) + len(at))
    for line in members:
        line.coupled[at] = numbers
    out.points.extend(zip(*(_tuples(line.point(at, leaving=False)) for line in members), strict=True))
    out.after.extend([()] * len(at))
    out.duration.extend(np.max([line.durations.comp_ns[at] for line in members], axis=0).tolist())


def _tuples(parts: tuple[Ints, Ints, Ints]) -> list[tuple[int, int, int]]:
    return list(zip(*(part.tolist() for part in parts), strict=True))


def _waits(
    plan: Plan, lines: dict[tuple[int, int], ActorLine]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Code, target, D and floor of every line wait."""
    num_channels = len(plan.channels)
    codes: list[int] = []
    targets: list[int] = []
    sums: list[int] = []
    floors: list[int] = []
    for line in lines.values():
        program = line.durations.program
        target = np.full(program.num_instructions, -1, dtype=np.int64)
        posts = program.post_of_wait
        target[program.wait_at] = line.targets(program.post_at[posts], program.order_of_post[posts])
        target = np.where(line.coupled >= 0, line.coupled, target)
        queue = program.queue[line.line_at]
        at_channel = (queue >= 0) & (queue < 2 * num_channels)
        code = np.where(
            at_channel, np.where(queue % 2 == 1, WaitCode.RECEIVE, WaitCode.SEND), WaitCode.OPERATION
        )
        _, sum_ns, floor = line.point(line.line_at, leaving=False)
        codes.extend(code.tolist())
        targets.extend(target[line.line_at].tolist())
        sums.extend(sum_ns.tolist())
        floors.extend(floor.tolist())
    return codes, targets, sums, floors
