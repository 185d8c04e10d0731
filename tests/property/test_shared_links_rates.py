"""Speeds of transfers on classes of flows are those that fair rates of all flows give, on real fabrics."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from link_cases import small_cluster
from random_plans import random_durations, random_plan

from exactmap.sim.engine.flow_classes import FlowClasses, flow_classes
from exactmap.sim.engine.shared_links import SharedLinks, share_links
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.spec import FabricKind, FabricSpec, Switch
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.hardware import Cluster

GBPS = 10**9


def random_cluster(rng: Random, num_ranks: int) -> Cluster:
    """Leaves of 8 ports of an interface's rate; two or three tiers, planes, tapers; domains of 1 or 2."""
    kind = rng.choice([FabricKind.FAT_TREE, FabricKind.FAT_TREE, FabricKind.IDEAL, FabricKind.TORUS])
    switch = Switch("eight", 8, GBPS, 16, 0, 0)
    spec = FabricSpec(
        kind=kind,
        switches=(switch,) if kind is FabricKind.FAT_TREE else (),
        planes=rng.choice([1, 2]) if kind is FabricKind.FAT_TREE else 1,
        oversubscription=(rng.choice([1.0, 3.0]),) if kind is FabricKind.FAT_TREE else (),
        shape=(3, 4) if kind is FabricKind.TORUS else (),
    )
    domain_size = rng.choice([1, 2])
    return replace(small_cluster(-(-num_ranks // domain_size) * domain_size, domain_size), fabric=spec)


def speeds_of_all_flows(
    links: SharedLinks, active: list[tuple[int, float]]
) -> tuple[list[float], np.ndarray]:
    """Every flow by itself over every link: slowest flow of each transfer, and the load of each link."""
    sent, rate_of = links.loads.flows, dict(active)
    flows = np.flatnonzero(np.isin(sent.stream, list(rate_of)))
    streams = sent.stream[flows]
    demand = np.array([rate_of[stream] for stream in streams.tolist()]) * sent.factor[flows]
    rows = links.loads.routes.rows(flows)
    rate = fair_rates(rows, links.loads.bytes_per_s, most=demand)
    of_entry = np.repeat(rate, np.diff(rows.start)) * rows.share
    load = np.bincount(rows.link, of_entry, minlength=len(links.loads.link))
    part = rate / demand
    return [float(part[streams == stream].min()) for stream, _ in active], load


@given(st.integers(0, 10**6), st.data())
def test_speeds_are_those_of_all_flows(seed: int, data: st.DataObject) -> None:
    rng = Random(seed)
    plan = random_plan(rng)
    durations = random_durations(rng, plan)
    mesh = plan.mesh
    cluster = random_cluster(rng, mesh.tp * mesh.pp * mesh.dp)
    links = share_links(
        plan,
        durations,
        cluster,
        fabric=build_fabric(cluster),
        spread=rng.choice(list(Spread)),
        seed=rng.randrange(9),
        paths=rng.choice([1, 1, 2]),
    )
    nominal = [rng.choice([0.3, 1.0, 2.0]) * GBPS for _ in links.streams]
    # Links are left out by the highest rates that durations allow: here these are the nominal ones.
    classes: dict[bool, FlowClasses] = {}
    for everything in (True, False):
        chosen = np.array([everything or stream.is_channel for stream in links.streams], dtype=np.bool_)
        classes[everything] = flow_classes(links.loads, np.array(nominal), streams=chosen)
    active = [(number, rate) for number, rate in enumerate(nominal) if data.draw(st.booleans())]
    if not active:
        return
    is_channels = all(links.streams[number].is_channel for number, _ in active)

    expected, load = speeds_of_all_flows(links, active)
    for everything in (True, False) if is_channels else (True,):
        shares = classes[everything].shares(active)
        assert np.allclose(shares.speed, expected, rtol=1e-9)
        quotient = classes[everything].quotient
        full = np.isin(quotient.link_class, shares.full)
        rate = links.loads.bytes_per_s[classes[everything].link[full]]
        assert np.allclose(load[classes[everything].link[full]], rate, rtol=1e-6)
