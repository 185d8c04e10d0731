"""Phase 4 of the checks: the ranks of a plan against each other.

Every item runs once, messages meet, slots hold messages, groups agree; for every class of replicas. Rulings
24 of `docs/reference/plan-format.md`, section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product

from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import Group, Plan, Program
from exactmap.sim.plan.text import format_instruction
from exactmap.sim.plan.verdict import PlanError

__all__ = ["check_pairs", "group_instances"]

Fail = Callable[..., PlanError]
Actor = tuple[int, int]
"""Pipeline rank and replica class (-1: all replicas without programs of their own)."""


@dataclass(slots=True)
class _Traffic:
    """What a program runs and posts: positions in the program."""

    program: Program
    forwards: dict[tuple[int, int, int], int] = field(default_factory=dict)
    messages: dict[str, list[int]] = field(default_factory=dict)
    collectives: dict[str, list[int]] = field(default_factory=dict)

    def posts_on(self, group: str) -> list[Instruction]:
        """Posts on a group, in order."""
        return [self.program.instructions[index] for index in self.collectives.get(group, [])]

    def line(self, index: int) -> int:
        """Line of an instruction; of END for the index behind the last one."""
        lines = self.program.lines
        return lines[min(index, len(lines) - 1)] if lines else 0


def _traffic(program: Program) -> _Traffic:
    traffic = _Traffic(program)
    for index, instruction in enumerate(program.instructions):
        op = instruction.op
        if op is Op.F:
            traffic.forwards.setdefault(instruction[1:4], index)
        elif op is Op.FB:
            for member in instruction.members:
                if member.op is Op.F:
                    traffic.forwards.setdefault(member[1:4], index)
        elif op in {Op.SF, Op.SB, Op.RF, Op.RB}:
            traffic.messages.setdefault(instruction.queue, []).append(index)
        elif instruction.queue and op not in {Op.WS, Op.WR, Op.WC}:
            traffic.collectives.setdefault(instruction.queue, []).append(index)
    return traffic


def group_instances(plan: Plan, group: Group) -> Iterator[tuple[Actor, ...]]:
    """Members, by rank then class, of each instance of a group over pp or dp.

    Ranks that differ only in tp, cp, ep or replicas of one class act alike and stand as one actor.
    """
    classes = plan.replica_classes()
    ranks = group.pp or tuple(range(plan.mesh.pp))
    if "pp" in group.axes:
        if "dp" in group.axes:
            yield tuple((rank, cls) for rank in ranks for cls in classes)
        else:
            for cls in classes:
                yield tuple((rank, cls) for rank in ranks)
    elif "dp" in group.axes:
        for rank in range(plan.mesh.pp):
            yield tuple((rank, cls) for cls in classes)


def check_pairs(plan: Plan, fail: Fail) -> None:
    """Check ranks against each other.

    Parameters
    ----------
    plan
        A plan whose programs were each found valid.
    fail
        Makes the error: `PlanError` with the file's name bound.

    Raises
    ------
    PlanError
        With a `pair.*` code.
    """
    by_name = {program.name: _traffic(program) for program in plan.programs}
    traffic: dict[Actor, _Traffic] = {}
    own = {(line.pp, line.dp): line.program for line in plan.maps}
    for cls in plan.replica_classes():
        for rank in range(plan.mesh.pp):
            traffic[rank, cls] = by_name[own.get((rank, cls), own[rank, -1])]
    for cls in plan.replica_classes():
        _check_work(plan, cls, traffic, fail)
        _check_messages(plan, cls, traffic, fail)
    _check_bytes(plan, fail)
    used = {name for one in by_name.values() for name in one.collectives}
    elements = {(bucket.stage, bucket.index): bucket.elements for bucket in plan.buckets}
    for group in plan.groups:
        if group.name in used:
            for members in group_instances(plan, group):
                _check_group(group.name, members, traffic, elements, fail)


def _check_work(plan: Plan, cls: int, traffic: dict[Actor, _Traffic], fail: Fail) -> None:
    runs: dict[tuple[int, int, int], list[int]] = {}
    for rank in range(plan.mesh.pp):
        for key in traffic[rank, cls].forwards:
            runs.setdefault(key, []).append(rank)
    cuts = range(plan.train.slices) if plan.train.slices > 1 else (-1,)
    for stage, microbatch, cut in product(range(len(plan.stages)), range(plan.train.m), cuts):
        ranks = runs.get((stage, microbatch, cut), [])
        if len(ranks) == 1:
            continue
        item = f"{stage}.{microbatch}" + ("" if cut < 0 else f".{cut}")
        if not ranks:
            placed = plan.place[stage]
            one = traffic[placed[0], cls]
            end = len(one.program.instructions)
            raise fail(
                "pair.work",
                one.line(end),
                f"no rank runs item {item}",
                rank=placed[0],
                hint=f"stage {stage} is placed on rank {', '.join(map(str, placed))}",
            )
        two = traffic[ranks[1], cls]
        index = two.forwards[stage, microbatch, cut]
        raise fail(
            "pair.work",
            two.line(index),
            f"item {item} runs on rank {ranks[0]} too",
            rank=ranks[1],
            op=format_instruction(two.program.instructions[index]),
        )


def _check_messages(plan: Plan, cls: int, traffic: dict[Actor, _Traffic], fail: Fail) -> None:
    for channel in plan.channels:
        step = 1 if channel.cls == "F" else -1
        sender, receiver = traffic[channel.src, cls], traffic[channel.dst, cls]
        sends = sender.messages.get(channel.name, [])
        receives = receiver.messages.get(channel.name, [])
        for number, (send_at, receive_at) in enumerate(zip(sends, receives, strict=False)):
            send = sender.program.instructions[send_at]
            receive = receiver.program.instructions[receive_at]
            if (send.stage + step, send.microbatch, send.slice) != receive[1:4]:
                raise fail(
                    "pair.message",
                    receiver.line(receive_at),
                    f"message {number} of channel {channel.name} does not meet its send",
                    rank=channel.dst,
                    op=format_instruction(receive),
                    got=f"{format_instruction(send)} at line {sender.line(send_at)} of rank {channel.src}",
                    hint="both ends of a channel must post the same items in the same order",
                )
        if len(sends) == len(receives):
            continue
        more, rank, indices = (
            (sender, channel.src, sends) if len(sends) > len(receives) else (receiver, channel.dst, receives)
        )
        index = indices[min(len(sends), len(receives))]
        raise fail(
            "pair.message",
            more.line(index),
            f"the other end of channel {channel.name} has no partner for it",
            rank=rank,
            op=format_instruction(more.program.instructions[index]),
            got=f"{len(sends)} sends, {len(receives)} receives",
        )


def _check_bytes(plan: Plan, fail: Fail) -> None:
    slots = {pool.pp: pool.bytes for pool in plan.pools if pool.letter == "h"}
    for index, channel in enumerate(plan.channels):
        for rank in (channel.src, channel.dst):
            if channel.bytes > slots.get(rank, 0):
                raise fail(
                    "pair.bytes",
                    plan.line_of("chan", index),
                    f"a message of channel {channel.name} does not fit a slot of pool h of rank {rank}",
                    got=f"{channel.bytes} bytes",
                    expected=f"at most {slots.get(rank, 0)} bytes",
                )


def _check_group(
    name: str,
    members: tuple[Actor, ...],
    traffic: dict[Actor, _Traffic],
    elements: dict[tuple[int, int], int],
    fail: Fail,
) -> None:
    """Compare each later member with the first one, and with the first one of its own rank."""
    first = members[0]
    first_posts = traffic[first].posts_on(name)
    mates: dict[int, list[Instruction]] = {}
    for member in members:
        own = traffic[member]
        posts = own.posts_on(name)
        mate_posts = mates.setdefault(member[0], posts)
        if own is traffic[first]:
            continue
        for number, (mine, other) in enumerate(zip(posts, first_posts, strict=False)):
            beside = mate_posts[number] if number < len(mate_posts) else mine
            if _differs(mine, other, elements):
                beside = other
            elif _operands(mine) == _operands(beside):
                continue
            raise fail(
                "pair.group",
                own.line(own.collectives[name][number]),
                f"post {number} on group {name} differs between its members",
                rank=member[0],
                op=format_instruction(mine),
                got=format_instruction(beside),
                hint="all members must post the same collectives in the same order",
            )
        if len(posts) != len(first_posts):
            surplus = len(posts) > len(first_posts)
            index = own.collectives[name][len(first_posts)] if surplus else len(own.program.instructions)
            raise fail(
                "pair.group",
                own.line(index),
                f"members of group {name} post different numbers of collectives",
                rank=member[0],
                got=str(len(posts)),
                expected=f"{len(first_posts)}, as rank {first[0]}",
            )


def _differs(mine: Instruction, other: Instruction, elements: dict[tuple[int, int], int]) -> bool:
    """Whether two posts differ in kind or in the elements of their buckets."""
    own, theirs = ((post.stage, post.bucket) for post in (mine, other))
    return mine.op is not other.op or (mine.bucket >= 0 and elements[own] != elements[theirs])


def _operands(instruction: Instruction) -> tuple[object, ...]:
    return (*instruction[1:6], instruction.phase)
