"""The token games against the plainest form of their rules: try every actor again until nothing moves."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.sim.plan import POSTS, WAITS, Instruction, Op, Plan, find_cycle, read_plan, verdict

CHANNEL = {Op.SF, Op.SB, Op.RF, Op.RB, Op.WS, Op.WR}
COPY = {Op.OFF, Op.LD, Op.WOFF, Op.WLD}
Actor = tuple[int, int]  # class, pipeline rank


def _strategies() -> ModuleType:
    path = Path(__file__).parents[1] / "strategies.py"
    spec = importlib.util.spec_from_file_location("strategies", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _strategies()
NAMES = sorted(path.stem for path in (shared.CORPUS / "valid").glob("*.plan"))


class Plain:
    """Programs as lists of posts and waits; every question is answered by counting over whole programs."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.actors = [(cls, rank) for cls in plan.replica_classes() for rank in range(plan.mesh.pp)]
        self.steps = {
            (cls, rank): [
                one for one in plan.program(rank, cls).instructions if one.op in POSTS or one.op in WAITS
            ]
            for cls, rank in self.actors
        }
        self.at = dict.fromkeys(self.actors, 0)

    def queue(self, one: Instruction) -> str:
        return "copy" if one.op in COPY else ("c:" if one.op in CHANNEL else "g:") + one.queue

    def number(self, actor: Actor, at: int) -> int:
        """Which post (or wait) of its queue stands at a place."""
        one = self.steps[actor][at]
        before = self.steps[actor][:at]
        kinds = WAITS if one.op in WAITS else POSTS
        return sum(self.queue(other) == self.queue(one) and other.op in kinds for other in before)

    def reached(self, actor: Actor, queue: str, number: int, *, passed: bool) -> bool:
        """Whether an actor has come to (or passed) wait `number` on a queue."""
        places = [
            at for at, one in enumerate(self.steps[actor]) if one.op in WAITS and self.queue(one) == queue
        ]
        return number < len(places) and places[number] < self.at[actor] + (not passed)

    def posted(self, actor: Actor, queue: str, number: int) -> bool:
        done = self.steps[actor][: self.at[actor]]
        return sum(one.op in POSTS and self.queue(one) == queue for one in done) > number

    def members(self, actor: Actor, name: str) -> list[Actor]:
        """Members of the group's instance that an actor is in, in scan order."""
        group = next(group for group in self.plan.groups if group.name == name)
        ranks = group.pp or tuple(range(self.plan.mesh.pp))
        found = [
            (cls, rank)
            for cls, rank in self.actors
            if ("dp" in group.axes or cls == actor[0])
            and (rank in ranks if "pp" in group.axes else rank == actor[1])
        ]
        return found[::-1] if group.scan == "down" else found

    def scans(self, name: str) -> bool:
        return any(group.name == name and group.scan for group in self.plan.groups)

    def ends(self, actor: Actor, name: str) -> tuple[Actor, Actor]:
        channel = next(channel for channel in self.plan.channels if channel.name == name)
        return (actor[0], channel.src), (actor[0], channel.dst)

    def play(self, passes: Callable[[Actor, Instruction, int], bool], settle: Callable[[], bool]) -> bool:
        """Whether every actor comes to its end."""
        moved = True
        while moved:
            moved = settle()
            for actor in self.actors:
                if self.at[actor] == len(self.steps[actor]):
                    continue
                one = self.steps[actor][self.at[actor]]
                if one.op in POSTS or passes(actor, one, self.number(actor, self.at[actor])):
                    self.at[actor] += 1
                    moved = True
        return all(self.at[actor] == len(self.steps[actor]) for actor in self.actors)

    def strict(self) -> bool:
        def passes(actor: Actor, one: Instruction, number: int) -> bool:
            queue = self.queue(one)
            if one.op in COPY:
                return True
            if one.op in CHANNEL:
                sender, receiver = self.ends(actor, one.queue)
                if one.op is Op.WR:
                    return self.posted(sender, queue, number)
                return self.reached(receiver, queue, number, passed=False)
            members = self.members(actor, one.queue)
            if self.scans(one.queue):
                before = members[: members.index(actor)]
                return all(self.reached(member, queue, number, passed=True) for member in before)
            return all(self.reached(member, queue, number, passed=False) for member in members)

        return self.play(passes, lambda: False)

    def serial(self) -> bool:
        done: dict[Actor, int] = dict.fromkeys(self.actors, 0)  # posts completed, in order

        def posts(actor: Actor) -> list[int]:
            return [at for at, one in enumerate(self.steps[actor]) if one.op in POSTS]

        def is_head(actor: Actor, queue: str, number: int) -> bool:
            places = posts(actor)
            if done[actor] >= len(places) or places[done[actor]] >= self.at[actor]:
                return False
            at = places[done[actor]]
            return self.queue(self.steps[actor][at]) == queue and self.number(actor, at) == number

        def complete(actor: Actor, queue: str, number: int) -> bool:
            finished = posts(actor)[: done[actor]]
            return sum(self.queue(self.steps[actor][at]) == queue for at in finished) > number

        def settle() -> bool:
            moved = False
            for actor in self.actors:
                places = posts(actor)
                if done[actor] >= len(places) or places[done[actor]] >= self.at[actor]:
                    continue
                at = places[done[actor]]
                one, number = self.steps[actor][at], self.number(actor, at)
                queue = self.queue(one)
                if one.op in COPY:
                    partners = [actor]
                elif one.op in CHANNEL:
                    partners = list(self.ends(actor, one.queue))
                else:
                    partners = self.members(actor, one.queue)
                    if self.scans(one.queue):
                        before = partners[: partners.index(actor)]
                        if all(complete(member, queue, number) for member in before):
                            done[actor] += 1
                            moved = True
                        continue
                if all(is_head(member, queue, number) for member in partners):
                    for member in partners:
                        done[member] += 1
                    moved = True
            return moved

        return self.play(lambda actor, one, number: complete(actor, self.queue(one), number), settle)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_games_agree_with_their_plain_rules(name: str, data: st.DataObject) -> None:
    """Lines of programs swapped at random, each swap kept if the checks before the games allow it."""
    text = (shared.CORPUS / "valid" / f"{name}.plan").read_bytes().replace(b"serial=yes", b"serial=no")
    lines = text.split(b"\n")
    start = lines.index(b"program P0")
    for at in data.draw(st.lists(st.integers(start, len(lines) - 3), max_size=10)):
        swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
        if verdict(shared.resealed(b"\n".join(swapped))).code in {"ok", "graph.deadlock"}:
            lines = swapped
    plan = read_plan(shared.resealed(b"\n".join(lines)))

    assert Plain(plan).strict() == (find_cycle(plan) == ())
    assert Plain(plan).serial() == (find_cycle(plan, serial=True) == ())
