"""Random plans of every schedule, whole and lowered, and random profiles for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.schedules.registry import SCHEDULES
from exactmap.sim.workload.model import ModelConfig, ModelKind

if TYPE_CHECKING:
    from random import Random

    from exactmap.sim.plan.plan import Plan

PASSES = ("F", "I", "W", "B", "RC")


def random_lowered(rng: Random, name: str) -> Plan:
    """A plan of that schedule, of any size and with any of the lowering's options."""
    schedule = SCHEDULES[name]
    pp = (
        rng.choice([2, 4])
        if schedule.two_ranks
        else rng.randint(3, 5)
        if schedule.limits
        else rng.randint(1, 4)
    )
    chunks = schedule.fixed_chunks or (rng.choice([2, 4]) if schedule.many_chunks else 1)
    m = (
        2 * rng.randint(pp, pp + 3)
        if schedule.braids or schedule.two_ranks
        else rng.randint(1, 3 * pp) + 4 * schedule.limits
    )
    slices = rng.randint(1, 4) if schedule.slices else 1
    dp = rng.randint(1, 3)
    late = dp == 1 and not schedule.two_ranks and rng.random() < 0.3
    layers = pp * chunks + rng.randint(0, 2)
    model = ModelConfig(
        rng.choice(list(ModelKind)),
        layers=layers,
        hidden=16,
        heads=2,
        kv_heads=2,
        head_dim=8,
        ffn=24,
        vocab=33,
        positions=16,
        tied=not schedule.two_ranks and rng.random() < 0.3,
    )
    return build_plan(
        model,
        schedule=name,
        pp=pp,
        chunks=chunks,
        num_microbatches=m,
        seq=12,
        dp=dp,
        slices=slices,
        stash_limit=rng.choice([0, 3]) if schedule.limits else 0,
        shard_params=dp > 1 and rng.random() < 0.3,
        split_buckets=rng.random() < 0.3,
        clock="free" if late else "barrier",
        late_norm=late,
        depth=rng.choice([0, 0, 1, 2]),
        look_ahead=rng.randint(0, 3),
    )


def random_profile(rng: Random, plan: Plan) -> Profile:
    """Any durations; half of the braids take less than the sum of their members."""
    scale = rng.choice([1, 5, 10**6])
    stages = range(len(plan.stages))

    def some_ns() -> int:
        return rng.randint(0, scale)

    braids = {
        tuple((member.op.value, member.stage) for member in each.members)
        for program in plan.programs
        if (program.table.op == CODES[Op.FB]).any()
        for each in program.instructions
        if each.op is Op.FB
    }
    return Profile(
        rng.choice(list(Mover)),
        work_ns={(op, stage): some_ns() for op in PASSES for stage in stages},
        bucket_ns={
            (op, bucket.stage, bucket.index): some_ns()
            for bucket in plan.buckets
            for op in ("OPT", "ZERO", "PV", "UNDO")
        },
        channel={each.name: ChannelNs(some_ns(), some_ns(), some_ns()) for each in plan.channels},
        group_ns={(group.name, op.value, None, None): some_ns() for group in plan.groups for op in Op},
        copy_ns={(op, stage): some_ns() for op in ("OFF", "LD") for stage in stages},
        post_ns={op: some_ns() // 4 for op in ("SF", "RB", "AR")},
        braid_ns={members: some_ns() for members in sorted(braids) if rng.random() < 0.5},
        issue_ns=rng.choice([0, 0, scale // 4]),
    )
