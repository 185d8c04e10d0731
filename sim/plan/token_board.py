"""The board of the token games: actors, their posts and waits, and the queues on which these meet.

An actor is a pipeline rank of a class of replicas. Actors are numbered by class, then rank: the order in
which cycles are named.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from exactmap.sim.plan.instruction import POSTS, WAITS, Op
from exactmap.sim.plan.pairing import group_instances
from exactmap.sim.plan.plan import Plan, Program
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.verdict import StuckActor

__all__ = ["Board", "Meeting", "Step"]

_CHANNEL: Final = frozenset({Op.SF, Op.SB, Op.RF, Op.RB, Op.WS, Op.WR})
_COPY: Final = frozenset({Op.OFF, Op.LD, Op.WOFF, Op.WLD})


class Meeting:
    """A channel, a group or a copy queue as its members see it; a scan's members stand in scan order.

    Each game counts in `begun` and `done` what its rules speak of, member by member; `arrived` counts the
    members that came to the n-th operation, `stuck` are the actors that wait here.
    """

    __slots__ = ("arrived", "begun", "done", "kind", "members", "place", "scan", "stuck")

    def __init__(self, kind: str, members: Sequence[int], scan: str = "") -> None:
        self.kind = kind
        self.members = tuple(reversed(members)) if scan == "down" else tuple(members)
        self.scan = bool(scan)
        self.place = {member: place for place, member in enumerate(self.members)}
        self.begun = dict.fromkeys(self.members, 0)
        self.done = dict.fromkeys(self.members, 0)
        self.arrived: dict[int, int] = {}
        self.stuck: list[int] = []

    def arrive(self, member: int, number: int) -> bool:
        """Note that a member came to its operation `number`; returns whether all have."""
        self.begun[member] = number + 1
        self.arrived[number] = self.arrived.get(number, 0) + 1
        return self.arrived[number] == len(self.members)

    def before(self, member: int) -> int | None:
        """The member before in scan order, or None for the first."""
        place = self.place[member]
        return self.members[place - 1] if place else None

    def wake(self, woken: deque[int]) -> None:
        """Hand over the actors that wait here."""
        if self.stuck:
            woken.extend(self.stuck)
            self.stuck.clear()


class Step(NamedTuple):
    """A post or a wait: where it meets others, its number there, its position in the program."""

    is_wait: bool
    meeting: int
    number: int
    at: int


class Board:
    """All actors, their steps and queues."""

    def __init__(self, plan: Plan) -> None:
        classes = plan.replica_classes()
        self.actors = [(cls, rank) for cls in classes for rank in range(plan.mesh.pp)]
        self.number = {actor: number for number, actor in enumerate(self.actors)}
        self.meetings: list[Meeting] = []
        self.ids: dict[tuple[int, str, str], int] = {}
        for channel in plan.channels:
            for cls in classes:
                ends = (self.number[cls, channel.src], self.number[cls, channel.dst])
                self._add(Meeting("chan", ends), ends, channel.name)
        used = {post.queue for program in plan.programs for post in program.instructions if post.queue}
        for group in plan.groups:
            for members in group_instances(plan, group) if group.name in used else ():
                numbers = [self.number[cls, rank] for rank, cls in members]
                self._add(Meeting("group", numbers, group.scan), numbers, group.name)
        programs = {program.name: program for program in plan.programs}
        own = {(line.pp, line.dp): line.program for line in plan.maps}
        self.programs = [programs[own.get((rank, cls), own[rank, -1])] for cls, rank in self.actors]
        self.steps = [self._steps_of(number, program) for number, program in enumerate(self.programs)]
        self.position = [0] * len(self.actors)

    def _add(self, meeting: Meeting, members: Sequence[int], name: str) -> None:
        for member in members:
            self.ids[member, meeting.kind, name] = len(self.meetings)
        self.meetings.append(meeting)

    def _steps_of(self, actor: int, program: Program) -> list[Step]:
        steps: list[Step] = []
        counts: dict[tuple[bool, int], int] = {}
        for index, instruction in enumerate(program.instructions):
            op = instruction.op
            if op not in WAITS and op not in POSTS:
                continue
            kind = "chan" if op in _CHANNEL else "copy" if op in _COPY else "group"
            queue = self.ids.get((actor, kind, instruction.queue))
            if queue is None:  # a group whose members all act as this one, or the rank's copy queue
                queue = len(self.meetings)
                self._add(Meeting(kind, (actor,)), (actor,), instruction.queue)
            key = (op in WAITS, queue)
            number = counts.get(key, 0)
            counts[key] = number + 1
            steps.append(Step(op in WAITS, queue, number, index))
        return steps

    def stuck(self) -> list[int]:
        """Actors that are not at their END, the lowest first."""
        return [actor for actor, steps in enumerate(self.steps) if self.position[actor] < len(steps)]

    def cycle(self, waits_for: Callable[[int], int]) -> tuple[StuckActor, ...]:
        """Follow the lowest actor waited for from the lowest stuck one until one repeats."""
        stuck = self.stuck()
        if not stuck:
            return ()
        seen: list[int] = []
        actor = stuck[0]
        while actor not in seen:
            seen.append(actor)
            actor = waits_for(actor)
        ring = seen[seen.index(actor) :]
        lowest = ring.index(min(ring))
        return tuple(self._named(member) for member in (*ring[lowest:], *ring[:lowest]))

    def _named(self, actor: int) -> StuckActor:
        cls, rank = self.actors[actor]
        program = self.programs[actor]
        index = self.steps[actor][self.position[actor]].at
        line = program.lines[index] if program.lines else 0
        return StuckActor(rank, cls, line, format_instruction(program.instructions[index]))
