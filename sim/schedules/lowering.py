"""Lower an order of works to a plan: messages, collectives, slots, arenas.

1. `walk` the order in time; 2. cut the parameters into buckets (`gradients`); 3. place posts and waits along
one global order (`posts`); 4. give buffers slots (`slots`); 5. close each program: wait for the collectives,
sum the norm, step; 6. lay out the arenas (`arena`). The result passes every check of
`docs/reference/plan-format.md`, section 7.
"""

from __future__ import annotations

from collections.abc import Sequence

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import POSTS, WAITS, Instruction, Op
from exactmap.sim.plan.plan import (
    Channel,
    MapLine,
    MeshDims,
    Plan,
    PlanModel,
    PlanStage,
    PlanTrain,
    Precision,
    Program,
)
from exactmap.sim.schedules.arena import lay_out_arena
from exactmap.sim.schedules.gradients import NORM_GROUP, declare_gradients
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.posts import channel_name, place_posts
from exactmap.sim.schedules.sizes import StageSizes
from exactmap.sim.schedules.slots import assign_slots
from exactmap.sim.schedules.timeline import WorkTimes, walk

__all__ = ["lower"]


def lower(
    order: Order,
    *,
    model: PlanModel,
    train: PlanTrain,
    mesh: MeshDims,
    stages: Sequence[PlanStage],
    sizes: Sequence[StageSizes],
    precision: Precision | None = None,
    clock: str = "barrier",
    times: WorkTimes | None = None,
    depth: int = 0,
    look_ahead: int = 1,
    budget_bytes: int = -1,
    made: tuple[tuple[str, str], ...] = (),
    cost: tuple[tuple[str, int], ...] = (),
    pred: tuple[tuple[str, str], ...] = (),
) -> Plan:
    """Lower an order of works to a plan.

    Parameters
    ----------
    order
        What each rank computes; its ranks, stages and microbatches must be those of `mesh`, `stages` and
        `train`.
    model, train, mesh, stages
        The plan's declarations.
    sizes
        Bytes and parameters of each stage.
    precision
        Data types; f32 throughout if left out.
    clock
        ``barrier`` or ``free``.
    times
        Durations for the walk that places posts and waits; one unit per pass and stage if left out. They
        change where posts stand, never what is computed.
    depth
        Receive buffers of each channel.
    look_ahead
        How many works ahead of the moment when its data are made a receive is posted (see `posts`).
    budget_bytes
        Arena bytes allowed per rank, -1: any; it is written to the plan.
    made, cost, pred
        Lines for information, as (key, value).

    Raises
    ------
    InvalidInputError
        If the arguments do not fit each other.
    InfeasibleError
        If the order waits for itself or a rank's memory is over the budget.
    """
    _check_arguments(order, train, mesh, stages, sizes, depth, look_ahead)
    precision = precision or Precision()
    timeline = walk(order, times or WorkTimes.unit(order.num_stages))
    gradients = declare_gradients(model, mesh, stages, [ranks[0] for ranks in order.placement], sizes)
    placed = place_posts(order, timeline, gradients, look_ahead)
    programs: list[Program] = []
    slots: list[dict[str, int]] = []
    for rank, steps in enumerate(placed):
        instructions, num_slots = assign_slots(steps, order.num_stages, order.num_microbatches)
        buckets = [b for b in gradients.buckets if rank in order.placement[b.stage]]
        zero = [Instruction(Op.ZERO, b.stage, bucket=b.index) for b in buckets]
        closing = [
            Instruction(Op.WC, step.stage, bucket=step.number, queue=step.queue)
            for step in steps
            if step.op is Op.AR
        ]
        norm = [Instruction(Op.NORM, queue=NORM_GROUP), Instruction(Op.WC, queue=NORM_GROUP)]
        opt = [Instruction(Op.OPT, b.stage, bucket=b.index) for b in buckets]
        end = [Instruction(Op.END)]
        programs.append(Program(f"P{rank}", tuple(zero + instructions + closing + norm + opt + end)))
        slots.append(num_slots)
    channels = _declare_channels(order, sizes, depth)
    laid_out = [
        lay_out_arena(
            rank,
            stages={s: sizes[s] for s in range(len(stages)) if rank in order.placement[s]},
            passes={work.op.value for work in order.works(rank)},
            slots=slots[rank],
            buckets=gradients.buckets,
            channels=channels,
            precision=precision,
            budget_bytes=budget_bytes,
        )
        for rank in range(order.num_ranks)
    ]
    return Plan(
        model=model,
        train=train,
        precision=precision,
        mesh=mesh,
        stages=tuple(stages),
        place=order.placement,
        clock=clock,
        serial=True,
        limit=max(_most_outstanding(program) for program in programs),
        channels=channels,
        groups=gradients.groups,
        buckets=gradients.buckets,
        arenas=tuple(arena for arena, _, _ in laid_out),
        regions=tuple(region for _, regions, _ in laid_out for region in regions),
        pools=tuple(pool for _, _, pools in laid_out for pool in pools),
        maps=tuple(MapLine(rank, -1, program.name) for rank, program in enumerate(programs)),
        programs=tuple(programs),
        ties=gradients.ties,
        couple=_couple(order, mesh),
        budget=budget_bytes,
        made=made,
        cost=cost,
        pred=pred,
    )


def _check_arguments(
    order: Order,
    train: PlanTrain,
    mesh: MeshDims,
    stages: Sequence[PlanStage],
    sizes: Sequence[StageSizes],
    depth: int,
    look_ahead: int,
) -> None:
    pairs = (
        ("microbatches", order.num_microbatches, train.m),
        ("pipeline ranks", order.num_ranks, mesh.pp),
        ("stages", order.num_stages, len(stages)),
        ("sizes of stages", order.num_stages, len(sizes)),
    )
    for what, expected, got in pairs:
        if got != expected:
            raise InvalidInputError(
                f"the order and the plan differ in {what}", got=str(got), expected=str(expected)
            )
    if train.slices != 1 or any(stage.parts for stage in stages):
        raise InvalidInputError("these orders know neither slices nor parts of a pass")
    if depth < 0 or look_ahead < 0:
        raise InvalidInputError("depth and look-ahead are at least 0", got=f"{depth} and {look_ahead}")


def _declare_channels(order: Order, sizes: Sequence[StageSizes], depth: int) -> tuple[Channel, ...]:
    """One channel per pair of ranks and class, as wide as its widest message."""
    widest: dict[tuple[str, int, int], int] = {}
    for stage in range(order.num_stages - 1):
        here, there = order.placement[stage][0], order.placement[stage + 1][0]
        if here != there:
            for key in (("F", here, there), ("B", there, here)):
                widest[key] = max(
                    widest.get(key, 0), sizes[stage].message_bytes, sizes[stage + 1].message_bytes
                )
    return tuple(
        Channel(channel_name(cls, src, dst), src, dst, cls, depth, num_bytes)
        for (cls, src, dst), num_bytes in sorted(
            widest.items(), key=lambda entry: (entry[0][0] != "F", entry[0][1:])
        )
    )


def _couple(order: Order, mesh: MeshDims) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Passes that exchange data inside over tp, cp or ep: their ranks run them together."""
    axes = tuple(name for name, size in (("tp", mesh.tp), ("cp", mesh.cp), ("ep", mesh.ep)) if size > 1)
    used = {work.op for rank in range(order.num_ranks) for work in order.works(rank)}
    return tuple((op.value, axes) for op in (Op.F, Op.I, Op.W, Op.B) if op in used) if axes else ()


def _most_outstanding(program: Program) -> int:
    most = now = 0
    for instruction in program.instructions:
        if instruction.op in POSTS:
            now += 1
            most = max(most, now)
        elif instruction.op in WAITS:
            now -= 1
    return most
