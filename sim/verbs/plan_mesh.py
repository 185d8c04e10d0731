"""A plan's mesh on a machine that a user named: no map may ask for another order of axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exactmap.errors import InvalidInputError, Place
from exactmap.topology.mapping import DEFAULT_ORDER, Axis, Mesh

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.hardware import Cluster

__all__ = ["mesh_on"]


def mesh_on(plan: Plan, cluster: Cluster) -> Mesh:
    """Mesh of a plan, to be laid onto a cluster.

    Raises
    ------
    InvalidInputError
        If the cluster's map asks for another order of axes.
    """
    dims = plan.mesh
    order = tuple(Axis(axis) for axis in dims.order)
    if cluster.map_request.order not in {order, DEFAULT_ORDER}:
        raise InvalidInputError(
            "the plan has another order of axes",
            where=Place(field="map.order"),
            got=",".join(cluster.map_request.order),
            expected=",".join(order),
            hint="the order is the plan's: make the plan anew with this one",
        )
    return Mesh(dims.tp, dims.cp, dims.ep, dims.pp, dims.dp, order=order)
