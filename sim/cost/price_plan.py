"""Price a whole plan: from what its header says and a machine, the profile that an engine runs it with."""

from __future__ import annotations

from exactmap.sim.cost.host import HostProfile
from exactmap.sim.cost.host_copies import price_copies
from exactmap.sim.cost.links import price_buckets, price_channels, price_groups
from exactmap.sim.cost.plan_header import formats_of, mesh_of, model_of
from exactmap.sim.cost.price_host import price_on_host
from exactmap.sim.cost.profile import Mover, Profile
from exactmap.sim.cost.stages import price_stages
from exactmap.sim.plan.plan import Plan
from exactmap.topology.hardware import Cluster

__all__ = ["price_plan"]


def price_plan(plan: Plan, machine: Cluster | HostProfile) -> Profile:
    """Durations of a plan's instructions on a machine.

    Parameters
    ----------
    plan
        The plan; only its header is read.
    machine
        A cluster, priced by the model of its hardware, or a host that ``calibrate`` has measured.

    Returns
    -------
    Profile
        On a cluster bytes move beside compute (mover engine); on a host ranks are threads that copy inside
        their waits (mover inline).

    Raises
    ------
    InvalidInputError
        If the machine cannot compute in the plan's formats, lacks a measurement, or has no known host that
        stashes can be copied to.
    InfeasibleError
        If the plan needs more GPUs than there are.
    """
    if isinstance(machine, HostProfile):
        return price_on_host(plan, machine)
    mesh, model, formats = mesh_of(plan.mesh), model_of(plan.model), formats_of(plan)
    work_ns = price_stages(model, plan.stages, plan.train.microbatch, plan.train.seq, mesh, machine, formats)
    if plan.train.slices > 1:
        # Later slices attend to more keys: this is the mean over a sequence, without a slice's own overheads.
        work_ns = {key: round(ns / plan.train.slices) for key, ns in work_ns.items()}
    return Profile(
        mover=Mover.ENGINE,
        work_ns=work_ns,
        bucket_ns=price_buckets(plan.buckets, machine, formats, mesh.cp * mesh.ep * mesh.dp),
        channel=price_channels(plan.channels, mesh, machine),
        group_ns=price_groups(plan.groups, plan.buckets, mesh, machine, formats),
        copy_ns=price_copies(plan, machine),
    )
