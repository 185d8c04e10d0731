"""1F1B: a warm-up of min(m, p-1-r) forward passes, then one forward and one backward in turn, then the rest.

Idle time of a rank: (p-1)(F+B), as GPipe; stash: p-r microbatches instead of m.
Source: Fan et al., DAPPLE, arXiv:2007.01045; Narayanan et al., arXiv:2104.04473, section 2.2.
"""

from __future__ import annotations

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Work, loop_placement

__all__ = ["alternate", "one_f_one_b"]


def alternate(forward: list[Work], backward: list[Work], num_warmup: int) -> tuple[Work, ...]:
    """Weave two equally long lists: `num_warmup` of the first, one of each in turn, the rest.

    A warm-up longer than the list is cut to fit.

    Examples
    --------
    >>> forward = [Work(Op.F, 0, b) for b in range(3)]
    >>> backward = [Work(Op.B, 0, b) for b in range(3)]
    >>> [f"{w.op}{w.microbatch}" for w in alternate(forward, backward, 1)]
    ['F0', 'F1', 'B0', 'F2', 'B1', 'B2']
    """
    works = forward[:num_warmup]
    for ahead, behind in zip(forward[num_warmup:], backward, strict=False):
        works += (ahead, behind)
    works += backward[max(len(forward) - num_warmup, 0) :]
    return tuple(works)


def one_f_one_b(num_ranks: int, num_microbatches: int) -> Order:
    """One forward, one backward; any number of microbatches.

    Examples
    --------
    >>> [f"{w.op}{w.microbatch}" for w in one_f_one_b(2, 3).works(1)]
    ['F0', 'B0', 'F1', 'B1', 'F2', 'B2']
    """
    ranks: list[tuple[Work, ...]] = []
    for rank in range(num_ranks):
        forward = [Work(Op.F, rank, microbatch) for microbatch in range(num_microbatches)]
        backward = [Work(Op.B, rank, microbatch) for microbatch in range(num_microbatches)]
        ranks.append(alternate(forward, backward, num_ranks - 1 - rank))
    return Order(num_microbatches, loop_placement(num_ranks, 1), tuple(ranks))
