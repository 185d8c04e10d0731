"""ZB-V: two chunks per rank, down the ranks and up again, and weight gradients put off.

Rank r holds stages r and 2p-1-r, so the first and the last stage share a rank and every rank stashes the
same: p microbatches, as the first rank of 1F1B. Where F = I = W no rank idles between its first and last
pass; under a barrier the skew of the start remains, about (p-1) max(F, I)/2. Twice the messages of one
chunk.

Rank r: 2(p-r)-1 forward passes of its first chunk; r times (F of the second, F of the first); p-r times (F,
I, W of the second); then (F, I, W) of the first and of the second in turn; then what is left of I, first
and second in turn, and of W.

v = 2, any p and m: below 2p-1 microbatches the order is that of 2p-1 without those that are not there.
Source: Qi et al., Pipeline Parallelism with Controllable Memory, arXiv:2405.15362, as the fixed order of
torch.distributed.pipelining (ScheduleZBVZeroBubble).
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order, Works, vee_placement
from exactmap.sim.schedules.weave import numbered

__all__ = ["zb_v"]


def zb_v(num_ranks: int, num_microbatches: int) -> Order:
    """ZB-V for any number of microbatches.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in zb_v(1, 2).works(0)]
    ['F0.0', 'F1.0', 'I1.0', 'W1.0', 'F0.1', 'I0.0', 'W0.0', 'F1.1', 'I1.1', 'W1.1', 'I0.1', 'W0.1']
    """
    ranks = [_rank(rank, num_ranks, num_microbatches) for rank in range(num_ranks)]
    return Order(num_microbatches, vee_placement(num_ranks), ranks)


def _rank(rank: int, num_ranks: int, num_microbatches: int) -> Works:
    num = max(num_microbatches, 2 * num_ranks - 1)
    above = num_ranks - rank
    f0, i0, w0 = ((CODES[op], 0) for op in (Op.F, Op.I, Op.W))
    f1, i1, w1 = ((CODES[op], 1) for op in (Op.F, Op.I, Op.W))
    rows = np.array(
        [f0] * (2 * above - 1)
        + [f1, f0] * rank
        + [f1, i1, w1] * above
        + [f0, i0, w0, f1, i1, w1] * (num - 2 * num_ranks + rank + 1)
        # The forward passes of the first chunk end before those of the second.
        + [i0, w0, f1, i1, w1] * (above - 1)
        + [i0, i1] * rank
        + [i0, w0] * above
        + [w1] * rank
        + [w0] * rank
    )
    op, chunk = rows.T
    stage = np.where(chunk == 0, rank, 2 * num_ranks - 1 - rank)
    works = Works.columns(op, stage, numbered(op, chunk))
    return works.taken(works.microbatch < num_microbatches)
