"""Communication of a step by axis and network: bytes, time on the wire, what is hidden and what is not.

Exchanges inside layers are priced one by one beside their layer's kernels; gradients and parameters, and
messages between pipeline ranks, as the step prices them. What backward repeats of an exchange of forward
(recompute) is part of the compute `recompute` of a step, and named here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from exactmap.sim.cost.groups import pipeline_hop
from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.data_parallel import DataParallel
from exactmap.sim.step.predict import StepPrediction, message_bytes
from exactmap.sim.step.stages import StagePlan
from exactmap.sim.step.traffic import Traffic, step_traffic
from exactmap.sim.workload.layer_work import LayerWork

__all__ = ["AxisTime", "communication"]

_AXES = ("tp", "cp", "etp", "ep", "dp", "pp", "embedding")


@dataclass(frozen=True, slots=True)
class AxisTime:
    """What one axis exchanges in a step.

    Parameters
    ----------
    axis, tier
        Of ranks; the furthest network that they cross.
    ranks, per_domain
        Ranks of a group, and those of them that share a scale-up domain.
    fabric_tier
        Highest tier of the fabric that they meet at; 0 inside a domain.
    num_bytes, fabric_bytes
        Bytes that a GPU sends, and those of them that leave the domain.
    total_ns
        Time of its exchanges if nothing hid them; never less than what is exposed.
    exposed_ns
        What the step waits for.
    again_ns
        Exposed, of exchanges that backward repeats.
    """

    axis: str
    tier: str
    ranks: int
    per_domain: int
    fabric_tier: int
    num_bytes: float
    fabric_bytes: float
    total_ns: float
    exposed_ns: float
    again_ns: float = 0.0

    @property
    def hidden_ns(self) -> float:
        """What runs beside something else."""
        return max(0.0, self.total_ns - self.exposed_ns - self.again_ns)

    @property
    def bytes_per_s(self) -> float:
        """Rate at which a GPU sends while its exchanges run."""
        return self.num_bytes * 1e9 / self.total_ns if self.total_ns else 0.0


def communication(
    setup: TrainingSetup,
    plan: StagePlan,
    work: Iterable[tuple[LayerWork, float]],
    prediction: StepPrediction,
) -> tuple[AxisTime, ...]:
    """Exchanges of a step by axis, innermost first.

    Parameters
    ----------
    setup, plan
        What is trained, and its stages as `price_stages` lays them out.
    work
        Layers of the busiest rank (`exactmap.sim.step.rank_work`).
    prediction
        The step's: what is exposed.
    """
    clock = LayerClock(setup)
    total, again = _inside_layers(clock, work)
    total["dp"] = DataParallel(clock).wire_ns(plan)
    total["pp"] = _messages_ns(setup, plan, prediction.busiest)
    traffic: defaultdict[str, list[Traffic]] = defaultdict(list)
    for each in step_traffic(setup):
        traffic[each.axis.removeprefix("expert_")].append(each)
    exposed: defaultdict[str, float] = defaultdict(float)
    tiers: dict[str, str] = {}
    for name, time in prediction.parts_ns.items():
        axis, _, tier = name.partition(" ")
        if axis in _AXES and (tier or axis == "embedding"):
            exposed[axis] += time
            tiers[axis] = tier
    out = []
    for axis in _AXES:
        group = clock.groups[axis]
        if not (total[axis] or exposed[axis]):
            continue
        sent = traffic[axis]
        out.append(
            AxisTime(
                axis,
                tiers.get(axis) or group.tier.value,
                group.num_members,
                group.per_domain,
                group.fabric_tier if group.num_domains > 1 else 0,
                sum(each.num_bytes for each in sent),
                sum(each.fabric_bytes for each in sent),
                max(total[axis], exposed[axis] + again[axis]),
                exposed[axis],
                again[axis],
            )
        )
    return tuple(out)


def _inside_layers(
    clock: LayerClock, work: Iterable[tuple[LayerWork, float]]
) -> tuple[defaultdict[str, float], defaultdict[str, float]]:
    """Time of exchanges inside layers by axis, and what backward repeats of what is exposed."""
    total: defaultdict[str, float] = defaultdict(float)
    again: defaultdict[str, float] = defaultdict(float)
    for layer, count in work:
        alone = clock.price(layer._replace(exchanges=())).parts_ns.get("recompute", 0.0)
        for exchange in layer.exchanges:
            parts = clock.price(layer._replace(exchanges=(exchange,))).parts_ns
            waited = parts[f"{exchange.axis} {clock.exchanges.tier(exchange.axis)}"]
            waited += parts.get("overlap slowdown", 0.0)
            repeated = parts.get("recompute", 0.0) - alone
            share = repeated / waited if waited else 0.0
            total[exchange.axis] += count * (1.0 + share) * clock.exchanges.price(exchange, 0.0).total_ns
            again[exchange.axis] += count * repeated
    return total, again


def _messages_ns(setup: TrainingSetup, plan: StagePlan, rank: int) -> float:
    """Time of the messages that a rank sends: each chunk its output, and its input's gradient."""
    split = setup.split
    if split.pp == 1:
        return 0.0
    other = rank - 1 if rank else 1
    hop = pipeline_hop(setup.cluster, split, rank, other, message_bytes(setup))
    chunks = sum(share for _, share in plan.held[rank])
    return 2.0 * setup.batch.num_microbatches * chunks * hop.total_ns
