"""A plan made ready to be replayed many times: all that does not depend on a duration, found once.

`compile_plan` links the posts of all actors, states the rules as a graph and finds the order in which its
nodes can be settled. What is left for each set of durations is to put numbers on the edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.profile import Mover, Profile
from exactmap.sim.engine.constraints import Constraints, Edges, constrain
from exactmap.sim.engine.deadlock import deadlock_of
from exactmap.sim.engine.durations import Durations, resolve
from exactmap.sim.engine.encoded import BUSY_KINDS, EncodedProgram, Ints
from exactmap.sim.engine.levels import Levels, arrange, levels_of
from exactmap.sim.engine.linked import Linked, link

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exactmap.sim.plan.plan import Plan

__all__ = ["CompiledPlan", "LineTimes", "compile_plan"]

_NO_FLOOR = -(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class LineTimes:
    """What one set of durations puts on the lines, in ns."""

    comp: tuple[Ints, ...]  #: by actor: [its x] what compute spends; 0 where coupled lanes decide
    total: Ints  #: [x + 1] D, by actor; the last entry is 0
    floor: Ints | None  #: [x + 1] D + H; None where the host never delays
    wire: Ints  #: [messages]
    arrive: Ints  #: [messages] from a free wire to the end of the receive, if that was posted in time
    copy: Ints  #: [messages] out of a receive buffer; 0 without one
    operation: Ints  #: [operations]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledPlan:
    """A plan with everything found that no duration changes; made by `compile_plan`.

    Durations that it is replayed with must share its programs, lanes and mover: `price` makes them from a
    profile, `exactmap.sim.engine.perturb` edits them.
    """

    plan: Plan
    durations: Durations  #: those that it was compiled with
    linked: Linked
    constraints: Constraints
    levels: Levels
    edges: Edges  #: in order of evaluation; nodes are numbered as in `constraints`
    asked: Ints  #: [2 * actors] first and last pass of each actor, -1 where it has none

    @property
    def inline(self) -> bool:
        """Whether the mover is inline."""
        return self.durations.mover is Mover.INLINE

    @property
    def programs(self) -> dict[str, EncodedProgram]:
        """The plan's programs by name, encoded."""
        return {program.program.name: program for program in self.linked.programs}

    @property
    def num_instructions(self) -> int:
        """Number of instructions of all actors."""
        return int(self.linked.first[-1])

    def price(self, profile: Profile) -> Durations:
        """Durations of the same plan by another profile, for plans compiled without lanes of their own.

        Raises
        ------
        InvalidInputError
            If the profile lacks a duration.
        """
        return resolve(self.plan, profile, self.programs)

    def line_times(self, durations: Durations | None = None) -> LineTimes:
        """Sums and floors of one set of durations.

        Raises
        ------
        InvalidInputError
            If the durations are of another plan, other lanes or another mover.
        """
        chosen = self.durations if durations is None else durations
        self._check(chosen)
        linked = self.linked
        actors = [chosen.actors[key] for key in linked.keys]
        comp = [actor.comp_ns for actor in actors]
        operation = np.zeros(linked.operations.num, dtype=np.int64)
        at, number = linked.operations.post
        np.maximum.at(operation, number, linked.pick([actor.op_ns for actor in actors], at))
        at, number = linked.operations.coupled
        if len(at):
            np.maximum.at(operation, number, linked.pick(comp, at))
            coupled = np.split(linked.is_coupled, linked.first[1:-1])
            comp = [np.where(flags, 0, part) for flags, part in zip(coupled, comp, strict=True)]
        total = np.zeros(self.num_instructions + 1, dtype=np.int64)
        issues = any(actor.issue_ns.any() for actor in actors)
        floor = np.zeros_like(total) if issues else None
        bounds = linked.first.tolist()
        for actor, part, low, high in zip(actors, comp, bounds[:-1], bounds[1:], strict=True):
            np.cumsum(part, out=total[low:high])
            if floor is not None:
                late = np.cumsum(actor.issue_ns) - total[low:high] + part
                floor[low:high] = total[low:high] + np.maximum.accumulate(late)
        channels = [chosen.channels[lane, name] for lane, name, _ in linked.messages.channels]
        nothing = [np.empty(0, dtype=np.int64)]
        wire = np.concatenate([channel.wire_ns for channel in channels] or nothing)
        lat = np.concatenate([channel.lat_ns for channel in channels] or nothing)
        copy = np.concatenate([channel.copy_ns for channel in channels] or nothing)
        if self.inline:
            return LineTimes(
                tuple(comp), total, floor, wire + lat, np.zeros_like(wire), np.zeros_like(wire), operation
            )
        copy = np.where(linked.messages.has_buffers, copy, 0)
        return LineTimes(tuple(comp), total, floor, wire, lat + copy, copy, operation)

    def _check(self, durations: Durations) -> None:
        if durations is self.durations:
            return
        for same, what in (
            (durations.mover is self.durations.mover, "the durations are of another mover"),
            (durations.lanes == self.durations.lanes, "the durations have other lanes"),
            (
                all(
                    durations.actors[key].program is program
                    for key, program in zip(self.linked.keys, self.linked.programs, strict=True)
                ),
                "the durations are of other programs",
            ),
        ):
            if not same:
                raise InvalidInputError(
                    what + " than the compiled plan", hint="price the compiled plan itself, or compile again"
                )

    def edge_times(self, some: Sequence[LineTimes]) -> tuple[Ints, Ints | None]:
        """Constants of the edges, and what the time at each edge's end is at least; both [draws, edges].

        The second is None where no host delays.
        """
        edges = self.edges
        constants = np.empty((len(some), len(edges.x)), dtype=np.int64)
        floors = None
        for draw, times in enumerate(some):
            values = self._values(times)[edges.v]
            values -= times.total[edges.w]
            np.take(times.total, edges.x, out=constants[draw], mode="wrap")
            constants[draw] += values
            if times.floor is not None:
                if floors is None:
                    floors = np.full_like(constants, _NO_FLOOR)
                np.copyto(floors[draw], times.floor[edges.x] + values, where=edges.x >= 0)
        return constants, floors

    def _values(self, times: LineTimes) -> Ints:
        """The vector that the edges' v picks from."""
        behind = self.linked.messages.behind
        into = times.wire + np.where(self.constraints.direct, times.arrive, 0)
        parts = ([0], into, times.arrive, times.arrive[behind] + into, times.copy[behind] + into, times.copy)
        return np.concatenate((*parts, times.operation))


def compile_plan(plan: Plan, timing: Profile | Durations) -> CompiledPlan:
    """Find all that durations do not change.

    Parameters
    ----------
    plan
        A plan that passed its checks.
    timing
        A profile, or durations whose lanes are those that later durations will have (`split_replica` and
        `split_inner` come before).

    Raises
    ------
    DeadlockError
        If ranks wait for each other.
    InvalidInputError
        If the profile lacks a duration, or posts and waits, sends and receives, or members of a group do not
        pair up.
    """
    durations = timing if isinstance(timing, Durations) else resolve(plan, timing)
    inline = durations.mover is Mover.INLINE
    linked = link(plan, durations, inline=inline)
    asked = _first_and_last_pass(linked)
    constraints = constrain(plan, linked, asked[asked >= 0], inline=inline)
    edges, direct = constraints.edges, constraints.direct
    message_nodes = np.arange(constraints.first_message, constraints.first_operation)
    step = np.ones(constraints.num_nodes, dtype=np.int64)
    step[message_nodes[direct]] = 0
    kept = edges.where(constraints.decides)
    level = levels_of(constraints.num_nodes, kept.src, kept.dst, step)
    if level is None:
        raise deadlock_of(plan)
    kept = _past_direct_messages(kept, linked, constraints)
    level[message_nodes[direct]] = -1
    levels = arrange(kept.src, kept.dst, level)
    return CompiledPlan(
        plan, durations, linked, constraints, levels, Edges(*(column[levels.edge] for column in kept)), asked
    )


def _past_direct_messages(edges: Edges, linked: Linked, constraints: Constraints) -> Edges:
    """Lead the edges into messages without a node on to their receivers' waits."""
    first, num = constraints.first_message, len(linked.messages)
    if not num:
        return edges
    stops = linked.messages.recv_wait

    def is_direct(nodes: Ints) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        message = nodes - first
        return (message >= 0) & (message < num) & constraints.direct[np.clip(message, 0, num - 1)]

    edges = edges.where(~is_direct(edges.src))
    at = np.flatnonzero(is_direct(edges.dst))
    stop = stops[edges.dst[at] - first]
    dst, w = edges.dst.copy(), edges.w.copy()
    dst[at], w[at] = constraints.line_node[linked.segment[stop]], stop
    return edges._replace(dst=dst, w=w)


def _first_and_last_pass(linked: Linked) -> Ints:
    """First and last F I W B RC FB of each actor: what a period is measured between."""
    out = np.full((len(linked.programs), 2), -1, dtype=np.int64)
    for number, program in enumerate(linked.programs):
        passes = np.flatnonzero(BUSY_KINDS[program.kind])
        if len(passes):
            out[number] = linked.first[number] + passes[[0, -1]]
    return out.ravel()
