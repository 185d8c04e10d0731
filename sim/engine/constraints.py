"""The rules of the model of time as a graph whose edges read t(to) >= t(from) + constant.

An actor's compute is a line of fixed pieces between stops. With D(x) the sum of its own durations up to and
including instruction x, and H(x) the delay that the issuing host has put on the line by then,

    e(x) = D(x) + max(M, H(x)),

where M is the largest delay that a stop has put on the line so far. So the nodes of the graph are: one per
segment that a post speaks from (its M), one per message (when its wire is free; mover inline: when it is
over), one per operation (when it is over). Segments without a post share the node of the next that has one.

The constant of an edge is D(x) + v - D(w), with x the instruction that the edge leaves from, w the stop that
it arrives at, and v a time of the message or operation; which x, v, w is structure and is found here.

Edges that can never decide anything are marked: as a WS that stands after the WR of an answer to its message.
Each is implied by a path of others that are never left out (along lines, from a send to its message, from
there to its WR), so a graph without them has a cycle exactly where the plan deadlocks.
A message that nothing but its WR asks for is no node: the edges into it go on to the node of its WR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.engine.encoded import Ints

if TYPE_CHECKING:
    from exactmap.sim.engine.linked import Linked, Messages
    from exactmap.sim.plan.plan import Plan

__all__ = ["Constraints", "Edges", "Values", "constrain"]

Flags = NDArray[np.bool_]


class Values(NamedTuple):
    """Where the times of messages and operations begin in the vector that v picks from; entry 0 is 0."""

    into: int  #: until the message's node, or where it has none until its receive is over
    arrive: int  #: from there until its receive is over
    behind_arrive: int  #: `arrive` of the message k before, then `into`
    behind_copy: int  #: the copy of the message k before, then `into`
    copy: int
    operation: int

    @staticmethod
    def of(num_messages: int) -> Values:
        """Places for that many messages."""
        return Values(*(1 + part * num_messages for part in range(6)))


class Edges(NamedTuple):
    """Edges as columns; x and w are -1 where there is none."""

    src: Ints
    dst: Ints
    x: Ints
    v: Ints
    w: Ints

    def where(self, flags: Flags) -> Edges:
        """Some of the edges."""
        return Edges(*(column[flags] for column in self))


@dataclass(frozen=True, slots=True, eq=False)
class Constraints:
    """The graph; node 0 is the start of the step, then come line nodes, messages, operations."""

    num_nodes: int
    first_message: int
    first_operation: int
    edges: Edges
    decides: Flags  #: [edges] False: implied by the others
    direct: Flags  #: [messages] no node of its own is needed: only its WR asks for it
    line_node: Ints  #: [segments] node of the segment, or of the next that has one
    values: Values


def constrain(plan: Plan, linked: Linked, asked: Ints, *, inline: bool) -> Constraints:
    """Nodes and edges of a linked plan; `asked`: more instructions whose times will be asked for."""
    line_node, chain = _line_nodes(linked, asked, inline=inline)
    num_messages = len(linked.messages)
    first_message = 1 + len(chain)
    first_operation = first_message + num_messages
    rules = _Rules(linked, line_node, first_message, Values.of(num_messages))
    rules.add(chain, np.arange(1, first_message))
    direct = rules.add_messages(plan, inline=inline)
    rules.add_operations()
    return Constraints(
        num_nodes=first_operation + linked.operations.num,
        first_message=first_message,
        first_operation=first_operation,
        edges=Edges(*(np.concatenate(columns) for columns in zip(*rules.edges, strict=True))),
        decides=np.concatenate(rules.decides),
        direct=direct,
        line_node=line_node,
        values=rules.values,
    )


def _line_nodes(linked: Linked, asked: Ints, *, inline: bool) -> tuple[Ints, Ints]:
    """Node of each segment, and for each line node the one before it on its line."""
    messages, operations, segment = linked.messages, linked.operations, linked.segment
    has_node = np.zeros(int(linked.first_segment[-1]), dtype=np.bool_)
    for leaving in (messages.send, operations.post[0], asked):
        has_node[segment[leaving]] = True
    has_node[segment[operations.reach[0]] - 1] = True
    if inline:
        has_node[segment[messages.recv_wait] - 1] = True
    else:
        has_node[segment[messages.recv]] = True
    has_node[linked.first_segment[1:] - 1] = True
    # Nothing delays an actor's first segment: it begins with the step.
    has_node[linked.first_segment[:-1]] = False
    so_far = np.cumsum(has_node)
    line_node = np.where(has_node, so_far, so_far + 1)
    line_node[linked.first_segment[:-1]] = 0
    num = int(so_far[-1])
    chain = np.arange(num)
    before = np.concatenate(([0], so_far))[linked.first_segment[:-1]]
    chain[before[before < num]] = 0
    return line_node, chain


class _Rules:
    """Collects the edges, rule by rule."""

    def __init__(self, linked: Linked, line_node: Ints, first_message: int, values: Values) -> None:
        self.linked = linked
        self.line_node = line_node
        self.first_message = first_message
        self.values = values
        self.edges: list[Edges] = []
        self.decides: list[Flags] = []

    def add(
        self,
        src: Ints,
        dst: Ints,
        *,
        x: Ints | None = None,
        v: Ints | None = None,
        w: Ints | None = None,
        decides: Flags | None = None,
    ) -> None:
        num = len(src)
        none, zero = np.full(num, -1, dtype=np.int64), np.zeros(num, dtype=np.int64)
        edges = (src, dst, none if x is None else x, zero if v is None else v, none if w is None else w)
        self.edges.append(Edges(*edges))
        self.decides.append(np.ones(num, dtype=np.bool_) if decides is None else decides)

    def leaving(self, x: Ints) -> Ints:
        """Nodes that e of these instructions is known from."""
        return self.line_node[self.linked.segment[x]]

    def reaching(self, stops: Ints) -> Ints:
        """Nodes that a of these stops is known from."""
        return self.line_node[self.linked.segment[stops] - 1]

    def add_messages(self, plan: Plan, *, inline: bool) -> Flags:
        """Edges of all messages; gives those that need no node."""
        messages, values = self.linked.messages, self.values
        number = np.arange(len(messages))
        node = self.first_message + number
        send_decides = ~_answered(plan, messages, messages.recv_wait, messages.send_wait)
        asked = send_decides.copy()

        self.add(self.leaving(messages.send), node, x=messages.send, v=values.into + number)
        self.add(node, self.leaving(messages.send_wait), w=messages.send_wait, decides=send_decides)
        self.add(node, self.leaving(messages.recv_wait), v=values.arrive + number, w=messages.recv_wait)
        if inline:
            stops = messages.recv_wait
            self.add(self.reaching(stops), node, x=stops, v=values.into + number)
            return ~asked

        buffered = messages.has_buffers
        plain = np.flatnonzero(~buffered)
        recv_decides = ~_answered(plan, messages, messages.recv, messages.send)[plain]
        recv = messages.recv[plain]
        self.add(self.leaving(recv), node[plain], x=recv, v=values.into + plain, decides=recv_decides)

        later = np.flatnonzero(messages.before >= 0)
        before = messages.before[later]
        decides = messages.send_wait[before] > messages.send[later]
        decides &= buffered[later] | (messages.recv_wait[before] > messages.recv[later])
        self.add(node[before], node[later], v=values.into + later, decides=decides)
        asked[before[decides]] = True

        late = np.flatnonzero(messages.behind >= 0)
        behind = messages.behind[late]
        left = messages.recv_wait[np.where(messages.behind >= 0, messages.behind, 0)]
        decides = ~_answered(plan, messages, left, messages.send)[late]
        self.add(node[behind], node[late], v=values.behind_arrive + late, decides=decides)
        recv = messages.recv[behind]
        self.add(self.leaving(recv), node[late], x=recv, v=values.behind_copy + late, decides=decides)
        asked[behind[decides]] = True

        held = np.flatnonzero(buffered)
        recv, stops = messages.recv[held], messages.recv_wait[held]
        self.add(self.leaving(recv), self.leaving(stops), x=recv, v=values.copy + held, w=stops)
        return ~asked

    def add_operations(self) -> None:
        """Edges of all operations."""
        operations = self.linked.operations
        first, value = self.first_message + len(self.linked.messages), self.values.operation
        x, number = operations.post
        self.add(self.leaving(x), first + number, x=x, v=value + number)
        x, number = operations.reach
        self.add(self.reaching(x), first + number, x=x, v=value + number)
        before, number = operations.after
        self.add(first + before, first + number, v=value + number)
        x, number = operations.wait
        self.add(first + number, self.leaving(x), w=x)


def _answered(plan: Plan, messages: Messages, heard: Ints, by: Ints) -> Flags:
    """For each message whether the sender knows, when it reaches `by`, that the receiver has left `heard`.

    It does if the receiver, after `heard`, sent something to it, and its WR of that stands before `by`.
    """
    out = np.zeros(len(messages), dtype=np.bool_)
    runs: dict[tuple[int, int, int], list[slice]] = {}
    ends = {channel.name: (channel.src, channel.dst) for channel in plan.channels}
    at = 0
    for lane, name, num in messages.channels:
        runs.setdefault((lane, *ends[name]), []).append(slice(at, at + num))
        at += num
    for (lane, src, dst), parts in runs.items():
        for answers in runs.get((lane, dst, src), []):
            sent, received = messages.send[answers], messages.recv_wait[answers]
            for part in parts:
                first = np.searchsorted(sent, heard[part])
                known = received[np.minimum(first, len(sent) - 1)] < by[part]
                out[part] |= known & (first < len(sent))
    return out
