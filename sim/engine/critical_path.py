"""The critical path: what the step's end was waiting for, all the way back to its start.

Every time in the model is a maximum of others plus a duration (plan format, section 3). From the last END
the path goes back to the one that decided, and from there on, until the step's start: durations that lie
behind each other without a gap. To shorten the step is to shorten one of them. Where several decided at once,
the path stays on its rank; then it takes the sender before the receiver, and the lowest member of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.encoded import POST_KINDS, WAIT_KINDS, WORK_KINDS
from exactmap.sim.engine.levels import solve
from exactmap.sim.engine.unfold import all_times

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.encoded import Ints

__all__ = ["PathFinder", "Piece", "critical_path"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One duration on the critical path.

    Parameters
    ----------
    what
        ``work``, ``post`` (what it costs compute), ``wire``, ``latency``, ``copy`` (out of a receive buffer),
        ``operation`` (of a group, or of the copy queue) or ``host`` (instructions issued one by one).
    lane, pp
        Whose it is: of a wire the sender's, of latency and copy the receiver's, of an operation or a coupled
        work that of the member that takes longest.
    index
        The work or post, as an instruction of that rank.
    channel, message
        Of a wire, latency or copy: which message of which channel; else an empty text and -1.
    start_ns, end_ns
        From when to when.
    """

    what: str
    lane: int
    pp: int
    index: int
    channel: str
    message: int
    start_ns: int
    end_ns: int


def critical_path(
    compiled: CompiledPlan, durations: Durations | None = None, *, end: tuple[int, int] | None = None
) -> list[Piece]:
    """Durations that follow each other without a gap from the step's start to an END.

    Parameters
    ----------
    compiled
        The plan.
    durations
        Of that plan; if left out, those that it was compiled with.
    end
        (lane number, pipeline rank) whose END to start from; the last END if left out.

    Returns
    -------
    list of Piece
        From the start of the step; none takes no time.

    Raises
    ------
    InvalidInputError
        If the durations do not belong to the compiled plan, or it has no such rank.

    Examples
    --------
    >>> from exactmap.sim.engine.critical_path import critical_path
    >>> path = critical_path(compiled)  # doctest: +SKIP
    >>> sum(piece.end_ns - piece.start_ns for piece in path if piece.what == "work")  # doctest: +SKIP
    """
    return PathFinder(compiled).find(durations, end=end)


class PathFinder:
    """Finds critical paths of one compiled plan; what does not hang on durations is made once.

    Parameters
    ----------
    compiled
        The plan.
    """

    def __init__(self, compiled: CompiledPlan) -> None:
        self.compiled = compiled
        self._relations = _Relations(compiled)

    def find(self, durations: Durations | None = None, *, end: tuple[int, int] | None = None) -> list[Piece]:
        """The same as `critical_path`."""
        compiled, keys = self.compiled, self.compiled.linked.keys
        if end is not None and end not in keys:
            raise InvalidInputError("the plan has no such rank", got=f"lane {end[0]}, pipeline rank {end[1]}")
        walk = _Walk(compiled, compiled.durations if durations is None else durations, self._relations)
        actor = walk.last_actor() if end is None else keys.index(end)
        walk.leave(int(compiled.linked.first[actor + 1]) - 1)
        return walk.pieces[::-1]


class _Related:
    """For each key the numbers that belong to it."""

    def __init__(self, keys: Ints, numbers: Ints, num_keys: int) -> None:
        self.numbers: list[int] = numbers[np.argsort(keys, kind="stable")].tolist()
        self.ends: list[int] = np.concatenate(
            ([0], np.cumsum(np.bincount(keys, minlength=num_keys)))
        ).tolist()

    def __getitem__(self, key: int) -> list[int]:
        return self.numbers[self.ends[key] : self.ends[key + 1]]


class _Relations:
    """Who waits for what: of a plan, whatever its durations."""

    def __init__(self, compiled: CompiledPlan) -> None:
        linked = compiled.linked
        num, num_operations, messages = compiled.num_instructions, linked.operations.num, linked.messages
        kind = np.concatenate([program.kind for program in linked.programs])
        self.is_wait: list[bool] = WAIT_KINDS[kind].tolist()
        self.is_post: list[bool] = POST_KINDS[kind].tolist()
        self.is_coupled: list[bool] = (WORK_KINDS[kind] & linked.is_coupled).tolist()
        message = np.full(num, -1, dtype=np.int64)
        for posts in (messages.send, messages.recv, messages.send_wait, messages.recv_wait):
            message[posts] = np.arange(len(messages))
        self.message: list[int] = message.tolist()
        is_send = np.zeros(num, dtype=np.bool_)
        is_send[messages.send_wait] = True
        self.is_send: list[bool] = is_send.tolist()
        relations = linked.operations
        operation = np.full(num, -1, dtype=np.int64)
        operation[relations.wait[0]] = relations.wait[1]
        self.operation: list[int] = operation.tolist()
        self.posts = _Related(relations.post[1], relations.post[0], num_operations)
        self.reach = _Related(relations.reach[1], relations.reach[0], num_operations)
        self.after = _Related(relations.after[1], relations.after[0], num_operations)
        self.coupled = _Related(relations.coupled[1], relations.coupled[0], num_operations)
        self.firsts = set(linked.first.tolist())


class _Walk:
    """The way back, instruction by instruction; `x` counts the instructions of all actors."""

    def __init__(self, compiled: CompiledPlan, durations: Durations, relations: _Relations) -> None:
        linked = self.linked = compiled.linked
        self.plan, self.inline, self.related = compiled.plan, compiled.inline, relations
        self.pieces: list[Piece] = []
        times = compiled.line_times(durations)
        nodes = solve(compiled.levels, *compiled.edge_times([times]))[0]
        actors = all_times(compiled, times, nodes)
        self.a, self.s, self.e, self.done = (
            np.concatenate([getattr(actors[key], name) for key in linked.keys]).tolist()
            for name in ("a_ns", "s_ns", "e_ns", "done_ns")
        )
        parts = [durations.actors[key] for key in linked.keys]
        self.comp, self.op = (
            np.concatenate([getattr(part, name) for part in parts]).tolist() for name in ("comp_ns", "op_ns")
        )
        channels = [durations.channels[lane, name] for lane, name, _ in linked.messages.channels]
        self.wire, self.lat, self.copy = (
            [ns for channel in channels for ns in getattr(channel, name).tolist()]
            for name in ("wire_ns", "lat_ns", "copy_ns")
        )

    def last_actor(self) -> int:
        """The actor whose END is last; of several the lowest."""
        return int(np.argmax(np.array(self.e)[self.linked.first[1:] - 1]))

    def add(self, what: str, x: int, start_ns: int, end_ns: int, message: int = -1) -> None:
        if end_ns == start_ns:
            return
        actor = int(np.searchsorted(self.linked.first, x, side="right")) - 1
        lane, pp = self.linked.keys[actor]
        channel, number = "", -1
        if message >= 0:
            messages = self.linked.messages
            lane_channel = int(messages.lane_channel[message])
            channel = self.plan.channels[lane_channel % len(self.plan.channels)].name
            number = message - int(np.searchsorted(messages.lane_channel, lane_channel))
        index = x - int(self.linked.first[actor])
        self.pieces.append(Piece(what, lane, pp, index, channel, number, start_ns, end_ns))

    def leave(self, x: int) -> None:
        """Go back from e(x), to the start of the step."""
        at: int | None = x
        while at is not None:
            at = self.before(at)

    def before(self, x: int) -> int | None:
        """From e(x) to the e of another instruction; None at the start of the step."""
        related = self.related
        if related.is_coupled[x]:
            members = related.coupled[related.operation[x]]
            longest = max(members, key=lambda member: self.comp[member])
            self.add("work", longest, self.s[x], self.e[x])
            return self.arrive(x if self.a[x] == self.s[x] else self.first_at(members, self.a, self.s[x]))
        if related.is_wait[x] and self.e[x] > self.a[x]:
            if related.message[x] >= 0:
                return self.moved(related.message[x], to_sender=related.is_send[x])
            return self.operated(related.operation[x])
        self.add("post" if related.is_post[x] else "work", x, self.a[x], self.e[x])
        return self.arrive(x)

    def arrive(self, x: int) -> int | None:
        """From a(x) to the e of the instruction before it."""
        reached = 0 if x in self.related.firsts else self.e[x - 1]
        if self.a[x] > reached:
            self.add("host", x, 0, self.a[x])
            return None
        return None if x in self.related.firsts else x - 1

    def first_at(self, members: list[int], times: list[int], at_ns: int) -> int:
        return next(member for member in members if times[member] == at_ns)

    def moved(self, n: int, *, to_sender: bool) -> int | None:
        """From the end of a message, at its sender or at its receiver, to what it started after."""
        messages = self.linked.messages
        while True:
            send, recv = int(messages.send[n]), int(messages.recv[n])
            start, freed = self.s[send], self.s[send] + self.wire[n]
            if self.inline:
                self.add("latency", recv, freed, freed + self.lat[n], n)
                self.add("wire", send, start, freed, n)
                return send if self.e[send] == start else self.arrive(int(messages.recv_wait[n]))
            if not to_sender:
                over, landed = self.done[recv], freed + self.lat[n]
                if messages.has_buffers[n]:
                    self.add("copy", recv, over - self.copy[n], over, n)
                    if self.e[recv] > landed:
                        return recv
                self.add("latency", recv, freed, landed, n)
            self.add("wire", send, start, freed, n)
            if self.e[send] == start:
                return send
            if not messages.has_buffers[n] and self.e[recv] == start:
                return recv
            before = int(messages.before[n])
            if before >= 0 and self.done[int(messages.send[before])] == start:
                n, to_sender = before, True
            else:
                n, to_sender = int(messages.behind[n]), False

    def operated(self, number: int) -> int | None:
        """From the end of an operation to what it started after."""
        while True:
            posts = self.related.posts[number]
            start, over = self.s[posts[0]], self.done[posts[0]]
            self.add("operation", max(posts, key=lambda post: self.op[post]), start, over)
            for post in posts:
                if self.e[post] == start:
                    return post
            for stop in self.related.reach[number]:
                if self.a[stop] == start:
                    return self.arrive(stop)
            number = next(
                other
                for other in self.related.after[number]
                if self.done[self.related.posts[other][0]] == start
            )
