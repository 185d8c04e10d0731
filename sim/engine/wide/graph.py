"""The rules of a compiled plan as nodes whose times are rows over columns.

The replay of lanes keeps the delays of lines and puts sums D(x) on its edges
(`exactmap.sim.engine.constraints`). Such sums would be a row per instruction here, so a node is a time
itself: that after each instruction at which compute spends time, that at which a line is asked for its time,
that of a message, that of a group's operation ::

    t(node) = max over its edges (t(source) + what the edge takes, floor) + what the node takes

Each duration of a work, a post or an operation is then used in one place, once. Which edges there are is
taken over from the compiled plan, which has left out all that can never decide. Nodes at which columns meet
(works that are coupled, operations of groups) know the axes on which they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.engine.coordinates import works_by_axes
from exactmap.sim.engine.encoded import WAIT_KINDS, WORK_KINDS, Ints
from exactmap.sim.plan.instruction import Op

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.wide.columns import Columns

__all__ = ["ASKED", "COMP", "NOTHING", "OPERATION", "WIRE", "WideGraph", "axes_mask", "wide_graph"]

Flags = NDArray[np.bool_]

NOTHING, COMP, WIRE, OPERATION = range(4)  #: what a node takes; its `number` says which
ASKED = ("end", "own", "first", "last")  #: times of each line that are results

_INTO, _ARRIVE, _BEHIND_ARRIVE, _BEHIND_COPY, _COPY = range(5)  # parts of the vector that v picks from
_BEFORE, _AT, _AFTER = 0, 1, 2  # places around an instruction, which has four


@dataclass(frozen=True, slots=True, eq=False)
class WideGraph:
    """Nodes and edges; node 0 is the start of the step, then come lines, messages, operations."""

    src: Ints  #: [edges]
    dst: Ints  #: [edges]; the first edge into a node of a line comes from the line
    message: Ints  #: [edges] the message whose times the edge takes, or -1
    takes_wire: Flags  #: [edges]
    takes_lat: Flags  #: [edges]
    constant: Ints  #: [edges] ns that are the same in all columns
    takes: NDArray[np.int8]  #: [nodes] NOTHING, COMP, WIRE or OPERATION
    number: Ints  #: [nodes] the instruction, message or operation that it takes the time of, or -1
    axes: Ints  #: [nodes] mask of the axes on which columns meet (`axes_mask`)
    floor: Ints | None  #: [nodes] ns before which the host does not let it start; None where it never delays
    asked: Ints  #: [4, lines] node of each time in `ASKED`, -1 where the line has no such time

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.takes)


class _Lines(NamedTuple):
    """Events of all lines, in order: instants at which a line's time is asked for or grows."""

    at: Ints  #: [events] 4 x instruction + place
    node: Ints  #: [events] whose time the line has there
    created: Flags  #: [events] the node is the event's own
    before: Ints  #: [events] node of the event before on the line, or 0

    def node_at(self, positions: Ints) -> Ints:
        """Node of the first event at or after each position."""
        return self.node[np.minimum(np.searchsorted(self.at, positions), len(self.at) - 1)]


class _Across(NamedTuple):
    """Edges that are not a line's own, by message; `into` is the message whose node they lead into, or -1."""

    into: Ints
    message: Ints
    takes_wire: Flags
    takes_lat: Flags
    copy: Ints  #: the message whose copy out of its buffer is taken, or -1


def axes_mask(axes: tuple[str, ...] | frozenset[str], columns: Columns) -> int:
    """Axes as bits, the lowest for dp, then ep, cp, tp; axes on which all columns are one count for nothing.

    Examples
    --------
    >>> from exactmap.sim.engine.wide.columns import Columns
    >>> axes_mask(("dp", "tp"), Columns(dp=4, tp=2)), axes_mask(("dp", "pp"), Columns(tp=2))
    (9, 0)
    """
    return sum(
        1 << number
        for number, (axis, size) in enumerate(zip(("dp", "ep", "cp", "tp"), columns.shape[1:], strict=True))
        if axis in axes and size > 1
    )


def wide_graph(compiled: CompiledPlan, columns: Columns) -> WideGraph:
    """Nodes and edges of a plan with one lane."""
    linked, inline = compiled.linked, compiled.inline
    num_messages, num_operations = len(linked.messages), linked.operations.num
    first_message = compiled.constraints.first_message
    edges = compiled.edges
    edges = edges.where((edges.dst >= first_message) | (edges.w >= 0))  # what a line is told by its events
    across = _across(compiled, edges.v, edges.w)
    renoded = np.unique(across.into[(edges.w >= 0) & (across.into >= 0)])

    # Events of the lines.
    kind = np.concatenate([program.kind for program in linked.programs])
    actors = [compiled.durations.actors[key] for key in linked.keys]
    costly = WORK_KINDS[kind] | (np.concatenate([actor.comp_ns for actor in actors]) > 0)
    issues = any(actor.issue_ns.any() for actor in actors)
    coupled = _coupled(compiled, columns)
    ends = linked.first[1:] - 1
    own = _own_waits(compiled, ends)
    first, last = compiled.asked.reshape(-1, 2).T
    has_pass = first >= 0
    leaving = edges.x >= 0
    place = 4 * edges.x + np.where(WAIT_KINDS[kind][edges.x], _BEFORE, _AFTER)
    at = np.unique(
        np.concatenate(
            (
                4 * np.flatnonzero(costly) + _AFTER,
                place[leaving],
                4 * ends + _AFTER,
                own,
                4 * first[has_pass] + _BEFORE,
            )
        )
    )
    grows = (at % 4 == _AFTER) & costly[at // 4]
    # The common start of a coupled first pass is a node of its own, so that its time is known.
    starts = np.isin(at, 4 * first[has_pass] + _BEFORE) & (coupled[at // 4] > 0)
    arriving = (edges.w >= 0) & (across.into < 0)
    stops = np.concatenate((edges.w[arriving], linked.messages.recv_wait[renoded]))
    event = np.searchsorted(at, 4 * stops + _AT)
    held = np.bincount(event, minlength=len(at)) > 0
    line = np.searchsorted(linked.first, at // 4, side="right")
    lines = _number_events(at, grows | starts | held | issues, line)

    # Nodes.
    made = at[lines.created] // 4
    grown = grows[lines.created]
    in_use = np.zeros(num_messages, dtype=np.bool_)
    in_use[across.into[across.into >= 0]] = True
    first_of_messages = 1 + len(made)
    first_of_operations = first_of_messages + int(in_use.sum())
    message_node = first_of_messages - 1 + np.cumsum(in_use)
    axes = np.zeros(first_of_operations + num_operations, dtype=np.int64)
    axes[1:first_of_messages] = np.where(grown | starts[lines.created], coupled[made], 0)
    axes[first_of_operations:] = _operation_axes(compiled, columns)

    # Edges: lines first, so that theirs come first into each node.
    to_operation = (edges.w < 0) & (across.into < 0)
    src = np.where(leaving, lines.node_at(place), -1)
    from_message = ~leaving & (edges.src < compiled.constraints.first_operation)
    src[from_message] = message_node[edges.src[from_message] - first_message]
    beyond = ~leaving & ~from_message
    shift = first_of_operations - compiled.constraints.first_operation
    src[beyond] = edges.src[beyond] + shift
    dst = np.where(to_operation, edges.dst + shift, message_node[across.into] if num_messages else 0)
    dst[arriving] = lines.node[event[: int(arriving.sum())]]
    more = np.full(len(renoded), -1, dtype=np.int64)
    plain = np.full(len(made), -1, dtype=np.int64)
    copy = np.concatenate((plain, across.copy, renoded))
    engine_copies = np.append(_copies(compiled), 0)  # the last: of no message
    return WideGraph(
        src=np.concatenate((lines.before[lines.created], src, message_node[renoded])),
        dst=np.concatenate((np.arange(1, first_of_messages), dst, lines.node[event[int(arriving.sum()) :]])),
        message=np.concatenate((plain, across.message, more if inline else renoded)),
        takes_wire=np.concatenate((plain >= 0, across.takes_wire, more >= 0)),
        takes_lat=np.concatenate((plain >= 0, across.takes_lat, (more < 0) & (not inline))),
        constant=engine_copies[copy],
        takes=np.concatenate(
            (
                [NOTHING],
                np.where(grown, COMP, NOTHING),
                np.full(int(in_use.sum()), WIRE),
                np.full(num_operations, OPERATION),
            )
        ).astype(np.int8),
        number=np.concatenate(
            ([-1], np.where(grown, made, -1), np.flatnonzero(in_use), np.arange(num_operations))
        ),
        axes=axes,
        floor=_floors(compiled, made, len(axes)) if issues else None,
        asked=np.array(
            [
                lines.node_at(4 * ends + _AFTER),
                lines.node_at(own),
                np.where(has_pass, lines.node_at(4 * first + _BEFORE), -1),
                np.where(has_pass, lines.node_at(4 * last + _AFTER), -1),
            ]
        ),
    )


def _across(compiled: CompiledPlan, v: Ints, w: Ints) -> _Across:
    """What edges across lines take, and which of them lead into a message's node.

    What leads into a node leaves out what the node takes itself. A message that nothing but its WR asks for
    has its node back if more than its send leads into it; else the edge from its send takes all of it.
    """
    messages, inline = compiled.linked.messages, compiled.inline
    num = len(messages)
    if not num:
        none = np.full(len(v), -1, dtype=np.int64)
        return _Across(none, none, none >= 0, none >= 0, none)
    part, number = np.divmod(v - 1, num)
    part = np.where(v > 0, np.minimum(part, _COPY + 1), -1)
    number = np.where((part >= 0) & (part <= _COPY), number, -1)
    leads_in = (part == _INTO) | (part == _BEHIND_ARRIVE) | (part == _BEHIND_COPY)
    passes = leads_in & (w >= 0)
    several = np.bincount(number[passes], minlength=num) > 1
    whole = passes & ~several[number]  # its send always leads into it, so that is the one
    behind = messages.behind[number]
    late = (part == _ARRIVE) | (part == _BEHIND_ARRIVE)
    of = np.where((part == _BEHIND_ARRIVE) | (part == _BEHIND_COPY), behind, number)
    takes_lat = whole | (late & (not inline))
    return _Across(
        into=np.where(leads_in & ~whole, number, -1),
        message=np.where(takes_lat, of, -1),
        takes_wire=whole,
        takes_lat=takes_lat,
        copy=np.where(whole | late | (part == _BEHIND_COPY) | (part == _COPY), of, -1),
    )


def _number_events(at: Ints, created: Flags, line: Ints) -> _Lines:
    """Node of each event: its own, or that of the last event before on the same line that has one."""
    so_far = np.cumsum(created)
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    before_line: Ints = np.repeat((so_far - created)[starts], np.diff(np.append(starts, len(line))))
    node = np.where(so_far > before_line, so_far, 0)
    before = np.concatenate(([0], node[:-1]))
    before[starts] = 0
    return _Lines(at, node, created, before)


def _coupled(compiled: CompiledPlan, columns: Columns) -> Ints:
    """[instructions] mask of the axes on which each work is coupled."""
    out = np.zeros(compiled.num_instructions, dtype=np.int64)
    axes_of = {Op(kind): frozenset(axes) for kind, axes in compiled.plan.couple}
    if axes_of:
        for low, program in zip(compiled.linked.first.tolist(), compiled.linked.programs, strict=False):
            for axes, works in works_by_axes(program, axes_of).items():
                out[low + works] = axes_mask(axes, columns)
    return out


def _operation_axes(compiled: CompiledPlan, columns: Columns) -> Ints:
    """[operations] mask of the axes on which each one's members meet."""
    masks = [axes_mask(group.axes, columns) for group in compiled.plan.groups]
    linked = compiled.linked
    at, number = linked.operations.post
    queue = linked.pick([program.queue for program in linked.programs], at) - 2 * len(compiled.plan.channels)
    out = np.zeros(linked.operations.num, dtype=np.int64)
    out[number] = np.array([*masks, 0], dtype=np.int64)[queue]  # the last queue holds copies
    return out


def _own_waits(compiled: CompiledPlan, ends: Ints) -> Ints:
    """Place on each line before the first wait behind its last pass for a group over dp; else its END's."""
    groups = [number for number, group in enumerate(compiled.plan.groups) if "dp" in group.axes]
    out: list[int] = []
    last_passes = compiled.asked[1::2]
    for low, end, last, program in zip(
        compiled.linked.first.tolist(),
        ends.tolist(),
        last_passes.tolist(),
        compiled.linked.programs,
        strict=False,
    ):
        is_wait = WAIT_KINDS[program.kind]
        waits = np.flatnonzero(is_wait & np.isin(program.queue - 2 * len(compiled.plan.channels), groups))
        waits = waits[waits + low > last]
        out.append(4 * (low + int(waits[0])) + _BEFORE if len(waits) else 4 * end + _AFTER)
    return np.array(out, dtype=np.int64)


def _copies(compiled: CompiledPlan) -> Ints:
    """[messages] ns to copy each out of its receive buffer; 0 where there is none."""
    linked = compiled.linked
    if compiled.inline or not len(linked.messages):
        return np.zeros(len(linked.messages), dtype=np.int64)
    channels = [compiled.durations.channels[lane, name].copy_ns for lane, name, _ in linked.messages.channels]
    return np.where(linked.messages.has_buffers, np.concatenate(channels), 0)


def _floors(compiled: CompiledPlan, made: Ints, num_nodes: int) -> Ints:
    """[nodes] when the host has issued the instruction of a line's node; 0 for the others."""
    linked = compiled.linked
    host = np.concatenate([np.cumsum(compiled.durations.actors[key].issue_ns) for key in linked.keys])
    out = np.zeros(num_nodes, dtype=np.int64)
    out[1 : 1 + len(made)] = host[made]
    return out
