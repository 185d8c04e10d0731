"""Symmetry is exact: one lane for all replicas, on classes of flows, has the times of each by itself.

Training steps of small models on small clusters, their replicas told apart or not, flows gathered or not.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from link_cases import GIGA, LeafSpine, small_cluster

from exactmap.sim.cost.profile import ChannelNs, Mover, Profile
from exactmap.sim.engine.durations import Durations, resolve, split_inner, split_replica
from exactmap.sim.engine.events import SharedStep, simulate_shared
from exactmap.sim.engine.shared_links import share_links
from exactmap.sim.plan.plan import Plan
from exactmap.sim.schedules.build import build_plan
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.topology.fabric.fabric import Spread


def random_step(rng: Random) -> Plan:
    pp, chunks = rng.choice([(2, 1), (4, 1), (2, 2)])
    model = ModelConfig(
        ModelKind.GPT,
        layers=pp * chunks,
        hidden=32,
        heads=2,
        kv_heads=2,
        head_dim=16,
        ffn=64,
        vocab=64,
        positions=16,
        tied=rng.random() < 0.3,
    )
    order = ["tp", "cp", "ep", "dp", "pp"] if rng.random() < 0.5 else ["tp", "cp", "ep", "pp", "dp"]
    return build_plan(
        model,
        schedule="interleaved-1f1b" if chunks > 1 else rng.choice(["1f1b", "gpipe", "zb-h1"]),
        pp=pp,
        num_microbatches=4,
        seq=16,
        chunks=chunks,
        dp=rng.choice([2, 4]),
        tp=rng.choice([1, 2]),
        mesh_order=tuple(order),
        depth=rng.choice([0, 2]),
        split_buckets=rng.random() < 0.5,
    )


def random_profile(rng: Random, plan: Plan) -> Profile:
    """Nominal times near those that interfaces of a byte per nanosecond would give."""
    sizes = {(bucket.stage, bucket.index): 4 * bucket.elements for bucket in plan.buckets}
    return Profile(
        rng.choice(list(Mover)),
        work_ns={(op, stage): rng.randint(1, 4000) for op in "FIW" for stage in range(len(plan.stages))},
        bucket_ns={("OPT", *key): 50 for key in sizes},
        channel={
            channel.name: ChannelNs(channel.bytes + rng.randint(0, 50), rng.randint(0, 300), 10)
            for channel in plan.channels
        },
        group_ns={
            (group.name, op, *(key if op == "AR" else (None, None))): size * 2 if op == "AR" else 20
            for group in plan.groups
            for op in ("AR", "NORM")
            for key, size in sizes.items()
        },
    )


def every_replica(plan: Plan, durations: Durations) -> Durations:
    for dp in range(plan.mesh.dp):
        durations = split_replica(durations, dp)
    return split_inner(durations, plan, ("tp",)) if plan.mesh.tp > 1 else durations


def check_one(seed: int) -> tuple[str, bool]:
    rng = Random(seed)
    plan = random_step(rng)
    durations = resolve(plan, random_profile(rng, plan))
    mesh = plan.mesh
    num_gpus = mesh.tp * mesh.pp * mesh.dp
    domain_size = rng.choice([1, mesh.tp, 2 * mesh.tp])
    fabric = LeafSpine(
        num_gpus,
        per_leaf=domain_size * rng.choice([1, 2]),
        num_spines=2,
        uplink=GIGA / rng.choice([0.5, 2, 7]),
    )
    cluster = small_cluster(num_gpus, domain_size)
    spread, draw = rng.choice(list(Spread)), rng.randrange(100)

    def run(used: Durations, *, aggregate: bool) -> SharedStep:
        links = share_links(plan, used, cluster, fabric=fabric, spread=spread, seed=draw, aggregate=aggregate)
        return simulate_shared(plan, used, links)

    together = run(durations, aggregate=True)
    assert together.trace.same_times(run(durations, aggregate=False).trace), f"seed {seed}"

    apart = run(every_replica(plan, durations), aggregate=True)
    is_slower = together.use.step_time_ns > together.use.unshared_step_time_ns
    if together.use.uneven:
        assert apart.use.step_time_ns <= together.use.step_time_ns, f"seed {seed}"
        return "uneven", is_slower
    for dp in range(mesh.dp):
        for tp in range(mesh.tp):
            for pp in range(mesh.pp):
                lane, own = together.trace.actor(pp), apart.trace.actor(pp, dp, tp)
                assert (lane.e_ns == own.e_ns).all(), f"seed {seed}"
                assert (lane.done_ns == own.done_ns).all(), f"seed {seed}"
    return "even", is_slower


def test_a_lane_stands_for_its_replicas_to_the_nanosecond() -> None:
    outcomes = Counter(check_one(seed) for seed in range(60))

    # The search is worth something only if it meets both, with links that matter.
    assert outcomes["even", True] > 10, outcomes
    assert outcomes["uneven", True] > 5, outcomes
