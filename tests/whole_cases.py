"""Plans on small clusters of GB300 racks, for tests of whole clusters."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from exactmap.sim.cost.formats import find_formats
from exactmap.sim.cost.plan_header import mesh_of
from exactmap.sim.plan.plan import Precision
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.resilience.whole_cluster import WholeCluster, set_up
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.presets import find_preset
from exactmap.topology.mapping import DEFAULT_ORDER
from exactmap.topology.state.components import ComponentKind
from exactmap.topology.state.spec import HOMOGENEOUS, StateSpec, Straggler

if TYPE_CHECKING:
    from exactmap.sim.cost.profile import Profile
    from exactmap.sim.plan.plan import Plan
    from exactmap.topology.hardware import Cluster

JITTERY = StateSpec(
    seed=5,
    gpu_spread=0.01,
    gpu_step_jitter=0.004,
    gpu_jitter=0.03,
    slow_host_share=0.05,
    slow_host_rate=0.9,
    interface_spread=0.02,
    interface_jitter=0.1,
    hiccups_per_gpu_hour=200.0,
    hiccup_ns=3_000_000,
)


@cache
def priced(
    pp: int,
    dp: int,
    tp: int = 1,
    cp: int = 1,
    m: int = 8,
    schedule: str = "1f1b",
    used: int = 72,
    chunks: int = 1,
) -> tuple[Plan, Profile, Cluster]:
    """A plan of Llama 3 8B, its prices, and the racks that it fits."""
    num_ranks = pp * dp * tp * cp
    racks = max(1, -(-num_ranks // used))
    cluster = replace(load_cluster("gb300-nvl72"), num_gpus=72 * racks, used_per_domain=used)
    plan = build_plan(
        find_preset("llama3-8b"),
        schedule=schedule,
        pp=pp,
        num_microbatches=m,
        chunks=chunks,
        seq=4096,
        dp=dp,
        tp=tp,
        cp=cp,
        mesh_order=tuple(DEFAULT_ORDER),
        precision=Precision("bf16", "f32", "bf16", "bf16", "f32"),
    )
    pricing = ClusterPricing(cluster, find_formats("bf16"))
    mesh = mesh_of(plan.mesh)
    work_ns = pricing.work_ns(find_preset("llama3-8b"), plan.stages, 1, 4096, mesh)
    return plan, pricing.profile(plan, mesh, work_ns), cluster


def whole(spec: StateSpec = HOMOGENEOUS, **sizes: int | str) -> WholeCluster:
    """A small whole cluster."""
    return set_up(*priced(**sizes), spec)  # type: ignore[arg-type]


def slow(kind: ComponentKind, number: int, rate: float, lost_uplinks: int = 0) -> Straggler:
    return Straggler(kind, ((number, number),), rate, lost_uplinks)
