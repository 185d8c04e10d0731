"""Flows that links can bound, in classes by symmetry, and how fast transfers go that run at the same time.

Each flow of a transfer has a *demand*, its rate if the transfer took its nominal duration. It gets its
max-min fair share, bounded by the demand, and the transfer progresses at ::

    speed = min over its flows of (fair share / demand), at most 1

A link that bounds nobody is left out: one that cannot be short even if all that ever takes it ran at once,
and one above the interfaces whose flows these already hold to its rate, such as any uplink of a leaf in a
non-blocking tree that all spray on. What the other links allow is then what all allow, so fair rates stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from exactmap.topology.flows.distinct import distinct
from exactmap.topology.flows.filling import fill
from exactmap.topology.flows.quotient import Quotient, find_quotient, whole
from exactmap.topology.flows.reduced import compact, kept_lengths
from exactmap.topology.links import Routes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exactmap.sim.engine.link_loads import LinkLoads
    from exactmap.topology.links import Floats, Ints

__all__ = ["FlowClasses", "Shares", "flow_classes"]

_SLACK = 1e-9  # what sums of rates may be off by
_Scalar = TypeVar("_Scalar", bound=np.generic)


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
        Link classes that bound one of them: full, and more is wanted of them than they carry.
    """

    speed: Floats
    uneven: NDArray[np.bool_]
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
    for_all
        [classes] whether all that the stream stands for have a flow in the class.
    quotient
        The classes.
    link
        [links] the links that can be full, as numbers of `LinkLoads.link`.
    lengths
        [classes] link classes that each takes.
    weight
        [entries of the quotient's routes] what a rate of 1 of all flows of the class takes of a link.
    """

    first: Ints
    factor: Floats
    for_all: NDArray[np.bool_]
    quotient: Quotient
    link: Ints
    lengths: Ints
    weight: Floats

    def bounds(self, stream: int) -> bool:
        """Whether some link can bound a stream."""
        return bool(self.first[stream + 1] > self.first[stream])

    def shares(self, active: Sequence[tuple[int, float]]) -> Shares:
        """Speeds of transfers that run at the same time.

        Parameters
        ----------
        active
            Streams, ascending, each with its nominal rate: bytes of the transfer over its nominal duration.
        """
        bound = np.array([place for place, (stream, _) in enumerate(active) if self.bounds(stream)], np.int64)
        speed, uneven = np.ones(len(active)), np.zeros(len(active), dtype=np.bool_)
        nothing = Shares(speed, uneven, np.empty(0, dtype=np.int64))
        if not len(bound):
            return nothing
        spans = [slice(*self.first[active[place][0] :][:2].tolist()) for place in bound]
        sizes = np.array([span.stop - span.start for span in spans])
        demand = _joined(self.factor, spans) * np.repeat([active[place][1] for place in bound], sizes)
        lengths = _joined(self.lengths, spans)
        start, capacity = self.quotient.routes.start, self.quotient.capacity
        entries = [slice(int(start[span.start]), int(start[span.stop])) for span in spans]
        link, weight = _joined(self.quotient.routes.link, entries), _joined(self.weight, entries)
        load = np.bincount(link, weight * np.repeat(demand, lengths), minlength=len(capacity))
        is_short = load > capacity * (1.0 + _SLACK)
        if not is_short.any():
            return nothing
        # A link that can carry what its flows want holds nobody back, and most can.
        kept = is_short[link]
        lengths = kept_lengths(kept, lengths)
        held = np.flatnonzero(lengths)
        lengths, weight, wanted = lengths[held], weight[kept], demand[held]
        used, link = compact(link[kept], len(capacity))
        rate = fill(np.concatenate(([0], np.cumsum(lengths))), link, weight, capacity[used], wanted)
        is_slower = rate < wanted * (1.0 - _SLACK)
        part = np.ones(len(demand))
        part[held[is_slower]] = rate[is_slower] / wanted[is_slower]
        begin = np.cumsum(sizes) - sizes
        slowest = np.minimum.reduceat(part, begin)
        is_slowest = part <= np.repeat(slowest, sizes) * (1.0 + _SLACK)
        is_even = np.logical_or.reduceat(is_slowest & _joined(self.for_all, spans), begin) | (slowest == 1.0)
        speed[bound], uneven[bound] = slowest, ~is_even
        carried = np.bincount(link, weight * np.repeat(rate, lengths), minlength=len(used))
        return Shares(speed, uneven, np.sort(used[carried >= capacity[used] * (1.0 - _SLACK)]))


def _joined(values: NDArray[_Scalar], spans: Sequence[slice]) -> NDArray[_Scalar]:
    return np.concatenate([values[span] for span in spans])


def flow_classes(
    loads: LinkLoads, most: Floats, *, streams: NDArray[np.bool_], aggregate: bool = True
) -> FlowClasses:
    """Gather the flows of some streams in classes, which are exact for whatever of these runs at one time.

    Parameters
    ----------
    loads
        All flows and links.
    most
        [streams] highest nominal rate of a transfer.
    streams
        [streams] which to gather.
    aggregate
        Whether to gather them at all; the shares are the same.
    """
    sent, routes = loads.flows, loads.routes
    flow = np.repeat(np.arange(routes.num_flows), np.diff(routes.start))
    demand = np.where(streams, most, 0.0)[sent.stream] * sent.factor
    can_be_full = _can_be_full(loads, flow, demand)
    links = np.flatnonzero(can_be_full)
    number = np.cumsum(can_be_full) - 1
    entry = can_be_full[routes.link] & streams[sent.stream][flow] & (routes.share > 0.0)
    has = np.bincount(flow[entry], minlength=routes.num_flows)
    # Flows in order of their streams, so that the classes of a stream follow each other.
    flows = np.flatnonzero(has)
    flows = flows[np.argsort(sent.stream[flows], kind="stable")]
    start = np.concatenate(([0], np.cumsum(has))).astype(np.int64)
    bound = Routes(start, number[routes.link[entry]].astype(np.int64), routes.share[entry]).rows(flows)
    capacity = loads.bytes_per_s[links]
    if aggregate:
        factors, which = np.unique(sent.factor[flows], return_inverse=True)
        colour = sent.stream[flows] * len(factors) + which
        quotient = find_quotient(bound, capacity, colour, is_hasty=True)
    else:
        quotient = whole(bound, capacity)
    examples = flows[quotient.first_flow]
    first = np.searchsorted(sent.stream[examples], np.arange(len(sent.streams) + 1))
    parties = int(sent.party.max(initial=0)) + 1
    met = distinct(quotient.flow_class * parties + sent.party[flows])
    num_parties = np.bincount(met // parties, minlength=len(examples))
    lengths = np.diff(quotient.routes.start)
    return FlowClasses(
        first=first.astype(np.int64),
        factor=sent.factor[examples],
        for_all=num_parties == sent.num_parties[sent.stream[examples]],
        quotient=quotient,
        link=links,
        lengths=lengths,
        weight=quotient.routes.share * np.repeat(quotient.num_flows.astype(np.float64), lengths),
    )


def _can_be_full(loads: LinkLoads, flow: Ints, demand: Floats) -> NDArray[np.bool_]:
    """[links] whether a link can bound a flow, where nobody exceeds its demand or its interface."""
    routes, limit = loads.routes, loads.bytes_per_s * (1.0 + _SLACK)
    wanted = routes.share * demand[flow]
    out = np.bincount(routes.link, wanted, minlength=len(limit)) > limit
    at_interface = np.flatnonzero(loads.tier[routes.link] == 0)
    for side in (at_interface[::-1], at_interface):  # of several assignments the last stays
        above = np.flatnonzero((out & (loads.tier > 0))[routes.link])
        if not len(above):
            break
        # A flow's first interface link, then its last: the sender's and the receiver's.
        entry_of = np.full(routes.num_flows, -1, dtype=np.int64)
        entry_of[flow[side]] = side
        entry = entry_of[flow[above]]
        interface = np.where(entry >= 0, routes.link[entry], -1)
        # All flows of an interface over one link: as much as they want, or as the interface lets through.
        pairs, which = np.unique(routes.link[above] * (len(limit) + 1) + interface + 1, return_inverse=True)
        wants = np.bincount(which, wanted[above])
        ratio = np.zeros(len(pairs))
        np.maximum.at(ratio, which, routes.share[above] / routes.share[entry])
        link, interface = np.divmod(pairs, len(limit) + 1)
        lets = np.where(interface > 0, ratio * loads.bytes_per_s[interface - 1], np.inf)
        held = np.bincount(link, np.minimum(wants, lets), minlength=len(limit))
        out &= (loads.tier == 0) | (held > limit)
    return out
