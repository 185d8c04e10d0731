"""The critical path of a step: the chain of works, messages and operations that ends last without a gap.

Found backwards from the last END over the times of the replay: whatever starts, starts when the last of its
conditions is met, and that one is the piece before. The pieces' durations and latencies add up to the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.replay import settle_all

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.encoded import Ints

__all__ = ["PathFinder", "Piece", "PieceKind", "critical_path"]


class PieceKind(StrEnum):
    """What a piece of the path is."""

    WORK = "work"
    MESSAGE = "message"
    OPERATION = "operation"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece.

    Parameters
    ----------
    kind
        What it is.
    pp
        Pipeline rank whose work, post or send it is.
    index
        Its instruction in that rank's program.
    channel, number
        Message: its channel and its number there; -1 else.
    took_ns
        How long it took.
    fixed_ns
        What it only delayed besides (latency, a copy).
    """

    kind: PieceKind
    pp: int
    index: int
    channel: int
    number: int
    took_ns: int
    fixed_ns: int = 0


class PathFinder:
    """Finds critical paths of one compiled plan, which has one lane."""

    def __init__(self, compiled: CompiledPlan) -> None:
        self.compiled = compiled
        self.linked = linked = compiled.linked
        self.firsts = set(linked.first.tolist())
        messages, operations = linked.messages, linked.operations
        every = np.arange(len(messages))
        waits = (
            ("sent", messages.send_wait, every),
            ("received", messages.recv_wait, every),
            ("operation", *operations.wait),
        )
        self.by_stop = {
            stop: (what, number)
            for what, stops, numbers in waits
            for stop, number in zip(stops.tolist(), numbers.tolist(), strict=True)
        }
        self.posts = _by_second(*operations.post)
        self.reach = _by_second(*operations.reach)
        self.after = _by_second(*operations.after)

    def find(self, durations: Durations) -> tuple[Piece, ...]:
        """Pieces of the path from the first to the last."""
        return tuple(_Walk(self, durations).pieces())[::-1]


def critical_path(compiled: CompiledPlan, durations: Durations) -> tuple[Piece, ...]:
    """Pieces of the critical path from the first to the last, for durations with one lane.

    Their durations and what they delay add up to the makespan, unless a host that issues instructions is late.
    """
    return PathFinder(compiled).find(durations)


class _Walk:
    """Times of all instructions, numbered through, under one set of durations."""

    def __init__(self, finder: PathFinder, durations: Durations) -> None:
        self.compiled, self.linked = finder.compiled, finder.linked
        self.firsts, self.by_stop = finder.firsts, finder.by_stop
        self.posts, self.reach, self.after = finder.posts, finder.reach, finder.after
        self.times = self.compiled.line_times(durations)
        actors = settle_all(self.compiled, self.times)
        parts = [actors[key] for key in self.linked.keys]
        self.a_ns, self.s_ns, self.e_ns, self.done_ns = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("a_ns", "s_ns", "e_ns", "done_ns")
        )
        self.comp = np.concatenate(self.times.comp)

    def pieces(self) -> Iterator[Piece]:
        """From the last to the first."""
        x = self._last_end()
        while x >= 0:
            found = self.by_stop.get(x)
            if found is not None and self.e_ns[x] > self.a_ns[x]:
                x = yield from self._waited(*found)
                continue
            if self.comp[x]:
                yield self._piece(PieceKind.WORK, x, int(self.comp[x]))
            x = self._before(x)

    def _waited(self, what: str, number: int) -> Generator[Piece, None, int]:
        """Follow messages and operations back to the instruction that let the first of them start."""
        while True:
            start = yield from self._operation(number) if what == "operation" else self._message(what, number)
            if isinstance(start, int):
                return start
            what, number = start

    def _message(self, what: str, m: int) -> Generator[Piece, None, int | tuple[str, int]]:
        messages = self.linked.messages
        send, recv = int(messages.send[m]), int(messages.recv[m])
        start = int(self.s_ns[send])
        late = int(self.done_ns[recv] - self.done_ns[send]) if what == "received" else 0
        if messages.has_buffers[m] and what == "received" and late > self.times.arrive[m]:
            return recv  # it lay in its buffer until the receive was posted
        lane_channel = int(messages.lane_channel[m])
        number = m - int(np.searchsorted(messages.lane_channel, lane_channel))
        yield self._piece(PieceKind.MESSAGE, send, int(self.times.wire[m]), lane_channel, number, late)
        if self.e_ns[send] == start:
            return send
        if self.compiled.inline:
            return self._before(int(messages.recv_wait[m]))
        if not messages.has_buffers[m] and self.e_ns[recv] == start:
            return recv
        before, behind = int(messages.before[m]), int(messages.behind[m])
        if before >= 0 and self.done_ns[messages.send[before]] == start:
            return "sent", before
        return "received", behind

    def _operation(self, o: int) -> Generator[Piece, None, int | tuple[str, int]]:
        posts = self.posts[o]
        start = int(self.s_ns[posts[0]])
        last = max(posts, key=lambda post: int(self.e_ns[post]))
        yield self._piece(PieceKind.OPERATION, last, int(self.times.operation[o]))
        if self.e_ns[last] == start:
            return last
        for stop in self.reach.get(o, []):
            if self.a_ns[stop] == start:
                return self._before(stop)
        for other in self.after.get(o, []):
            if self.done_ns[self.posts[other][0]] == start:
                return "operation", other
        raise AssertionError("an operation starts when one of its conditions is met")

    def _piece(
        self, kind: PieceKind, x: int, took_ns: int, channel: int = -1, number: int = -1, fixed_ns: int = 0
    ) -> Piece:
        actor = int(np.searchsorted(self.linked.first, x, side="right")) - 1
        index = x - int(self.linked.first[actor])
        return Piece(kind, self.linked.keys[actor][1], index, channel, number, took_ns, fixed_ns)

    def _before(self, x: int) -> int:
        """The instruction before, or -1 at the start of a program."""
        return -1 if x in self.firsts else x - 1

    def _last_end(self) -> int:
        ends = self.linked.first[1:] - 1
        return int(ends[np.argmax(self.e_ns[ends])])


def _by_second(first: Ints, second: Ints) -> dict[int, list[int]]:
    out: dict[int, list[int]] = {}
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        out.setdefault(other, []).append(one)
    return out
