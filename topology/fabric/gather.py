"""Routes put together from pieces: each piece adds some links to some flows."""

from __future__ import annotations

import numpy as np

from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Pieces"]


class Pieces:
    """Links of flows, added in any order; a flow's links keep the order in which they came.

    Examples
    --------
    >>> pieces = Pieces(2)
    >>> pieces.add(np.array([1, 0]), np.array([5, 6]))
    >>> pieces.add(np.array([1]), np.array([7]), np.array([0.5]))
    >>> routes = pieces.routes()
    >>> routes.start.tolist(), routes.link.tolist(), routes.share.tolist()
    ([0, 1, 3], [6, 5, 7], [1.0, 1.0, 0.5])
    """

    def __init__(self, num_flows: int) -> None:
        self._num_flows = num_flows
        self._flows: list[Ints] = []
        self._links: list[Ints] = []
        self._shares: list[Floats] = []

    def add(self, flows: Ints, links: Ints, shares: Floats | None = None) -> None:
        """Add a link to each of some flows; whole flows if no shares are given."""
        self._flows.append(flows)
        self._links.append(links)
        self._shares.append(np.ones(len(flows)) if shares is None else shares)

    def routes(self, *, planes: int = 1, plane_links: int = 0, merge: bool = False) -> Routes:
        """All pieces as routes, spread evenly over planes; `merge` joins what is twice in a flow."""
        flow = np.concatenate(self._flows) if self._flows else np.zeros(0, dtype=np.int64)
        link = np.concatenate(self._links) if self._links else np.zeros(0, dtype=np.int64)
        share = np.concatenate(self._shares) if self._shares else np.zeros(0)
        if merge and len(link):
            width = int(link.max()) + 1
            key, place = np.unique(flow * width + link, return_inverse=True)
            flow, link = key // width, key % width
            share = np.bincount(place, share).astype(np.float64)
        if planes > 1:
            flow = np.tile(flow, planes)
            link = (link + np.arange(planes)[:, np.newaxis] * plane_links).ravel()
            share = np.tile(share / planes, planes)
        order = np.argsort(flow, kind="stable")
        counts = np.bincount(flow, minlength=self._num_flows)
        start = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return Routes(start, link[order], share[order])
