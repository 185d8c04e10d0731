"""ZB-H1 and ZB-H2: 1F1B with the backward pass split; weight gradients wait and fill the drain.

On every rank the warm-up of forward passes and the delay of weight gradients, in microbatches, have the same
sum, and so the same stash.

H1: warm-up p-1-r, delay r. Idle time of a rank: (p-1)(F+I-W) for m >= p; stash: p microbatches. For m <= p
the step takes (m+p-1)(F+I) + W: all weight gradients but one are hidden.

H2: warm-up 2(p-1-r), delay 2r. No rank waits between its first pass and its last where F = I = W, so with an
optimizer that waits for nobody the idle time is (p-1)(F+I-2W); under a barrier it is that of H1. Stash: 2p-1.

Any p and m. Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section 2 (its "B" is our
I).
"""

from __future__ import annotations

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, loop_placement
from exactmap.sim.schedules.weave import alternate, passes, weights_later

__all__ = ["zb_h1", "zb_h2"]


def zb_h1(num_ranks: int, num_microbatches: int) -> Order:
    """The memory of 1F1B, about a third of its idle time.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in zb_h1(2, 3).works(1)]
    ['F0', 'I0', 'F1', 'I1', 'W0', 'F2', 'I2', 'W1', 'W2']
    """
    return _zb_h(num_ranks, num_microbatches, 1)


def zb_h2(num_ranks: int, num_microbatches: int) -> Order:
    """Twice the memory of 1F1B, no idle time between a rank's first and last pass.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in zb_h2(2, 3).works(0)]
    ['F0', 'F1', 'F2', 'I0', 'W0', 'I1', 'W1', 'I2', 'W2']
    """
    return _zb_h(num_ranks, num_microbatches, 2)


def _zb_h(num_ranks: int, num_microbatches: int, depth: int) -> Order:
    steps = range(num_microbatches)
    ranks = [
        weights_later(
            alternate(passes(Op.F, rank, steps), passes(Op.I, rank, steps), depth * (num_ranks - 1 - rank)),
            depth * rank,
        )
        for rank in range(num_ranks)
    ]
    return Order(num_microbatches, loop_placement(num_ranks, 1), ranks)
