"""Flows and links by symmetry: the coarsest equitable partition of who shares what, and fair rates on it.

Flows and the links that they take form a bipartite graph whose edges carry shares. A partition into flow
classes F_i and link classes L_j is *equitable* if all flows of F_i have the same shares on links of L_j and
all links of L_j take the same shares of flows of F_i (the same list of shares, not only the same sum); flows
of a class then have equal demands, links of a class equal capacities. It is found by colour refinement: each
round a colour becomes a hash of itself and of the multiset of its neighbours' colours, until no class splits
(Hopcroft 1971; Grohe, Kersting, Mladenov and Schweitzer 2021 for its use on linear programs). Hashes can meet
by chance, so what they find is counted out before anybody relies on it, and found anew if it is wrong.

**Theorem.** Let a union of flow classes be active. Then all flows of a class have the same max-min fair rate,
and it is that of the *quotient*: one flow and one link per class, where F_i loads L_j with ::

    w_ij = |F_i| s_ij / |L_j|,    s_ij: all shares of one flow of F_i on links of L_j

*Proof*, by induction over the rounds of filling (`exactmap.topology.flows.fair`). Before a round let the open
flows be a union of classes and what is left of a link be equal within each class; at the start it is. Counted
from both ends, the shares between F_i and L_j are |F_i| s_ij = |L_j| w_ij, so each link of L_j has the load
sum_i w_ij over open classes, hence the same level, and the round's bound is that of the quotient. A flow is
fixed if its demand is at most the bound, which holds for a whole class, or if it takes a full link. The full
links are a union of link classes, and of the flows of F_i either all take a link of L_j or none does
(s_ij > 0 or not). So a union of classes is fixed at one rate, each link of L_j loses the sum of w_ij times
that rate, and what is left is again equal within each class. The max-min rates are unique, whatever the order
of rounds, so this holds for any algorithm that finds them.

A quotient thus serves for every moment of a step in which classes start and end as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.flows.distinct import first_of_class, num_distinct
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["Quotient", "find_quotient", "whole"]

_Words = NDArray[np.uint64]
_MANY_ROUNDS = 16  # replicas of a pipeline take four
_MANY_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Quotient:
    """Classes of flows and of links.

    Parameters
    ----------
    flow_class
        [flows] class of each; classes are numbered by their first flows.
    link_class
        [links] class of each; classes are numbered by their first links.
    num_flows
        [flow classes] flows in each.
    num_links
        [link classes] links in each.
    routes
        Link classes of each flow class; the share is that of one link in one flow, s_ij / |L_j|, so that with
        `num_flows` as counts the load on a link is w_ij.
    capacity
        [link classes] rate of one link.
    """

    flow_class: Ints
    link_class: Ints
    num_flows: Ints
    num_links: Ints
    routes: Routes
    capacity: Floats

    @property
    def first_flow(self) -> Ints:
        """[flow classes] lowest flow of each."""
        return first_of_class(self.flow_class, len(self.num_flows))

    @property
    def first_link(self) -> Ints:
        """[link classes] lowest link of each."""
        return first_of_class(self.link_class, len(self.num_links))


def find_quotient(
    routes: Routes, capacity: Floats, colour: Ints | None = None, *, is_hasty: bool = False
) -> Quotient:
    """Coarsest equitable partition that parts flows of different colour and links of different capacity.

    Colours are hashes of 64 bits: two of a million colours meet by chance with a probability of 3e-8. What
    they give is checked, and found again with other hashes if it is not equitable.

    Parameters
    ----------
    routes
        Links of each flow.
    capacity
        [links] rate of each link.
    colour
        [flows] whole numbers; flows that start at different times or differ in demand need different ones.
    is_hasty
        Whether to give up where classes turn out to be many, or a difference at one end of the network takes
        many rounds to reach the other: then each flow and each link is a class by itself.

    Examples
    --------
    Two pairs of flows, each pair on a link of its own, are one class on one class of links:

    >>> from exactmap.topology.links import Routes
    >>> made = find_quotient(Routes.of([[0], [0], [1], [1]]), np.array([10.0, 10.0]))
    >>> made.flow_class.tolist(), made.link_class.tolist(), made.routes.share.tolist()
    ([0, 0, 0, 0], [0, 0], [0.5])
    """
    start = np.zeros(routes.num_flows, dtype=np.int64) if colour is None else colour.astype(np.int64)
    graph = _Graph.of(routes, capacity.astype(np.float64), start)
    for attempt in range(_MANY_ATTEMPTS):
        found = _refined(graph, attempt, is_hasty=is_hasty)
        if found is None:
            break
        if _is_equitable(graph, *found):
            return _classes(routes, capacity, *found)
    return whole(routes, capacity)


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """Flows and links as neighbours, seen from both sides."""

    capacity: Floats
    colour: Ints
    start: Ints  #: [flows + 1]
    link: Ints  #: [entries]
    share: Floats
    link_start: Ints  #: [links + 1]
    by_link: Ints  #: [entries] in order of links
    flow: Ints  #: [entries]

    @staticmethod
    def of(routes: Routes, capacity: Floats, colour: Ints) -> _Graph:
        """Neighbours of some routes."""
        sizes = np.bincount(routes.link, minlength=len(capacity))
        return _Graph(
            capacity,
            colour,
            routes.start,
            routes.link,
            routes.share.astype(np.float64),
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.argsort(routes.link, kind="stable"),
            np.repeat(np.arange(routes.num_flows), np.diff(routes.start)),
        )


def _refined(graph: _Graph, attempt: int, *, is_hasty: bool) -> tuple[Ints, Ints] | None:
    """Classes of flows and of links by hashes of their own; None where it is not worth going on."""
    share = _mixed(graph.share.view(np.uint64) + np.uint64(attempt))
    flow_by_link, share_by_link = graph.flow[graph.by_link], share[graph.by_link]
    of_flow = _mixed(graph.colour.view(np.uint64))
    of_link = _mixed(graph.capacity.view(np.uint64))
    num_rounds = 0
    counts = (num_distinct(of_flow), num_distinct(of_link))
    while True:
        met = _sums(_mixed(of_link[graph.link] + share), graph.start)
        of_flow = _mixed(of_flow * np.uint64(3) + met)
        met = _sums(_mixed(of_flow[flow_by_link] + share_by_link), graph.link_start)
        of_link = _mixed(of_link * np.uint64(3) + met)
        before, counts = counts, (num_distinct(of_flow), num_distinct(of_link))
        if counts == before:
            return _numbered(of_flow), _numbered(of_link)
        num_rounds += 1
        if is_hasty and (num_rounds > _MANY_ROUNDS or counts[0] > len(of_flow) // 2):
            return None


def _is_equitable(graph: _Graph, flow_class: Ints, link_class: Ints) -> bool:
    """Whether members of each class are alike and have like neighbours: counted out, with no hash."""
    shares, which = np.unique(graph.share, return_inverse=True)
    links = link_class[graph.link] * len(shares) + which
    flows = (flow_class[graph.flow] * len(shares) + which)[graph.by_link]
    return _alike(flow_class, graph.colour, graph.start, links) and _alike(
        link_class, graph.capacity, graph.link_start, flows
    )


def _alike(number: Ints, own: Ints | Floats, start: Ints, neighbours: Ints) -> bool:
    """Whether all of a class have the same value of their own, and the same neighbours in some order."""
    if not len(number):
        return True
    first = first_of_class(number, int(number.max()) + 1)[number]
    lengths = np.diff(start)
    if not (np.array_equal(own, own[first]) and np.array_equal(lengths, lengths[first])):
        return False
    row = np.repeat(np.arange(len(number)), lengths)
    ordered = neighbours[np.lexsort((neighbours, row))]
    return np.array_equal(ordered, ordered[np.arange(len(row)) + (start[first] - start[:-1])[row]])


def whole(routes: Routes, capacity: Floats) -> Quotient:
    """The finest partition: each flow and each link by itself."""
    num_flows, num_links = routes.num_flows, len(capacity)
    flows, links = np.arange(num_flows), np.arange(num_links)
    ones = (np.ones(num_flows, dtype=np.int64), np.ones(num_links, dtype=np.int64))
    return Quotient(flows, links, *ones, routes, capacity.astype(np.float64))


def _classes(routes: Routes, capacity: Floats, flow_class: Ints, link_class: Ints) -> Quotient:
    num_flows, num_links = np.bincount(flow_class), np.bincount(link_class)
    examples = np.unique(flow_class, return_index=True)[1].astype(np.int64)
    rows = routes.rows(examples)
    of = np.repeat(np.arange(len(examples)), np.diff(rows.start))
    key = of * max(len(num_links), 1) + link_class[rows.link]
    pairs, where = np.unique(key, return_inverse=True)
    pair_flow, pair_link = np.divmod(pairs, max(len(num_links), 1))
    share = np.bincount(where, rows.share, minlength=len(pairs)) / num_links[pair_link]
    start = np.searchsorted(pair_flow, np.arange(len(examples) + 1))
    links = np.unique(link_class, return_index=True)[1]
    return Quotient(
        flow_class=flow_class,
        link_class=link_class,
        num_flows=num_flows.astype(np.int64),
        num_links=num_links.astype(np.int64),
        routes=Routes(start.astype(np.int64), pair_link.astype(np.int64), share),
        capacity=capacity[links].astype(np.float64),
    )


def _numbered(colour: _Words) -> Ints:
    """Classes by first member, from colours."""
    _, first, where = np.unique(colour, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(len(first))
    return number[where]


def _sums(values: _Words, start: Ints) -> _Words:
    """Sums, modulo 2^64, of the values from each start to the next: a hash of a multiset of mixed words."""
    total = np.concatenate((np.zeros(1, dtype=np.uint64), np.cumsum(values, dtype=np.uint64)))
    return total[start[1:]] - total[start[:-1]]


def _mixed(value: _Words) -> _Words:
    """Finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
