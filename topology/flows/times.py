"""Times of a list of flows: when each ends, and what the links carried meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.network import NEVER, FlowNetwork
from exactmap.topology.flows.shares import Shares
from exactmap.topology.links import Floats, Ints, Routes

__all__ = ["FlowTimes", "LinkUse", "simulate_flows"]

NS_PER_S = 1e9


@dataclass(slots=True, eq=False)
class LinkUse:
    """What links carried while flows came and went; an observer of `FlowNetwork`.

    Parameters
    ----------
    capacity
        [links] bytes/s of each.
    """

    capacity: Floats
    num_bytes: Floats = field(init=False)
    """[links] bytes carried."""
    peak_bytes_per_s: Floats = field(init=False)
    """[links] highest rate."""
    full_ns: Floats = field(init=False)
    """[links] time for which it was full."""
    most_flows: Floats = field(init=False)
    """[links] flows at once, at most."""
    from_ns: list[int] = field(default_factory=list[int])
    """Moments at which rates changed."""
    to_ns: list[int] = field(default_factory=list[int])
    """End of the stretch from each."""
    loads: list[tuple[Ints, Floats]] = field(default_factory=list[tuple[Ints, Floats]])
    """Links and bytes/s in each stretch."""

    def __post_init__(self) -> None:
        """Nothing is carried yet."""
        num = len(self.capacity)
        self.num_bytes, self.peak_bytes_per_s = np.zeros(num), np.zeros(num)
        self.full_ns, self.most_flows = np.zeros(num), np.zeros(num)

    def interval(self, from_ns: int, to_ns: int, links: Ints, load: Floats, flows: Floats) -> None:
        """Add a stretch of constant rates."""
        busy = flows > 0.0
        links, load, flows = links[busy], load[busy], flows[busy]
        self.num_bytes[links] += load * ((to_ns - from_ns) / NS_PER_S)
        self.peak_bytes_per_s[links] = np.maximum(self.peak_bytes_per_s[links], load)
        self.most_flows[links] = np.maximum(self.most_flows[links], flows)
        full = links[load >= self.capacity[links] * (1.0 - 1e-9)]
        self.full_ns[full] += to_ns - from_ns
        self.from_ns.append(from_ns)
        self.to_ns.append(to_ns)
        self.loads.append((links, load))


@dataclass(frozen=True, slots=True, eq=False)
class FlowTimes:
    """When flows end.

    Parameters
    ----------
    start_ns, end_ns, arrive_ns
        [flows] when each starts, has sent its last byte, has it there; `NEVER` for what a lost link holds up.
    num_moments
        Moments at which rates were shared out anew.
    """

    start_ns: Ints
    end_ns: Ints
    arrive_ns: Ints
    num_moments: int

    @property
    def makespan_ns(self) -> int:
        """From the first start to the last arrival."""
        if not len(self.start_ns):
            return 0
        return int(self.arrive_ns.max() - self.start_ns.min())

    @property
    def stuck(self) -> Ints:
        """Flows that never end."""
        return np.flatnonzero(self.end_ns == NEVER)


def simulate_flows(
    start_ns: Ints,
    num_bytes: Ints,
    routes: Routes,
    capacity: Floats,
    *,
    count: Floats | None = None,
    most: Floats | None = None,
    latency_ns: Ints | None = None,
    use: LinkUse | None = None,
) -> FlowTimes:
    """Play flows that start at given times until all have ended.

    Parameters
    ----------
    start_ns, num_bytes
        [flows] start and bytes of each.
    routes
        Links of each.
    capacity
        [links] bytes/s of each link.
    count
        [flows] equal flows that each stands for; 1 if left out.
    most
        [flows] bytes/s that the sender cannot pass; none if left out.
    latency_ns
        [flows] from the end of sending to arrival; 0 if left out.
    use
        Is told what the links carry.

    Returns
    -------
    FlowTimes
        The same for the same input, to the ns.

    Examples
    --------
    >>> times = simulate_flows(
    ...     np.array([0, 50]), np.array([1000, 1000]), Routes.of([[0], [0]]), np.array([1e10])
    ... )
    >>> times.end_ns.tolist()
    [150, 200]
    """
    num = routes.num_flows
    if not len(start_ns) == len(num_bytes) == num:
        raise InvalidInputError(
            "each flow needs a start and bytes",
            got=f"{len(start_ns)} starts, {len(num_bytes)} sizes",
            expected=f"{num} of each",
        )
    if num and (int(num_bytes.min()) < 0 or int(start_ns.min()) < 0):
        raise InvalidInputError("a flow cannot have negative bytes or start before 0")
    shares = Shares(routes, capacity, count=count, most=most)
    latency = np.zeros(num, dtype=np.int64) if latency_ns is None else latency_ns
    observer = None if use is None else _Renumbered(use, shares.used, shares.kind, len(shares.capacity))
    network = FlowNetwork(shares.capacity, observer=observer)
    ready = Routes(shares.start, shares.link, shares.share)
    order = np.argsort(start_ns, kind="stable")
    moments, firsts = np.unique(start_ns[order], return_index=True)
    end = np.full(num, NEVER)
    arrive = np.full(num, NEVER)
    num_moments = 0
    for moment, first, last in zip(moments.tolist(), firsts, [*firsts[1:], num], strict=True):
        num_moments += _advance(network, moment, order, end, arrive)
        who = order[first:last]
        network.start(
            ready.rows(who),
            num_bytes[who],
            count=shares.count[who],
            most=shares.most[who],
            latency_ns=latency[who],
        )
    num_moments += _advance(network, NEVER, order, end, arrive)
    return FlowTimes(start_ns, end, arrive, num_moments)


def _advance(network: FlowNetwork, to_ns: int, order: Ints, end: Ints, arrive: Ints) -> int:
    """Advance and write down what has ended; the network's numbers count in order of start."""
    done = network.advance(to_ns)
    end[order[done.flow]] = done.end_ns
    arrive[order[done.flow]] = done.arrive_ns
    return len(np.unique(done.end_ns)) + 1


@dataclass(frozen=True, slots=True, eq=False)
class _Renumbered:
    """Passes on what is observed of each kind of link, for every link of that kind."""

    use: LinkUse
    used: Ints
    kind: Ints
    num_kinds: int

    def interval(self, from_ns: int, to_ns: int, links: Ints, load: Floats, flows: Floats) -> None:
        """Pass a stretch on."""
        loads, counts = np.zeros((2, self.num_kinds))
        loads[links], counts[links] = load, flows
        self.use.interval(from_ns, to_ns, self.used, loads[self.kind], counts[self.kind])
