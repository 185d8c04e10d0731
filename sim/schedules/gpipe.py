"""GPipe: all forward passes, then all backward passes.

Idle time of a rank (F and B of all its layers): (p-1)(F+B); stash: all m microbatches.
Source: Huang et al., GPipe, arXiv:1811.06965. Here the backward passes ascend, as in every schedule of this
room.
"""

from __future__ import annotations

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Work, loop_placement

__all__ = ["gpipe"]


def gpipe(num_ranks: int, num_microbatches: int) -> Order:
    """All forward passes of the step, then all backward passes.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in gpipe(2, 3).works(0)]
    ['F0', 'F1', 'F2', 'B0', 'B1', 'B2']
    """
    ranks = tuple(
        tuple(Work(op, rank, microbatch) for op in (Op.F, Op.B) for microbatch in range(num_microbatches))
        for rank in range(num_ranks)
    )
    return Order(num_microbatches, loop_placement(num_ranks, 1), ranks)
