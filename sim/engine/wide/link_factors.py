"""Which components a message or a part in a group operation goes through, and how much they slow it.

A transfer between racks goes through the interfaces at its ends; if the ends hang on different leaves also
through uplinks of both. It is as slow as the slowest of these ::

    factor = max(interface a, interface b, uplinks of leaf(a), uplinks of leaf(b))

and inside a rack it is as it should be. Uplinks slow only what does not fit through those that are left
(`exactmap.topology.state.cluster_state`): all members of a collective send at once, while a pipeline's
messages need the average of their bytes over a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.state.factors import ONE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.state.cluster_state import ClusterState

__all__ = ["Demand", "LinkFactors", "demand_of"]

_AXES = ("pp", "dp", "ep", "cp", "tp")
_SCALARS = frozenset({"NORM", "CHK"})


@dataclass(frozen=True, slots=True)
class Demand:
    """What traffic needs of a leaf's uplinks, in parts of their full rate.

    Parameters
    ----------
    collective
        While a collective runs, all members at once.
    messages
        A pipeline's messages, on average over a step.
    """

    collective: float
    messages: float


def demand_of(
    plan: Plan, cluster: Cluster, tier: int, step_ns: int, num_messages: Mapping[str, int]
) -> Demand:
    """Demand of a plan on the uplinks of its cluster.

    Parameters
    ----------
    plan, cluster
        What runs where.
    tier
        Highest tier of the fabric that a group's members meet at.
    step_ns
        Nominal time of a step.
    num_messages
        Messages of each channel in a step.
    """
    fabric, out = cluster.fabric, cluster.scale_out
    uplinks_per_gpu = out.bytes_per_s * fabric.taper(2)
    sent = [0] * plan.mesh.pp
    for channel in plan.channels:
        sent[channel.src] += channel.bytes * num_messages.get(channel.name, 0)
    average = max(sent) * 1e9 / max(step_ns, 1)
    return Demand(out.efficiency * fabric.taper(max(tier, 2)) / fabric.taper(2), average / uplinks_per_gpu)


class LinkFactors:
    """Factors of all channels and groups of a plan on a cluster, by column of one step.

    Parameters
    ----------
    plan
        The plan.
    state
        State of the cluster.
    gpu
        [pp, dp, ep, cp, tp] GPU of each rank.
    demand
        What the plan needs of uplinks.
    """

    def __init__(self, plan: Plan, state: ClusterState, gpu: Ints, demand: Demand) -> None:
        self.plan = plan
        self.state = state
        self.gpu = gpu
        self.demand = demand
        self.flat = gpu.reshape(len(gpu), -1)

    def message(self, channel: int) -> Ints:
        """[columns of a step] factor on the messages of a channel."""
        ends = self.plan.channels[channel]
        return self._slowest(self._message_parts(self.flat[ends.src], self.flat[ends.dst]))

    def _message_parts(self, source: Ints, target: Ints) -> list[Ints]:
        state = self.state
        outside = state.rack_of(source) != state.rack_of(target)
        across = state.leaves.leaf[source] != state.leaves.leaf[target]
        uplinks = [
            np.where(across & outside, state.uplink_factor(end, self.demand.messages), ONE)
            for end in (source, target)
        ]
        return [*(np.where(outside, state.interface[end], ONE) for end in (source, target)), *uplinks]

    def operation(self, pp: int, group: int, op: str) -> Ints:
        """[columns of a step] factor of each member's part in an operation of a group."""
        return self._slowest(self._operation_parts(pp, group, op))

    def _operation_parts(self, pp: int, group: int, op: str) -> list[Ints]:
        gpus = self.flat[pp]
        if op in _SCALARS:  # a few bytes: rates do not matter
            return [np.full(len(gpus), ONE, dtype=np.int64)]
        state = self.state
        outside = self._spans(pp, group, state.rack_of(self.gpu))
        across = self._spans(pp, group, state.leaves.leaf[self.gpu]) & outside
        uplinks = state.uplink_factor(gpus, self.demand.collective)
        return [np.where(outside, state.interface[gpus], ONE), np.where(across, uplinks, ONE)]

    def message_parts(self, channel: int, column: int) -> list[int]:
        """Factors of one message: interface of its source, of its target, uplinks of both."""
        ends = self.plan.channels[channel]
        at = slice(column, column + 1)
        return [
            int(part[0]) for part in self._message_parts(self.flat[ends.src, at], self.flat[ends.dst, at])
        ]

    def operation_parts(self, pp: int, group: int, op: str, column: int) -> list[int]:
        """Factors of one member's part: its interface, its leaf's uplinks."""
        return [int(part[column]) for part in self._operation_parts(pp, group, op)]

    @staticmethod
    def _slowest(parts: list[Ints]) -> Ints:
        slowest = parts[0]
        for part in parts[1:]:
            slowest = np.maximum(slowest, part)
        return slowest

    def _spans(self, pp: int, group: int, place: Ints) -> NDArray[np.bool_]:
        """[columns of a step] whether a rank's group has members in more than one place."""
        spec = self.plan.groups[group]
        axes = tuple(_AXES.index(axis) for axis in spec.axes)
        members = place
        if spec.pp and "pp" in spec.axes:
            members = place[list(spec.pp)]
        elif "pp" not in spec.axes:
            members = place[pp : pp + 1]
        low, high = members.min(axis=axes, keepdims=True), members.max(axis=axes, keepdims=True)
        return np.asarray(np.broadcast_to(low != high, (1, *place.shape[1:]))[0].ravel())
