"""Schedules of v chunks per rank in loop placement, all from one visit of the chunks group by group.

The microbatches are cut into groups. Forward passes go group by group, inside a group chunk by chunk from the
first to the last, inside a chunk microbatch by microbatch; backward passes the same with the chunks reversed.
Groups of N = p (depth-first) give the least stash, larger ones hide slow links better. F, B, I, W are times
of all chunks of a rank together; every schedule here sends v times the messages of one chunk.

interleaved-1f1b: rank r starts with 2(p-1-r) + (v-1)N forward passes, then one of each in turn. Idle time
    (p-1)(F+B)/v, stash p(1 + (p-1)/(pv)) microbatches with groups of p.
braided-interleaved: one forward pass more to start with, so that the two passes of a turn belong to different
    microbatches on every rank and can be braided: what one sends or reduces inside a layer hides behind the
    other. Idle time as above plus up to F/v, stash one chunk more.
interleaved-zb: starts with (p-1-r) + (v-1)N, splits the backward pass and puts W off by r chunks. Idle time
    (p-1)(F+I-W)/v, stash p microbatches with groups of p.
breadth-first: one group of all m, all forward passes, then all backward passes. Idle time (p-1)(F+B)/v,
    stash m; parameters that are sharded at rest are gathered once per chunk and pass.

Any p, m and v.
Sources: Narayanan et al., arXiv:2104.04473, section 2.2; groups of any size: Llama team, arXiv:2407.21783,
section 3.3; braided: Kimi team, arXiv:2507.20534, section 2.4; split: torch.distributed.pipelining,
ScheduleInterleavedZeroBubble, after Qi et al., arXiv:2401.10241; Lamy-Poirier, arXiv:2211.05953.
"""

from __future__ import annotations

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.order import Order, Works, loop_placement
from exactmap.sim.schedules.weave import alternate, braided, passes, weights_later

__all__ = ["braided_interleaved", "breadth_first", "interleaved", "interleaved_zb", "microbatch_groups"]


def microbatch_groups(num_ranks: int, num_microbatches: int, group_size: int = 0) -> tuple[range, ...]:
    """Cut the microbatches of a step into groups.

    A group of at least p microbatches comes back from the last rank just as the first rank is done with it.
    So there are m div p groups, or one if m < p, whose sizes differ by at most one, the larger ones first.
    With a `group_size` (at least 1) there are m div group_size groups instead.

    Examples
    --------
    >>> [len(group) for group in microbatch_groups(4, 10)]
    [5, 5]
    >>> [len(group) for group in microbatch_groups(4, 3)]
    [3]
    """
    num_groups = max(1, num_microbatches // (group_size or num_ranks))
    base, extra = divmod(num_microbatches, num_groups)
    groups: list[range] = []
    first = 0
    for group in range(num_groups):
        size = base + (group < extra)
        groups.append(range(first, first + size))
        first += size
    return tuple(groups)


def interleaved(num_ranks: int, num_microbatches: int, num_chunks: int, group_size: int = 0) -> Order:
    """Interleaved 1F1B for any number of microbatches; with one chunk it is plain 1F1B.

    Parameters
    ----------
    num_ranks, num_microbatches, num_chunks
        p, m and v.
    group_size
        Wanted size of a group of microbatches, 0: p. From p (depth-first) to m (breadth-first).

    Raises
    ------
    InvalidInputError
        If `group_size` is smaller than both p and m: the first rank would wait for the last one between
        chunks, and most such orders wait for themselves.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in interleaved(2, 2, 2).works(1)]
    ['F1.0', 'F1.1', 'F3.0', 'B3.0', 'F3.1', 'B3.1', 'B1.0', 'B1.1']
    """
    visits, group = _visits(num_ranks, num_microbatches, num_chunks, Op.B, group_size)
    # With one chunk no microbatch comes back for the next one: 1F1B needs no more than its own warm-up.
    hops = 2 if num_chunks > 1 else 1
    ranks = [
        alternate(*visit, hops * (num_ranks - 1 - rank) + (num_chunks - 1) * group)
        for rank, visit in enumerate(visits)
    ]
    return Order(num_microbatches, loop_placement(num_ranks, num_chunks), ranks)


def braided_interleaved(num_ranks: int, num_microbatches: int, num_chunks: int, group_size: int = 0) -> Order:
    """Interleaved 1F1B, each turn of forward and backward a braid.

    Parameters and errors as `interleaved`.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in braided_interleaved(2, 2, 1).works(1)]
    ['F1.0', 'F1.1', 'B1.0', 'B1.1']
    """
    visits, group = _visits(num_ranks, num_microbatches, num_chunks, Op.B, group_size)
    ranks = [
        braided(*visit, 2 * (num_ranks - 1 - rank) + (num_chunks - 1) * group + 1)
        for rank, visit in enumerate(visits)
    ]
    return Order(num_microbatches, loop_placement(num_ranks, num_chunks), ranks)


def interleaved_zb(num_ranks: int, num_microbatches: int, num_chunks: int, group_size: int = 0) -> Order:
    """Interleaved 1F1B with weight gradients put off by r chunks; with one chunk it is ZB-H1.

    Parameters and errors as `interleaved`.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in interleaved_zb(2, 2, 2).works(1)][:6]
    ['F1.0', 'F1.1', 'F3.0', 'I3.0', 'F3.1', 'I3.1']
    """
    visits, group = _visits(num_ranks, num_microbatches, num_chunks, Op.I, group_size)
    ranks = [
        weights_later(alternate(*visit, (num_ranks - 1 - rank) + (num_chunks - 1) * group), rank)
        for rank, visit in enumerate(visits)
    ]
    return Order(num_microbatches, loop_placement(num_ranks, num_chunks), ranks)


def breadth_first(num_ranks: int, num_microbatches: int, num_chunks: int) -> Order:
    """Chunk by chunk all forward passes, then chunk by chunk, from the last, all backward passes.

    Examples
    --------
    >>> [f"{w.op}{w.stage}.{w.microbatch}" for w in breadth_first(2, 2, 2).works(1)]
    ['F1.0', 'F1.1', 'F3.0', 'F3.1', 'B3.0', 'B3.1', 'B1.0', 'B1.1']
    """
    visits, _ = _visits(num_ranks, num_microbatches, num_chunks, Op.B, num_microbatches)
    ranks = [Works.joined(visit) for visit in visits]
    return Order(num_microbatches, loop_placement(num_ranks, num_chunks), ranks)


def _visits(
    num_ranks: int, num_microbatches: int, num_chunks: int, backward: Op, group_size: int
) -> tuple[list[tuple[Works, Works]], int]:
    """Forward and backward passes of each rank as they come, and the size of the first group."""
    if group_size and group_size < min(num_ranks, num_microbatches):
        raise InvalidInputError(
            "groups of microbatches are too small for the pipeline",
            got=str(group_size),
            expected=f"at least {min(num_ranks, num_microbatches)}",
            hint="leave the group size out: it is then the number of pipeline ranks",
        )
    groups = microbatch_groups(num_ranks, num_microbatches, group_size)
    chunk = np.concatenate([np.repeat(np.arange(num_chunks), len(group)) for group in groups])
    microbatch = np.concatenate([np.tile(group, num_chunks) for group in groups])
    visits = [
        (
            passes(Op.F, chunk * num_ranks + rank, microbatch),
            passes(backward, (num_chunks - 1 - chunk) * num_ranks + rank, microbatch),
        )
        for rank in range(num_ranks)
    ]
    return visits, len(groups[0])
