"""Fast token games: each actor walks its steps; a step passes once another actor has come far enough.

Both games of `docs/reference/plan-format.md`, section 7, come down to that one rule.

*Strict*: steps are waits. `WR` needs the sender past the last wait before the send, `WS` the receiver at that
`WR`, a scan's `WC` the member before past its own; other `WC` need all members at theirs.

*Serial*: steps are posts, one completed after the other. A message needs each end at its post, a group's
operation all members at theirs, a scan's the member before past its own. Waits add nothing: what an actor
waits for before a post was posted, and so is completed, before it.

Where all members of a group must have come, a referee is put between them: an actor of its own whose steps
need one member each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exactmap.sim.plan.accept_rows import Ints, need
from exactmap.sim.plan.accept_traffic import Actors, Traffic
from exactmap.sim.plan.pairing import group_instances
from exactmap.sim.plan.plan import Plan

__all__ = ["check_games", "comes_to_end"]


def check_games(plan: Plan, actors: Actors, traffic: Traffic) -> None:
    """Play the strict game and, under `serial=yes`, the serial one, on a plan whose ranks agree.

    Raises
    ------
    Unproven
        If an actor does not come to its END.
    """
    need(_Board(plan, actors, traffic, serial=False).play())
    if plan.serial:
        need(_Board(plan, actors, traffic, serial=True).play())


class _Board:
    """For each step the actor that it needs, and the step at which that must stand or be past.

    Steps of all actors are numbered through; behind the last step of each is one that never passes.
    """

    def __init__(self, plan: Plan, actors: Actors, traffic: Traffic, *, serial: bool) -> None:
        self.traffic = traffic
        self.actors = actors
        self.serial = serial
        self.step_number = traffic.post_number if serial else traffic.wait_number
        num_steps = [traffic.num_posts[program] for program in actors.programs]
        self.first = np.cumsum([0, *(num + 1 for num in num_steps)]).tolist()
        self.actor = np.repeat(np.arange(len(num_steps)), [num + 1 for num in num_steps])
        self.place = np.zeros(len(self.actor), dtype=np.int64)
        self.referees: list[tuple[Ints, Ints]] = []
        self._add_messages(plan)
        self._add_groups(plan)

    def _steps(self, actor: int, place: slice) -> Ints:
        """Numbers of an actor's steps on a queue."""
        steps: Ints = self.step_number[place] + self.first[actor]
        return steps

    def _need(self, steps: Ints, actor: int, place: Ints) -> None:
        self.actor[steps] = actor
        self.place[steps] = place

    def _add_messages(self, plan: Plan) -> None:
        programs, num_ranks = self.actors.programs, self.actors.num_ranks
        for start in range(0, len(programs), num_ranks):
            for number, channel in enumerate(plan.channels):
                sender, receiver = start + channel.src, start + channel.dst
                there = self.traffic.channels.get((programs[sender], number))
                here = self.traffic.channels.get((programs[receiver], number))
                if there is None or here is None:
                    continue
                sends, receives = self._steps(sender, there), self._steps(receiver, here)
                self._need(sends, receiver, receives)
                if self.serial:
                    self._need(receives, sender, sends)
                else:
                    self._need(receives, sender, self.traffic.waits_before[there] + self.first[sender])

    def _add_groups(self, plan: Plan) -> None:
        used = {number for _, number in self.traffic.groups}
        for number, group in enumerate(plan.groups):
            for members in group_instances(plan, group) if number in used else ():
                numbers = [self.actors.number(rank, cls) for rank, cls in members]
                places = [self.traffic.groups.get((self.actors.programs[one], number)) for one in numbers]
                steps = [
                    self._steps(one, place)
                    for one, place in zip(numbers, places, strict=True)
                    if place is not None
                ]
                if len(steps) < 2:
                    continue
                if group.scan:
                    self._add_scan(numbers, steps, down=group.scan == "down")
                else:
                    self._add_referee(numbers, np.stack(steps))

    def _add_scan(self, numbers: list[int], steps: list[Ints], *, down: bool) -> None:
        if down:
            numbers, steps = numbers[::-1], steps[::-1]
        for before, before_steps, own_steps in zip(numbers, steps, steps[1:], strict=False):
            self._need(own_steps, before, before_steps + 1)

    def _add_referee(self, numbers: list[int], steps: Ints) -> None:
        """`steps`: [members, operations]."""
        num_members, num_operations = steps.shape
        referee = len(self.first) - 1
        passed = self.first[-1] + num_members * np.arange(1, num_operations + 1)
        self.referees.append((np.tile(np.array(numbers), num_operations), steps.T.ravel()))
        self.first.append(self.first[-1] + steps.size + 1)
        for own in steps:
            self._need(own, referee, passed)

    def play(self) -> bool:
        """Whether every actor comes to its end."""
        num_actors = len(self.first) - 1
        behind = np.zeros(1, dtype=np.int64)
        actor = np.concatenate([self.actor, *(part for who, _ in self.referees for part in (who, behind))])
        place = np.concatenate([self.place, *(part for _, at in self.referees for part in (at, behind))])
        actor[np.array(self.first[1:]) - 1] = num_actors  # nobody: never comes anywhere
        return comes_to_end(self.first, actor.tolist(), place.tolist())


def comes_to_end(first: Sequence[int], actor: Sequence[int], place: Sequence[int]) -> bool:
    """Whether every actor can take all its steps.

    Parameters
    ----------
    first
        First step of each actor, and the number of steps at the end. Steps of all actors are numbered
        through; the last of each must need the actor behind the last one, which stands nowhere.
    actor, place
        What each step needs: that an actor stands at a step or is past it.

    Examples
    --------
    Actor 0 takes its step once actor 1 is past its own, which needs nothing.

    >>> comes_to_end([0, 2, 4], [1, 2, 1, 2], [3, 0, 0, 0])
    True
    """
    num_actors = len(first) - 1
    at = [*first[:-1], -1]
    waiting: list[list[int]] = [[] for _ in range(num_actors + 1)]
    moving = list(range(num_actors))
    while moving:
        mover = moving.pop()
        step = begun = at[mover]
        other = actor[step]
        while at[other] >= place[step]:
            step += 1
            other = actor[step]
        waiting[other].append(mover)
        if step != begun:
            at[mover] = step
            if waiting[mover]:
                moving += waiting[mover]
                waiting[mover] = []
    return all(here + 1 == end for here, end in zip(at, first[1:], strict=False))
