"""Routes made ready to be shared: the work that need not be done again when flows come and go.

Links that nobody takes are left out, so the size of the network does not count. Links that the same flows
take with the same shares are one, the one of least capacity: all uplinks of a leaf whose flows are sprayed.
"""

from __future__ import annotations

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.reduced import compact, kept_lengths, share_out, span
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Shares", "check_amounts"]

MANY_LINKS = 12
"""Entries per flow from which looking for links that are one pays: whole flows through four tiers have 8."""


class Shares:
    """Flows and the links that they share.

    `used` holds the links in use, and `kind` the kind of each: links of one kind carry the same part of the
    same flows. Everything else counts kinds.

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
        _check(routes, capacity, count, most)
        self.num_flows = routes.num_flows
        self.used, link = compact(routes.link, len(capacity))
        lengths = np.diff(routes.start)
        share = routes.share
        if not share.all():
            kept = share > 0.0
            lengths = kept_lengths(kept, lengths)
            link, share = link[kept], share[kept]
        self.capacity = capacity[self.used].astype(np.float64)
        self.kind = np.arange(len(self.used))
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
        self.kind = merged
        kept = is_chosen[link]
        return merged[link[kept]], share[kept], kept_lengths(kept, lengths)

    def rates(self, flows: Ints | None = None) -> Floats:
        """Fair rates of some of the flows, or all, as if the others had left.

        Parameters
        ----------
        flows
            [n] which; all if left out.

        Returns
        -------
        Floats
            [n] rate of one flow, 0 where `count` is 0.
        """
        start, link, share, count, most = self.start, self.link, self.share, self.count, self.most
        if flows is not None:
            start, entries = span(start, flows)
            link, share, count, most = link[entries], share[entries], count[flows], most[flows]
        lengths = np.diff(start)
        return share_out(lengths, link, share * np.repeat(count, lengths), self.capacity, count, most)

    def load(self, rate: Floats, flows: Ints | None = None) -> Floats:
        """[kinds] rate that some of the flows, or all, take of each link of a kind."""
        start, link, share, count = self.start, self.link, self.share, self.count
        if flows is not None:
            start, entries = span(start, flows)
            link, share, count = link[entries], share[entries], count[flows]
        weight = share * np.repeat(rate * count, np.diff(start))
        return np.asarray(np.bincount(link, weight, len(self.capacity)), dtype=np.float64)


def _check(routes: Routes, capacity: Floats, count: Floats | None, most: Floats | None) -> None:
    """Refuse what would give rates without meaning."""
    if len(routes.link) and not 0 <= int(routes.link.min()) <= int(routes.link.max()) < len(capacity):
        raise InvalidInputError(
            "a route takes a link that is not there",
            got=f"links {routes.link.min()} to {routes.link.max()}",
            expected=f"0 to {len(capacity) - 1}",
        )
    check_amounts(share=routes.share, rate=capacity, count=count, bound=most)


def check_amounts(
    *,
    share: Floats | None = None,
    rate: Floats | None = None,
    count: Floats | None = None,
    bound: Floats | None = None,
) -> None:
    """Refuse shares, rates of links, counts and bounds that are none; links and bounds may have no end.

    Raises
    ------
    InvalidInputError
        If one is below 0, is no number, or is a share or count without end.
    """
    for what, values, is_finite in (
        ("a share", share, True),
        ("a link's rate", rate, False),
        ("a count", count, True),
        ("a bound", bound, False),
    ):
        if values is None:
            continue
        wrong = ~(values >= 0.0)
        if is_finite:
            wrong |= np.isinf(values)
        if wrong.any():
            got = float(values[wrong][0])
            problem = "has no end" if got > 0.0 else "cannot be below 0"
            raise InvalidInputError(f"{what} {problem}", got=f"{got:g}", expected="0 or more")
