"""What shared links cost the event engine: flows and classes found, then a step, on GB300 racks.

    python tests/bench/shared_links.py [--largest 131072]

Times are CPU seconds of one core.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from time import process_time

from exactmap.sim.cost.price_plan import price_plan
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.events import simulate_events, simulate_shared
from exactmap.sim.engine.shared_links import share_links
from exactmap.sim.plan.plan import Plan, Precision
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread

CASES = (  # stages, microbatches, replicas, tensor-parallel ranks, how flows spread
    (16, 64, 1024, 1, Spread.SPRAY),
    (16, 64, 1024, 1, Spread.ECMP),
    (16, 64, 1024, 8, Spread.SPRAY),
    (16, 64, 1024, 8, Spread.ECMP),
    (64, 256, 3437, 1, Spread.SPRAY),
    (64, 256, 3437, 1, Spread.ECMP),
)
MIXED = Precision("bf16", "f32", "bf16", "bf16", "f32")


def plan_of(pp: int, num_microbatches: int, dp: int, tp: int) -> Plan:
    model = ModelConfig(
        ModelKind.LLAMA,
        layers=2 * pp,
        hidden=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        ffn=28672,
        vocab=128_000,
        positions=8192,
        tied=False,
    )
    return build_plan(
        model,
        schedule="1f1b",
        pp=pp,
        num_microbatches=num_microbatches,
        seq=8192,
        dp=dp,
        tp=tp,
        mesh_order=("tp", "cp", "ep", "dp", "pp"),
        precision=MIXED,
        depth=2,
    )


def measure(pp: int, num_microbatches: int, dp: int, tp: int, spread: Spread) -> None:
    racks = load_cluster("gb300-nvl72")
    num_racks = -(-pp * dp * tp // 64)
    cluster = replace(racks, num_gpus=72 * num_racks, used_per_domain=64)
    plan = plan_of(pp, num_microbatches, dp, tp)
    durations = resolve(plan, price_plan(plan, cluster))
    fabric = build_fabric(cluster)
    start = process_time()
    links = share_links(plan, durations, cluster, fabric=fabric, spread=spread, seed=1)
    found = process_time()
    use = simulate_shared(plan, durations, links).use
    ran = process_time()
    simulate_events(plan, durations)
    plain = process_time() - ran
    print(
        f"{pp} x {num_microbatches} x {dp} x tp {tp}, {spread.value}: {pp * dp * tp:,} GPUs, "
        f"{use.num_flows:,} flows, {len(links.loads.routes.link):,} entries; "
        f"classes {use.num_channel_classes:,} of channels, {use.num_flow_classes:,} of all; "
        f"found {found - start:.2f} s, step {ran - found:.2f} s ({use.num_sharings:,} sharings; "
        f"without links {plain:.2f} s); step time +{use.step_time_ns / use.unshared_step_time_ns - 1:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=220_000, help="leave out cases of more GPUs")
    options = parser.parse_args()
    for case in CASES:
        pp, _, dp, tp, _ = case
        if pp * dp * tp <= options.largest:
            measure(*case)


if __name__ == "__main__":
    main()
