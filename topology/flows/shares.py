"""Routes made ready to be shared: the work that need not be done again when flows come and go.

Three things that change no rate make the problem small:

- Links that nobody takes are left out, so the size of the network does not count.
- Links that the same flows take with the same shares are one, the one of least capacity: all uplinks of a
  leaf whose flows are sprayed, say.
- A flow can never pass what it would have if it were alone on its path. With that as a bound of its own, a
  link that could carry all its flows at their bounds says nothing new and is left out: the feasible rates are
  the same, and they alone decide what is fair.
"""

from __future__ import annotations

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.filling import TIE, fill
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Shares", "span"]

MANY_LINKS = 12
"""Entries per flow from which looking for links that are one pays: whole flows through four tiers have 8."""


class Shares:
    """Flows and the links that they share.

    Parameters
    ----------
    routes
        Links of each flow. Entries with share 0 do not count.
    capacity
        [links] rate of each link.
    count
        [flows] equal flows that each stands for; 1 if left out; 0: there is none.
    most
        [flows] rate that a sender cannot pass; none if left out.

    Examples
    --------
    >>> shares = Shares(Routes.of([[0], [0, 1], [1]]), np.array([6.0, 10.0]))
    >>> shares.rates()
    array([3., 3., 7.])
    >>> shares.rates(np.array([1, 2]))  # the first has left
    array([5., 5.])
    """

    def __init__(
        self,
        routes: Routes,
        capacity: Floats,
        *,
        count: Floats | None = None,
        most: Floats | None = None,
    ) -> None:
        _check(routes, capacity)
        self.num_flows = routes.num_flows
        self.used, link = _used(routes.link, len(capacity))
        lengths = np.diff(routes.start)
        share = routes.share
        if not share.all():
            kept = share > 0.0
            lengths = _sums(kept, lengths)
            link, share = link[kept], share[kept]
        self.capacity = capacity[self.used].astype(np.float64)
        if len(link) > MANY_LINKS * self.num_flows:
            link, share, lengths = self._merged(link, share, lengths)
        self.start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        self.link = link
        self.share = share
        self.count = np.ones(self.num_flows) if count is None else count.astype(np.float64)
        self.most = np.full(self.num_flows, np.inf) if most is None else most.astype(np.float64)

    def _merged(self, link: Ints, share: Floats, lengths: Ints) -> tuple[Ints, Floats, Ints]:
        """Entries with one link for all that the same flows take with the same shares.

        Links are told apart by two random sums over their flows, each of 53 bits: two different ones would
        have to agree in both.
        """
        num_links = len(self.capacity)
        # A fixed seed: results must not hang on anything but the input.
        draws = np.random.default_rng(0).random((2, self.num_flows))
        sums = [np.bincount(link, np.repeat(draw, lengths) * share, num_links) for draw in draws]
        order = np.lexsort((self.capacity, sums[1], sums[0]))
        is_first = np.ones(num_links, dtype=np.bool_)
        is_first[1:] = (np.diff(sums[0][order]) != 0.0) | (np.diff(sums[1][order]) != 0.0)
        merged = np.empty(num_links, dtype=np.int64)
        merged[order] = np.cumsum(is_first) - 1
        # The first of each kind has its least capacity, and stands for all.
        is_chosen = np.zeros(num_links, dtype=np.bool_)
        is_chosen[order[is_first]] = True
        self.capacity = self.capacity[order[is_first]]
        self.used = self.used[order[is_first]]
        kept = is_chosen[link]
        return merged[link[kept]], share[kept], _sums(kept, lengths)

    def rates(self, flows: Ints | None = None, *, taken: Floats | None = None) -> Floats:
        """Fair rates of some of the flows, or all, as if the others had left.

        Parameters
        ----------
        flows
            [n] which; all if left out.
        taken
            [len(used)] rate of each link that is already spoken for; none if left out.

        Returns
        -------
        Floats
            [n] rate of one flow, 0 where `count` is 0.
        """
        start, link, share, count, most = self.start, self.link, self.share, self.count, self.most
        if flows is not None:
            start, entries = span(start, flows)
            link, share, count, most = link[entries], share[entries], count[flows], most[flows]
        left = self.capacity
        if taken is not None:
            left = np.maximum(left - taken, 0.0)
        lengths = np.diff(start)
        weight = share * np.repeat(count, lengths)
        rate = _alone(left[link], weight, lengths, most)
        # What all could take together at most; what has no bound takes all of an endless link.
        with np.errstate(invalid="ignore"):
            demand = np.bincount(link, np.where(weight > 0.0, weight * np.repeat(rate, lengths), 0.0), len(left))
        is_short = demand > left * (1.0 + TIE)
        kept = is_short[link]
        if (count == 0.0).any():
            kept &= weight > 0.0
            rate[count == 0.0] = 0.0
        short_lengths = _sums(kept, lengths)
        rows = np.flatnonzero(short_lengths)
        if len(rows):
            ends = np.cumsum(short_lengths[rows])
            used, dense = _used(link[kept], len(left))
            rate[rows] = fill(np.concatenate(([0], ends)), dense, weight[kept], left[used], rate[rows])
        return rate

    def load(self, rate: Floats, flows: Ints | None = None) -> Floats:
        """[len(used)] rate that some of the flows, or all, take of each link in `used`."""
        start, link, share, count = self.start, self.link, self.share, self.count
        if flows is not None:
            start, entries = span(start, flows)
            link, share, count = link[entries], share[entries], count[flows]
        weight = share * np.repeat(rate * count, np.diff(start))
        return np.bincount(link, weight, len(self.used))


def span(start: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Starts and entries of some rows of a sparse matrix, in their order."""
    lengths = start[rows + 1] - start[rows]
    new_start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    return new_start, np.arange(new_start[-1]) + np.repeat(start[rows] - new_start[:-1], lengths)


def _alone(left: Floats, weight: Floats, lengths: Ints, most: Floats) -> Floats:
    """Rate of each flow if it were alone."""
    level = np.full(len(weight), np.inf)
    np.divide(left, weight, out=level, where=weight > 0.0)
    rate = most.copy()
    rows = np.flatnonzero(lengths)
    if len(rows):
        first = (np.cumsum(lengths) - lengths)[rows]
        rate[rows] = np.minimum(rate[rows], np.minimum.reduceat(level, first))
    return rate


def _sums(kept: np.ndarray[tuple[int], np.dtype[np.bool_]], lengths: Ints) -> Ints:
    """Entries kept of each row."""
    before = np.concatenate(([0], np.cumsum(kept)))
    ends = np.cumsum(lengths)
    return np.asarray(before[ends] - before[ends - lengths], dtype=np.int64)


def _used(link: Ints, num_links: int) -> tuple[Ints, Ints]:
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


def _check(routes: Routes, capacity: Floats) -> None:
    """Refuse what would give rates without meaning."""
    if len(routes.link) and not 0 <= int(routes.link.min()) <= int(routes.link.max()) < len(capacity):
        raise InvalidInputError(
            "a route takes a link that is not there",
            got=f"links {routes.link.min()} to {routes.link.max()}",
            expected=f"0 to {len(capacity) - 1}",
        )
    for what, values in (("a share", routes.share), ("a link's rate", capacity)):
        if not (values >= 0.0).all():
            raise InvalidInputError(
                f"{what} is no rate", got=f"{values[~(values >= 0.0)][0]:g}", expected="0 or more"
            )
