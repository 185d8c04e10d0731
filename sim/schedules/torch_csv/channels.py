"""Whether messages of a torch schedule get through, and how long a step takes, if channels work so or so.

torch posts every SEND and RECV on its own and lets them run beside the passes; a pass waits for its RECV.
Which of them wait for each other is up to the transport. Four models, each a queue that does one transfer
after another, in the order in which its rank posted them, without buffers: a transfer starts when both
ends are first in their queues.

====================  ====================================================================================
``rank``              one queue for all messages of a rank
``pair``              one queue for each peer, both directions in it
``direction``         one for each peer and direction
``class``             one for each peer, direction and class, activations or gradients
====================  ====================================================================================

A queue never overtakes, so whether a step ends does not depend on durations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.schedules.torch_csv.actions import ACTION_CODES, ActionKind, Actions

__all__ = ["Blocked", "ChannelModel", "ChannelRun", "run_channels"]

_F, _I, _W, _B = (ACTION_CODES[kind] for kind in (ActionKind.F, ActionKind.I, ActionKind.W, ActionKind.B))
_SEND_F, _RECV_F, _SEND_B, _RECV_B = (
    ACTION_CODES[kind]
    for kind in (ActionKind.SEND_F, ActionKind.RECV_F, ActionKind.SEND_B, ActionKind.RECV_B)
)
_SENDS, _FORWARD = frozenset({_SEND_F, _SEND_B}), frozenset({_SEND_F, _RECV_F})
_OP_OF = {_F: CODES[Op.F], _I: CODES[Op.I], _W: CODES[Op.W], _B: CODES[Op.B]}


class ChannelModel(StrEnum):
    """What shares a queue."""

    RANK = "rank"
    PAIR = "pair"
    DIRECTION = "direction"
    CLASS = "class"


class Blocked(NamedTuple):
    """One place of a circle: this action of this rank waits for the next one's."""

    rank: int
    cell: int
    action: str


@dataclass(frozen=True, slots=True)
class ChannelRun:
    """A step under one model: its makespan, or None and the circle of actions that wait for each other."""

    model: ChannelModel
    makespan_ns: int | None
    circle: tuple[Blocked, ...] = ()


def run_channels(
    ranks: Sequence[Actions],
    rank_of: Sequence[int],
    num_microbatches: int,
    model: ChannelModel,
    times: WorkTimes,
) -> ChannelRun:
    """Run one step under one model of the channels.

    Parameters
    ----------
    ranks
        Actions of each rank, messages among them.
    rank_of
        Rank of each stage.
    num_microbatches
        Microbatches of a step.
    model
        What shares a queue.
    times
        Durations of passes; `hop_ns` is that of a transfer. Collectives take no time.

    Examples
    --------
    >>> from exactmap.sim.schedules.registry import make_order
    >>> from exactmap.sim.schedules.torch_csv.lower import lower_as_torch
    >>> ranks = lower_as_torch(make_order("1f1b", 4, 8))
    >>> times = WorkTimes.unit(num_stages=4, unit_ns=1000)
    >>> run_channels(ranks, [0, 1, 2, 3], 8, ChannelModel.PAIR, times).makespan_ns
    33000
    """
    return _Run(ranks, rank_of, num_microbatches, model, times).run()


class _Run:
    """State of a step: how far each rank came, what is posted, what has arrived."""

    def __init__(
        self,
        ranks: Sequence[Actions],
        rank_of: Sequence[int],
        num_microbatches: int,
        model: ChannelModel,
        times: WorkTimes,
    ) -> None:
        self.ranks, self.rank_of, self.m, self.model, self.times = (
            ranks,
            rank_of,
            num_microbatches,
            model,
            times,
        )
        self.kind: list[int] = []
        self.stage: list[int] = []
        self.microbatch: list[int] = []
        self.overlap: list[int] = []
        self.rank: list[int] = []
        self.start: list[int] = []
        for rank, actions in enumerate(ranks):
            self.start.append(len(self.kind))
            self.kind += actions.kind.tolist()
            self.stage += actions.stage.tolist()
            self.microbatch += actions.microbatch.tolist()
            self.overlap += actions.overlap.tolist()
            self.rank += [rank] * len(actions)
        self.end = [*self.start[1:], len(self.kind)]
        self.at = list(self.start)
        self.clock_ns = [0] * len(ranks)
        num = len(self.kind)
        self.posted_ns, self.done_ns = [-1] * num, [-1] * num
        self.waiting: dict[int, int] = {}
        self._set_queues()

    def _set_queues(self) -> None:
        """Queue of every message, its place there, and the other end."""
        self.message: dict[tuple[int, int, int], int] = {}
        self.queue, self.partner = [-1] * len(self.kind), [-1] * len(self.kind)
        self.queues: list[list[int]] = []
        numbers: dict[tuple[int, ...], int] = {}
        num_keys = 1 + list(ChannelModel).index(self.model)
        for row, kind in enumerate(self.kind):
            if kind < _SEND_F:
                continue
            stage, forward, sends = self.stage[row], kind in _FORWARD, kind in _SENDS
            # The peer holds the stage above for a SEND_F and for a RECV_B, the one below otherwise.
            peer = self.rank_of[stage + 1 if forward == sends else stage - 1]
            key = (self.rank[row], peer, sends, forward)[:num_keys]
            number = numbers.setdefault(key, len(numbers))
            if number == len(self.queues):
                self.queues.append([])
            self.queues[number].append(row)
            self.queue[row] = number
            self.message[kind, stage, self.microbatch[row]] = row
        other = {_SEND_F: (_RECV_F, 1), _RECV_F: (_SEND_F, -1), _SEND_B: (_RECV_B, -1), _RECV_B: (_SEND_B, 1)}
        for (kind, stage, microbatch), row in self.message.items():
            end, step = other[kind]
            self.partner[row] = self.message.get((end, stage + step, microbatch), -1)
        self.head = [0] * len(self.queues)
        self.free_ns = [0] * len(self.queues)

    def run(self) -> ChannelRun:
        num_stages = len(self.rank_of)
        self.duration_ns = {
            code: self.times.table(KINDS[op], num_stages)
            for code, op in _OP_OF.items()
            if code in set(self.kind)
        }
        self.made: set[tuple[bool, int, int]] = set()
        self.runnable = list(range(len(self.ranks)))
        while self.runnable:
            self._advance(self.runnable.pop())
        stuck = [rank for rank, at in enumerate(self.at) if at < self.end[rank]]
        left = [row for number, queue in enumerate(self.queues) for row in queue[self.head[number] :]]
        if not stuck and not left:
            transfers_ns = max((self.done_ns[row] for queue in self.queues for row in queue), default=0)
            return ChannelRun(self.model, max(*self.clock_ns, transfers_ns))
        return ChannelRun(self.model, None, self._circle(self.at[stuck[0]] if stuck else left[0]))

    def _inputs(self, row: int) -> tuple[int, bool, int]:
        """Of a pass: its RECV or -1; whether its input is made on the same rank; by which stage, or -1."""
        kind, stage = self.kind[row], self.stage[row]
        if kind == _W or (kind == _F and stage == 0) or (kind != _F and stage == len(self.rank_of) - 1):
            return -1, True, -1
        source = stage - 1 if kind == _F else stage + 1
        if self.rank_of[source] == self.rank[row]:
            return -1, True, source
        receive = self.message.get((_RECV_F if kind == _F else _RECV_B, stage, self.microbatch[row]), -1)
        return receive, False, -1

    def _stop(self, row: int) -> int:
        """Row behind the action that begins here: behind all members of an overlap."""
        stop = row + 1
        end = self.end[self.rank[row]]
        while self.overlap[row] >= 0 and stop < end and self.overlap[stop] == self.overlap[row]:
            stop += 1
        return stop

    def _advance(self, rank: int) -> None:
        """Do a rank's actions up to the first that waits."""
        while self.at[rank] < self.end[rank]:
            row = self.at[rank]
            kind = self.kind[row]
            if kind >= _SEND_F:
                self.posted_ns[row] = self.clock_ns[rank]
                self.at[rank] += 1
                self._match(row)
                continue
            stop = row + 1
            if kind <= _B:
                stop = self._stop(row)
                begin = self._begin_ns(rank, row, stop)
                if begin < 0:
                    return
                total = sum(self.duration_ns[self.kind[at]][self.stage[at]] for at in range(row, stop))
                if stop > row + 1:
                    total = max(1, round(total * self.times.braid_share))
                self.clock_ns[rank] = begin + total
                for at in range(row, stop):
                    if self.kind[at] != _W:
                        self.made.add((self.kind[at] == _F, self.stage[at], self.microbatch[at]))
            self.at[rank] = stop

    def _begin_ns(self, rank: int, row: int, stop: int) -> int:
        """When the passes of some rows can begin, or -1 if one of them waits."""
        begin = self.clock_ns[rank]
        for at in range(row, stop):
            receive, local, source = self._inputs(at)
            if local:
                if source >= 0 and (self.kind[at] == _F, source, self.microbatch[at]) not in self.made:
                    return -1
                continue
            if receive < 0 or self.done_ns[receive] < 0:
                self.waiting[receive] = rank
                return -1
            begin = max(begin, self.done_ns[receive])
        return begin

    def _match(self, row: int) -> None:
        """Do the transfer of a message, and those behind it, if both its ends are posted and first."""
        hop_ns = self.times.hop_ns
        tried = [row]
        while tried:
            mine = tried.pop()
            other = self.partner[mine]
            if other < 0 or self.posted_ns[mine] < 0 or self.posted_ns[other] < 0 or self.done_ns[mine] >= 0:
                continue
            here, there = self.queue[mine], self.queue[other]
            if self.queues[here][self.head[here]] != mine or self.queues[there][self.head[there]] != other:
                continue
            end = hop_ns + max(
                self.posted_ns[mine], self.posted_ns[other], self.free_ns[here], self.free_ns[there]
            )
            for number, at in ((here, mine), (there, other)):
                self.done_ns[at] = self.free_ns[number] = end
                head = self.head[number] = self.head[number] + 1
                if head < len(self.queues[number]):
                    tried.append(self.queues[number][head])
                waiter = self.waiting.pop(at, -1)
                if waiter >= 0:
                    self.runnable.append(waiter)

    def _circle(self, row: int) -> tuple[Blocked, ...]:
        """Follow what waits for what until it comes round."""
        seen: dict[int, int] = {}
        path: list[int] = []
        while row >= 0 and row not in seen:
            seen[row] = len(path)
            path.append(row)
            row = self._blocker(row)
        if row >= 0:
            path = path[seen[row] :]
        return tuple(
            Blocked(rank, int(self.ranks[rank].cell[at]), self.ranks[rank].name(at))
            for rank, at in ((self.rank[row], row - self.start[self.rank[row]]) for row in path)
        )

    def _blocker(self, row: int) -> int:
        """What a pass that waits, or a message that has not gone, waits for; -1: nothing that is there."""
        if self.kind[row] <= _B:
            for at in range(row, self._stop(row)):
                receive, local, source = self._inputs(at)
                if (
                    local
                    and source >= 0
                    and (self.kind[at] == _F, source, self.microbatch[at]) not in self.made
                ):
                    return -1
                if not local and (receive < 0 or self.done_ns[receive] < 0):
                    return receive
            return -1
        if self.posted_ns[row] < 0:
            return self.at[self.rank[row]]
        first = self.queues[self.queue[row]][self.head[self.queue[row]]]
        return self.partner[row] if first == row else first
