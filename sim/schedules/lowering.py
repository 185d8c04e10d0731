"""Lower an order of works to a plan: messages, collectives, slots, arenas.

1. `walk` the order in time and flatten it (`units`); 2. cut the parameters into buckets (`gradients`,
`openings`); 3. place posts and waits along one global order (`posts`); 4. write each rank's program, its
buffers in slots (`program`, `slots`, `bucket_lives`); 5. lay out the arenas (`arena`). The result passes
every check of `docs/reference/plan-format.md`, section 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import CODES, KINDS, POSTS, WAITS, Op
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
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.schedules.arena import lay_out_arena
from exactmap.sim.schedules.gradients import declare_gradients
from exactmap.sim.schedules.openings import find_openings
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.posts import Traffic, place_posts
from exactmap.sim.schedules.program import ProgramBuilder
from exactmap.sim.schedules.sizes import StageSizes
from exactmap.sim.schedules.timeline import WorkTimes, walk
from exactmap.sim.schedules.units import Units

__all__ = ["lower"]

_OUTSTANDING = np.array([(op in POSTS) - int(op in WAITS) for op in KINDS], dtype=np.int64)


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
    late_norm: bool = False,
    shard_params: bool = False,
    split_buckets: bool = False,
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
    late_norm
        With the free clock: the norm goes along the pipeline, OPT trusts what came so far, and the next step
        checks the total before its first gradients.
    shard_params
        Parameters rest cut over the replicas: gathered at the start, gradients reduced to the shard.
    split_buckets
        Embedding, layers and head of a stage are buckets of their own.
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
    if late_norm and clock != "free":
        raise InvalidInputError("a late norm needs the free clock", got=f"clock={clock}")
    precision = precision or Precision()
    gradients = declare_gradients(
        model,
        mesh,
        stages,
        order.placement,
        sizes,
        shard_params=shard_params,
        split_buckets=split_buckets,
        late_norm=late_norm,
    )
    units = Units.of(order, walk(order, times or WorkTimes.unit(order.num_stages)))
    openings = find_openings(units, gradients)
    traffic = place_posts(units, gradients, openings, look_ahead)
    builder = ProgramBuilder(units, traffic, gradients, openings)
    built = [builder.build(rank) for rank in range(order.num_ranks)]
    channels = _declare_channels(order, traffic, sizes, depth)
    laid_out = [
        lay_out_arena(
            rank,
            stages={s: sizes[s] for s, ranks in enumerate(order.placement) if rank in ranks},
            passes=_passes(order, rank),
            recomputes=bool((order.works(rank).op == CODES[Op.RC]).any()),
            slots=slots,
            buckets=gradients.buckets,
            num_shards=gradients.num_shards,
            channels=channels,
            precision=precision,
            budget_bytes=budget_bytes,
        )
        for rank, (_, slots) in enumerate(built)
    ]
    programs = tuple(Program(f"P{rank}", table) for rank, (table, _) in enumerate(built))
    return Plan(
        model=model,
        train=train,
        precision=precision,
        mesh=mesh,
        stages=tuple(stages),
        place=tuple(tuple(sorted(ranks)) for ranks in order.placement),
        clock=clock,
        serial=True,
        limit=max(_most_outstanding(table) for table, _ in built),
        channels=channels,
        groups=gradients.groups,
        buckets=gradients.buckets,
        arenas=tuple(arena for arena, _, _ in laid_out),
        regions=tuple(region for _, regions, _ in laid_out for region in regions),
        pools=tuple(pool for _, _, pools in laid_out for pool in pools),
        maps=tuple(MapLine(rank, -1, program.name) for rank, program in enumerate(programs)),
        programs=programs,
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
        ("slices", order.num_slices, train.slices),
        ("stages", order.num_stages, len(stages)),
        ("sizes of stages", order.num_stages, len(sizes)),
    )
    for what, expected, got in pairs:
        if got != expected:
            raise InvalidInputError(
                f"the order and the plan differ in {what}", got=str(got), expected=str(expected)
            )
    if any(stage.parts for stage in stages):
        raise InvalidInputError("orders know no parts of a pass")
    if depth < 0 or look_ahead < 0:
        raise InvalidInputError("depth and look-ahead are at least 0", got=f"{depth} and {look_ahead}")


def _declare_channels(
    order: Order, traffic: Traffic, sizes: Sequence[StageSizes], depth: int
) -> tuple[Channel, ...]:
    """One channel per pair of ranks and class, as wide as its widest message."""
    messages, step = traffic.messages, order.num_microbatches * order.num_slices
    widths = np.array([one.message_bytes for one in sizes], dtype=np.int64)
    widest = np.zeros(len(traffic.routes), dtype=np.int64)
    for items in (messages.item, messages.target):
        np.maximum.at(widest, messages.route, widths[items // step])
    return tuple(
        Channel(route.channel, route.src, route.dst, route.cls, depth, num_bytes)
        for route, num_bytes in zip(traffic.routes, widest.tolist(), strict=True)
    )


def _passes(order: Order, rank: int) -> frozenset[str]:
    """Passes that a rank runs."""
    ops = {KINDS[code].value for code in np.unique(order.works(rank).op).tolist()}
    return frozenset(ops - {Op.OFF.value, Op.LD.value})


def _couple(order: Order, mesh: MeshDims) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Passes that exchange data inside over tp, cp or ep: their ranks run them together."""
    axes = tuple(name for name, size in (("tp", mesh.tp), ("cp", mesh.cp), ("ep", mesh.ep)) if size > 1)
    used = frozenset().union(*(_passes(order, rank) for rank in range(order.num_ranks)))
    return tuple((op, axes) for op in ("F", "I", "W", "B", "RC") if op in used) if axes else ()


def _most_outstanding(table: InstructionTable) -> int:
    return int(np.cumsum(_OUTSTANDING[table.op]).max(initial=0))
