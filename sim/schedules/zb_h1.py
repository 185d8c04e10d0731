"""ZB-H1: 1F1B with the backward pass split; weight gradients wait and fill the drain.

Rank r warms up with min(m, p-1-r) forward passes and puts its weight gradients off by r microbatches, so
warm-up and delay are p-1 together and the stash stays p microbatches on every rank. What is put off at the
end fills the gaps of the drain. Idle time of a rank: (p-1)(F+I-W) for m >= p.
Source: Qi et al., Zero Bubble Pipeline Parallelism, arXiv:2401.10241, section 2 (its "B" is our I).
"""

from __future__ import annotations

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.one_f_one_b import alternate
from exactmap.sim.schedules.order import Order, Work, loop_placement

__all__ = ["zb_h1"]


def zb_h1(num_ranks: int, num_microbatches: int) -> Order:
    """ZB-H1 for any number of microbatches.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in zb_h1(2, 3).works(1)]
    ['F0', 'I0', 'F1', 'I1', 'W0', 'F2', 'I2', 'W1', 'W2']
    """
    ranks: list[tuple[Work, ...]] = []
    for rank in range(num_ranks):
        forward = [Work(Op.F, rank, microbatch) for microbatch in range(num_microbatches)]
        backward = [Work(Op.I, rank, microbatch) for microbatch in range(num_microbatches)]
        works: list[Work] = []
        for work in alternate(forward, backward, num_ranks - 1 - rank):
            works.append(work)
            if work.op is Op.I and work.microbatch >= rank:
                works.append(Work(Op.W, rank, work.microbatch - rank))
        first_left = max(num_microbatches - rank, 0)
        works += (Work(Op.W, rank, microbatch) for microbatch in range(first_left, num_microbatches))
        ranks.append(tuple(works))
    return Order(num_microbatches, loop_placement(num_ranks, 1), tuple(ranks))
