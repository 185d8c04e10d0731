"""All flows that a plan can ever start on a fabric: each replica's messages and each group's traffic.

A *stream* starts one transfer after another over the same flows: a channel of a lane, or the members that
meet in a group. Its flows run between GPUs of different scale-up domains; what stays inside a domain takes no
link of the fabric. A message of n bytes is a flow of n bytes per replica. Of a group with members in d
domains, k of them in one, each sends to its counterpart in the next domain, from the last to the first, ::

    n (d - 1) / (d k)   bytes per pass over a buffer of n bytes; an all-reduce has two passes

the least that a domain must send, and what parallel rings, flat or hierarchical, do.

Flows are listed by channel or group and by rank, whatever the lanes: a path that hangs on the place in the
list (ECMP) is the same however a plan's replicas are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.cost.plan_header import formats_of, mesh_of
from exactmap.sim.engine.coordinates import group_instances
from exactmap.sim.engine.encoded import KINDS, Ints
from exactmap.sim.plan.instruction import Op
from exactmap.topology.flows.distinct import distinct
from exactmap.topology.mapping import Axis

if TYPE_CHECKING:
    from exactmap.sim.engine.durations import Durations
    from exactmap.sim.engine.encoded import EncodedProgram
    from exactmap.sim.plan.plan import Group, Plan
    from exactmap.topology.links import Floats

__all__ = ["PlanFlows", "Stream", "operation_bytes", "plan_flows"]

_AXES = (Axis.PP, Axis.DP, Axis.EP, Axis.CP, Axis.TP)
_PASSES = {Op.AR: 2, Op.RS: 1, Op.AG: 1}


@dataclass(frozen=True, slots=True)
class Stream:
    """A channel of a lane (`number` is the lane), or the members that meet in a group (an instance)."""

    is_channel: bool
    name: str
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class PlanFlows:
    """Flows in their canonical order.

    Parameters
    ----------
    streams
        All streams with flows between domains.
    stream
        [flows] stream of each flow; -1: nobody starts it.
    source, sink
        [flows] GPUs.
    factor
        [flows] bytes of the flow per byte of the stream's transfer.
    party
        [flows] which of those that the stream stands for has the flow: a replica of a channel, a set of
        members of a group.
    num_parties
        [streams] how many there are; one may have no flow.
    """

    streams: tuple[Stream, ...]
    stream: Ints
    source: Ints
    sink: Ints
    factor: Floats
    party: Ints
    num_parties: Ints

    def rows(self, flows: Ints) -> PlanFlows:
        """Some of the flows."""
        return replace(
            self,
            stream=self.stream[flows],
            source=self.source[flows],
            sink=self.sink[flows],
            factor=self.factor[flows],
            party=self.party[flows],
        )


def plan_flows(plan: Plan, durations: Durations, gpu_of_rank: Ints, domain_size: int) -> PlanFlows:
    """Flows of a plan whose rank r lies on GPU ``gpu_of_rank[r]``; domains are `domain_size` GPUs each."""
    grid = gpu_of_rank[_ranks(plan)]
    lane = _lanes(plan, durations)
    found = _Found()
    for channel in plan.channels:
        numbers = np.array(
            [
                found.number(Stream(is_channel=True, name=channel.name, number=number))
                if (number, channel.name) in durations.channels
                else -1
                for number in range(len(durations.lanes))
            ]
        )
        source, sink = grid[channel.src].ravel(), grid[channel.dst].ravel()
        crosses = np.flatnonzero(source // domain_size != sink // domain_size)
        stream = numbers[lane.ravel()]
        found.add(stream, source, sink, np.ones(len(source)), np.arange(len(source)), crosses)
    instances = group_instances(plan, durations)
    for group_number, group in enumerate(plan.groups):
        if group.scan:
            continue  # scans carry scalars
        meets = np.full((plan.mesh.pp, len(durations.lanes)), -1, dtype=np.int64)
        for number, instance in enumerate(instances):
            if instance.group == group_number:
                entry = found.number(Stream(is_channel=False, name=group.name, number=number))
                for at, pp in instance.members:
                    meets[pp, at] = entry
        members = _rows(plan, group, grid)
        stream = _rows(plan, group, meets[:, lane])
        party = np.repeat(np.arange(len(members)), members.shape[1])
        sink, factor = _ring(members, domain_size)
        crosses = np.flatnonzero(factor)
        found.add(stream.ravel(), members.ravel(), sink, factor, party, crosses)
    return found.flows()


def operation_bytes(plan: Plan, program: EncodedProgram) -> Ints:
    """[instructions] bytes that an ``AR RS AG`` moves: its buffer once per pass; 0 for all else."""
    formats = formats_of(plan)
    width = {Op.AR: formats.grad_bytes, Op.RS: formats.grad_bytes, Op.AG: formats.param_bytes}
    elements = {(bucket.stage, bucket.index): bucket.elements for bucket in plan.buckets}
    out = np.zeros(program.num_instructions, dtype=np.int64)
    for op, passes in _PASSES.items():
        for index in np.flatnonzero(program.kind == KINDS.index(op)).tolist():
            size = elements.get((int(program.stage[index]), int(program.bucket[index])), 0)
            out[index] = int(passes * size * width[op])
    return out


class _Found:
    """Collects flows, channel after channel and group after group."""

    def __init__(self) -> None:
        self.streams: dict[Stream, int] = {}
        self.num_parties: dict[int, int] = {}
        self.parts: list[tuple[Ints, Ints, Ints, Floats, Ints]] = []

    def number(self, stream: Stream) -> int:
        return self.streams.setdefault(stream, len(self.streams))

    def add(self, stream: Ints, source: Ints, sink: Ints, factor: Floats, party: Ints, crosses: Ints) -> None:
        """Take in a channel or a group; of its flows those that cross domains."""
        span = int(party.max(initial=0)) + 1
        pairs = distinct(stream * span + party)
        numbers, sizes = np.unique(pairs // span, return_counts=True)
        self.num_parties.update(zip(numbers.tolist(), sizes.tolist(), strict=True))
        self.parts.append((stream[crosses], source[crosses], sink[crosses], factor[crosses], party[crosses]))

    def flows(self) -> PlanFlows:
        """All of them, and the streams that have any."""
        nothing = np.empty(0, dtype=np.int64)
        empty = (nothing, nothing, nothing, np.empty(0), nothing)
        stream, source, sink, factor, party = (
            np.concatenate(columns) for columns in zip(empty, *self.parts, strict=True)
        )
        numbers, where = np.unique(np.append(stream, -1), return_inverse=True)
        kept = numbers[1:].tolist()
        streams = list(self.streams)
        return PlanFlows(
            tuple(streams[number] for number in kept),
            where[:-1].astype(np.int64) - 1,
            source.astype(np.int64),
            sink.astype(np.int64),
            factor.astype(np.float64),
            party.astype(np.int64),
            np.array([self.num_parties[number] for number in kept], dtype=np.int64),
        )


def _ranks(plan: Plan) -> Ints:
    """Rank by (pp, dp, ep, cp, tp)."""
    mesh = mesh_of(plan.mesh)
    out = np.zeros((1,) * len(_AXES), dtype=np.int64)
    for place, axis in enumerate(_AXES):
        shape = [1] * len(_AXES)
        shape[place] = mesh.size(axis)
        out = out + (np.arange(mesh.size(axis)) * mesh.stride(axis)).reshape(shape)
    return out


def _lanes(plan: Plan, durations: Durations) -> Ints:
    """Lane by (dp, ep, cp, tp); a lane that holds an axis equal stands for all places on it."""
    mesh = mesh_of(plan.mesh)
    axes = _AXES[2:]
    split = {axis: any(lane.coordinate(axis) for lane in durations.lanes) for axis in axes}
    out = np.zeros([mesh.size(axis) for axis in _AXES[1:]], dtype=np.int64)
    for number, lane in enumerate(durations.lanes):
        places = [[lane.coordinate(axis)] if split[axis] else range(mesh.size(axis)) for axis in axes]
        out[np.ix_(np.array(lane.replicas), *(np.array(place) for place in places))] = number
    return out


def _rows(plan: Plan, group: Group, grid: Ints) -> Ints:
    """Values of a group's members, one row per set of members that meet on the machine, by rank."""
    mesh = mesh_of(plan.mesh)
    if group.pp:
        grid = grid[list(group.pp)]
    # Ranks ascend along a row if the axis of the longest stride comes first.
    inner = sorted((axis for axis in _AXES if axis in group.axes), key=mesh.stride, reverse=True)
    outer = [axis for axis in _AXES if axis not in inner]
    moved = grid.transpose([_AXES.index(axis) for axis in (*outer, *inner)])
    num_members = int(np.prod([moved.shape[len(outer) + place] for place in range(len(inner))]))
    return moved.reshape(-1, num_members)


def _ring(gpus: Ints, domain_size: int) -> tuple[Ints, Floats]:
    """To whom each member of each row sends, and the factor of its flow: 0 where a row is in one domain."""
    num_rows, num_members = gpus.shape
    order = np.argsort(gpus, axis=1, kind="stable") + np.arange(num_rows)[:, np.newaxis] * num_members
    member = order.ravel()
    sorted_gpus = gpus.ravel()[member]
    row = member // num_members
    domain = sorted_gpus // domain_size
    # A run is the members of one row in one domain.
    begins = np.ones(len(member), dtype=np.bool_)
    begins[1:] = (row[1:] != row[:-1]) | (domain[1:] != domain[:-1])
    run = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    size = np.diff(np.append(first, len(member)))
    row_of_run = row[first]
    first_run = np.searchsorted(row_of_run, np.arange(num_rows))
    num_runs = np.bincount(row_of_run, minlength=num_rows)
    place = np.arange(len(first)) - first_run[row_of_run]
    following = first_run[row_of_run] + (place + 1) % num_runs[row_of_run]
    local = np.arange(len(member)) - first[run]
    sink = np.empty_like(sorted_gpus)
    factor = np.empty(len(member))
    sink[member] = sorted_gpus[first[following[run]] + local % size[following[run]]]
    factor[member] = (num_runs[row] - 1) / num_runs[row] / size[run]
    return sink, factor
