"""DualPipe and DualPipeV: two streams of microbatches meet on every rank, F of one braids with B of another.

Both do the same eight phases. Stream 0 has its early stage on the rank, stream 1 its late one; P ranks
count from the outside in, so h = 0 .. P-1 is the place of a rank, n the microbatches of a stream:

    1  F0                         2 (P-1-h) times
    2  F0, F1                     h+1
    3  I1, W, F1                  P-1-h
    4  braid F0 B1, braid F1 B0   n - 2P + h + 1; the innermost rank does not braid its first F0 and B1
    5  B1, braid F1 B0            P-1-h
    6  B1, B0                     h+1; the second half splits the backward pass and leaves W for later
    7  W, I0                      P-1-h
    8  W                          until none is left

DualPipe: stage s lies on ranks s and p-1-s; microbatches 0 .. m/2-1 go down the ranks, the others up; P =
p/2, n = m/2. Parameters are held twice and the gradients of both replicas summed. DualPipeV: the same
folded in half: 2p stages on p ranks, down and up again, P = p, n = m; parameters once, twice the messages.

With F, B, W and F&B (a braid) of one stage, 2P stages in all: idle time (P-1)(F&B + B - 3W) on the ranks that
braid most, the innermost; the others do more passes apart and idle less. Stash: 2P+1 stages. It gains only
where a braid is shorter than its parts, since it hides the messages inside a layer.

DualPipe: p even, m even, m >= 2p. DualPipeV: v = 2, m >= 2p.
Source: DeepSeek-AI, DeepSeek-V3, arXiv:2412.19437, section 3.2.1, and the code published with it.
"""

from __future__ import annotations

import numpy as np

from exactmap.sim.plan.instruction import CODES, Op
from exactmap.sim.schedules.order import Order, Works, vee_placement
from exactmap.sim.schedules.weave import numbered

__all__ = ["dualpipe", "dualpipe_v", "mirrored_placement"]


def mirrored_placement(num_ranks: int) -> tuple[tuple[int, ...], ...]:
    """Ranks of each stage where two pipelines run against each other: s and p-1-s.

    Examples
    --------
    >>> mirrored_placement(4)
    ((0, 3), (1, 2), (1, 2), (0, 3))
    """
    return tuple(
        (min(stage, num_ranks - 1 - stage), max(stage, num_ranks - 1 - stage)) for stage in range(num_ranks)
    )


def dualpipe(num_ranks: int, num_microbatches: int) -> Order:
    """Two pipelines against each other, each with half of the microbatches; p and m even, m >= 2p.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in dualpipe(2, 4).works(1)]
    ['F0.2', 'F1.0', 'F0.3', 'B1.0', 'F1.1', 'B0.2', 'B1.1', 'I0.3', 'W0.3']
    """
    half = num_microbatches // 2
    ranks: list[Works] = []
    for rank in range(num_ranks):
        place = min(rank, num_ranks - 1 - rank)
        rows = _eight_phases(num_ranks // 2, place, half)
        op, stream, number, braid = rows.T
        # On the lower half of the ranks it is the upward stream that has just begun.
        upward = stream if rank < num_ranks // 2 else 1 - stream
        stage = np.where(upward == 1, num_ranks - 1 - rank, rank)
        ranks.append(Works.columns(op, stage, number + half * upward, 0, braid))
    return Order(num_microbatches, mirrored_placement(num_ranks), ranks)


def dualpipe_v(num_ranks: int, num_microbatches: int) -> Order:
    """DualPipe folded in half: each rank has two chunks, down the ranks and up again; m >= 2p.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in dualpipe_v(1, 2).works(0)]
    ['F0.0', 'F1.0', 'F0.1', 'B1.0', 'F1.1', 'B0.0', 'B1.1', 'I0.1', 'W0.1']
    """
    ranks: list[Works] = []
    for rank in range(num_ranks):
        op, stream, number, braid = _eight_phases(num_ranks, rank, num_microbatches).T
        stage = np.where(stream == 0, rank, 2 * num_ranks - 1 - rank)
        ranks.append(Works.columns(op, stage, number, 0, braid))
    return Order(num_microbatches, vee_placement(num_ranks), ranks)


def _eight_phases(num_places: int, place: int, num_microbatches: int) -> np.ndarray:
    """One rank's rows of (kind code, stream, number in the stream, braid), shape [works, 4]."""
    inner = num_places - 1 - place
    forward, backward, gradient = (
        tuple((CODES[op], stream, 0) for stream in (0, 1)) for op in (Op.F, Op.B, Op.I)
    )
    weight = (CODES[Op.W], 0, 0)
    # A braid's works are marked 1 and 2.
    both, back = ([(CODES[Op.F], i, 1), (CODES[Op.B], 1 - i, 2)] for i in (0, 1))
    main = (both + back) * (num_microbatches - 2 * num_places + place + 1)
    if inner == 0:
        main[:2] = [forward[0], backward[1]]
    ends = [backward[1], backward[0]] * (place + 1)
    ends[place + 1 :] = [gradient[1 - step % 2] for step in range(place + 1, 2 * place + 2)]
    rows = np.array(
        [forward[0]] * (2 * inner)
        + [forward[0], forward[1]] * (place + 1)
        + [gradient[1], weight, forward[1]] * inner
        + main
        + [backward[1], *back] * inner
        + ends
        + [weight, gradient[0]] * inner
        + [weight] * (place + 1)
    )
    op, stream, mark = rows.T
    is_forward, is_gradient, is_weight = (op == CODES[kind] for kind in (Op.F, Op.I, Op.W))
    number = numbered(is_forward + 2 * is_weight, stream)
    # Weight gradients are taken up in the order in which they were left.
    stream[is_weight], number[is_weight] = stream[is_gradient], number[is_gradient]
    braid = np.where(mark > 0, np.arange(len(rows)) - (mark == 2), -1)
    return np.stack((op, stream, number, braid), axis=1)
