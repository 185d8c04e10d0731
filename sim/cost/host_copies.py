"""Time of a stash on its way between a GPU and its host's memory: ``OFF`` and ``LD``.

All GPUs of a host offload in the same step, so a copy has the link to itself but an equal share of the
host's memory ::

    time = launch + bytes / min(link, memory bandwidth / GPUs of the host)
"""

from __future__ import annotations

from math import ceil

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.plan.plan import Plan
from exactmap.topology.hardware import Cluster

__all__ = ["price_copies"]


def price_copies(plan: Plan, cluster: Cluster) -> dict[tuple[str, int], int]:
    """Durations of ``OFF`` and ``LD`` of one item of each stage, for `Profile.copy_ns`.

    Parameters
    ----------
    plan
        The plan; its pools of host copies say what a stash takes.
    cluster
        The machine.

    Raises
    ------
    InvalidInputError
        If the plan offloads and nothing is known of the cluster's hosts.
    """
    stashes = {pool.pp: pool.bytes for pool in plan.pools if pool.letter == "o"}
    if not stashes:
        return {}
    host = cluster.host
    if host is None:
        raise InvalidInputError(
            "the plan copies stashes to the host, and nothing is known of the host",
            where=Place(field="cluster.host"),
            got=cluster.name,
            expected="host.to_gpu, host.from_gpu and host.memory_bandwidth",
            hint="name one of the catalog: host: {part: DGX-H100}",
        )
    share = host.memory_bytes_per_s // cluster.gpus_per_host
    rates = {"OFF": min(host.from_gpu_bytes_per_s, share), "LD": min(host.to_gpu_bytes_per_s, share)}
    return {
        (op, stage): cluster.gpu.launch_ns + ceil(num_bytes * 10**9 / rate)
        for op, rate in rates.items()
        for stage, ranks in enumerate(plan.place)
        if (num_bytes := max((stashes.get(rank, 0) for rank in ranks), default=0))
    }
