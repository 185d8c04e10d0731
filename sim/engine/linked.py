"""The plan as one set of arrays over all actors: which posts and waits are one message, one operation.

Instructions of all actors stand behind each other and are numbered through, actor after actor. A *stop* is a
wait, or a work that is coupled to other lanes; a *segment* is the stretch of a line between two stops, so an
actor has one segment more than stops. Nothing here depends on a duration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.engine.coordinates import coupled_works, group_instances
from exactmap.sim.engine.encoded import WAIT_KINDS, Ints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exactmap.sim.engine.coordinates import CoupledWorks, GroupInstance
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.encoded import EncodedProgram
    from exactmap.sim.plan.plan import Plan

__all__ = ["Linked", "Messages", "Operations", "link"]


@dataclass(frozen=True, slots=True, eq=False)
class Messages:
    """All messages, channel after channel and in order; arrays of shape [messages] hold instructions."""

    send: Ints
    recv: Ints
    send_wait: Ints  #: its WS
    recv_wait: Ints  #: its WR
    before: Ints  #: message n-1 of the channel, or -1
    behind: Ints  #: message n-k of a channel with k > 0 buffers, or -1
    has_buffers: np.ndarray[tuple[int], np.dtype[np.bool_]]  #: k > 0
    channels: tuple[tuple[int, str, int], ...]  #: (lane, channel, number of messages), in order
    lane_channel: Ints  #: lane * number of channels + channel

    def __len__(self) -> int:
        """Number of messages."""
        return len(self.send)


@dataclass(frozen=True, slots=True, eq=False)
class Operations:
    """All group operations, copies and coupled works.

    Arrays come in pairs that are one relation: (instruction, operation) or (operation, operation).
    """

    num: int
    post: tuple[Ints, Ints]  #: starts after this post, and takes its `op_ns` if that is the longest
    reach: tuple[Ints, Ints]  #: starts after this stop is reached (mover inline, coupled works)
    after: tuple[Ints, Ints]  #: the second starts after the first is over
    wait: tuple[Ints, Ints]  #: this stop is left after it is over
    coupled: tuple[Ints, Ints]  #: is this coupled work, and takes its duration if that is the longest


@dataclass(frozen=True, slots=True, eq=False)
class Linked:
    """All actors, messages and operations of a plan; `x` counts instructions, `s` segments."""

    keys: tuple[tuple[int, int], ...]  #: (lane, pipeline rank) of each actor
    programs: tuple[EncodedProgram, ...]  #: of each actor
    first: Ints  #: [actors + 1] first instruction of each
    first_segment: Ints  #: [actors + 1] first segment of each
    stop: Ints  #: [stops] instruction
    segment: Ints  #: [x] in which the instruction is left; a stop is reached in the one before
    is_coupled: np.ndarray[tuple[int], np.dtype[np.bool_]]  #: [x]
    messages: Messages
    operations: Operations

    def pick(self, parts: Sequence[Ints], at: Ints) -> Ints:
        """Entries `at` of what stands behind each other in `parts`, one per actor."""
        if not len(at):
            return np.empty(0, dtype=np.int64)
        actor = np.searchsorted(self.first, at, side="right") - 1
        out = np.empty(len(at), dtype=np.int64)
        for number in np.unique(actor).tolist():
            mine = actor == number
            out[mine] = parts[number][at[mine] - self.first[number]]
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Posts:
    """Posts and waits of all actors, numbered through; a queue is actor * number of queues + queue."""

    at: Ints  #: [posts]
    queue: Ints  #: [posts]
    order: Ints  #: [posts] how many posts of its queue stand before it
    before_on_bucket: Ints  #: [posts] a post, or -1
    wait_at: Ints  #: [waits]
    post_of_wait: Ints  #: [waits]
    counts: Ints  #: [actors, queues]


def link(plan: Plan, durations: Durations, *, inline: bool) -> Linked:
    """Link the posts of all actors; of the durations, lanes and programs count alone.

    Raises
    ------
    InvalidInputError
        If the ends of a channel or the members of a group differ in how many they post.
    """
    keys = tuple((lane, pp) for lane in range(len(durations.lanes)) for pp in range(plan.mesh.pp))
    programs = tuple(durations.actors[key].program for key in keys)
    sizes = [program.num_instructions for program in programs]
    first = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    actor_of = {key: number for number, key in enumerate(keys)}
    coupled = coupled_works(plan, durations)

    is_coupled = np.zeros(first[-1], dtype=np.bool_)
    for works in coupled:
        for key in works.members:
            is_coupled[first[actor_of[key]] + works.at] = True
    is_stop = WAIT_KINDS[np.concatenate([program.kind for program in programs])] | is_coupled
    stop = np.flatnonzero(is_stop)
    # Segment = stops so far, over all actors, and one more per actor before.
    segment = np.cumsum(is_stop) + np.repeat(np.arange(len(programs)), sizes)
    first_segment = np.searchsorted(stop, first) + np.arange(len(first))

    posts = _posts(programs, first)
    base = np.full(posts.counts.shape, -1, dtype=np.int64)  # first message or operation of each queue
    channels = _number_messages(plan, durations, posts.counts, base)
    num_messages = sum(num for _, _, num in channels)
    instances = group_instances(plan, durations)
    num_operations, ahead_runs = _number_operations(plan, instances, actor_of, posts.counts, base)
    target = base.ravel()[posts.queue] + posts.order

    num_queues = posts.counts.shape[1]
    queue = posts.queue % num_queues
    messages = _messages(plan, posts, queue, target, channels, num_messages)
    scans = [2 * len(plan.channels) + number for number, group in enumerate(plan.groups) if group.scan]
    on_bucket = np.flatnonzero((posts.before_on_bucket >= 0) & ~np.isin(queue, scans))
    operations = _operations(
        posts, target, queue >= 2 * len(plan.channels), on_bucket, ahead_runs, num_operations, inline=inline
    )
    if coupled:
        firsts = [[int(first[actor_of[key]]) for key in works.members] for works in coupled]
        operations = _with_coupled(operations, coupled, firsts)
    return Linked(
        keys, programs, first, first_segment, stop, segment.astype(np.int64), is_coupled, messages, operations
    )


def _posts(programs: tuple[EncodedProgram, ...], first: Ints) -> _Posts:
    num_queues = programs[0].num_queues
    at: list[Ints] = []
    queue: list[Ints] = []
    order: list[Ints] = []
    before: list[Ints] = []
    wait_at: list[Ints] = []
    post_of_wait: list[Ints] = []
    counts: list[Ints] = []
    num_posts = 0
    for number, program in enumerate(programs):
        queue_of_post = program.queue[program.post_at]
        at.append(program.post_at + first[number])
        queue.append(queue_of_post + number * num_queues)
        order.append(program.order_of_post)
        before.append(np.where(program.bucket_before >= 0, program.bucket_before + num_posts, -1))
        wait_at.append(program.wait_at + first[number])
        post_of_wait.append(program.post_of_wait + num_posts)
        counts.append(np.bincount(queue_of_post, minlength=num_queues))
        num_posts += len(queue_of_post)
    return _Posts(
        at=np.concatenate(at),
        queue=np.concatenate(queue),
        order=np.concatenate(order),
        before_on_bucket=np.concatenate(before),
        wait_at=np.concatenate(wait_at),
        post_of_wait=np.concatenate(post_of_wait),
        counts=np.array(counts),
    )


def _number_messages(
    plan: Plan, durations: Durations, counts: Ints, base: Ints
) -> tuple[tuple[int, str, int], ...]:
    """Give each channel of each lane its messages' numbers."""
    channels: list[tuple[int, str, int]] = []
    total = 0
    for lane in range(len(durations.lanes)):
        for number, channel in enumerate(plan.channels):
            source, sink = lane * plan.mesh.pp + channel.src, lane * plan.mesh.pp + channel.dst
            num, num_received = int(counts[source, 2 * number]), int(counts[sink, 2 * number + 1])
            if num != num_received:
                raise InvalidInputError(
                    "a message lacks its partner",
                    where=Place(field=f"channel {channel.name}"),
                    got=f"{num} sends and {num_received} receives",
                    hint="check the plan: exactmap check PLAN",
                )
            base[source, 2 * number] = base[sink, 2 * number + 1] = total
            if num:
                channels.append((lane, channel.name, num))
                total += num
    return tuple(channels)


def _number_operations(
    plan: Plan,
    instances: list[GroupInstance],
    actor_of: dict[tuple[int, int], int],
    counts: Ints,
    base: Ints,
) -> tuple[int, list[tuple[int, int, int]]]:
    """Give each queue of operations its numbers.

    Returns
    -------
    tuple
        Number of operations, and runs (first, first of those ahead, length): operation first + i starts after
        operation ahead + i is over.
    """
    total = 0
    ahead_runs: list[tuple[int, int, int]] = []
    for instance in instances:
        queue = 2 * len(plan.channels) + instance.group
        members = [actor_of[key] for key in instance.members]
        nums = counts[members, queue].tolist()
        if len(set(nums)) > 1:
            raise InvalidInputError(
                "members of a group post different numbers of operations",
                where=Place(field=f"group {plan.groups[instance.group].name}"),
                got=", ".join(map(str, nums)),
                hint="check the plan: exactmap check PLAN",
            )
        num = nums[0]
        if not instance.scan:
            base[members, queue] = total
            ahead_runs.append((total + 1, total, num - 1))
            total += num
            continue
        for place, member in enumerate(members):
            base[member, queue] = total
            ahead_runs.append((total + 1, total, num - 1))
            if place:
                ahead_runs.append((total, total - num, num))
            total += num
    copy_queue = counts.shape[1] - 1
    for number, num in enumerate(counts[:, copy_queue].tolist()):
        base[number, copy_queue] = total
        ahead_runs.append((total + 1, total, num - 1))
        total += num
    return total, [run for run in ahead_runs if run[2] > 0]


def _messages(
    plan: Plan,
    posts: _Posts,
    queue: Ints,
    target: Ints,
    channels: tuple[tuple[int, str, int], ...],
    num_messages: int,
) -> Messages:
    on_channel = queue < 2 * len(plan.channels)
    is_send, is_receive = on_channel & (queue % 2 == 0), on_channel & (queue % 2 == 1)
    wait = np.empty(len(target), dtype=np.int64)
    wait[posts.post_of_wait] = posts.wait_at

    def by_message(values: Ints, where: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ints:
        out = np.empty(num_messages, dtype=np.int64)
        out[target[where]] = values[where]
        return out

    number_of = {channel.name: number for number, channel in enumerate(plan.channels)}
    nums = [num for _, _, num in channels]
    depths = [plan.channels[number_of[name]].depth for _, name, _ in channels]
    lane_channels = [lane * len(plan.channels) + number_of[name] for lane, name, _ in channels]
    place = np.arange(num_messages) - np.repeat(np.cumsum(nums, dtype=np.int64) - nums, nums)
    depth = np.repeat(np.array(depths, dtype=np.int64), nums)
    number = np.arange(num_messages)
    return Messages(
        send=by_message(posts.at, is_send),
        recv=by_message(posts.at, is_receive),
        send_wait=by_message(wait, is_send),
        recv_wait=by_message(wait, is_receive),
        before=np.where(place > 0, number - 1, -1),
        behind=np.where((depth > 0) & (place >= depth), number - depth, -1),
        has_buffers=depth > 0,
        channels=channels,
        lane_channel=np.repeat(np.array(lane_channels, dtype=np.int64), nums),
    )


def _operations(
    posts: _Posts,
    target: Ints,
    is_operation: np.ndarray[tuple[int], np.dtype[np.bool_]],
    on_bucket: Ints,
    ahead_runs: list[tuple[int, int, int]],
    num: int,
    *,
    inline: bool,
) -> Operations:
    """Relations of all operations; `on_bucket`: posts that start after their bucket's post before."""
    nothing = np.empty(0, dtype=np.int64)
    waits = np.flatnonzero(is_operation[posts.post_of_wait])
    wait = (posts.wait_at[waits], target[posts.post_of_wait[waits]])
    after_from = [np.arange(ahead, ahead + length) for _, ahead, length in ahead_runs]
    after_to = [np.arange(first, first + length) for first, _, length in ahead_runs]
    after_from.append(target[posts.before_on_bucket[on_bucket]])
    after_to.append(target[on_bucket])
    return Operations(
        num=num,
        post=(posts.at[is_operation], target[is_operation]),
        reach=wait if inline else (nothing, nothing),
        after=(np.concatenate(after_from), np.concatenate(after_to)),
        wait=wait,
        coupled=(nothing, nothing),
    )


def _with_coupled(operations: Operations, coupled: list[CoupledWorks], firsts: list[list[int]]) -> Operations:
    """One operation more per coupled work, which starts when all have reached it and which all wait for."""
    at: list[Ints] = []
    numbers: list[Ints] = []
    total = operations.num
    for works, members in zip(coupled, firsts, strict=True):
        for first in members:
            at.append(first + works.at)
            numbers.append(np.arange(total, total + len(works.at)))
        total += len(works.at)
    pair = (np.concatenate(at), np.concatenate(numbers))

    def joined(one: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
        return np.concatenate((one[0], pair[0])), np.concatenate((one[1], pair[1]))

    return Operations(
        num=total,
        post=operations.post,
        reach=joined(operations.reach),
        after=operations.after,
        wait=joined(operations.wait),
        coupled=pair,
    )
