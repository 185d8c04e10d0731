"""Chimera and Hanayo: microbatches in every second time slot, so that two streams fill each other's gaps.

With S stages, F and B one slot each, the i-th microbatch of a unit runs F of stage s in slot s + 2i and B in
slot 2S-1-s + 2i. On a rank with an early and a late stage the slots of the two are of different parity, and a
unit fills all slots between its first and last. Units follow each other every 2S slots.

Chimera: two pipelines against each other, each with half of the microbatches; stage s lies on ranks s and
p-1-s; units of p/2 microbatches each way. Idle slots per rank: p-2 of 2m + p-2. Parameters are held twice.

Hanayo: W waves down and up the ranks, v = 2W chunks per rank, units of p microbatches, parameters once. Idle
slots per rank: 2(p-1) of 2vm + 2(p-1), so it falls as W grows; v times the messages.

Where B takes longer than F the order stays and the times are what a walk gives.
Chimera: p even, m even. Hanayo: v even, any p and m.
Sources: Li and Hoefler, Chimera, arXiv:2107.06925 (direct concatenation of its units); Liu et al., Hanayo,
arXiv:2308.15762.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.dualpipe import mirrored_placement
from exactmap.sim.schedules.order import Order, Works, vee_placement
from exactmap.sim.schedules.weave import by_slot, passes

__all__ = ["chimera", "hanayo"]


def chimera(num_ranks: int, num_microbatches: int) -> Order:
    """Two pipelines against each other; p and m even.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in chimera(4, 4).works(0)]
    ['F0.0', 'F0.1', 'F3.2', 'B3.2', 'F3.3', 'B3.3', 'B0.0', 'B0.1']
    """
    half = num_microbatches // 2
    downward, upward = np.arange(half), np.arange(half, num_microbatches)
    ranks = [
        _in_slots(num_ranks, num_ranks // 2, ((rank, downward), (num_ranks - 1 - rank, upward)))
        for rank in range(num_ranks)
    ]
    return Order(num_microbatches, mirrored_placement(num_ranks), ranks)


def hanayo(num_ranks: int, num_microbatches: int, num_chunks: int) -> Order:
    """Waves down and up the ranks; an even number of chunks.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in hanayo(2, 2, 2).works(0)]
    ['F0.0', 'F0.1', 'F3.0', 'B3.0', 'F3.1', 'B3.1', 'B0.0', 'B0.1']
    """
    placement = vee_placement(num_ranks, num_chunks)
    steps = np.arange(num_microbatches)
    ranks = [
        _in_slots(
            len(placement),
            num_ranks,
            tuple((stage, steps) for stage, (holder,) in enumerate(placement) if holder == rank),
        )
        for rank in range(num_ranks)
    ]
    return Order(num_microbatches, placement, ranks)


def _in_slots(num_stages: int, unit: int, streams: tuple[tuple[int, np.ndarray], ...]) -> Works:
    """Works of a rank, for each of its stages the microbatches that it takes, by time slot."""
    works: list[Works] = []
    slots: list[np.ndarray] = []
    for stage, microbatches in streams:
        turn, number = np.divmod(np.arange(len(microbatches)), unit)
        start = 2 * num_stages * turn + 2 * number
        works += (passes(Op.F, stage, microbatches), passes(Op.B, stage, microbatches))
        slots += (start + stage, start + 2 * num_stages - 1 - stage)
    return by_slot(Works.joined(works), np.concatenate(slots))
