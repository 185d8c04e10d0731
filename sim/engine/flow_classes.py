"""Flows that links can bound, in classes by symmetry, and how fast transfers go that run at the same time.

Each flow of a transfer has a *demand*, its rate if the transfer took its nominal duration. It gets its
max-min fair share, bounded by the demand, and the transfer progresses at ::

    speed = min over its flows of (fair share / demand), at most 1

A link that cannot be full even if all that ever takes it ran at once bounds nobody and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.quotient import Quotient, find_quotient, whole
from exactmap.topology.links import Routes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exactmap.sim.engine.link_loads import LinkLoads
    from exactmap.topology.links import Floats, Ints

__all__ = ["FlowClasses", "Shares", "flow_classes"]

_SLACK = 1e-9  # what sums of rates may be off by


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """How fast active transfers go.

    Parameters
    ----------
    speed
        [active] at most 1.
    uneven
        [active] whether some of those that the transfer stands for could go faster than the slowest.
    full
        Classes of links that bound one of them.
    """

    speed: Floats
    uneven: tuple[bool, ...]
    full: Ints


@dataclass(frozen=True, slots=True, eq=False)
class FlowClasses:
    """Flows that links can bound, in classes; those of a stream stand behind each other.

    Parameters
    ----------
    first
        [streams + 1] first class of each stream.
    factor
        [classes] bytes of one flow per byte of the transfer.
    quotient
        The classes.
    for_all
        [classes] whether all that the stream stands for have a flow in the class.
    link
        [link classes] a link of each class, in the fabric's numbers.
    """

    first: Ints
    factor: Floats
    for_all: NDArray[np.bool_]
    quotient: Quotient
    link: Ints

    def bounds(self, stream: int) -> bool:
        """Whether some link can bound a stream."""
        return bool(self.first[stream + 1] > self.first[stream])

    def shares(self, active: list[tuple[int, float]]) -> Shares:
        """Speeds of transfers that run at the same time.

        Parameters
        ----------
        active
            Streams, ascending, each with its nominal rate: bytes of the transfer over its nominal duration.
        """
        streams = np.array([stream for stream, _ in active], dtype=np.int64)
        lengths = self.first[streams + 1] - self.first[streams]
        begin = np.cumsum(lengths) - lengths
        classes = np.arange(lengths.sum()) + np.repeat(self.first[streams] - begin, lengths)
        nominal = np.repeat(np.array([rate for _, rate in active]), lengths)
        demand = nominal * self.factor[classes]
        count = self.quotient.num_flows[classes].astype(np.float64)
        rows = self.quotient.routes.rows(classes)
        row_of = np.repeat(np.arange(len(classes)), np.diff(rows.start))
        weight = rows.share * count[row_of]
        limit = self.quotient.capacity * (1.0 + _SLACK)
        if (np.bincount(rows.link, weight * demand[row_of], minlength=len(limit)) <= limit).all():
            still = (False,) * len(active)
            return Shares(np.ones(len(active)), still, np.empty(0, dtype=np.int64))
        rate = fair_rates(rows, self.quotient.capacity, count=count, most=demand)
        part = np.where(rate < demand * (1.0 - _SLACK), rate / demand, 1.0)
        slowest = np.minimum.reduceat(part, begin)
        is_slowest = part <= np.repeat(slowest, lengths) * (1.0 + _SLACK)
        is_even = np.logical_or.reduceat(is_slowest & self.for_all[classes], begin) | (slowest == 1.0)
        carried = np.bincount(rows.link, weight * rate[row_of], minlength=len(limit))
        touched = np.zeros(len(limit), dtype=np.bool_)
        touched[rows.link[part[row_of] < 1.0]] = True
        full = np.flatnonzero(touched & (carried >= self.quotient.capacity * (1.0 - _SLACK)))
        return Shares(slowest, tuple((~is_even).tolist()), full)


def flow_classes(loads: LinkLoads, most: Floats, *, aggregate: bool = True) -> FlowClasses:
    """Gather flows in classes.

    Parameters
    ----------
    loads
        All flows and links.
    most
        [streams] highest nominal rate of a transfer.
    aggregate
        Whether to gather them at all; the shares are the same.
    """
    sent, routes = loads.flows, loads.routes
    flow = np.repeat(np.arange(routes.num_flows), np.diff(routes.start))
    demand = most[sent.stream] * sent.factor
    load = np.bincount(routes.link, routes.share * demand[flow], minlength=len(loads.link))
    binds = load > loads.bytes_per_s * (1.0 + _SLACK)
    kept = np.flatnonzero(binds)
    number = np.cumsum(binds) - 1
    entry = binds[routes.link]
    has = np.bincount(flow[entry], minlength=routes.num_flows)
    # Flows in order of their streams, so that the classes of a stream follow each other.
    flows = np.flatnonzero(has)
    flows = flows[np.argsort(sent.stream[flows], kind="stable")]
    start = np.concatenate(([0], np.cumsum(has))).astype(np.int64)
    bound = Routes(start, number[routes.link[entry]].astype(np.int64), routes.share[entry]).rows(flows)
    capacity = loads.bytes_per_s[kept]
    if aggregate:
        facts = np.stack([sent.stream[flows].astype(np.float64), sent.factor[flows]], axis=1)
        colour = np.unique(facts, axis=0, return_inverse=True)[1].ravel().astype(np.int64)
        quotient = find_quotient(bound, capacity, colour)
    else:
        quotient = whole(bound, capacity)
    examples = flows[quotient.first_flow]
    first = np.searchsorted(sent.stream[examples], np.arange(len(sent.streams) + 1))
    pairs = np.unique(np.stack([quotient.flow_class, sent.party[flows]]), axis=1)
    num_parties = np.bincount(pairs[0], minlength=len(examples))
    return FlowClasses(
        first=first.astype(np.int64),
        factor=sent.factor[examples],
        for_all=num_parties == sent.num_parties[sent.stream[examples]],
        quotient=quotient,
        link=loads.link[kept][quotient.first_link],
    )
