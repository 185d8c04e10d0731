"""The serial token game: each actor's posts are carried out one after the other.

Each actor has a FIFO of its posts. A message completes when both ends' posts are at the heads of their FIFOs,
a group's operation when those of all members are (a scan: a member's own, when the member before has
completed), `OFF` and `LD` at the head at once. A wait passes when its post is complete.
`docs/reference/plan-format.md`, section 7 and ruling 25.
"""

from __future__ import annotations

from collections import deque

from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.token_board import Board, Meeting, Step
from exactmap.sim.plan.verdict import StuckActor

__all__ = ["SerialGame"]


class SerialGame(Board):
    """The board with one FIFO per actor; each post comes to a head once and completes once."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.fifos: list[deque[Step]] = [deque() for _ in self.actors]
        self.heads: deque[int] = deque()
        self.moving: deque[int] = deque(range(len(self.actors)))

    def play(self) -> tuple[StuckActor, ...]:
        """Play to the end; returns a cycle of stuck actors, empty if all came to their END."""
        while self.moving or self.heads:
            while self.moving:
                self._advance(self.moving.popleft())
            while self.heads:
                self._serve(self.heads.popleft())
        return self.cycle(self._awaited)

    def _advance(self, actor: int) -> None:
        """Move one actor's comp as far as it gets."""
        steps, position = self.steps[actor], self.position[actor]
        while position < len(steps):
            step = steps[position]
            if step.is_wait:
                meeting = self.meetings[step.meeting]
                if meeting.done[actor] <= step.number:
                    meeting.stuck.append(actor)
                    break
            else:
                self.fifos[actor].append(step)
                if len(self.fifos[actor]) == 1:
                    self.heads.append(actor)
            position += 1
        self.position[actor] = position

    def _serve(self, actor: int) -> None:
        """A post came to the head of its FIFO: complete what completes by that."""
        step = self.fifos[actor][0]
        meeting, number = self.meetings[step.meeting], step.number
        complete = meeting.arrive(actor, number)
        if meeting.scan:
            self._serve_scan(meeting, actor, number)
        elif complete:
            del meeting.arrived[number]
            for member in meeting.members:
                self._complete(member, meeting)

    def _serve_scan(self, meeting: Meeting, actor: int, number: int) -> None:
        """Complete a scan's members one after the other, from `actor` on, as far as they have come."""
        before = meeting.before(actor)
        if before is not None and meeting.done[before] <= number:
            return
        for member in meeting.members[meeting.place[actor] :]:
            if meeting.begun[member] <= number:
                return
            self._complete(member, meeting)

    def _complete(self, member: int, meeting: Meeting) -> None:
        fifo = self.fifos[member]
        fifo.popleft()
        meeting.done[member] += 1
        if fifo:
            self.heads.append(member)
        meeting.wake(self.moving)

    def _awaited(self, actor: int) -> int:
        """Lowest actor that keeps the head of a stuck actor's FIFO."""
        step = self.fifos[actor][0]
        meeting = self.meetings[step.meeting]
        if meeting.scan:
            before = meeting.before(actor)
            assert before is not None, "the first of a scan is never kept waiting"
            return before
        return min(member for member in meeting.members if meeting.begun[member] <= step.number)
