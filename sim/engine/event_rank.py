"""One rank of the event engine: its compute, strictly in order, from wait to wait.

Compute advances its own time over works and posts without an event: nobody sees it do so but the queues that
it posts to, and they are told the time of each post. In a wait it stops until what it waits for has happened.
"""

# ruff: noqa: PLR1730 - max() would cost a call in the innermost loop.

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import numpy as np

from exactmap.sim.engine.assemble import ActorTimes
from exactmap.sim.engine.encoded import KINDS
from exactmap.sim.plan.instruction import POSTS, WAITS, WORK, Op

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exactmap.sim.engine.durations import ActorDurations

__all__ = ["PostQueue", "Rank", "Together", "Watcher"]

_NOTE, _WORK, _POST, _BUCKET_POST, _WAIT = range(5)
_ON_BUCKET = frozenset({Op.AG, Op.RS, Op.AR})


def _what(op: Op) -> int:
    if op in WORK:
        return _WORK
    if op in POSTS:
        return _BUCKET_POST if op in _ON_BUCKET else _POST
    return _WAIT if op in WAITS else _NOTE


_WHAT = np.array([_what(op) for op in KINDS], dtype=np.int64)


class PostQueue(Protocol):
    """A rank's end of a channel, its place in a group, or its copy queue."""

    def post(self, index: int, time_ns: int) -> None:
        """The rank posts: its instruction, and when."""

    def reach(self, time_ns: int) -> None:
        """The rank reaches its next wait on this queue."""


class Watcher(Protocol):
    """Something that a post's end is a condition of."""

    missing: int

    def know(self, time_ns: int) -> None:
        """One of its conditions is known to be fulfilled from `time_ns` on."""


class Together(Protocol):
    """A work that ranks of several lanes start together."""

    def arrive(self, rank: Rank, index: int, comp_ns: int, time_ns: int) -> None:
        """One of them has reached it."""


class Rank:
    """Compute of one rank, and the times that it notes."""

    def __init__(self, actor: ActorDurations) -> None:
        self.actor = actor
        num = actor.program.num_instructions
        self.a_ns, self.e_ns = [-1] * num, [-1] * num
        self.s_ns, self.done_ns = [-1] * num, [-1] * num
        self.queues: dict[int, PostQueue] = {}
        self.together: dict[int, Together] = {}
        self.ended = False
        self.bucket_before = -1  #: of the post that is being made: the post on its bucket before it
        self._watchers: dict[int, list[Watcher]] = {}
        self._waits_for = -1
        self._walk = self._program()

    def go_on(self, _: object = None) -> None:
        """Run from the step's start, or from the wait that is over, to the next wait."""
        next(self._walk, None)

    def finish(self, index: int, start_ns: int, now_ns: int) -> None:
        """What the post `index` started is over now."""
        self.s_ns[index], self.done_ns[index] = start_ns, now_ns
        if index in self._watchers:
            for watcher in self._watchers.pop(index):
                watcher.know(now_ns)
        if self._waits_for == index:
            self._waits_for = -1
            next(self._walk, None)

    def watch(self, index: int, watcher: Watcher) -> None:
        """Let `watcher` know when the post `index` is over."""
        watcher.missing += 1
        if self.done_ns[index] >= 0:
            watcher.know(self.done_ns[index])
        else:
            self._watchers.setdefault(index, []).append(watcher)

    def _program(self) -> Iterator[None]:
        actor, program = self.actor, self.actor.program
        what, queue_of = _WHAT[program.kind].tolist(), program.queue.tolist()
        stage, bucket = program.stage, program.bucket
        comp_ns = actor.comp_ns.tolist()
        issued_ns = np.cumsum(actor.issue_ns).tolist() if actor.issue_ns.any() else None
        a_ns, s_ns, e_ns, done_ns = self.a_ns, self.s_ns, self.e_ns, self.done_ns
        queues, together = self.queues, self.together
        open_posts: dict[int, deque[int]] = {number: deque() for number in queues}
        last_on_bucket: dict[tuple[int, int], int] = {}
        time = 0
        for index, kind in enumerate(what):
            if issued_ns is not None and issued_ns[index] > time:
                time = issued_ns[index]
            a_ns[index] = time
            if kind == _WORK:
                if index in together:
                    self._waits_for = index
                    together[index].arrive(self, index, comp_ns[index], time)
                    yield
                    # It was over when all were; what a work started is no post's end.
                    time, done_ns[index] = done_ns[index], -1
                else:
                    s_ns[index] = time
                    time += comp_ns[index]
            elif kind == _WAIT:
                number = queue_of[index]
                awaited = open_posts[number].popleft()
                queues[number].reach(time)
                if done_ns[awaited] < 0:
                    self._waits_for = awaited
                    yield
                if done_ns[awaited] > time:
                    time = done_ns[awaited]
            elif kind != _NOTE:
                time += comp_ns[index]
                number = queue_of[index]
                open_posts[number].append(index)
                if kind == _BUCKET_POST:
                    key = int(stage[index]), int(bucket[index])
                    self.bucket_before = last_on_bucket.get(key, -1)
                    last_on_bucket[key] = index
                else:
                    self.bucket_before = -1
                queues[number].post(index, time)
            e_ns[index] = time
        self.ended = True

    def times(self) -> ActorTimes:
        """All times, after the step."""
        columns = (self.a_ns, self.s_ns, self.e_ns, self.done_ns)
        return ActorTimes(*(np.array(column, dtype=np.int64) for column in columns))
