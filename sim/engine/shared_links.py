"""What a plan's transfers share on a fabric: their flows, in classes by symmetry, and how fast each goes.

A transfer has a nominal duration, what it takes alone, and so each of its flows a *demand*, its rate then.
While others run beside it each flow has its max-min fair share, bounded by its demand, and the transfer
progresses at ::

    speed = min over its flows of (fair share / demand), at most 1

Links carry payload: their rate times the efficiency of the cluster's interfaces, as a lone transfer reaches.
A link that cannot be full even if all that ever takes it ran at once bounds nobody and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.coordinates import group_instances
from exactmap.sim.engine.plan_flows import Stream, operation_bytes, plan_flows
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.quotient import Quotient, find_quotient, whole
from exactmap.topology.links import Routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.plan_flows import PlanFlows
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.fabric.fabric import Fabric
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.links import Floats, Ints

__all__ = ["FlowClasses", "LinkLoads", "Shares", "SharedLinks", "share_links"]

_SLACK = 1e-9  # what sums of rates may be off by
_NS_PER_S = 1e9


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


@dataclass(frozen=True, slots=True, eq=False)
class LinkLoads:
    """All links that a plan's flows take, bounded by them or not.

    Parameters
    ----------
    link
        [links] number of each in the fabric.
    tier, bytes_per_s
        [links] tier and payload rate of each.
    flows
        Who sends.
    routes
        Links of the flows, numbered as here.
    """

    link: Ints
    tier: Ints
    bytes_per_s: Floats
    flows: PlanFlows
    routes: Routes

    def carried_bytes(self, stream_bytes: Ints) -> Floats:
        """[links] bytes over each, where each stream has moved so much."""
        flow = np.repeat(np.arange(self.routes.num_flows), np.diff(self.routes.start))
        moved = stream_bytes.astype(np.float64)[self.flows.stream] * self.flows.factor
        return np.bincount(self.routes.link, self.routes.share * moved[flow], minlength=len(self.link))


@dataclass(frozen=True, slots=True, eq=False)
class SharedLinks:
    """Links that the transfers of one plan with one set of durations share.

    Parameters
    ----------
    durations
        The durations that it was made for.
    fabric
        The network.
    spread, seed
        How flows choose among equal paths.
    streams
        What starts flows.
    channel_stream
        (lane, channel) -> its stream, where it has flows.
    group_stream
        Number of a set of members (`group_instances`) -> its stream, where it has flows.
    op_bytes
        (lane, pipeline rank) -> [instructions] bytes of its group operations.
    channel_bytes
        Channel -> bytes of a message.
    classes
        Flows by symmetry.
    loads
        All links and flows.
    """

    durations: Durations
    fabric: Fabric
    spread: Spread
    seed: int
    streams: tuple[Stream, ...]
    channel_stream: Mapping[tuple[int, str], int]
    group_stream: Mapping[int, int]
    op_bytes: Mapping[tuple[int, int], Ints]
    channel_bytes: Mapping[str, int]
    classes: FlowClasses
    loads: LinkLoads


def share_links(
    plan: Plan,
    durations: Durations,
    cluster: Cluster,
    *,
    fabric: Fabric | None = None,
    spread: Spread = Spread.SPRAY,
    seed: int = 0,
    gpu_of_rank: Ints | None = None,
    aggregate: bool = True,
) -> SharedLinks:
    """Find what a plan's transfers share.

    Parameters
    ----------
    plan, durations
        What is to be simulated; durations are nominal: what each transfer takes alone.
    cluster
        The machine.
    fabric
        Its network; built from the cluster if left out.
    spread, seed
        How flows choose among equal paths.
    gpu_of_rank
        [ranks] GPU of each rank; ranks fill the domains in order if left out.
    aggregate
        Whether to gather flows in classes; the times are the same, and without it are found more slowly.

    Raises
    ------
    InvalidInputError
        If the map does not name one GPU of the fabric per rank.
    InfeasibleError
        If the plan needs more GPUs than there are, or the fabric cannot be built.
    """
    if fabric is None:
        from exactmap.topology.fabric.build import build_fabric

        fabric = build_fabric(cluster)
    gpus = _default_gpus(plan, cluster) if gpu_of_rank is None else gpu_of_rank
    _check_map(gpus, plan, fabric)
    flows = plan_flows(plan, durations, gpus, cluster.scale_up.domain_size)
    used = np.flatnonzero(flows.stream >= 0)
    routes = fabric.routes(flows.source, flows.sink, spread=spread, seed=seed).rows(used)
    flows = flows.rows(used)
    links, where = np.unique(routes.link, return_inverse=True)
    routes = Routes(routes.start, where.astype(np.int64), routes.share)
    rate = fabric.links.capacity_bytes_per_s(links) * cluster.scale_out.efficiency
    op_bytes = {
        id(actor.program): operation_bytes(plan, actor.program) for actor in durations.actors.values()
    }
    by_actor = {key: op_bytes[id(actor.program)] for key, actor in durations.actors.items()}
    most = _most_rates(plan, durations, flows.streams, by_actor)
    loads = LinkLoads(links, fabric.links.tier(links), rate, flows, routes)
    return SharedLinks(
        durations=durations,
        fabric=fabric,
        spread=spread,
        seed=seed,
        streams=flows.streams,
        channel_stream={
            (stream.number, stream.name): number
            for number, stream in enumerate(flows.streams)
            if stream.is_channel
        },
        group_stream={
            stream.number: number for number, stream in enumerate(flows.streams) if not stream.is_channel
        },
        op_bytes=by_actor,
        channel_bytes={channel.name: channel.bytes for channel in plan.channels},
        classes=_classes(loads, most, aggregate=aggregate),
        loads=loads,
    )


def _default_gpus(plan: Plan, cluster: Cluster) -> Ints:
    """Ranks fill the used GPUs of the domains in order."""
    from exactmap.sim.cost.plan_header import mesh_of

    mesh = mesh_of(plan.mesh)
    cluster.place(mesh)  # refuses what does not fit
    domain, slot = np.divmod(np.arange(mesh.num_ranks), cluster.used_per_domain)
    return (domain * cluster.scale_up.domain_size + slot).astype(np.int64)


def _check_map(gpus: Ints, plan: Plan, fabric: Fabric) -> None:
    mesh = plan.mesh
    num_ranks = mesh.tp * mesh.cp * mesh.ep * mesh.pp * mesh.dp
    if len(gpus) != num_ranks:
        raise InvalidInputError(
            "the map is not one GPU per rank", got=f"{len(gpus)} GPUs", expected=f"{num_ranks} ranks"
        )
    if len(np.unique(gpus)) != num_ranks:
        raise InvalidInputError(
            "a GPU has two ranks", got=f"{num_ranks} ranks on {len(np.unique(gpus))} GPUs"
        )
    low, high = int(gpus.min()), int(gpus.max())
    if low < 0 or high >= fabric.num_gpus:
        raise InvalidInputError(
            "no such GPU", got=str(high if high > 0 else low), expected=f"0 to {fabric.num_gpus - 1}"
        )


def _most_rates(
    plan: Plan,
    durations: Durations,
    streams: tuple[Stream, ...],
    op_bytes: Mapping[tuple[int, int], Ints],
) -> Floats:
    """[streams] highest nominal rate of any transfer, in bytes/s; infinite where one takes no time."""
    out = np.zeros(len(streams))
    size_of = {channel.name: channel.bytes for channel in plan.channels}
    instances = group_instances(plan, durations)
    for number, stream in enumerate(streams):
        if stream.is_channel:
            wire_ns = durations.channels[stream.number, stream.name].wire_ns
            out[number] = _highest(np.full(len(wire_ns), size_of[stream.name]), wire_ns)
            continue
        instance = instances[stream.number]
        for key in instance.members:
            actor = durations.actors[key]
            mine = actor.program.queue == 2 * len(plan.channels) + instance.group
            out[number] = max(out[number], _highest(op_bytes[key][mine], actor.op_ns[mine]))
    return out


def _highest(num_bytes: Ints, time_ns: Ints) -> float:
    moves = num_bytes > 0
    if not moves.any():
        return 0.0
    with np.errstate(divide="ignore"):
        return float((num_bytes[moves] * _NS_PER_S / time_ns[moves]).max())


def _classes(loads: LinkLoads, most: Floats, *, aggregate: bool) -> FlowClasses:
    """Gather what is left once links that nobody can fill are gone."""
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
