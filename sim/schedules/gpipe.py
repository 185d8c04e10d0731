"""GPipe, and TeraPipe, which does the same with slices of each sequence.

GPipe: all forward passes, then all backward passes. Idle time of a rank (F and B of all its layers for one
microbatch): (p-1)(F+B); stash: all m microbatches. Any p and m.

TeraPipe: the items are slices of n equal parts of each sequence, so the pipeline fills and drains n times as
fast: (p-1)(F+B)/n, stash m as before. An item attends to the slices before its own, so forward passes ascend
and backward passes descend within a microbatch. For causal attention only.

Sources: Huang et al., GPipe, arXiv:1811.06965; Li et al., TeraPipe, arXiv:2102.07988 (which also chooses
slices of unequal length; here they are equal). Microbatches ascend in the backward passes too, as in every
schedule of this room.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Works, loop_placement
from exactmap.sim.schedules.weave import passes

__all__ = ["gpipe", "sliced_passes", "terapipe"]


def gpipe(num_ranks: int, num_microbatches: int) -> Order:
    """All forward passes of the step, then all backward passes.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in gpipe(2, 3).works(0)]
    ['F0', 'F1', 'F2', 'B0', 'B1', 'B2']
    """
    return terapipe(num_ranks, num_microbatches, 1)


def terapipe(num_ranks: int, num_microbatches: int, num_slices: int) -> Order:
    """All forward passes, slice by slice, then all backward passes.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}.{w.slice}" for w in terapipe(2, 1, 2).works(0)]
    ['F0.0', 'F0.1', 'B0.1', 'B0.0']
    """
    ranks = [Works.joined(sliced_passes(rank, num_microbatches, num_slices)) for rank in range(num_ranks)]
    return Order(num_microbatches, loop_placement(num_ranks, 1), ranks, num_slices)


def sliced_passes(stage: int, num_microbatches: int, num_slices: int) -> tuple[Works, Works]:
    """Forward and backward passes of a stage, slices ascending in the first and descending in the second.

    Examples
    --------
    >>> [(w.microbatch, w.slice) for w in sliced_passes(0, 2, 2)[1]]
    [(0, 1), (0, 0), (1, 1), (1, 0)]
    """
    microbatch = np.repeat(np.arange(num_microbatches), num_slices)
    cut = np.tile(np.arange(num_slices), num_microbatches)
    return passes(Op.F, stage, microbatch, cut), passes(Op.B, stage, microbatch, num_slices - 1 - cut)
