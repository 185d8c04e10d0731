"""What each parallel axis sends in a step, and over which network: traffic that a layout puts on the mesh.

Bytes are those that leave one GPU of the busiest pipeline rank, as the rings of a collective send them: of a
buffer S over n ranks an all-reduce sends 2 S (n-1)/n, a gather, a scatter or an all-to-all S (n-1)/n. Of a
group with several members in a domain, only the links of its ring that leave the domain cross the fabric, d
of n for d domains (an all-to-all: what goes to members elsewhere).
"""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.sim.cost.expert_exchange import expert_copies
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.predict import message_bytes
from exactmap.sim.step.stages import StagePlan, price_stages
from exactmap.sim.workload.layer_work import Exchange, head_work, layer_work
from exactmap.sim.workload.operators import Pass
from exactmap.topology.group_shape import GroupShape

__all__ = ["Traffic", "step_traffic"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an axis sends.

    Parameters
    ----------
    axis
        ``tp``, ``cp``, ``etp``, ``ep``, ``pp``, ``dp``, ``expert_dp``.
    ranks, per_domain
        Ranks of a group, and those of them that share a scale-up domain.
    tier, fabric_tier
        The furthest network that it crosses, and the tier of the fabric (0 inside a domain).
    num_bytes, fabric_bytes
        Bytes that a GPU sends in a step, and those of them that leave the domain.
    """

    axis: str
    ranks: int
    per_domain: int
    tier: str
    fabric_tier: int
    num_bytes: float
    fabric_bytes: float


def step_traffic(setup: TrainingSetup) -> tuple[Traffic, ...]:
    """Traffic of the axes that have more than one rank, innermost first."""
    clock = LayerClock(setup)
    plan = price_stages(clock)
    out = _layer_bytes(setup, clock.groups, plan)
    split, precision, groups = setup.split, setup.precision, clock.groups
    held = max(plan.held, key=lambda each: sum(stage.parameters for stage, _ in each))
    if split.pp > 1:
        # Every chunk sends its output on and its input's gradient back.
        sent = 2.0 * message_bytes(setup) * setup.batch.num_microbatches * sum(share for _, share in held)
        stride = split.num_ranks // split.pp
        outside = 1.0 if stride >= setup.cluster.used_per_domain else stride / setup.cluster.used_per_domain
        out["pp"] = (sent, sent * outside * (groups["pp"].num_domains > 1))
    gathers = setup.batch.num_microbatches * 2 if split.zero == 3 and split.pp == 1 else 1
    scatters = setup.batch.num_microbatches if split.zero == 3 and split.pp == 1 else 1
    for axis, elements in (
        ("dp", sum(stage.dense + stage.embedding for stage, _ in held)),
        ("expert_dp", sum(stage.expert for stage, _ in held)),
    ):
        if split.zero == 0:
            each = precision.reduce_bytes * 2
        else:
            each = precision.reduce_bytes * scatters + precision.gather_bytes * gathers
        out[axis] = _ring(groups[axis], elements * each)
    return tuple(
        Traffic(
            axis,
            groups[axis].num_members,
            groups[axis].per_domain,
            groups[axis].tier.value,
            groups[axis].fabric_tier if groups[axis].num_domains > 1 else 0,
            *out[axis],
        )
        for axis in ("tp", "cp", "etp", "ep", "dp", "expert_dp", "pp")
        if groups[axis].num_members > 1 and out.get(axis, (0.0, 0.0))[0] > 0
    )


def _ring(shape: GroupShape, num_bytes: float) -> tuple[float, float]:
    """Bytes that a member sends, and those that leave its domain, on average over the ring."""
    n, d = shape.num_members, shape.num_domains
    sent = num_bytes * (n - 1) / n
    return sent, sent * (d / n if d > 1 else 0.0)


def _exchange_bytes(exchange: Exchange, shape: GroupShape, dispatcher: str) -> tuple[float, float]:
    n = shape.num_members
    if exchange.collective == "experts":
        inside, outside = expert_copies(shape, exchange.copies, dispatcher, most_hosts=exchange.most_hosts)
        # A gather passes everything round one ring, through whichever network is next.
        sent = inside if dispatcher == "all_gather" else inside + outside
        return sent * exchange.num_bytes, outside * exchange.num_bytes
    if exchange.collective == "ring":
        sent = exchange.num_bytes * (n - 1)
        return sent, sent * (shape.num_domains / n if shape.num_domains > 1 else 0.0)
    if exchange.collective == "all_to_all":
        each = exchange.num_bytes / n
        return each * (n - 1), each * (n - shape.per_domain)
    return _ring(shape, exchange.num_bytes * (2 if exchange.collective == "all_reduce" else 1))


def _layer_bytes(
    setup: TrainingSetup, groups: dict[str, GroupShape], plan: StagePlan
) -> dict[str, tuple[float, float]]:
    """Exchanges inside the layers of the rank with most of them, over all microbatches."""
    model = setup.model
    args = (setup.split, setup.batch, setup.precision, setup.software)
    kinds = model.layer_kinds()
    most: dict[str, tuple[float, float]] = {}
    works = {kind: layer_work(model, kind, *args) for kind in set(kinds)}
    head = head_work(model, *args)
    recompute = setup.recompute
    for rank in range(setup.split.pp):
        total: dict[str, list[float]] = {}
        for layout, ranks in zip(plan.layouts, plan.ranks_of, strict=True):
            if rank not in ranks:
                continue
            layers = [works[kind] for kind in kinds[layout.first : layout.last]]
            for work in (*layers, *([head] if layout.head else [])):
                for exchange in work.exchanges:
                    sent = _exchange_bytes(exchange, groups[exchange.axis], setup.software.dispatcher)
                    again = (
                        exchange.step is Pass.F
                        and work is not head
                        and (recompute.kind == "full" or exchange.module in recompute.modules)
                    )
                    factor = (1.0 + recompute.share * again) / len(ranks)
                    sums = total.setdefault(exchange.axis, [0.0, 0.0])
                    sums[0] += factor * sent[0]
                    sums[1] += factor * sent[1]
        for axis, sums in total.items():
            if sums[0] > most.get(axis, (0.0, 0.0))[0]:
                most[axis] = (sums[0], sums[1])
    m = setup.batch.num_microbatches
    return {axis: (m * sent, m * outside) for axis, (sent, outside) in most.items()}
