"""The order in which a plan computes: its passes and copies, without messages, slots and the optimizer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.plan.plan import Plan
from exactmap.sim.plan.table import InstructionTable
from exactmap.sim.schedules.order import Order, Works

__all__ = ["order_of_plan"]

_WORKS = np.array([CODES[op] for op in (Op.F, Op.I, Op.W, Op.B, Op.RC, Op.OFF, Op.LD)])
_FB = CODES[Op.FB]


def order_of_plan(plan: Plan, dp: int = 0) -> Order:
    """What each pipeline rank of a plan computes, in order.

    Lowering an order and taking it back changes nothing.

    Parameters
    ----------
    plan
        A plan that was accepted.
    dp
        The replica, where replicas have programs of their own.

    Raises
    ------
    InvalidInputError
        If passes are cut into parts of a layer, which an order cannot say.

    Examples
    --------
    >>> from exactmap.sim.schedules.build import build_plan
    >>> from exactmap.sim.schedules.registry import make_order
    >>> from exactmap.sim.workload.model import ModelConfig, ModelKind
    >>> model = ModelConfig(
    ...     kind=ModelKind.GPT,
    ...     layers=4,
    ...     hidden=64,
    ...     heads=4,
    ...     kv_heads=4,
    ...     head_dim=16,
    ...     ffn=256,
    ...     vocab=259,
    ...     positions=64,
    ...     tied=False,
    ... )
    >>> plan = build_plan(model, schedule="zb-h1", pp=2, num_microbatches=4, seq=64)
    >>> order_of_plan(plan) == make_order("zb-h1", 2, 4)
    True
    """
    ranks = [_works(plan.program(rank, dp).table, rank) for rank in range(plan.mesh.pp)]
    return Order(plan.train.m, plan.place, ranks, plan.train.slices)


def _works(table: InstructionTable, rank: int) -> Works:
    rows = np.flatnonzero(np.isin(table.op, _WORKS) | (table.op == _FB))
    size = np.where(table.op[rows] == _FB, table.num_members[rows], 1).astype(np.int64)
    # Of each work its row, in the program or among the members of braids, and the braid that it belongs to.
    owner = np.repeat(np.arange(len(rows)), size)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(size) - size, size)
    braided = table.op[rows][owner] == _FB
    member = np.where(braided, table.first_member[rows][owner] + place, 0)
    braid = np.where(braided, (np.cumsum(table.op[rows] == _FB) - 1)[owner], -1)

    def column(name: str) -> NDArray[np.int64]:
        own: NDArray[np.int64] = getattr(table, name)[rows][owner].astype(np.int64)
        if table.members is not None and braided.any():
            own[braided] = getattr(table.members, name)[member[braided]]
        return own

    if (column("part") >= 0).any():
        raise InvalidInputError(
            "passes in parts of a layer are no works of an order", where=f"program of rank {rank}"
        )
    return Works.columns(
        column("op"), column("stage"), column("microbatch"), np.maximum(column("slice"), 0), braid
    )
