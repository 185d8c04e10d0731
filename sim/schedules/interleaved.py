"""Interleaved 1F1B: v chunks per rank, visited group by group of microbatches.

The microbatches are cut into groups. Forward passes go group by group, inside a group chunk by chunk from the
first to the last, inside a chunk microbatch by microbatch; backward passes the same with the chunks reversed.
Rank r starts with 2(p-1-r) + (v-1)N forward passes, N the size of the first group, then takes one of each in
turn.

Groups of p (depth-first) give the least stash, p(1 + (p-1)/(pv)) microbatches, one group of m (breadth-first)
hides slow links best. Idle time of a rank: (p-1)(F+B)/v, F and B of all chunks together, at v times the
messages.
Source: Narayanan et al., arXiv:2104.04473, section 2.2; groups of any size: Llama team, arXiv:2407.21783,
section 3.3.
"""

from __future__ import annotations

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import Op
from exactmap.sim.schedules.one_f_one_b import alternate, one_f_one_b
from exactmap.sim.schedules.order import Order, Work, loop_placement

__all__ = ["interleaved", "microbatch_groups"]


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
    if group_size and group_size < min(num_ranks, num_microbatches):
        raise InvalidInputError(
            "groups of microbatches are too small for the pipeline",
            got=str(group_size),
            expected=f"at least {min(num_ranks, num_microbatches)}",
            hint="leave the group size out: it is then the number of pipeline ranks",
        )
    if num_chunks == 1:
        return one_f_one_b(num_ranks, num_microbatches)
    groups = microbatch_groups(num_ranks, num_microbatches, group_size)
    ranks: list[tuple[Work, ...]] = []
    for rank in range(num_ranks):
        chunks = range(rank, num_ranks * num_chunks, num_ranks)
        forward = [Work(Op.F, stage, b) for group in groups for stage in chunks for b in group]
        backward = [Work(Op.B, stage, b) for group in groups for stage in reversed(chunks) for b in group]
        num_warmup = 2 * (num_ranks - 1 - rank) + (num_chunks - 1) * len(groups[0])
        ranks.append(alternate(forward, backward, num_warmup))
    return Order(num_microbatches, loop_placement(num_ranks, num_chunks), tuple(ranks))
