"""How far an order can be from optimal: what no order with its placement and its stash can beat."""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.auto.bounds import Bound, lower_bound
from exactmap.sim.schedules.auto.problem import Memory, Problem
from exactmap.sim.schedules.metrics import peak_stash_items
from exactmap.sim.schedules.order import Order
from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["order_bound"]

_BEYOND = [CODES[op] for op in (Op.RC, Op.OFF, Op.LD)]


def order_bound(order: Order, times: WorkTimes, objective: str = "barrier") -> Bound | None:
    """A proven lower bound of the makespan (``barrier``) or the ``period`` of all orders like this one.

    Like this one are orders with the same placement, microbatches and durations whose ranks stash no more
    than this order's do. Nothing is proven, and None given, where stages lie on two ranks, sequences are cut,
    braids take less than their works, or passes are done again or stashes copied.

    Examples
    --------
    >>> from exactmap.sim.schedules.one_f_one_b import one_f_one_b
    >>> order_bound(one_f_one_b(4, 8), WorkTimes.unit(4, unit_ns=1000))  # it takes 33000
    Bound(value_ns=30000, name='last microbatch')
    """
    if order.num_slices > 1 or times.braid_share < 1 or max(map(len, order.placement)) > 1:
        return None
    if any(np.isin(order.works(rank).op, _BEYOND).any() for rank in range(order.num_ranks)):
        return None
    num_stages = order.num_stages
    memory = Memory((1,) * num_stages, (0,) * num_stages, peak_stash_items(order))
    problem = Problem.of(order.num_ranks, order.num_microbatches, order.placement, times, memory)
    return lower_bound(problem, objective)
