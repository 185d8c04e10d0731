"""Who was waited for: the excess of each piece of a step's critical path, charged to its component.

The step ends with its latest replica (`exactmap.sim.resilience.latest`). Along its critical path each piece
took what it took instead of what it takes nominally, and the difference is charged ::

    work        rack, host, then GPU: nominal x (rack - 1), x rack (host - 1), the rest to the GPU
    message     the slowest of its interfaces and uplinks; its jitter to the sender's interface
    operation   the member whose part took longest: its interface or its leaf; jitter to its interface

Charges are exact in sum: step - nominal step = sum of charges - (nominal step - nominal time of this path),
since the path need not be the one that is critical when all are alike. A charge has a *lasting* part, which
comes from a component's rate and would go if it were healed, and a *passing* one, its jitter.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.encoded import KINDS
from exactmap.sim.resilience.replica import replica_columns, step_columns
from exactmap.topology.state.components import Component, ComponentKind
from exactmap.topology.state.factors import ONE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exactmap.sim.engine.critical_path import Piece
    from exactmap.sim.engine.wide.cluster_times import ClusterTimes
    from exactmap.sim.engine.wide.work_rows import WorkKind
    from exactmap.sim.resilience.whole_cluster import WholeCluster

__all__ = ["Cause", "Charge", "StepBlame", "charge_path"]


_Excess = tuple[int, int, int, int, int]
"""Nominal ns of a work, its GPU, and what rack, host and GPU add for good."""


class Cause(StrEnum):
    """What took longer."""

    COMPUTE = "compute"
    MESSAGE = "message"
    COLLECTIVE = "collective"


@dataclass(frozen=True, slots=True)
class Charge:
    """What a component added to one step's critical path, in ns; below 0 if it was faster than nominal."""

    component: Component
    cause: Cause
    lasting_ns: int
    passing_ns: int

    @property
    def total_ns(self) -> int:
        """Both parts."""
        return self.lasting_ns + self.passing_ns


@dataclass(frozen=True, slots=True)
class StepBlame:
    """Blame of one step.

    Parameters
    ----------
    step
        Its number.
    dp
        The replica that was waited for.
    makespan_ns
        Time of the step.
    path_ns
        Time of the critical path: that of the step, unless replicas wait for each other in ways that one of
        them does not show.
    nominal_path_ns
        What this path takes when all components are alike.
    charges
        By component and cause, the largest first; none is 0.
    """

    step: int
    dp: int
    makespan_ns: int
    path_ns: int
    nominal_path_ns: int
    charges: tuple[Charge, ...]


def charge_path(
    whole: WholeCluster, times: ClusterTimes, step: int, dp: int, tail: int, path: Iterable[Piece]
) -> tuple[Charge, ...]:
    """Charge what the pieces of a path took beyond their nominal time.

    Parameters
    ----------
    whole
        Plan and cluster.
    times
        Durations of all columns.
    step, dp
        Whose path it is; `step` counts from the first of `times`.
    tail
        The replica that needs longest after all have met.
    path
        Its pieces.
    """
    book = _Book(whole, times, step, dp, tail)
    for piece in path:
        # What posts cost, latencies and copies are the same everywhere.
        if piece.what == "work":
            book.work(piece)
        elif piece.what == "wire":
            book.message(piece)
        elif piece.what == "operation":
            book.operation(piece)
    charges = [
        Charge(component, cause, *(int(part) for part in parts))
        for (component, cause), parts in book.sums.items()
        if any(parts)
    ]
    return tuple(sorted(charges, key=lambda one: (-one.total_ns, one.component, one.cause)))


class _Book:
    """Sums by component and cause."""

    def __init__(self, whole: WholeCluster, times: ClusterTimes, step: int, dp: int, tail: int) -> None:
        self.whole, self.times, self.state = whole, times, whole.state
        self.step, self.dp, self.tail = step, dp, tail
        self.whole_step = step_columns(times, step)
        self.sums: dict[tuple[Component, Cause], list[int]] = defaultdict(lambda: [0, 0])
        self.number_of = {channel.name: number for number, channel in enumerate(whole.plan.channels)}
        self.slowest: dict[tuple[int, int], tuple[int, int, int, int]] = {}
        self.excess: dict[tuple[int, int, int], _Excess] = {}
        self.parts: dict[tuple[int, int], list[int]] = {}

    def add(
        self, kind: ComponentKind, number: int, cause: Cause, lasting_ns: int, passing_ns: int = 0
    ) -> None:
        """Charge something."""
        entry = self.sums[Component(kind, number), cause]
        entry[0] += lasting_ns
        entry[1] += passing_ns

    def work(self, piece: Piece) -> None:
        """Rack, host, and what is left the GPU; of a group the GPU that is slowest in this step."""
        rows, dp = self.times.rows(piece.pp), self._replica(piece)
        number = int(rows.which[np.searchsorted(rows.at, piece.index)])
        key = (piece.pp, dp, number)
        if key not in self.excess:
            self.excess[key] = self._excess(piece.pp, dp, rows.kinds[number])
        base_ns, gpu, racked_ns, hosted_ns, own_ns = self.excess[key]
        self.add(ComponentKind.RACK, gpu // self.state.gpus_per_rack, Cause.COMPUTE, racked_ns)
        self.add(ComponentKind.HOST, gpu // self.state.gpus_per_host, Cause.COMPUTE, hosted_ns)
        passing_ns = _took(piece) - base_ns - racked_ns - hosted_ns - own_ns
        self.add(ComponentKind.GPU, gpu, Cause.COMPUTE, own_ns, passing_ns)

    def _excess(self, pp: int, dp: int, kind: WorkKind) -> _Excess:
        """What rack, host and GPU add for good to works of a kind."""
        work_ns = kind.base_ns - sum(meeting.time_ns for meeting in kind.meetings)
        gpu, rack, host, own = self._slowest(pp, dp)
        racked = _times(work_ns, rack)
        hosted = _times(racked, host)
        return kind.base_ns, gpu, racked - work_ns, hosted - racked, _times(hosted, own) - hosted

    def message(self, piece: Piece) -> None:
        """The slowest component on its way; of a group the member whose message took longest."""
        channel = self.number_of[piece.channel]
        base_ns = int(self.whole.compiled.durations.channels[0, piece.channel].wire_ns[piece.message])
        part = replica_columns(self.times, self.step, self.dp)
        column = part.start - self.whole_step.start
        if part.stop - part.start > 1:
            column += int(np.argmax(self.times.wire_ns(channel, piece.message, piece.message + 1, part)[0]))
        ends = self.whole.plan.channels[channel]
        source, target = (int(self.times.links.flat[pp][column]) for pp in (ends.src, ends.dst))
        leaf = self.state.leaves.leaf
        owners = (
            (ComponentKind.INTERFACE, source),
            (ComponentKind.INTERFACE, target),
            (ComponentKind.LEAF, int(leaf[source])),
            (ComponentKind.LEAF, int(leaf[target])),
        )
        if (channel, column) not in self.parts:
            self.parts[channel, column] = self.times.links.message_parts(channel, column)
        self._transfer(Cause.MESSAGE, base_ns, _took(piece), owners, self.parts[channel, column])

    def operation(self, piece: Piece) -> None:
        """The member whose part takes longest, among all that meet."""
        plan, program = self.whole.plan, self.whole.compiled.durations.actors[0, piece.pp].program
        group = int(program.queue[piece.index]) - 2 * len(plan.channels)
        base_ns = int(self.whole.compiled.durations.actors[0, piece.pp].op_ns[piece.index])
        if not 0 <= group < len(plan.groups):
            return  # copies to the host are the same everywhere
        where = (
            self.whole_step
            if "dp" in plan.groups[group].axes
            else replica_columns(self.times, self.step, self._replica(piece))
        )
        took = self.times.op_ns(piece.pp, piece.index, where)
        column = where.start - self.whole_step.start + int(np.argmax(took))
        op = KINDS[int(program.kind[piece.index])].value
        gpu = int(self.times.links.flat[piece.pp][column])
        owners = ((ComponentKind.INTERFACE, gpu), (ComponentKind.LEAF, int(self.state.leaves.leaf[gpu])))
        parts = self.times.links.operation_parts(piece.pp, group, op, column)
        self._transfer(Cause.COLLECTIVE, base_ns, _took(piece), owners, parts)

    def _transfer(
        self,
        cause: Cause,
        base_ns: int,
        took_ns: int,
        owners: tuple[tuple[ComponentKind, int], ...],
        parts: list[int],
    ) -> None:
        slowest = max(range(len(parts)), key=lambda number: parts[number])
        lasting = _times(base_ns, parts[slowest]) - base_ns
        self.add(*owners[slowest], cause, lasting)
        self.add(*owners[0], cause, 0, took_ns - base_ns - lasting)

    def _replica(self, piece: Piece) -> int:
        """Whose piece it is: after all have met, the tail's."""
        return self.dp if piece.index < self.whole.first_waits[piece.pp] else self.tail

    def _slowest(self, pp: int, dp: int) -> tuple[int, int, int, int]:
        """GPU, and the factors of rack, host and itself, of the slowest member of a pipeline rank."""
        if (pp, dp) not in self.slowest:
            state = self.state
            gpu, step = self.times.gpus(pp, replica_columns(self.times, self.step, dp))
            at = int(np.argmax(state.work_factor(gpu, step)))
            one = gpu[at : at + 1]
            own = state.work_factor(one, step[at : at + 1])[0] / state.place_factor(one)[0]
            self.slowest[pp, dp] = (
                int(one[0]),
                int(state.rack[state.rack_of(one)][0]),
                int(state.host[state.host_of(one)][0]),
                round(own * ONE),
            )
        return self.slowest[pp, dp]


def _took(piece: Piece) -> int:
    return piece.end_ns - piece.start_ns


def _times(duration_ns: int, factor: int) -> int:
    return (duration_ns * factor + ONE // 2) // ONE
