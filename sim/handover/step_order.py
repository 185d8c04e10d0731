"""The order of a plan's passes, seen as a framework that has its own schedules would see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.plan_order import order_of_plan

__all__ = ["StepOrder", "read_step_order"]

_F, _I, _W, _RC, _OFF, _LD = (CODES[op] for op in (Op.F, Op.I, Op.W, Op.RC, Op.OFF, Op.LD))


@dataclass(frozen=True, slots=True, eq=False)
class StepOrder:
    """What a plan's passes are like.

    Parameters
    ----------
    order
        All passes and copies; None where passes are cut into parts of a layer.
    placement
        ``loop`` (stage s on rank s mod p), ``vee`` (down and up again), ``two`` (a stage on two ranks) or
        ``other``.
    num_chunks
        Stages of a rank; 0 where ranks differ.
    splits, braids
        Whether input and weight gradients are passes of their own, and passes run as braids.
    recomputed, offloaded
        How many of `num_items` forward passes are done again, and stashes sent to the host.
    num_items
        Stages x microbatches x slices.
    """

    order: Order | None
    placement: str
    num_chunks: int
    splits: bool
    braids: bool
    recomputed: int
    offloaded: int
    num_items: int

    def passes_alone(self) -> Order | None:
        """The order without recomputation and copies; None where slices or parts stand against it."""
        if self.order is None or self.order.num_slices > 1:
            return None
        gone = (_RC, _OFF, _LD)
        ranks = [works.taken(~np.isin(works.op, gone)) for works in map(self.order.works, self._ranks())]
        return Order(self.order.num_microbatches, self.order.placement, ranks)

    def same_passes(self, other: Order) -> bool:
        """Whether every rank does the same passes in the same order, recomputation, copies, braids apart."""
        mine = self.passes_alone()
        return (
            mine is not None
            and mine.placement == other.placement
            and mine.num_microbatches == other.num_microbatches
            and all(
                np.array_equal(getattr(mine.works(rank), name), getattr(other.works(rank), name))
                for rank in self._ranks()
                for name in ("op", "stage", "microbatch")
            )
        )

    def leading_microbatches(self) -> int:
        """Forward passes that rank 0 does before it turns to another stage: the size of a group."""
        if self.order is None:
            return 0
        works = self.order.works(0)
        stages = works.stage[works.op == _F]
        turns = np.flatnonzero(stages != stages[0])
        return int(turns[0]) if len(turns) else len(stages)

    def _ranks(self) -> range:
        return range(self.order.num_ranks if self.order is not None else 0)


def read_step_order(plan: Plan) -> StepOrder:
    """Look at the passes of a plan; of replicas with programs of their own, at the others' (or the first).

    Examples
    --------
    >>> from exactmap.sim.schedules.build import build_plan
    >>> from exactmap.sim.workload.presets import find_preset
    >>> model = find_preset("byte-tiny")
    >>> plan = build_plan(model, schedule="zb-v", pp=2, chunks=2, num_microbatches=4, seq=64)
    >>> order = read_step_order(plan)
    >>> order.placement, order.num_chunks, order.splits
    ('vee', 2, True)
    """
    p, num_items = plan.mesh.pp, len(plan.stages) * plan.train.m * plan.train.slices
    placement, chunks = _placement(plan, p)
    try:
        order = order_of_plan(plan, plan.replica_classes()[0])
    except InvalidInputError:
        return StepOrder(None, placement, chunks, False, False, 0, 0, num_items)
    ops = [order.works(rank).op for rank in range(p)]
    return StepOrder(
        order,
        placement,
        chunks,
        splits=any(_has(op, _I) or _has(op, _W) for op in ops),
        braids=any(bool((order.works(rank).braid >= 0).any()) for rank in range(p)),
        recomputed=sum(int(np.count_nonzero(op == _RC)) for op in ops),
        offloaded=sum(int(np.count_nonzero(op == _OFF)) for op in ops),
        num_items=num_items,
    )


def _has(op: NDArray[np.int8], code: int) -> bool:
    return bool((op == code).any())


def _placement(plan: Plan, p: int) -> tuple[str, int]:
    if any(len(ranks) > 1 for ranks in plan.place):
        return "two", 0
    ranks = [ranks[0] for ranks in plan.place]
    counts = {ranks.count(rank) for rank in range(p)}
    chunks = counts.pop() if len(counts) == 1 else 0
    if ranks == [stage % p for stage in range(len(ranks))]:
        return "loop", chunks
    if len(ranks) == 2 * p and ranks == [*range(p), *reversed(range(p))]:
        return "vee", chunks
    return "other", chunks
