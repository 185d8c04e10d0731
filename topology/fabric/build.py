"""Build the fabric of a cluster: sizes from its GPUs and the radix, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exactmap.errors import InfeasibleError, InvalidInputError, Place
from exactmap.topology.fabric.dragonfly import Dragonfly
from exactmap.topology.fabric.dragonfly_links import DragonflyShape
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.graph_fabric import GraphFabric
from exactmap.topology.fabric.rail_only import RailOnly
from exactmap.topology.fabric.spec import FabricKind, FabricSpec
from exactmap.topology.fabric.torus import Torus, TorusShape
from exactmap.topology.fabric.tree_fit import MAX_TIERS, fit_tree
from exactmap.topology.fabric.tree_reach import tree_reach
from exactmap.topology.fabric.tree_shape import TreeShape
from exactmap.topology.hardware import Cluster

__all__ = ["BuiltFabric", "build_fabric"]

BuiltFabric = FatTree | RailOnly | Dragonfly | Torus | GraphFabric


def build_fabric(cluster: Cluster) -> BuiltFabric:
    """Build what `cluster.fabric` asks for, with all installed GPUs attached.

    Raises
    ------
    InfeasibleError
        If the radix of its switches forbids it.
    InvalidInputError
        If what is asked for makes no sense.
    """
    return _BUILDERS[cluster.fabric.kind](cluster)


def _ideal(cluster: Cluster) -> FatTree:
    size = cluster.num_gpus
    shape = TreeShape(size, cluster.gpus_per_host, 1, size, (size,), (1,), (1,), (size,))
    return FatTree(replace(cluster.fabric, num_tiers=1), shape, _port(cluster))


def _fat_tree(cluster: Cluster) -> FatTree:
    shape = fit_tree(cluster.num_gpus, cluster.gpus_per_host, cluster.fabric, _port(cluster))
    return FatTree(replace(cluster.fabric, num_tiers=shape.num_tiers), shape, _port(cluster))


def _dual_tor(cluster: Cluster) -> FatTree:
    spec = replace(cluster.fabric, planes=max(cluster.fabric.planes, 2))
    return _fat_tree(replace(cluster, fabric=spec))


def _rail_only(cluster: Cluster) -> RailOnly:
    per_host, spec = cluster.gpus_per_host, cluster.fabric
    rails = spec.rails if spec.rails > 1 else per_host
    if per_host % rails or cluster.num_gpus % per_host or spec.planes > 1:
        raise InvalidInputError(
            "rails that never meet need whole hosts and one plane",
            where=Place(field="cluster.fabric.rails"),
            got=f"{cluster.num_gpus} GPUs, {per_host} per host, {rails} rails, {spec.planes} planes",
            expected="rails that divide the GPUs of a host, whole hosts, planes: 1",
        )
    inner = replace(spec, rails=1)
    size = cluster.num_gpus // rails
    tiers = spec.num_tiers or MAX_TIERS
    most = rails * tree_reach(per_host // rails, inner, _port(cluster), tiers) if spec.switches else 0
    if spec.switches and cluster.num_gpus > most > 0:
        raise InfeasibleError(
            f"{rails} rails that never meet stop at {most} GPUs in {tiers} tiers of {spec.switches[0].name}",
            where=Place(field="cluster.fabric"),
            got=f"{cluster.num_gpus} GPUs",
            expected=f"at most {most}, {most // rails} per rail",
            hint="a further tier, a larger switch, or fat_tree, whose rails meet",
        )
    shape = fit_tree(size, per_host // rails, inner, _port(cluster))
    built = replace(spec, rails=rails, num_tiers=shape.num_tiers)
    return RailOnly(built, shape, per_host, _port(cluster))


def _dragonfly(cluster: Cluster) -> Dragonfly:
    spec = cluster.fabric
    if len(spec.shape) != 3 or min(spec.shape) < 1:
        raise InvalidInputError(
            "a dragonfly has three sizes",
            where=_SHAPE,
            got=str(list(spec.shape)),
            expected="endpoints per router, routers per group, global links per router",
        )
    shape = DragonflyShape(cluster.num_gpus, *spec.shape)
    if cluster.num_gpus > shape.reach:
        raise InfeasibleError(
            f"groups of {shape.routers} routers with {shape.global_links} global links each join "
            f"{shape.reach // (shape.endpoints * shape.routers)} groups at most",
            where=_SHAPE,
            got=f"{cluster.num_gpus} GPUs",
            expected=f"at most {shape.reach}",
            hint="more global links per router, more routers per group, or more endpoints per router",
        )
    ports = shape.endpoints + shape.routers - 1 + (shape.global_links if shape.num_groups > 1 else 0)
    _check_radix(
        cluster,
        ports,
        f"{shape.endpoints} endpoints, {shape.routers - 1} local and {shape.global_links} global links",
    )
    return Dragonfly(replace(spec, num_tiers=3), shape, _port(cluster))


def _torus(cluster: Cluster) -> Torus:
    spec = cluster.fabric
    if not spec.shape or min(spec.shape) < 1:
        raise InvalidInputError(
            "a torus has a size in each direction", where=_SHAPE, got=str(list(spec.shape)), expected="[8, 8]"
        )
    shape = TorusShape(cluster.num_gpus, spec.shape)
    ports = shape.endpoints + len(shape.ways)
    _check_radix(cluster, ports, f"{shape.endpoints} GPUs and {len(shape.ways)} neighbours per router")
    return Torus(replace(spec, num_tiers=2), shape, _port(cluster))


def _graph(cluster: Cluster) -> GraphFabric:
    return GraphFabric(cluster.fabric, cluster.num_gpus)


def _port(cluster: Cluster) -> float:
    """Rate of one port of an interface."""
    return cluster.scale_out.bytes_per_s / cluster.fabric.planes


def _check_radix(cluster: Cluster, num_ports: int, what: str) -> None:
    """A router needs a port for each cable; a machine whose switches are not known is not checked."""
    spec: FabricSpec = cluster.fabric
    for switch in spec.switches[:1]:
        radix = switch.radix(_port(cluster))
        if num_ports > radix:
            raise InfeasibleError(
                f"a router needs more ports than {switch.name} has at {_port(cluster) * 8 / 1e9:g} Gb/s",
                where=_SHAPE,
                got=f"{num_ports} ports: {what}",
                expected=f"at most {radix}",
                hint="change the sizes of cluster.fabric.shape, or split the interface over planes",
            )


_SHAPE = Place(field="cluster.fabric.shape")
_BUILDERS: dict[FabricKind, Callable[[Cluster], BuiltFabric]] = {
    FabricKind.IDEAL: _ideal,
    FabricKind.FAT_TREE: _fat_tree,
    FabricKind.DUAL_TOR: _dual_tor,
    FabricKind.RAIL_ONLY: _rail_only,
    FabricKind.DRAGONFLY: _dragonfly,
    FabricKind.TORUS: _torus,
    FabricKind.GRAPH: _graph,
}
