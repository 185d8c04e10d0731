"""Build the fabric of a cluster: sizes from its GPUs and the radix, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exactmap.topology.fabric.fabric import Fabric
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.spec import FabricKind
from exactmap.topology.fabric.tree_shape import TreeShape, fit_tree
from exactmap.topology.hardware import Cluster

__all__ = ["build_fabric"]


def build_fabric(cluster: Cluster) -> Fabric:
    """Build what `cluster.fabric` asks for, with all installed GPUs attached.

    Raises
    ------
    InfeasibleError
        If the radix of its switches forbids it.
    InvalidInputError
        If what is asked for makes no sense.
    """
    return _BUILDERS[cluster.fabric.kind](cluster)


def _ideal(cluster: Cluster) -> Fabric:
    spec = cluster.fabric
    size = cluster.num_gpus
    shape = TreeShape(size, cluster.gpus_per_host, 1, size, (size,), (1,), (1,), (size,))
    return FatTree(replace(spec, num_tiers=1), shape, cluster.scale_out.bytes_per_s / spec.planes)


def _fat_tree(cluster: Cluster) -> Fabric:
    spec = cluster.fabric
    rate = cluster.scale_out.bytes_per_s / spec.planes
    shape = fit_tree(cluster.num_gpus, cluster.gpus_per_host, spec, rate)
    return FatTree(replace(spec, num_tiers=shape.num_tiers), shape, rate)


def _dual_tor(cluster: Cluster) -> Fabric:
    spec = replace(cluster.fabric, planes=max(cluster.fabric.planes, 2))
    return _fat_tree(replace(cluster, fabric=spec))


_BUILDERS: dict[FabricKind, Callable[[Cluster], Fabric]] = {
    FabricKind.IDEAL: _ideal,
    FabricKind.FAT_TREE: _fat_tree,
    FabricKind.DUAL_TOR: _dual_tor,
}
