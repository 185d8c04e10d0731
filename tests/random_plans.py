"""Random plans and durations: no training steps, but queues of every kind, some in orders that deadlock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import ChannelDurations, Durations, resolve, split_inner
from exactmap.sim.engine.encoded import WAIT_KINDS
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.plan import (
    Bucket,
    Channel,
    Group,
    MapLine,
    MeshDims,
    Plan,
    PlanModel,
    PlanStage,
    PlanTrain,
    Precision,
    Program,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP_AXES = [("dp",), ("pp",), ("tp",), ("dp", "pp"), ("tp", "dp")]
BUCKET_OPS = [Op.AR, Op.RS, Op.AG]
PASS_OPS = [Op.A2A_D, Op.A2A_C, Op.KV]
PASS_WORKS = [Op.F, Op.I, Op.W, Op.B, Op.RC]
BUCKET_WORKS = [Op.ZERO, Op.OPT, Op.PV, Op.UNDO]
NOTES = [Op.LF, Op.LB, Op.FREE, Op.MARK]
NO_POSTS = {*PASS_WORKS, *BUCKET_WORKS, *NOTES, Op.FB}
WAIT_OF = {
    Op.SF: Op.WS, Op.SB: Op.WS, Op.RF: Op.WR, Op.RB: Op.WR, Op.OFF: Op.WOFF, Op.LD: Op.WLD
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Something that happens on one or more ranks: what each of them posts or does."""

    parts: tuple[tuple[int, Instruction], ...]


def random_plan(rng: Random, *, overrides: bool = True) -> Plan:
    pp, m, dp = rng.randint(1, 4), rng.randint(1, 5), rng.randint(1, 3)
    mesh = MeshDims(rng.choice([1, 1, 2]), 1, 1, pp, dp)
    channels = []
    for number in range(rng.randint(0, 4) if pp > 1 else 0):
        src, dst = rng.sample(range(pp), 2)
        if channels and rng.random() < 0.5:  # answers tell a sender that its message has arrived
            src, dst = channels[-1].dst, channels[-1].src
        channels.append(Channel(f"c{number}", src, dst, rng.choice("FB"), rng.randint(0, 3), 64))
    groups = []
    for number in range(rng.randint(0, 3)):
        axes = rng.choice(GROUP_AXES)
        ranks = tuple(sorted(rng.sample(range(pp), rng.randint(1, pp)))) if "pp" in axes else ()
        scan = rng.choice(["", "up", "down"]) if axes == ("pp",) else ""
        groups.append(Group(f"g{number}", axes, ranks, scan))
    tasks = random_tasks(rng, pp, m, channels, groups)
    rng.shuffle(tasks)
    programs = [random_program(rng, f"P{rank}", rank, tasks) for rank in range(pp)]
    maps = [MapLine(rank, -1, f"P{rank}") for rank in range(pp)]
    if dp > 1 and rng.random() < 0.5 and overrides:
        rank, replica = rng.randrange(pp), rng.randrange(dp)
        programs.append(random_program(rng, "Pown", rank, tasks))
        maps.append(MapLine(rank, replica, "Pown"))
    couple = tuple((kind, ("tp",)) for kind in ("F", "I", "B") if rng.random() < 0.5)
    return Plan(
        PlanModel("gpt", pp, 8, 1, 1, 8, 8, 8, 8, tied=False, eps=1e-5, theta=1e4),
        PlanTrain(1, m, 8, 1, "adamw", 1e-3, 0.0, 0, 1, 0.9, 0.9, 1e-8, 0.0, 0.0, 1),
        Precision(),
        mesh,
        tuple(PlanStage(rank, rank, rank == 0, rank == pp - 1) for rank in range(pp)),
        tuple((rank,) for rank in range(pp)),
        rng.choice(["barrier", "free"]),
        serial=False,
        limit=1000,
        channels=tuple(channels),
        groups=tuple(groups),
        buckets=tuple(Bucket(rank, index, ("layers",), 64) for rank in range(pp) for index in range(2)),
        arenas=(),
        regions=(),
        pools=(),
        maps=tuple(maps),
        programs=tuple(programs),
        couple=couple,
    )


def random_tasks(rng: Random, pp: int, m: int, channels: list[Channel], groups: list[Group]) -> list[Task]:
    tasks: list[Task] = []
    for channel in channels:
        send, receive = (Op.SF, Op.RF) if channel.cls == "F" else (Op.SB, Op.RB)
        for microbatch in range(rng.randint(0, m)):
            ends = (
                (channel.src, Instruction(send, channel.src, microbatch, queue=channel.name)),
                (channel.dst, Instruction(receive, channel.dst, microbatch, queue=channel.name)),
            )
            tasks.append(Task(ends))
    for group in groups:
        if "pp" in group.axes:
            for _ in range(rng.randint(0, 3)):
                make = random_operation(rng, group)
                tasks.append(Task(tuple((rank, make(rank)) for rank in group.pp)))
        else:
            for rank in range(pp):
                tasks += [alone(rank, random_operation(rng, group)(rank)) for _ in range(rng.randint(0, 3))]
    for rank in range(pp):
        cut = rng.choice([-1, -1, 0, 1])
        tasks += [alone(rank, Instruction(rng.choice(PASS_WORKS), rank, item, cut)) for item in range(m)]
        for _ in range(rng.choice([0, 0, 1, 3])):
            members = [
                Instruction(rng.choice(PASS_WORKS), rank, item, cut) for item in range(rng.randint(1, 3))
            ]
            tasks.append(alone(rank, Instruction(Op.FB, members=tuple(members))))
        if rng.random() < 0.3:
            tasks.append(alone(rank, Instruction(Op.MARK, name="here")))
            tasks.append(alone(rank, Instruction(rng.choice(NOTES[:2]), rank, 0, cut)))
            tasks.append(alone(rank, Instruction(Op.FREE, rank, bucket=0)))
        copies = range(rng.choice([0, 0, 3]))
        tasks += [alone(rank, Instruction(rng.choice([Op.OFF, Op.LD]), rank, item)) for item in copies]
        tasks += [alone(rank, Instruction(op, rank, bucket=0)) for op in BUCKET_WORKS]
    return tasks


def alone(rank: int, part: Instruction) -> Task:
    return Task(((rank, part),))


def random_operation(rng: Random, group: Group) -> Callable[[int], Instruction]:
    kind, bucket, microbatch = (
        rng.choice(["bucket", "bucket", "pass", "norm"]),
        rng.randrange(2),
        rng.randrange(3),
    )
    if kind == "bucket":
        op = rng.choice(BUCKET_OPS)
        return lambda rank: Instruction(op, rank, bucket=bucket, queue=group.name)
    if kind == "pass":
        op = rng.choice(PASS_OPS)
        return lambda rank: Instruction(op, rank, microbatch, queue=group.name, phase="F")
    op = rng.choice([Op.NORM, Op.CHK])
    return lambda _: Instruction(op, queue=group.name)


def random_program(rng: Random, name: str, rank: int, tasks: list[Task]) -> Program:
    """The rank's share of the tasks, in their order or near it, each post waited for at some later place."""
    todo = [part for task in tasks for owner, part in task.parts if owner == rank]
    if rng.random() < 0.4:
        for _ in range(rng.randint(1, 8)):
            one, other = rng.randrange(len(todo)), rng.randrange(len(todo))
            todo[one], todo[other] = todo[other], todo[one]
    haste = rng.choice([0.1, 0.4, 0.8])
    out: list[Instruction] = []
    pending: list[Instruction] = []
    for part in todo:
        out.append(part)
        if is_post(part):
            pending.append(part)
        while pending and rng.random() < haste:
            out.append(wait_for(rng, pending))
    while pending:
        out.append(wait_for(rng, pending))
    return Program(name, (*out, Instruction(Op.END)))


def is_post(part: Instruction) -> bool:
    return part.op not in NO_POSTS


def wait_for(rng: Random, pending: list[Instruction]) -> Instruction:
    """Wait for a post that is the oldest of its queue and of its bucket."""
    ready, seen = [], set()
    for post in pending:
        keys = {("copy",)} if post.op in {Op.OFF, Op.LD} else {(post.queue, post.op in {Op.SF, Op.SB})}
        if post.bucket >= 0:
            keys.add((post.stage, post.bucket))
        if not keys & seen:
            ready.append(post)
        seen |= keys
    post = rng.choice(ready)
    pending.remove(post)
    return post._replace(op=WAIT_OF.get(post.op, Op.WC))


def random_durations(rng: Random, plan: Plan) -> Durations:
    durations = unit_durations(rng, plan)
    if plan.mesh.tp > 1:
        durations = split_inner(durations, plan, ("tp",))
    return redrawn(rng, durations)


def one_lane_durations(rng: Random, plan: Plan) -> Durations:
    return redrawn(rng, unit_durations(rng, plan))


def unit_durations(rng: Random, plan: Plan) -> Durations:
    ranks = range(plan.mesh.pp)
    profile = Profile(
        rng.choice(list(Mover)),
        work_ns={(op, rank): 1 for op in "FIW" for rank in ranks},
        bucket_ns={("OPT", rank, bucket): 1 for rank in ranks for bucket in range(2)},
        channel={channel.name: ChannelNs(1, 1, 1) for channel in plan.channels},
        group_ns={(group.name, op, None, None): 1 for group in plan.groups for op in Op},
        copy_ns={(op, rank): 1 for op in ("OFF", "LD") for rank in ranks},
    )
    return resolve(plan, profile)


def redrawn(rng: Random, durations: Durations) -> Durations:
    """Other durations for the same plan; what took no time takes none, but posts may."""
    draws = np.random.default_rng(rng.randrange(2**32))
    scale = rng.choice([3, 20, 10**6])
    host = rng.choice([0, 0, scale // 3])

    def drawn(values: np.ndarray) -> np.ndarray:
        return np.where(values > 0, draws.integers(0, scale, len(values), endpoint=True), 0)

    posts_cost = rng.random() < 0.3
    actors = {
        key: replace(
            actor,
            comp_ns=drawn(
                actor.comp_ns + ((actor.program.queue >= 0) & posts_cost & ~WAIT_KINDS[actor.program.kind])
            ),
            op_ns=drawn(actor.op_ns),
            issue_ns=draws.integers(0, host + 1, len(actor.issue_ns)),
        )
        for key, actor in durations.actors.items()
    }
    channels = {
        key: ChannelDurations(drawn(channel.wire_ns), drawn(channel.lat_ns), drawn(channel.copy_ns))
        for key, channel in durations.channels.items()
    }
    return replace(durations, actors=actors, channels=channels)
