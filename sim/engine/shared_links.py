"""What a plan's transfers share on a fabric.

A transfer has a nominal duration: what it takes alone. While others run beside it it may be slower
(`exactmap.sim.engine.flow_classes`), and so its end is known only as they come and go
(`exactmap.sim.engine.link_clock`). Here is what does not change during a step: the flows of all channels and
groups, their routes, their classes by symmetry.

Links carry payload: their rate times the efficiency of the cluster's interfaces, as a lone transfer reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.plan_header import mesh_of
from exactmap.sim.engine.coordinates import group_instances
from exactmap.sim.engine.flow_classes import FlowClasses, flow_classes
from exactmap.sim.engine.link_loads import LinkLoads
from exactmap.sim.engine.plan_flows import Stream, operation_bytes, plan_flows
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.flows.bundles import Bundles
from exactmap.topology.flows.reduced import compact
from exactmap.topology.links import Routes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.plan_flows import PlanFlows
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.fabric.fabric import Fabric
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.links import Floats, Ints, LinkTable

__all__ = ["SharedLinks", "share_links"]

_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True, eq=False)
class SharedLinks:
    """Links that the transfers of one plan with one set of durations share.

    Parameters
    ----------
    durations
        The durations that it was made for.
    table
        The network's links, or bundles of links that all spray on (`exactmap.topology.flows.bundles`).
    spread, seed, paths
        How flows choose among equal paths.
    streams
        What starts flows.
    op_bytes
        (lane, pipeline rank) -> [instructions] bytes of its group operations.
    channels
        Flows of channels by symmetry, for times in which no group is at work: these are most, and rings of
        groups spread what is irregular about the map over all flows.
    everything
        Flows of all streams by symmetry.
    loads
        All links and flows.
    """

    durations: Durations
    table: LinkTable
    spread: Spread
    seed: int
    paths: int
    streams: tuple[Stream, ...]
    op_bytes: Mapping[tuple[int, int], Ints]
    channels: FlowClasses
    everything: FlowClasses
    loads: LinkLoads

    @property
    def channel_stream(self) -> dict[tuple[int, str], int]:
        """(lane, channel) -> its stream, where it has flows."""
        return {(each.number, each.name): place for place, each in enumerate(self.streams) if each.is_channel}

    @property
    def group_stream(self) -> dict[int, int]:
        """Number of a set of members (`group_instances`) -> its stream, where it has flows."""
        return {each.number: place for place, each in enumerate(self.streams) if not each.is_channel}


def share_links(
    plan: Plan,
    durations: Durations,
    cluster: Cluster,
    *,
    fabric: Fabric | None = None,
    spread: Spread = Spread.SPRAY,
    seed: int = 0,
    paths: int = 1,
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
    paths
        Paths by ECMP that each flow is striped over evenly, as several queue pairs do.
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
        fabric = build_fabric(cluster)
    mesh = mesh_of(plan.mesh)
    gpus = cluster.place(mesh).gpus(np.arange(mesh.num_ranks)) if gpu_of_rank is None else gpu_of_rank
    _check_map(gpus, plan, fabric)
    flows = plan_flows(plan, durations, gpus, cluster.scale_up.domain_size)
    used = np.flatnonzero(flows.stream >= 0)
    # A path may hang on the place in the list: it is looked up before flows that nobody starts are left out.
    table, routes = _routes(fabric, flows, spread, seed, paths)
    flows, routes = flows.rows(used), routes.rows(used)
    links, where = compact(routes.link, table.num_links)
    routes = Routes(routes.start, where, routes.share)
    num_cables = table.num_cables(links) if isinstance(table, Bundles) else np.ones_like(links)
    rate = table.capacity_bytes_per_s(links) * cluster.scale_out.efficiency
    op_bytes = {
        id(actor.program): operation_bytes(plan, actor.program) for actor in durations.actors.values()
    }
    by_actor = {key: op_bytes[id(actor.program)] for key, actor in durations.actors.items()}
    is_channel = np.array([stream.is_channel for stream in flows.streams], dtype=np.bool_)
    most = _most_rates(plan, durations, flows.streams, by_actor)
    loads = LinkLoads(links, table.tier(links), rate, num_cables, flows, routes)
    channels = flow_classes(loads, most, streams=is_channel, aggregate=aggregate)
    return SharedLinks(
        durations=durations,
        table=table,
        spread=spread,
        seed=seed,
        paths=paths,
        streams=flows.streams,
        op_bytes=by_actor,
        channels=channels,
        everything=channels
        if is_channel.all()
        else flow_classes(loads, most, streams=np.ones_like(is_channel), aggregate=aggregate),
        loads=loads,
    )


def _routes(
    fabric: Fabric, flows: PlanFlows, spread: Spread, seed: int, paths: int
) -> tuple[LinkTable, Routes]:
    """Links of all flows; of a fat tree that all spray on, its bundles."""
    if spread is Spread.SPRAY and isinstance(fabric, FatTree):
        bundles = Bundles(fabric)
        return bundles, bundles.routes(flows.source, flows.sink)
    stripes = 1 if spread is Spread.SPRAY else paths
    source, sink = np.repeat(flows.source, stripes), np.repeat(flows.sink, stripes)
    found = fabric.routes(source, sink, spread=spread, seed=seed)
    return fabric.links, Routes(found.start[::stripes], found.link, found.share / stripes)


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
