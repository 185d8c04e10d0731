"""From the settled nodes of a compiled plan back to the times of each instruction."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exactmap.sim.engine.assemble import ActorTimes
from exactmap.sim.engine.encoded import WORK_KINDS, Ints

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan, LineTimes

__all__ = ["all_times", "ends_and_spans"]


class _Nodes:
    """Times of nodes, asked for by what they stand for."""

    def __init__(self, compiled: CompiledPlan, times: LineTimes, nodes: Ints) -> None:
        self.linked, self.constraints, self.times = compiled.linked, compiled.constraints, times
        self.nodes, self.number = nodes, compiled.levels.number

    def leaving(self, x: Ints) -> Ints:
        """The time e of instructions whose segment has a node."""
        return self._on_line(x, self.linked.segment[x])

    def reaching(self, stops: Ints) -> Ints:
        """The time a of stops whose segment has a node."""
        return self._on_line(stops, self.linked.segment[stops] - 1)

    def _on_line(self, x: Ints, segment: Ints) -> Ints:
        out = self.times.total[x] + self.nodes[self.number[self.constraints.line_node[segment]]]
        return out if self.times.floor is None else np.maximum(out, self.times.floor[x])

    def messages(self) -> Ints:
        """Times of the messages' nodes; of those without a node the value says nothing."""
        first = self.constraints.first_message
        return self.nodes[self.number[first : first + len(self.linked.messages)]]

    def operations(self, numbers: Ints) -> Ints:
        """When operations are over."""
        return self.nodes[self.number[self.constraints.first_operation + numbers]]


class _Moved(NamedTuple):
    """When messages started, freed their wire and were received; arrays of shape [messages]."""

    start: Ints
    freed: Ints
    over: Ints


def ends_and_spans(compiled: CompiledPlan, times: LineTimes, nodes: Ints) -> tuple[Ints, Ints]:
    """END of each actor, and its time from the start of its first pass to the end of its last; [actors]."""
    linked = compiled.linked
    known = _Nodes(compiled, times, nodes)
    end = known.leaving(linked.first[1:] - 1)
    first, last = compiled.asked.reshape(-1, 2).T
    start = known.leaving(np.maximum(first, 0)) - linked.pick(times.comp, np.maximum(first, 0))
    coupled = np.flatnonzero((first >= 0) & linked.is_coupled[first])
    if len(coupled):
        at, number = linked.operations.coupled
        by_instruction = np.argsort(at, kind="stable")
        place = by_instruction[np.searchsorted(at[by_instruction], first[coupled])]
        start[coupled] = known.operations(number[place]) - times.operation[number[place]]
    span = known.leaving(np.maximum(last, 0)) - start
    return end, np.where(first >= 0, span, 0)


def all_times(compiled: CompiledPlan, times: LineTimes, nodes: Ints) -> dict[tuple[int, int], ActorTimes]:
    """All times of all actors, by (lane, pipeline rank)."""
    linked = compiled.linked
    messages, operations = linked.messages, linked.operations
    known = _Nodes(compiled, times, nodes)
    moved = _moved_inline(known) if compiled.inline else _moved_by_engine(known)
    settled = known.operations(np.arange(operations.num))

    # The delay of each segment is the largest that a stop before it has put on the line.
    delay = np.zeros(int(linked.first_segment[-1]), dtype=np.int64)
    for stops, done in (
        (messages.send_wait, moved.freed),
        (messages.recv_wait, moved.over),
        (operations.wait[0], settled[operations.wait[1]]),
    ):
        delay[linked.segment[stops]] = done - times.total[stops]
    for low, high in pairwise(linked.first_segment.tolist()):
        np.maximum.accumulate(delay[low:high], out=delay[low:high])

    total = times.total[:-1]
    e_ns = total + delay[linked.segment]
    stop_a_ns = total[linked.stop] + delay[linked.segment[linked.stop] - 1]
    if times.floor is not None:
        e_ns = np.maximum(e_ns, times.floor[:-1])
        stop_a_ns = np.maximum(stop_a_ns, times.floor[linked.stop])
    a_ns = e_ns - np.concatenate(times.comp)
    a_ns[linked.stop] = stop_a_ns

    is_work = np.concatenate([WORK_KINDS[program.kind] for program in linked.programs])
    s_ns, done_ns = np.where(is_work, a_ns, -1), np.full(len(a_ns), -1, dtype=np.int64)
    for posts, start, done in (
        (messages.send, moved.start, moved.freed),
        (messages.recv, moved.start, moved.over),
    ):
        s_ns[posts], done_ns[posts] = start, done
    started = settled - times.operation
    posts, number = operations.post
    s_ns[posts], done_ns[posts] = started[number], settled[number]
    works, number = operations.coupled
    s_ns[works] = started[number]
    return {
        key: ActorTimes(*(column[low:high] for column in (a_ns, s_ns, e_ns, done_ns)))
        for key, (low, high) in zip(linked.keys, pairwise(linked.first.tolist()), strict=True)
    }


def _moved_inline(known: _Nodes) -> _Moved:
    messages, wire = known.linked.messages, known.times.wire
    start = np.maximum(known.leaving(messages.send), known.reaching(messages.recv_wait))
    return _Moved(start, start + wire, start + wire)


def _moved_by_engine(known: _Nodes) -> _Moved:
    messages, times, direct = known.linked.messages, known.times, known.constraints.direct
    received = known.leaving(messages.recv)
    by_node = known.messages()
    over = np.maximum(by_node + times.arrive, np.where(messages.has_buffers, received + times.copy, 0))
    start = np.maximum(known.leaving(messages.send), np.where(messages.has_buffers, 0, received))
    # A message without a node never holds up another: of those before, only such with a node can count.
    for others, ready in ((messages.before, by_node), (messages.behind, over)):
        counts = (others >= 0) & ~direct[others]
        start = np.maximum(start, np.where(counts, ready[others], 0))
    freed = start + times.wire
    over = np.maximum(freed + times.arrive, np.where(messages.has_buffers, received + times.copy, 0))
    return _Moved(start, freed, over)
