"""The state of a cluster: a factor for every component, drawn from its own stream or set by name.

The time of a work on GPU g is its nominal time, times ::

    own(g) x host(g) x rack(g) x step(g, s) x jitter of that work

and each factor belongs to one component, so what is lost can be charged to it. A transfer is as slow as the
slowest of the interfaces at its ends and of the uplinks that it takes. Packets are sprayed over all uplinks
of a leaf, so these act as one link: of u uplinks at rates r[1]..r[u], lost ones at 0, the share left is
sum of r / u, and traffic that needs d of all its uplinks slows by max(1, d / left). Planes carry equal parts
of each transfer, so of several planes the one that has least left decides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.state.components import Component, ComponentKind
from exactmap.topology.state.factors import ONE, factor_of_rate, factor_table, scale
from exactmap.topology.state.spec import SlowUplink
from exactmap.topology.state.streams import Stream, draws16, stream_keys, uniforms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exactmap.topology.hardware import Cluster
    from exactmap.topology.links import Floats, Ints
    from exactmap.topology.state.leaves import Leaves
    from exactmap.topology.state.spec import StateSpec, Straggler

__all__ = ["ClusterState", "build_state"]


@dataclass(frozen=True, slots=True, eq=False)
class ClusterState:
    """Factors of all components, in units of `ONE`; numbers of components index the arrays.

    Parameters
    ----------
    spec
        What was asked for.
    gpus_per_host, gpus_per_rack
        Who contains whom.
    leaves
        Leaf switches.
    gpu, host, rack
        Own factor of each on the works of its GPUs.
    interface
        Factor of each interface on what goes through it.
    uplinks_left
        Share of each leaf's uplink rate that is left.
    healed_gpus
        GPUs without jitter between steps and without hiccups.
    """

    spec: StateSpec
    gpus_per_host: int
    gpus_per_rack: int
    leaves: Leaves
    gpu: Ints
    host: Ints
    rack: Ints
    interface: Ints
    uplinks_left: Floats
    healed_gpus: frozenset[int] = frozenset()

    @property
    def num_gpus(self) -> int:
        """GPUs installed."""
        return len(self.gpu)

    def host_of(self, gpu: Ints) -> Ints:
        """Host of each GPU."""
        return gpu // self.gpus_per_host

    def rack_of(self, gpu: Ints) -> Ints:
        """Rack (scale-up domain) of each GPU."""
        return gpu // self.gpus_per_rack

    def work_factor(self, gpu: Ints, step: Ints | int) -> Ints:
        """Factor on the works of GPUs in a step, without the jitter of single works."""
        return scale(self.place_factor(gpu), scale(self.gpu[gpu], self.step_factor(gpu, step)))

    def place_factor(self, gpu: Ints) -> Ints:
        """What rack and host contribute to it."""
        return scale(self.rack[self.rack_of(gpu)], self.host[self.host_of(gpu)])

    def step_factor(self, gpu: Ints, step: Ints | int) -> Ints:
        """Factor of GPUs in a step, beside their lasting one."""
        shape = np.broadcast_shapes(np.shape(gpu), np.shape(step))
        if not self.spec.gpu_step_jitter:
            return np.full(shape, ONE, dtype=np.int64)
        keys = stream_keys(self.spec.seed, Stream.GPU_STEP, gpu, step)
        factor = factor_table(self.spec.gpu_step_jitter)[draws16(keys.ravel(), 0, 1)[0, :, 0]].reshape(shape)
        if self.healed_gpus:
            factor[np.broadcast_to(np.isin(gpu, sorted(self.healed_gpus)), shape)] = ONE
        return factor

    def uplink_factor(self, gpu: Ints, demand: float) -> Ints:
        """Factor on what GPUs send through their leaf's uplinks, if all of a leaf need `demand` of these."""
        if not self.leaves.num_leaves:
            return np.full(np.shape(gpu), ONE, dtype=np.int64)
        leaf = self.leaves.leaf[gpu]
        # Of all leaves, or of those asked for, whichever are fewer.
        at = leaf if leaf.size < self.leaves.num_leaves else np.arange(self.leaves.num_leaves)
        slower = np.maximum(1.0, demand * self.leaves.load[at] / self.uplinks_left[at])
        factor = np.asarray(np.rint(slower * ONE).astype(np.int64))
        return factor if at is leaf else factor[leaf]

    def healed(self, components: Iterable[Component]) -> ClusterState:
        """The same cluster with some components as they should be; nobody's draws change."""
        arrays = {
            kind: self._factors(kind).copy() for kind in ComponentKind if kind is not ComponentKind.LEAF
        }
        left = self.uplinks_left.copy()
        gpus = set(self.healed_gpus)
        for component in components:
            if component.kind is ComponentKind.LEAF:
                left[component.number] = 1.0
                continue
            arrays[component.kind][component.number] = ONE
            if component.kind is ComponentKind.GPU:
                gpus.add(component.number)
        return replace(
            self,
            gpu=arrays[ComponentKind.GPU],
            host=arrays[ComponentKind.HOST],
            rack=arrays[ComponentKind.RACK],
            interface=arrays[ComponentKind.INTERFACE],
            uplinks_left=left,
            healed_gpus=frozenset(gpus),
        )

    def _factors(self, kind: ComponentKind) -> Ints:
        return {
            ComponentKind.GPU: self.gpu,
            ComponentKind.HOST: self.host,
            ComponentKind.RACK: self.rack,
            ComponentKind.INTERFACE: self.interface,
        }[kind]


def build_state(cluster: Cluster, spec: StateSpec, leaves: Leaves) -> ClusterState:
    """Draw the lasting factors of all components of a cluster and apply the stragglers.

    Raises
    ------
    InvalidInputError
        If a straggler does not exist, or a leaf loses all uplinks of a plane or has none.
    """
    num_gpus, per_host, per_rack = cluster.num_gpus, cluster.gpus_per_host, cluster.scale_up.domain_size
    num_hosts, num_racks = -(-num_gpus // per_host), -(-num_gpus // per_rack)
    gpus = np.arange(num_gpus, dtype=np.int64)
    hosts = np.arange(num_hosts, dtype=np.int64)
    is_slow = uniforms(stream_keys(spec.seed, Stream.HOST_RATE, hosts))[0] < spec.slow_host_share
    factors = {
        ComponentKind.GPU: _drawn(spec.seed, Stream.GPU_RATE, gpus, spec.gpu_spread),
        ComponentKind.HOST: np.where(is_slow, factor_of_rate(spec.slow_host_rate), ONE),
        ComponentKind.RACK: np.full(num_racks, ONE, dtype=np.int64),
        ComponentKind.INTERFACE: _drawn(spec.seed, Stream.INTERFACE_RATE, gpus, spec.interface_spread),
    }
    left = np.ones(leaves.num_leaves)
    for number, straggler in enumerate(spec.stragglers):
        where = f"state.stragglers.{number}"
        if isinstance(straggler, SlowUplink):
            continue
        if straggler.kind is ComponentKind.LEAF:
            at = _ids(straggler, leaves.num_leaves, where)
            left[at] *= _left(straggler, leaves.num_uplinks[at], where)
        else:
            at = _ids(straggler, len(factors[straggler.kind]), where)
            factors[straggler.kind][at] = scale(factors[straggler.kind][at], factor_of_rate(straggler.rate))
    for leaf, share in _of_uplinks(spec, leaves).items():
        left[leaf] *= share
    return ClusterState(
        spec=spec,
        gpus_per_host=per_host,
        gpus_per_rack=per_rack,
        leaves=leaves,
        gpu=factors[ComponentKind.GPU],
        host=factors[ComponentKind.HOST],
        rack=factors[ComponentKind.RACK],
        interface=factors[ComponentKind.INTERFACE],
        uplinks_left=left,
    )


def _drawn(seed: int, stream: Stream, ids: Ints, variation: float) -> Ints:
    if not variation:
        return np.full(len(ids), ONE, dtype=np.int64)
    return factor_table(variation)[draws16(stream_keys(seed, stream, ids), 0, 1)[0, :, 0]]


def _ids(straggler: Straggler, num: int, where: str) -> Ints:
    for first, last in straggler.ids:
        if last >= num:
            raise InvalidInputError(
                f"the cluster has no such {straggler.kind}",
                where=Place(field=f"{where}.{straggler.kind}"),
                got=f"{first}..{last}" if first != last else str(last),
                expected=f"0 to {num - 1}",
            )
    return np.unique(np.concatenate([np.arange(first, last + 1) for first, last in straggler.ids]))


def _left(straggler: Straggler, num_uplinks: Ints, where: str) -> Floats:
    least = int(num_uplinks.min())
    if not least:
        raise InvalidInputError(
            "the leaf has no uplinks",
            where=Place(field=f"{where}.leaf"),
            hint="its fabric is one switch, or no fat tree: describe it under cluster.fabric",
        )
    if straggler.lost_uplinks >= least:
        raise InvalidInputError(
            "a leaf that loses all uplinks is cut off, not slow",
            where=Place(field=f"{where}.lost_uplinks"),
            got=str(straggler.lost_uplinks),
            expected=f"0 to {least - 1}",
            hint="leave its GPUs out of the map instead",
        )
    return straggler.rate * (1.0 - straggler.lost_uplinks / num_uplinks)


def _of_uplinks(spec: StateSpec, leaves: Leaves) -> dict[int, float]:
    """Leaf -> share that slow and lost uplinks leave it in its worst plane."""
    rates: dict[tuple[int, int, int], float] = {}
    named: dict[tuple[int, int], int] = {}
    for number, straggler in enumerate(spec.stragglers):
        if isinstance(straggler, SlowUplink):
            where = Place(field=f"state.stragglers.{number}.uplink")
            cables = [cable for name in straggler.names for cable in leaves.uplinks(name, where).tolist()]
            for leaf, plane, cable in {tuple(each) for each in cables}:
                rates[leaf, plane, cable] = rates.get((leaf, plane, cable), 1.0) * straggler.rate
                named[leaf, plane] = number
    shares: dict[int, float] = {}
    for (leaf, plane), number in named.items():
        size = int(leaves.num_uplinks[leaf])
        missing = sum(1.0 - rate for (of, on, _), rate in rates.items() if (of, on) == (leaf, plane))
        if missing >= size:
            raise InvalidInputError(
                "a leaf that loses all uplinks is cut off, not slow",
                where=Place(field=f"state.stragglers.{number}.uplink"),
                got=f"all {size} of leaf {leaf}" + (f" in plane {plane}" if leaves.num_planes > 1 else ""),
                hint="leave its GPUs out of the map instead",
            )
        shares[leaf] = min(shares.get(leaf, float("inf")), 1.0 - missing / size)
    return shares
