"""A mesh on a cluster: by arithmetic where ranks simply fill racks, by the exact map where more is asked for.

Planners price thousands of meshes and ask for the same one many times, so placements, and the fabric that
they ask for tiers, are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from exactmap.topology.exact_map.build import build_map, usable_gpus
from exactmap.topology.exact_map.exact_map import ExactMap
from exactmap.topology.exact_map.machine import Machine
from exactmap.topology.exact_map.request import MapRequest
from exactmap.topology.exact_map.tiers import FabricOf
from exactmap.topology.fabric.fabric import Fabric
from exactmap.topology.fabric.spec import FabricKind, FabricSpec
from exactmap.topology.mesh import Mesh
from exactmap.topology.placement import Placement

if TYPE_CHECKING:
    from exactmap.topology.hardware import Cluster

__all__ = ["count_usable", "exact_map_of", "fabric_of", "machine_of", "place_mesh"]


@dataclass(frozen=True, slots=True)
class _Site:
    """What of a cluster decides where ranks lie; clusters that differ otherwise share it."""

    machine: Machine
    spec: FabricSpec
    bytes_per_s: int
    request: MapRequest
    cluster: Cluster = field(compare=False, repr=False)


def machine_of(cluster: Cluster) -> Machine:
    """Counts of a cluster that a map needs."""
    return Machine(
        num_gpus=cluster.num_gpus,
        domain_size=cluster.scale_up.domain_size,
        gpus_per_host=cluster.gpus_per_host,
        used_per_domain=cluster.used_per_domain,
        rails=cluster.fabric.rails,
    )


def place_mesh(cluster: Cluster, mesh: Mesh) -> Placement | ExactMap:
    """Lay a mesh onto a cluster as its map request says.

    Raises
    ------
    InfeasibleError
        If it does not fit, or a constraint cannot be kept.
    """
    return _place(_site(cluster), mesh)


def exact_map_of(cluster: Cluster, mesh: Mesh) -> ExactMap:
    """The exact map of a mesh, also where arithmetic would do.

    Raises
    ------
    InfeasibleError
        If it does not fit, or a constraint cannot be kept.
    """
    return build_map(mesh, machine_of(cluster), cluster.map_request, fabric_of(cluster))


def count_usable(cluster: Cluster) -> int:
    """GPUs that a plan may use: what exclusions and the rule for spares leave of each rack."""
    if cluster.map_request.is_plain:
        return place_mesh(cluster, Mesh()).budget.usable
    return usable_gpus(machine_of(cluster), cluster.map_request, fabric_of(cluster))


def fabric_of(cluster: Cluster) -> FabricOf | None:
    """Builds the cluster's fabric when it is asked for; None where one switch joins all GPUs."""
    if cluster.fabric.kind is FabricKind.IDEAL:
        return None
    return partial(_fabric, _site(cluster))


def _site(cluster: Cluster) -> _Site:
    return _Site(
        machine_of(cluster), cluster.fabric, cluster.scale_out.bytes_per_s, cluster.map_request, cluster
    )


@lru_cache(maxsize=1024)
def _place(site: _Site, mesh: Mesh) -> Placement | ExactMap:
    of = fabric_of(site.cluster)
    if not site.request.is_plain:
        return build_map(mesh, site.machine, site.request, of)
    machine = site.machine
    return Placement(mesh, machine.num_gpus, machine.domain_size, machine.used_per_domain, fabric_of=of)


@lru_cache(maxsize=8)
def _fabric(site: _Site) -> Fabric:
    # A built fabric imports the cluster it is built for.
    from exactmap.topology.fabric.build import build_fabric  # noqa: PLC0415

    return build_fabric(site.cluster)
