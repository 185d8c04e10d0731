"""1F1B and its relatives with one chunk per rank: eager, and over slices.

1F1B: rank r does min(m, p-1-r) forward passes, then one forward and one backward in turn, then the rest. Idle
time of a rank: (p-1)(F+B), as GPipe; stash: p-r microbatches instead of m.

Eager 1F1B: 2(p-1-r) forward passes first. Idle time is the same where hops cost nothing; where they do, a
message has a whole turn to arrive, while 1F1B waits about two hops for every microbatch. Stash: 2(p-1-r)+1.

Seq1F1B: 1F1B over slices, n to a sequence: rank r does p-2-r+n passes of slices first; the slices of a
microbatch come back in reverse. Idle time about (p-1)(F+B)/n, stash (p-1-r+n)/n microbatches. For causal
attention only; keys, values and their gradients live from the first slice to its backward pass.

All take any p and m: a warm-up that is longer than the step is cut.
Sources: Fan et al., DAPPLE, arXiv:2007.01045; Narayanan et al., arXiv:2104.04473, section 2.2; eager:
Zhuang et al., arXiv:2211.05322; Sun et al., Seq1F1B, arXiv:2406.03488.
"""

from __future__ import annotations

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.gpipe import sliced_passes
from exactmap.sim.schedules.order import Order, loop_placement
from exactmap.sim.schedules.weave import alternate, passes

__all__ = ["eager_one_f_one_b", "one_f_one_b", "seq_one_f_one_b"]


def one_f_one_b(num_ranks: int, num_microbatches: int) -> Order:
    """One forward, one backward; any number of microbatches.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in one_f_one_b(2, 3).works(1)]
    ['F0', 'B0', 'F1', 'B1', 'F2', 'B2']
    """
    return seq_one_f_one_b(num_ranks, num_microbatches, 1)


def eager_one_f_one_b(num_ranks: int, num_microbatches: int) -> Order:
    """1F1B with twice the warm-up, so that a message may take a turn to arrive.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in eager_one_f_one_b(2, 3).works(0)]
    ['F0', 'F1', 'F2', 'B0', 'B1', 'B2']
    """
    steps = range(num_microbatches)
    ranks = [
        alternate(passes(Op.F, rank, steps), passes(Op.B, rank, steps), 2 * (num_ranks - 1 - rank))
        for rank in range(num_ranks)
    ]
    return Order(num_microbatches, loop_placement(num_ranks, 1), ranks)


def seq_one_f_one_b(num_ranks: int, num_microbatches: int, num_slices: int) -> Order:
    """1F1B whose items are slices of each sequence.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}.{w.slice}" for w in seq_one_f_one_b(2, 2, 2).works(1)]
    ['F0.0', 'F0.1', 'B0.1', 'F1.0', 'B0.0', 'F1.1', 'B1.1', 'B1.0']
    """
    ranks = [
        alternate(*sliced_passes(rank, num_microbatches, num_slices), num_ranks - 2 - rank + num_slices)
        for rank in range(num_ranks)
    ]
    return Order(num_microbatches, loop_placement(num_ranks, 1), ranks, num_slices)
