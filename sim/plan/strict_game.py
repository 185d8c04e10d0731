"""The strict token game: the order that every mover and every channel depth obeys.

Posts never block. `WR` passes when its send is posted, `WS` when the partner came to the `WR` of that
message, `WC` when all members came to theirs (a scan: when the member before passed), `WOFF` and `WLD` at
once. Who is left over waits for others, whatever the durations. `docs/reference/plan-format.md`, section 7
and ruling 25.
"""

from __future__ import annotations

from collections import deque

from exactmap.sim.plan.token_board import Board, Meeting
from exactmap.sim.plan.verdict import StuckActor

__all__ = ["StrictGame"]


class StrictGame(Board):
    """The board with the strict rules; each post and wait is passed once."""

    def play(self) -> tuple[StuckActor, ...]:
        """Play to the end; returns a cycle of stuck actors, empty if all came to their END."""
        moving = deque(range(len(self.actors)))
        while moving:
            self._advance(moving.popleft(), moving)
        return self.cycle(self._awaited)

    def _advance(self, actor: int, woken: deque[int]) -> None:
        """Move one actor as far as it gets."""
        steps, position = self.steps[actor], self.position[actor]
        while position < len(steps):
            is_wait, where, number, _ = steps[position]
            meeting = self.meetings[where]
            if is_wait:
                if not self._passes(actor, meeting, number, woken):
                    meeting.stuck.append(actor)
                    break
            elif meeting.kind == "chan":
                meeting.done[actor] = number + 1
                meeting.wake(woken)
            position += 1
        self.position[actor] = position

    @staticmethod
    def _passes(actor: int, meeting: Meeting, number: int, woken: deque[int]) -> bool:
        """Come to a wait; returns whether it passes now. May be asked again for the same wait."""
        if meeting.kind == "copy":
            return True
        if meeting.kind == "chan":
            sender, receiver = meeting.members
            if actor == sender:
                return meeting.begun[receiver] > number
            if meeting.begun[receiver] <= number:
                meeting.begun[receiver] = number + 1
                meeting.wake(woken)
            return meeting.done[sender] > number
        if meeting.scan:
            before = meeting.before(actor)
            if before is not None and meeting.done[before] <= number:
                return False
            meeting.done[actor] = number + 1
            meeting.wake(woken)
            return True
        if meeting.begun[actor] <= number and meeting.arrive(actor, number):
            meeting.wake(woken)
        return meeting.arrived[number] == len(meeting.members)

    def _awaited(self, actor: int) -> int:
        """Lowest actor that a stuck one waits for."""
        _, where, number, _ = self.steps[actor][self.position[actor]]
        meeting = self.meetings[where]
        if meeting.kind == "chan":
            sender, receiver = meeting.members
            return receiver if actor == sender else sender
        if meeting.scan:
            before = meeting.members[: meeting.place[actor]]
            return min(member for member in before if meeting.done[member] <= number)
        return min(member for member in meeting.members if meeting.begun[member] <= number)
