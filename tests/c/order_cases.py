"""Small hand-made orders, one for each thing that a plan can hold, and how to lower and price them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import Durations, resolve
from exactmap.sim.plan.instruction import Op
from exactmap.sim.plan.plan import MeshDims, Plan, PlanTrain, Precision
from exactmap.sim.schedules.build import plan_model
from exactmap.sim.schedules.lowering import lower
from exactmap.sim.schedules.order import Order, Work
from exactmap.sim.schedules.partition import stages_of
from exactmap.sim.schedules.sizes import size_stage
from exactmap.sim.schedules.timeline import WorkTimes
from exactmap.sim.workload.model import ModelConfig, ModelKind

__all__ = ["CASES", "OrderCase", "free_of_charge", "lowered", "tiny_model", "works"]

SEQ = 12
"""Tokens of a sequence: one to four slices divide it."""


@dataclass(frozen=True)
class OrderCase:
    """An order, the replicas it is lowered for, and options of `lower`."""

    order: Order
    dp: int = 1
    options: Mapping[str, bool | str] = field(default_factory=dict)
    tied: bool = False


def works(text: str) -> list[Work]:
    """Works from words like ``F0.1``, ``B2.0.1`` (a slice), ``F0.1|B1.0`` (a braid).

    >>> works("F0.1")
    [Work(op=<Op.F: 'F'>, stage=0, microbatch=1, slice=0, braid=-1)]
    """
    out: list[Work] = []
    for number, word in enumerate(text.split()):
        members = word.split("|")
        for member in members:
            op = member.rstrip("0123456789.")
            stage, microbatch, *cut = map(int, member.removeprefix(op).split("."))
            braid = number if len(members) > 1 else -1
            out.append(Work(Op(op), stage, microbatch, cut[0] if cut else 0, braid))
    return out


def tiny_model(layers: int, *, tied: bool = False) -> ModelConfig:
    """A model with one layer of 16 numbers per stage."""
    return ModelConfig(
        ModelKind.GPT,
        layers=layers,
        hidden=16,
        heads=2,
        kv_heads=2,
        head_dim=8,
        ffn=24,
        vocab=33,
        positions=SEQ,
        tied=tied,
    )


def lowered(case: OrderCase, times: WorkTimes | None = None, *, look_ahead: int = 1, depth: int = 0) -> Plan:
    """The plan of a case."""
    order = case.order
    model = tiny_model(order.num_stages, tied=case.tied)
    stages = stages_of((1,) * order.num_stages)
    sizes = [size_stage(model, stage, 1, SEQ, Precision(), slices=order.num_slices) for stage in stages]
    train = PlanTrain(
        1,
        order.num_microbatches,
        SEQ,
        order.num_slices,
        "adamw",
        1e-3,
        0.0,
        0,
        9,
        0.9,
        0.95,
        1e-8,
        0.1,
        1.0,
        0,
    )
    return lower(
        order,
        model=plan_model(model),
        train=train,
        mesh=MeshDims(1, 1, 1, order.num_ranks, case.dp),
        stages=stages,
        sizes=sizes,
        times=times,
        look_ahead=look_ahead,
        depth=depth,
        **case.options,  # type: ignore[arg-type]
    )


def free_of_charge(plan: Plan, order: Order, times: WorkTimes, mover: Mover) -> Durations:
    """Durations where only passes, hops and copies take time, as in the walk of the order."""

    def table(*ops: Op) -> dict[tuple[str, int], int]:
        return {
            (op.value, stage): ns
            for op in ops
            for stage, ns in enumerate(times.table(op, order.num_stages, order.num_slices))
        }

    groups = ("AR", "RS", "AG", "NORM", "CHK")
    profile = Profile(
        mover,
        work_ns=table(Op.F, Op.I, Op.W, Op.B, Op.RC),
        bucket_ns={("OPT", bucket.stage, bucket.index): 0 for bucket in plan.buckets},
        channel={channel.name: ChannelNs(0, times.hop_ns) for channel in plan.channels},
        group_ns={(group.name, op, None, None): 0 for group in plan.groups for op in groups},
        copy_ns=table(Op.OFF, Op.LD),
    )
    return resolve(plan, profile)


_ONE_F_ONE_B = (works("F0.0 F0.1 B0.0 B0.1"), works("F1.0 B1.0 F1.1 B1.1"))
_TWIN = (
    works("F0.0 F1.1 B1.1 B0.0"),
    works("F0.1 F1.0 B1.0 B0.1"),
)

CASES: dict[str, OrderCase] = {
    "one-f-one-b": OrderCase(Order(2, ((0,), (1,)), _ONE_F_ONE_B)),
    "stages-hand-over": OrderCase(
        Order(2, ((0,), (1,), (1,), (0,)), (
            works("F0.0 F0.1 F3.0 B3.0 F3.1 B3.1 I0.0 W0.0 B0.1"),
            works("F1.0 F2.0 F1.1 F2.1 I2.0 I1.0 W2.0 W1.0 B2.1 B1.1"),
        ))
    ),
    "stages-on-two-ranks": OrderCase(Order(2, ((0, 1), (0, 1)), _TWIN), dp=2),
    "tied-stages-on-two-ranks": OrderCase(Order(2, ((0, 1), (0, 1)), _TWIN), tied=True),
    "tied-twins-apart": OrderCase(
        Order(2, ((0, 1), (2, 3)), (
            works("F0.0 B0.0"), works("F0.1 B0.1"), works("F1.1 B1.1"), works("F1.0 B1.0"),
        )),
        dp=2,
        tied=True,
    ),
    "a-tie-beside-twins": OrderCase(
        # One braid is the last to add to the embedding and to the stage on both ranks.
        Order(2, ((0,), (0, 1), (1,)), (
            works("F0.0 F1.0 F0.1 I1.0 B0.0 B0.1|W1.0"),
            works("F2.0 F1.1 F2.1 B2.0 B2.1 B1.1"),
        )),
        tied=True,
    ),
    "a-twin-without-work": OrderCase(
        Order(1, ((0, 1), (1,)), (works(""), works("F0.0 F1.0 B1.0 B0.0"))), dp=2
    ),
    "slices": OrderCase(
        Order(2, ((0,), (1,)), (
            works("F0.0.0 F0.0.1 F0.1.0 F0.1.1 B0.0.1 B0.0.0 I0.1.1 I0.1.0 W0.1.0 W0.1.1"),
            works("F1.0.0 F1.0.1 B1.0.1 F1.1.0 B1.0.0 F1.1.1 B1.1.1 B1.1.0"),
        ), num_slices=2)
    ),
    "recomputation": OrderCase(
        Order(2, ((0,), (1,)), (
            works("F0.0 F0.1 RC0.0 B0.0 RC0.1 I0.1 W0.1"),
            works("F1.0 RC1.0 B1.0 F1.1 B1.1"),
        ))
    ),
    "offload": OrderCase(
        Order(3, ((0,), (1,)), (
            works("F0.0 OFF0.0 F0.1 OFF0.1 F0.2 LD0.0 B0.0 LD0.1 B0.1 B0.2"),
            works("F1.0 B1.0 F1.1 B1.1 F1.2 B1.2"),
        ))
    ),
    "copies-that-cross": OrderCase(
        # The copy of 0.2 is posted before that of 0.0 is back, and its slot is wanted first.
        Order(4, ((0,),), (
            works("F0.0 OFF0.0 F0.1 LD0.0 F0.2 OFF0.2 B0.1 F0.3 B0.0 B0.3 LD0.2 B0.2"),
        ))
    ),
    "a-return-that-hurries-a-copy": OrderCase(
        # 0.1 leaves before 0.0 comes back, and so before the braid that needs 0.0.
        Order(3, ((0,),), (works("F0.0 OFF0.0 F0.1 OFF0.1 LD0.0 F0.2|B0.0 B0.2 LD0.1 B0.1"),))
    ),
    "recomputed-and-offloaded": OrderCase(
        Order(2, ((0,),), (works("F0.0 F0.1 RC0.0 OFF0.0 B0.1 LD0.0 I0.0 W0.0"),))
    ),
    "braids": OrderCase(
        Order(3, ((0,), (1,)), (
            works("F0.0 F0.1 F0.2|B0.0 B0.1 B0.2"),
            works("F1.0 F1.1|B1.0 F1.2|I1.1 B1.2|W1.1"),
        ))
    ),
    "braids-that-hand-over": OrderCase(
        Order(2, ((0,), (0,)), (works("F0.0 F0.1|F1.0 B1.0|F1.1 B1.1|B0.0 B0.1"),))
    ),
    "shards": OrderCase(
        Order(2, ((0,), (1,)), _ONE_F_ONE_B), dp=4, options={"shard_params": True}
    ),
    "shards-of-many-buckets": OrderCase(
        Order(2, ((0, 1), (0, 1)), _TWIN),
        dp=2,
        options={"shard_params": True, "split_buckets": True},
        tied=True,
    ),
    "late-norm": OrderCase(
        Order(2, ((0,), (1,)), _ONE_F_ONE_B), dp=2, options={"clock": "free", "late_norm": True}
    ),
    "late-norm-of-a-vee": OrderCase(
        # Rank 0 holds the last stage: its first backward pass comes before that of rank 1.
        Order(2, ((0,), (1,), (1,), (0,)), (
            works("F0.0 F0.1 F3.0 B3.0 F3.1 B3.1 B0.0 B0.1"),
            works("F1.0 F2.0 F1.1 F2.1 B2.0 B1.0 B2.1 B1.1"),
        )),
        options={"clock": "free", "late_norm": True},
    ),
    "late-norm-of-shards": OrderCase(
        Order(1, ((0, 1), (1,)), (works(""), works("F0.0 F1.0 B1.0 B0.0"))),
        dp=2,
        options={"clock": "free", "late_norm": True, "shard_params": True},
    ),
}  # fmt: skip
"""Orders by what they show."""
