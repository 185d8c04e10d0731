"""Time of a plan on a measured host, from its hardware profile.

A stage takes its layers times one layer's pass, the embedding's and the head's, and the interpreter's cost
of one instruction. Ranks are threads that copy inside their waits (mover inline): a transfer is the copy of
its bytes, and what it takes until the receiver goes on is its latency. A receiver that waits for less than
some ten microseconds is still watching; one that waits longer sleeps, and to wake it costs the sender a call
of the system and the receiver its way back to a core. On the path that decides the step that happens while
the pipeline fills: later messages lie ready before the slower rank asks for them, and what a faster rank
loses by its sleep it had to spare. So of a step's messages of a channel one counts as met asleep. The norm
starts when all ranks are there; each sums the squares of its own gradients, and the slowest makes the others
wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import exp, log, prod

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.host import HostProfile, PassSample
from exactmap.sim.cost.plan_header import model_of
from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.plan.plan import Channel, Plan
from exactmap.sim.workload.model import ModelConfig, ModelKind, StageLike
from exactmap.sim.workload.operators import (
    Pass,
    embedding_operators,
    head_operators,
    layer_operators,
    total_flop,
)

__all__ = [
    "all_reduce_on_host_ns",
    "along",
    "hop_time_on_host_ns",
    "norm_on_host_ns",
    "price_on_host",
    "stage_time_on_host_ns",
    "update_on_host_ns",
]

_STEPS = ("F", "I", "W", "B")


def along(points: Iterable[tuple[int, int]], x: int) -> float:
    """Value at x of a curve through points: logarithmic axes between points, in proportion beyond them.

    Examples
    --------
    >>> along([(100, 1000), (400, 4000)], 200), along([(100, 1000)], 50)
    (2000.0, 500.0)
    """
    known = sorted((key, max(value, 1)) for key, value in points)
    if x <= known[0][0]:
        return known[0][1] * x / known[0][0]
    for (left, low), (right, high) in pairwise(known):
        if x <= right:
            share = log(x / left) / log(right / left)
            return round(exp((1.0 - share) * log(low) + share * log(high)), 9)
    return known[-1][1] * x / known[-1][0]


def stage_time_on_host_ns(
    model: ModelConfig, stage: StageLike, step: str, microbatch: int, seq: int, host: HostProfile
) -> int:
    """Time of one pass (``F I W B``) of a stage on one rank of the host, in ns."""
    total = float(host.instruction_ns)
    if stage.num_layers:
        total += stage.num_layers * _part_ns(model, "layer", step, microbatch, seq, host)
    if stage.embedding:
        total += _part_ns(model, "embedding", step, microbatch, seq, host)
    if stage.head:
        total += _part_ns(model, "head", step, microbatch, seq, host)
    return round(total)


def hop_time_on_host_ns(num_bytes: int, host: HostProfile) -> int:
    """Time of one message to a rank that is awake, in ns."""
    copies = [(entry.bytes, entry.ns) for entry in host.copies]
    return host.awake.post_ns + host.awake.wake_ns + round(along(copies, num_bytes))


def _part_ns(model: ModelConfig, part: str, step: str, microbatch: int, seq: int, host: HostProfile) -> float:
    entries = [entry for entry in host.passes if (entry.part, entry.step) == (part, step)]
    entries = [entry for entry in entries if entry.kind == model.kind.value]
    if not entries:
        if step == "B":
            return _part_ns(model, part, "I", microbatch, seq, host) + _part_ns(
                model, part, "W", microbatch, seq, host
            )
        if part == "embedding" and step == "I":
            return 0.0
        raise InvalidInputError(
            f"the hardware profile has no {part} {step} of a {model.kind} model",
            hint="run exactmap calibrate on this host",
        )
    same = [entry for entry in entries if _dimensions(entry, part) == _dimensions(model, part)]
    alike = [entry for entry in same if entry.seq == seq] or ([] if part == "layer" else same)
    if alike:
        return along(_one_each([(entry.tokens, entry.ns) for entry in alike]), microbatch * seq)
    # The same work at the rate of passes of about that size.
    flop = _work(model, part, step, microbatch, seq)
    rates = sorted((_work_of_entry(entry), entry.ns) for entry in entries)
    return along(_one_each(rates), flop)


def _one_each(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Mean over equal keys, so that a curve has one value for each."""
    groups: dict[int, list[int]] = {}
    for key, value in points:
        groups.setdefault(key, []).append(value)
    return [(key, round(sum(values) / len(values))) for key, values in groups.items()]


def _dimensions(shape: ModelConfig | PassSample, part: str) -> tuple[int, ...]:
    """What a part's time depends on."""
    if part == "embedding":
        return (shape.hidden,)
    if part == "head":
        return (shape.hidden, shape.vocab)
    return (shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.ffn)


def _work(model: ModelConfig, part: str, step: str, microbatch: int, seq: int) -> int:
    """FLOPs of a part's pass, or bytes where it has none."""
    build = {"layer": layer_operators, "embedding": embedding_operators, "head": head_operators}[part]
    widths = {"act_bytes": 4, "weight_bytes": 4, "grad_bytes": 4}
    steps = (Pass.I, Pass.W) if step == "B" else (Pass(step),)
    operators = tuple(op for one in steps for op in build(model, one, microbatch, seq, **widths))
    moved = sum(operator.read_bytes + operator.write_bytes for operator in operators)
    return max(1, total_flop(operators) or moved)


def _work_of_entry(entry: PassSample) -> int:
    model = ModelConfig(
        kind=ModelKind(entry.kind),
        layers=1,
        hidden=entry.hidden,
        heads=entry.heads,
        kv_heads=entry.kv_heads,
        head_dim=entry.head_dim,
        ffn=entry.ffn,
        vocab=entry.vocab,
        positions=entry.seq,
        tied=False,
    )
    return _work(model, entry.part, entry.step, entry.microbatch, entry.seq)


def price_on_host(plan: Plan, host: HostProfile) -> Profile:
    """Durations of a plan's instructions on a measured host.

    Raises
    ------
    InvalidInputError
        If the plan needs what the profile does not have.
    """
    if plan.mesh.tp * plan.mesh.cp * plan.mesh.ep > 1:
        raise InvalidInputError(
            "a hardware profile of a host knows pipeline and data parallelism",
            got=f"tp={plan.mesh.tp} cp={plan.mesh.cp} ep={plan.mesh.ep}",
            expected="1 each",
        )
    model = model_of(plan.model)
    work_ns = {
        (step, number): _slice_ns(
            stage_time_on_host_ns(model, stage, step, plan.train.microbatch, plan.train.seq, host), plan, host
        )
        for number, stage in enumerate(plan.stages)
        for step in _STEPS
    }
    bucket_ns = {
        ("OPT", bucket.stage, bucket.index): update_on_host_ns(
            bucket.elements // (plan.mesh.dp if bucket.shard else 1), host
        )
        for bucket in plan.buckets
    }
    copies = [(entry.bytes, entry.ns) for entry in host.copies]
    channel = {
        chan.name: ChannelNs(
            wire_ns=round(along(copies, chan.bytes)),
            lat_ns=_expected(host.awake.wake_ns, host.asleep.wake_ns, _num_messages(plan, chan)),
        )
        for chan in plan.channels
    }
    fewest = min((_num_messages(plan, chan) for chan in plan.channels), default=1)
    post_ns = _expected(host.awake.post_ns, host.asleep.post_ns, fewest)
    return Profile(
        mover=Mover.INLINE,
        work_ns=work_ns,
        bucket_ns=bucket_ns,
        channel=channel,
        group_ns=_groups(plan, host),
        copy_ns=_copies(plan, host),
        post_ns={"SF": post_ns, "SB": post_ns},
    )


def _slice_ns(whole_ns: int, plan: Plan, host: HostProfile) -> int:
    """A slice's share of a pass: later slices attend to more keys, so this is the mean over a sequence."""
    if plan.train.slices == 1:
        return whole_ns
    return host.instruction_ns + round((whole_ns - host.instruction_ns) / plan.train.slices)


def _copies(plan: Plan, host: HostProfile) -> dict[tuple[str, int], int]:
    """What a stash takes to the host and back: both lie in the same memory here."""
    stashes = {pool.pp: pool.bytes for pool in plan.pools if pool.letter == "o"}
    points = [(entry.bytes, entry.ns) for entry in host.copies]
    return {
        (op, stage): round(along(points, max(stashes[rank] for rank in ranks if rank in stashes)))
        for op in ("OFF", "LD")
        for stage, ranks in enumerate(plan.place)
        if any(rank in stashes for rank in ranks)
    }


def _expected(awake_ns: int, asleep_ns: int, num_messages: int) -> int:
    """Mean over a step's messages of a channel: the pipeline's filling finds the receiver asleep once."""
    return awake_ns + round((asleep_ns - awake_ns) / num_messages)


def _num_messages(plan: Plan, chan: Channel) -> int:
    """Messages of a channel in one step: an item for each two neighbouring stages that it joins.

    Stages on two ranks share their items evenly.
    """
    ends = (chan.src, chan.dst) if chan.cls == "F" else (chan.dst, chan.src)
    joined = sum(
        1 / len(here) for here, there in pairwise(plan.place) if ends[0] in here and ends[1] in there
    )
    return max(1, round(plan.train.m * plan.train.slices * (joined or 1)))


def _groups(plan: Plan, host: HostProfile) -> dict[tuple[str, str, int | None, int | None], int]:
    sizes = {"dp": plan.mesh.dp, "pp": plan.mesh.pp, "tp": 1, "cp": 1, "ep": 1}
    members: dict[str, int] = {}
    for group in plan.groups:
        pipeline = len(group.pp) if group.pp else sizes["pp"]
        others = prod(sizes[axis] for axis in group.axes if axis != "pp")
        members[group.name] = others * (pipeline if "pp" in group.axes else 1)
    group_ns: dict[tuple[str, str, int | None, int | None], int] = {}
    for name, num_ranks in members.items():
        group_ns[name, "NORM", None, None] = norm_on_host_ns(_most_elements(plan), num_ranks, host)
        group_ns[name, "CHK", None, None] = _meeting_ns(num_ranks, host)
    for bucket in plan.buckets:
        for name in bucket.reduce:
            num_bytes = bucket.elements * 4
            summed_ns = all_reduce_on_host_ns(host, members[name], num_bytes)
            group_ns[name, "AR", bucket.stage, bucket.index] = summed_ns
            # A sum to all is a sum to shares, then a gathering of them: each half of it.
            group_ns[name, "RS", bucket.stage, bucket.index] = summed_ns // 2
        if bucket.shard:
            gathered_ns = all_reduce_on_host_ns(host, members[bucket.shard], bucket.elements * 4) // 2
            group_ns[bucket.shard, "AG", bucket.stage, bucket.index] = gathered_ns
    return group_ns


def update_on_host_ns(elements: int, host: HostProfile) -> int:
    """Optimizer on so many elements of a bucket, in ns."""
    updates = [(entry.elements, entry.ns) for entry in host.optimizer]
    return host.instruction_ns + round(along(updates, elements))


def norm_on_host_ns(elements: int, num_ranks: int, host: HostProfile) -> int:
    """Squares of a rank's gradients summed, then all ranks meeting, in ns."""
    squares_ns = 0
    if host.norm:
        squares_ns = round(along([(entry.elements, entry.ns) for entry in host.norm], elements))
    return _meeting_ns(num_ranks, host) + squares_ns


def _meeting_ns(num_ranks: int, host: HostProfile) -> int:
    return host.asleep.post_ns + host.asleep.wake_ns if num_ranks > 1 else 0


def _most_elements(plan: Plan) -> int:
    """Elements of the rank that has most of them."""
    elements = [0] * plan.mesh.pp
    for bucket in plan.buckets:
        for rank in plan.place[bucket.stage]:
            elements[rank] += bucket.elements
    return max(elements)


def all_reduce_on_host_ns(host: HostProfile, num_ranks: int, num_bytes: int) -> int:
    """A sum over replicas, in ns; one rank has nothing to sum."""
    if num_ranks == 1:
        return 0
    known = sorted({entry.ranks for entry in host.all_reduce})
    if not known:
        raise InvalidInputError(
            "the hardware profile has no sum over replicas", hint="run exactmap calibrate on this host"
        )
    nearest = min(known, key=lambda ranks: abs(ranks - num_ranks))
    points = [(entry.bytes, entry.ns) for entry in host.all_reduce if entry.ranks == nearest]
    # Each further member's buffer is read once more.
    return round(along(points, num_bytes) * num_ranks / nearest)
