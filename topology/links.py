"""Links of a network and the routes of flows over them: what fabrics hand to whoever shares out their rate.

A link has one direction. Links are numbered, and a table answers for any of them, so that a network of
millions of links need not be written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Ints", "LinkTable", "Routes"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class LinkTable(Protocol):
    """Facts of numbered links."""

    @property
    def num_links(self) -> int:
        """Number of links."""
        ...

    def capacity_bytes_per_s(self, links: Ints) -> Floats:
        """Rate of each."""
        ...

    def tier(self, links: Ints) -> Ints:
        """Tier of each: 0 between a GPU's interface and its leaf, t between tiers t and t + 1."""
        ...

    def name(self, link: int) -> str:
        """A name that people can find it by, such as ``leaf 12 > spine 3``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Routes:
    """Links of each flow, as rows of one sparse matrix.

    Parameters
    ----------
    start
        [flows + 1] first entry of each flow.
    link
        [entries] a link.
    share
        [entries] the part of the flow's rate that takes it: 1, or less where a flow is spread over paths.
    """

    start: Ints
    link: Ints
    share: Floats

    @property
    def num_flows(self) -> int:
        """Number of flows."""
        return len(self.start) - 1

    @staticmethod
    def of(paths: list[list[int]]) -> Routes:
        """Whole flows, each over its list of links."""
        lengths = np.array([len(path) for path in paths], dtype=np.int64)
        start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        link = np.array([link for path in paths for link in path], dtype=np.int64)
        return Routes(start, link, np.ones(len(link)))

    def rows(self, flows: Ints) -> Routes:
        """Some of the flows."""
        lengths = np.diff(self.start)[flows]
        start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        entries = np.arange(start[-1]) + np.repeat(self.start[:-1][flows] - start[:-1], lengths)
        return Routes(start, self.link[entries], self.share[entries])
