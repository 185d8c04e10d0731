"""Fair shares of a reduced problem: only links that can be short of rate count.

A flow can never pass what it would have if it were alone on its path. With that as a bound of its own, a link
that could carry all its flows at their bounds says nothing new and is left out: the feasible rates are the
same, and they alone decide what is fair. In a fabric that is not oversubscribed most links go this way.

Flows are rows of a sparse matrix: each has a number of entries (`lengths`), an entry a link and a weight,
what a rate of 1 of the flow takes of the link.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.flows.filling import TIE, fill
from exactmap.topology.links import Floats, Ints

__all__ = ["Bools", "alone", "compact", "kept_lengths", "share_out", "short_links", "span"]

Bools = NDArray[np.bool_]


def share_out(
    lengths: Ints, link: Ints, weight: Floats, capacity: Floats, count: Floats, most: Floats
) -> Floats:
    """Fair rates of flows, each with its number of entries; `weight` is share times count.

    Links that could carry all their flows at the rates that these would have alone are left out first.
    """
    rate = alone(lengths, link, weight, capacity, most)
    kept = short_links(lengths, link, weight, capacity, rate)[link]
    if not weight.all():
        kept &= weight > 0.0
    rate[count == 0.0] = 0.0
    short_lengths = kept_lengths(kept, lengths)
    rows = np.flatnonzero(short_lengths)
    if len(rows):
        start = np.concatenate(([0], np.cumsum(short_lengths[rows])))
        used, dense = compact(link[kept], len(capacity))
        rate[rows] = fill(start, dense, weight[kept], capacity[used], rate[rows])
    return rate


def alone(lengths: Ints, link: Ints, weight: Floats, capacity: Floats, most: Floats) -> Floats:
    """Rate of each flow if it were alone."""
    level = np.full(len(weight), np.inf)
    np.divide(capacity[link], weight, out=level, where=weight > 0.0)
    rate = most.copy()
    rows = np.flatnonzero(lengths)
    if len(rows):
        first = (np.cumsum(lengths) - lengths)[rows]
        rate[rows] = np.minimum(rate[rows], np.minimum.reduceat(level, first))
    return rate


def short_links(lengths: Ints, link: Ints, weight: Floats, capacity: Floats, rate: Floats) -> Bools:
    """[links] whether a link could not carry all its flows at these rates."""
    wanted = np.zeros(len(weight))
    np.multiply(weight, np.repeat(rate, lengths), out=wanted, where=weight > 0.0)
    demand = np.bincount(link, wanted, len(capacity))
    return np.asarray(demand > capacity * (1.0 + TIE), dtype=np.bool_)


def span(start: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Starts and entries of some rows of a sparse matrix, in their order."""
    lengths = start[rows + 1] - start[rows]
    new_start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return new_start, np.arange(new_start[-1]) + np.repeat(start[rows] - new_start[:-1], lengths)


def kept_lengths(kept: Bools, lengths: Ints) -> Ints:
    """Entries kept of each row."""
    before = np.concatenate(([0], np.cumsum(kept)))
    ends = np.cumsum(lengths)
    return np.asarray(before[ends] - before[ends - lengths], dtype=np.int64)


def compact(link: Ints, num_links: int) -> tuple[Ints, Ints]:
    """Links in use, by first appearance, and each entry's place among them; its cost knows no `num_links`.

    Each entry writes its number at its link, and whoever finds his own is the one that counts: no sort, and
    memory of a link that nobody takes is never touched.
    """
    last = np.empty(num_links, dtype=np.int64)
    own = np.arange(len(link))
    last[link] = own
    found = last[link]
    is_chosen = found == own
    return link[is_chosen], (np.cumsum(is_chosen) - 1)[found]
