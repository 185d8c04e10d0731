"""A deadlock: the error, and the cycle that the plan's own strict order names.

An engine notices that ranks remain which only wait for each other. Who waits for whom then depends on mover and depths; the
strict order (plan format, section 7, phase 5) does not, so the cycle that is reported is the one that the plan's
checks report, whichever engine ran into it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import POSTS, WAITS, Instruction, Op
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.verdict import StuckActor

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Group, Plan

__all__ = ["DeadlockError", "deadlock_of", "strict_cycle"]


class DeadlockError(InvalidInputError):
    """Ranks wait for each other (exit code 3); `cycle` lists them, the lowest first, as the plan's checks do."""

    def __init__(self, cycle: tuple[StuckActor, ...]) -> None:
        lines = "".join(f"\n  {actor}" for actor in cycle)
        super().__init__(
            f"the plan deadlocks: ranks wait for each other{lines}",
            hint="check the plan: exactmap check PLAN",
        )
        self.cycle = cycle


def deadlock_of(plan: Plan) -> DeadlockError:
    """The error for a plan in which an engine got stuck."""
    return DeadlockError(strict_cycle(plan))


def strict_cycle(plan: Plan) -> tuple[StuckActor, ...]:
    """The cycle of the strict order, empty if there is none."""
    game = _StrictGame(plan)
    game.play()
    return game.cycle()


_Actor = tuple[int, int]  # (number of the class, pipeline rank): the order in which actors are named


class _StrictGame:
    """The token game of the strict order: posts never block, a wait passes when its partners have got far enough."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.classes = plan.replica_classes()
        self.actors = [(number, pp) for number in range(len(self.classes)) for pp in range(plan.mesh.pp)]
        self.programs = {
            (number, pp): plan.program(pp, self.classes[number]).instructions for number, pp in self.actors
        }
        self.channels = {channel.name: channel for channel in plan.channels}
        self.groups = {group.name: group for group in plan.groups}
        self.at = dict.fromkeys(self.actors, 0)
        # Counts per (actor, direction and queue): posts made, waits reached, waits passed.
        self.posted: defaultdict[tuple[_Actor, str], int] = defaultdict(int)
        self.reached: defaultdict[tuple[_Actor, str], int] = defaultdict(int)
        self.passed: defaultdict[tuple[_Actor, str], int] = defaultdict(int)

    def play(self) -> None:
        """Move every actor as far as it goes; the outcome does not depend on the order of moves."""
        moved = True
        while moved:
            moved = any([self._advance(actor) for actor in self.actors])

    def _advance(self, actor: _Actor) -> bool:
        program = self.programs[actor]
        start = self.at[actor]
        while self.at[actor] < len(program):
            instruction = program[self.at[actor]]
            queue = (actor, _queue_end(instruction))
            if instruction.op in POSTS:
                self.posted[queue] += 1
            elif instruction.op in WAITS:
                self.reached[queue] = self.passed[queue] + 1
                if self._partners(actor, instruction):
                    break
                self.passed[queue] += 1
            self.at[actor] += 1
        return self.at[actor] > start

    def _partners(self, actor: _Actor, wait: Instruction) -> list[_Actor]:
        """The actors that a wait, which `actor` has reached, still waits for."""
        number, pp = actor
        end = _queue_end(wait)
        count = self.reached[actor, end]
        if wait.op is Op.WR:
            other = (number, self.channels[wait.queue].src)
            return [other] if self.posted[other, f"send {wait.queue}"] < count else []
        if wait.op is Op.WS:
            other = (number, self.channels[wait.queue].dst)
            return [other] if self.reached[other, f"recv {wait.queue}"] < count else []
        if wait.op is not Op.WC:
            return []
        group = self.groups[wait.queue]
        members = self._members(group, number, pp)
        if group.scan:
            place = members.index(actor)
            return sorted(other for other in members[:place] if self.passed[other, end] < count)
        return [other for other in members if self.reached[other, end] < count]

    def _members(self, group: Group, number: int, pp: int) -> list[_Actor]:
        ranks = (group.pp or tuple(range(self.plan.mesh.pp))) if "pp" in group.axes else (pp,)
        numbers = range(len(self.classes)) if "dp" in group.axes else (number,)
        members = [(other, rank) for rank in ranks for other in numbers]
        return members[::-1] if group.scan == "down" else members

    def cycle(self) -> tuple[StuckActor, ...]:
        """From the lowest stuck actor follow the lowest that it waits for, until one repeats."""
        stuck = [actor for actor in self.actors if self.at[actor] < len(self.programs[actor])]
        if not stuck:
            return ()
        path = [stuck[0]]
        while True:
            actor = path[-1]
            other = min(self._partners(actor, self.programs[actor][self.at[actor]]))
            if other in path:
                ring = path[path.index(other) :]
                lowest = ring.index(min(ring))
                return tuple(self._standing(member) for member in ring[lowest:] + ring[:lowest])
            path.append(other)

    def _standing(self, actor: _Actor) -> StuckActor:
        number, pp = actor
        program = self.plan.program(pp, self.classes[number])
        index = self.at[actor]
        line = program.lines[index] if program.lines else 0
        return StuckActor(pp, self.classes[number], line, format_instruction(program.instructions[index]))


def _queue_end(instruction: Instruction) -> str:
    """Name of the queue that a post or wait stands on."""
    if instruction.op in {Op.SF, Op.SB, Op.WS}:
        return f"send {instruction.queue}"
    if instruction.op in {Op.RF, Op.RB, Op.WR}:
        return f"recv {instruction.queue}"
    return f"queue {instruction.queue}"
