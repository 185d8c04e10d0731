"""V-Half and V-Min: one pattern of six time slots, repeated for every microbatch, that bounds the stash.

Two chunks per rank, down the ranks and up again. All passes of a chunk take one slot; microbatch b has its
F of the first chunk, F of the second, I of the second and I of the first on rank r in slots 6b +

    V-Half   2r, 3p-2-r, 3p-1+2r+d, 6p-2-r+d    with d = 3 if p is even, else 0
    V-Min     r, 2p-1-r, 2p+r+d, 4p-1-r+d       with d = 2 if 3 divides p, else 0

and W goes into the first free slots behind its I. The stash is as long as a microbatch's pattern: (p+2) div
2 microbatches for V-Half, (p+4) div 3 for V-Min, against p of 1F1B. A step is 6 m slots, plus the fill of a
pattern. This is the pattern as it is repeated, without the search that tightens start and end of a step.

V-Half has no idle time in the middle of a step where W + 2I >= 2F and W + 2F >= 2I; V-Min only where F = I
= W and hops cost little: else it idles in every microbatch.

v = 2, any p and m.
Source: Qi et al., Pipeline Parallelism with Controllable Memory, arXiv:2405.15362.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order, Works, vee_placement
from exactmap.sim.schedules.weave import by_slot, passes

__all__ = ["v_half", "v_min"]

_PERIOD = 6


def v_half(num_ranks: int, num_microbatches: int) -> Order:
    """Half the stash of 1F1B, about half its idle time.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in v_half(1, 2).works(0)]
    ['F0.0', 'F1.0', 'I1.0', 'W1.0', 'I0.0', 'W0.0', 'F0.1', 'F1.1', 'I1.1', 'W1.1', 'I0.1', 'W0.1']
    """
    shift = 3 if num_ranks % 2 == 0 else 0
    top = 6 * num_ranks + shift - 2
    patterns = [
        (2 * rank, 3 * num_ranks - 2 - rank, 3 * num_ranks - 1 + 2 * rank + shift, top - rank)
        for rank in range(num_ranks)
    ]
    return _repeated(patterns, num_microbatches)


def v_min(num_ranks: int, num_microbatches: int) -> Order:
    """A third of the stash of 1F1B.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in v_min(1, 1).works(0)]
    ['F0.0', 'F1.0', 'I1.0', 'I0.0', 'W1.0', 'W0.0']
    """
    shift = 2 if num_ranks % 3 == 0 else 0
    top = 4 * num_ranks + shift - 1
    patterns = [
        (rank, 2 * num_ranks - 1 - rank, 2 * num_ranks + rank + shift, top - rank)
        for rank in range(num_ranks)
    ]
    return _repeated(patterns, num_microbatches)


def _repeated(patterns: list[tuple[int, int, int, int]], num_microbatches: int) -> Order:
    num_ranks = len(patterns)
    steps = np.arange(num_microbatches)
    ranks: list[Works] = []
    for rank, pattern in enumerate(patterns):
        chunks = (rank, 2 * num_ranks - 1 - rank)
        forward = [passes(Op.F, stage, steps) for stage in chunks]
        backward = [passes(Op.I, stage, steps) for stage in chunks[::-1]]
        slot = np.concatenate([start + _PERIOD * steps for start in pattern])
        gradients = by_slot(Works.joined(backward), slot[2 * num_microbatches :])
        put_off = Works.columns(CODES[Op.W], gradients.stage, gradients.microbatch)
        later = _free_slots(slot, np.sort(slot[2 * num_microbatches :]))
        works = Works.joined((*forward, *backward, put_off))
        ranks.append(by_slot(works, np.concatenate((slot, later))))
    return Order(num_microbatches, vee_placement(num_ranks), ranks)


def _free_slots(taken: np.ndarray, after: np.ndarray) -> np.ndarray:
    """For each of some ascending slots the first free one behind it, each given once."""
    free = np.ones(int(taken.max()) + len(after) + 2, dtype=np.bool_)
    free[taken] = False
    slots = np.flatnonzero(free)
    number = np.arange(len(after))
    return slots[number + np.maximum.accumulate(np.searchsorted(slots, after) - number)]
