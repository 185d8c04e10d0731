"""Put messages and collectives between the works of each rank.

All posts of a step have one global order, that of the moments when their data are made in the walk of the
order. Each rank posts its part of them in that order, send at the producer and receive at the consumer alike.
So an executor that starts a rank's posts one by one still makes progress (`serial=yes`): the first post that
is not complete stands at the head of the queue at all its ends, or a rank is about to reach it, for whatever
a rank waits for was posted later.

Between two works (a *gap*) stand, in order: hand-overs on the same rank, receives that came before the send,
the send, waits for sends, later posts, waits for receives. A receive is posted one work ahead: in the gap
before the work during which its data are made, so that it stands ready when they are sent, without a buffer
in the channel. A look-ahead of 2 or more moves it further ahead past works without posts, never past a post;
0 posts it in the gap after that work, one slot cheaper and sound where the receiver itself moves the bytes
when it waits.

A wait for a send stands where, in the walk, the consumer has begun: from there on no mover keeps a rank
waiting, and the *strict* graph has no cycle since all its edges go forward in the walk. The slots' colouring
moves it on to where its slot is wanted again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.gradients import TIE_GROUP, Gradients, last_works
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.timeline import Timeline

__all__ = ["Step", "channel_name", "place_posts"]

_NOTE, _EARLY, _SEND, _WAIT_SEND, _POST, _WAIT_RECEIVE, _WORK = range(7)
_PHASES = 8


class Step(NamedTuple):
    """An instruction before its slots are known.

    `number` is a microbatch, or a bucket's index for an AR; `cls` the class of the channel, F or B.
    """

    op: Op
    stage: int
    number: int
    queue: str = ""
    cls: str = ""


class _Message(NamedTuple):
    made_ns: int
    src: int  # ends of two works of one rank differ: (made_ns, src) is a total order
    work: int  # place of the producer in the order of `src`
    dst: int
    user: int  # place of the consumer in the order of `dst`
    cls: str
    stage: int  # the producer's
    microbatch: int


class _Closer(NamedTuple):
    """An AR of a bucket; sorts after the message that the same work makes, in `reduce` order."""

    made_ns: int
    src: int
    work: int
    rank: int
    depth: int  # place in the bucket's list of groups
    bucket: int  # place in the plan's list


@dataclass(slots=True)
class _Rank:
    """What is known of one rank while posts are placed."""

    starts: list[int]
    ends: list[int]
    sends: bytearray  # 1 for each work that sends
    last: int = 0  # position of the last post

    def position_at(self, made_ns: int, src: int, me: int, look_ahead: int) -> int:
        """Position, among this rank's posts, of one whose data are made at `made_ns` on rank `src`."""
        gap = bisect_right(self.ends, made_ns)
        phase = _POST
        if gap and self.ends[gap - 1] == made_ns and self.sends[gap - 1] and me > src:
            phase = _EARLY
        elif look_ahead == 0 and gap < len(self.starts) and self.starts[gap] < made_ns:
            gap, phase = gap + 1, _EARLY
        elif look_ahead > 1:
            gap, phase = max(gap - look_ahead + 1, 0), _POST
        self.last = max(self.last, gap * _PHASES + phase)
        return self.last


def channel_name(cls: str, src: int, dst: int) -> str:
    """Name of the channel of class F or B from rank `src` to rank `dst`.

    Examples
    --------
    >>> channel_name("F", 0, 1)
    'f0_1'
    """
    return f"{cls.lower()}{src}_{dst}"


def place_posts(
    order: Order, timeline: Timeline, gradients: Gradients, look_ahead: int = 1
) -> tuple[list[Step], ...]:
    """Works, posts, waits and notes of each rank, in program order.

    Waits for sends stand at their earliest harmless place; collectives are left for the caller to wait for at
    the end.
    """
    messages, notes = _find_messages(order, timeline)
    ranks = [
        _Rank(starts.tolist(), ends.tolist(), bytearray(len(ends)))
        for starts, ends in zip(timeline.start_ns, timeline.end_ns, strict=True)
    ]
    for message in messages:
        ranks[message.src].sends[message.work] = 1
    placed: list[list[tuple[int, int, Step]]] = []
    for rank in range(order.num_ranks):
        works = order.works(rank)
        entries = [(gap * _PHASES + _WORK, 0, Step(*work[:3])) for gap, work in enumerate(works)]
        entries += [(position, 0, step) for position, step in notes[rank]]
        placed.append(entries)
    events: list[_Message | _Closer] = [*messages, *_find_closers(order, timeline, gradients)]
    events.sort(key=_event_key)
    queues: dict[tuple[str, int, int], list[tuple[int, _Message]]] = {}
    for number, event in enumerate(events):
        if isinstance(event, _Closer):
            bucket = gradients.buckets[event.bucket]
            state = ranks[event.rank]
            if event.rank == event.src:
                state.last = max(state.last, (event.work + 1) * _PHASES + _POST)
                position = state.last
            else:
                position = state.position_at(event.made_ns, event.src, event.rank, 1)
            step = Step(Op.AR, bucket.stage, bucket.index, bucket.reduce[event.depth])
            placed[event.rank].append((position, number, step))
            continue
        channel = channel_name(event.cls, event.src, event.dst)
        send, receive = (Op.SF, Op.RF) if event.cls == "F" else (Op.SB, Op.RB)
        position = (event.work + 1) * _PHASES + _SEND
        ranks[event.src].last = max(ranks[event.src].last, position)
        placed[event.src].append(
            (position, number, Step(send, event.stage, event.microbatch, channel, event.cls))
        )
        position = ranks[event.dst].position_at(event.made_ns, event.src, event.dst, look_ahead)
        user_stage = event.stage + 1 if event.cls == "F" else event.stage - 1
        placed[event.dst].append(
            (position, number, Step(receive, user_stage, event.microbatch, channel, event.cls))
        )
        queues.setdefault((event.cls, event.src, event.dst), []).append((number, event))
    for (cls, src, dst), queue in queues.items():
        channel = channel_name(cls, src, dst)
        _place_receive_waits(placed[dst], queue, channel)
        _place_send_waits(placed[src], queue, channel, ranks)
    for entries in placed:
        entries.sort()
    return tuple([step for _, _, step in entries] for entries in placed)


def _event_key(event: _Message | _Closer) -> tuple[int, int, int]:
    return (event.made_ns, event.src, event.depth + 1 if isinstance(event, _Closer) else 0)


def _find_messages(
    order: Order, timeline: Timeline
) -> tuple[list[_Message], tuple[list[tuple[int, Step]], ...]]:
    """Messages between ranks, and hand-overs on one rank with their positions."""
    m, placement, last_stage = order.num_microbatches, order.placement, order.num_stages - 1
    messages: list[_Message] = []
    notes: tuple[list[tuple[int, Step]], ...] = tuple([] for _ in order.ranks)
    forward_at, backward_at = order.forward_at.tolist(), order.backward_at.tolist()
    for rank in range(order.num_ranks):
        ends = timeline.end_ns[rank].tolist()
        for index, (op, stage, microbatch, _, _) in enumerate(order.works(rank)):
            if op is Op.W:
                continue
            forward = op is Op.F
            neighbour = stage + 1 if forward else stage - 1
            if not 0 <= neighbour <= last_stage:
                continue
            if placement[neighbour][0] == rank:
                note = Op.LF if forward else Op.LB
                notes[rank].append(((index + 1) * _PHASES + _NOTE, Step(note, stage, microbatch)))
                continue
            users = forward_at if forward else backward_at
            user = users[neighbour * m + microbatch]
            cls = "F" if forward else "B"
            messages.append(
                _Message(ends[index], rank, index, placement[neighbour][0], user, cls, stage, microbatch)
            )
    return messages, notes


def _find_closers(order: Order, timeline: Timeline, gradients: Gradients) -> list[_Closer]:
    """All ARs: over replicas when the bucket's last work ends, over tied ranks when both are there."""
    last = last_works(order, gradients)
    rank_of = [order.placement[bucket.stage][0] for bucket in gradients.buckets]
    tied = [i for i, bucket in enumerate(gradients.buckets) if TIE_GROUP in bucket.reduce]
    end_ns = [
        (int(timeline.end_ns[rank][work]), rank, work) for rank, work in zip(rank_of, last, strict=True)
    ]
    closers: list[_Closer] = []
    for number, bucket in enumerate(gradients.buckets):
        for depth, group in enumerate(bucket.reduce):
            made_ns, src, work = max(end_ns[i] for i in tied) if group == TIE_GROUP else end_ns[number]
            closers.append(_Closer(made_ns, src, work, rank_of[number], depth, number))
    return closers


def _place_receive_waits(
    entries: list[tuple[int, int, Step]], queue: Sequence[tuple[int, _Message]], channel: str
) -> None:
    """Just before the consumer, or before that of a later message of the channel which is used sooner."""
    gap = max(message.user for _, message in queue)
    for number, message in reversed(queue):
        gap = min(gap, message.user)
        stage = message.stage + 1 if message.cls == "F" else message.stage - 1
        wait = Step(Op.WR, stage, message.microbatch, channel, message.cls)
        entries.append((gap * _PHASES + _WAIT_RECEIVE, number, wait))


def _place_send_waits(
    entries: list[tuple[int, int, Step]],
    queue: Sequence[tuple[int, _Message]],
    channel: str,
    ranks: Sequence[_Rank],
) -> None:
    """In the first gap that begins when the consumer has begun, in posting order."""
    first = queue[0][1]
    sender, receiver = ranks[first.src], ranks[first.dst]
    gap = 0
    for number, message in queue:
        begun = (receiver.starts[message.user], message.dst)
        earliest = bisect_left(sender.ends, begun[0]) + 1
        gap = max(gap, min(earliest, len(sender.ends)))
        # At equal times works count in the order of their ranks: any fixed order avoids cycles.
        while gap < len(sender.starts) and (sender.starts[gap], message.src) <= begun:
            gap += 1
        wait = Step(Op.WS, message.stage, message.microbatch, channel, message.cls)
        entries.append((gap * _PHASES + _WAIT_SEND, number, wait))
