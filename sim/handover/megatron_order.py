"""The order in which Megatron-Core does the passes of a step.

One stage a rank: 1F1B, p-1-r forward passes first. More: groups of g microbatches go through the chunks, the
last group smaller where g does not divide m; 2(p-1-r) + (v-1)g forward passes first, then one of each in
turn.
Rules read in ``megatron/core/pipeline_parallel/schedules.py``; after arXiv:2104.04473, section 2.2.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.one_f_one_b import one_f_one_b
from exactmap.sim.schedules.order import Order, Works, loop_placement
from exactmap.sim.schedules.weave import alternate, passes

__all__ = ["group_sizes", "megatron_order"]


def group_sizes(num_ranks: int, num_microbatches: int) -> list[int]:
    """Groups that Megatron takes: at least p, and none left over that is smaller than p.

    Examples
    --------
    >>> group_sizes(4, 9)
    [5, 9]
    """
    return [
        size for size in range(num_ranks, num_microbatches + 1) if not 0 < num_microbatches % size < num_ranks
    ]


def megatron_order(num_ranks: int, num_microbatches: int, num_chunks: int, group_size: int) -> Order:
    """Passes of every rank; `group_size` counts where there is more than one chunk.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in megatron_order(2, 2, 2, 2).works(1)]
    ['F1.0', 'F1.1', 'F3.0', 'B3.0', 'F3.1', 'B3.1', 'B1.0', 'B1.1']
    """
    if num_chunks == 1:
        return one_f_one_b(num_ranks, num_microbatches)
    groups = [
        np.arange(first, min(first + group_size, num_microbatches))
        for first in range(0, num_microbatches, group_size)
    ]
    ranks = []
    for rank in range(num_ranks):
        stages = [rank + chunk * num_ranks for chunk in range(num_chunks)]
        forward = [passes(Op.F, stage, group) for group in groups for stage in stages]
        backward = [passes(Op.B, stage, group) for group in groups for stage in reversed(stages)]
        warmup = 2 * (num_ranks - 1 - rank) + (num_chunks - 1) * group_size
        ranks.append(alternate(Works.joined(forward), Works.joined(backward), warmup))
    return Order(num_microbatches, loop_placement(num_ranks, num_chunks), ranks)
