"""Flows that come and go at random: after every moment rates are as if shared out from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from flow_cases import LeafSpine, extreme_capacity, extreme_routes, plain_rates

from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.network import NEVER, FlowNetwork
from exactmap.topology.links import Routes


@pytest.mark.parametrize("seed", range(12))
def test_sharing_again_only_where_it_matters_changes_no_rate(seed: int) -> None:
    """Starts, ends, lost and mended links, bounds, counts, whole and sprayed flows."""
    rng = np.random.default_rng(seed)
    fabric = LeafSpine(8, 8, 4, 1e9, 1e9)
    capacity = fabric.capacity * rng.choice([0.5, 1.0, 1.0, 2.0], fabric.num_links)
    net = FlowNetwork(capacity)
    under_way: dict[int, tuple[Routes, float, float]] = {}
    for _ in range(40):
        num = int(rng.integers(0, 12))
        source, target = rng.integers(64, size=num), rng.integers(64, size=num)
        routes = fabric.routes(source, target, seed=int(rng.integers(99)), spray=bool(rng.random() < 0.3))
        count = rng.integers(1, 4, num).astype(np.float64)
        most = np.where(rng.random(num) < 0.3, rng.uniform(1e7, 1e9, num), np.inf)
        for place, flow in enumerate(net.start(routes, rng.integers(0, 10**6, num), count=count, most=most)):
            under_way[int(flow)] = (routes.rows(np.array([place])), count[place], most[place])
        if rng.random() < 0.2:
            link = rng.integers(fabric.num_links, size=1)
            capacity = capacity.copy()
            capacity[link] = rng.choice([0.0, 1e8, 1e9])
            net.set_capacity(link, capacity[link])
        at_ns = net.next_ns()
        if at_ns == NEVER or rng.random() < 0.5:
            at_ns = net.now_ns + int(rng.integers(0, 300_000))
        for flow in net.advance(at_ns).flow.tolist():
            del under_way[flow]
        flows, rates = net.rates()
        assert flows.tolist() == sorted(under_way)
        parts = [under_way[flow] for flow in flows.tolist()]
        if not parts:
            continue
        whole = Routes(
            np.concatenate(([0], np.cumsum([len(part[0].link) for part in parts]))),
            np.concatenate([part[0].link for part in parts]),
            np.concatenate([part[0].share for part in parts]),
        )
        wanted = plain_rates(
            whole,
            capacity,
            count=np.array([part[1] for part in parts]),
            most=np.array([part[2] for part in parts]),
        )
        np.testing.assert_allclose(rates, wanted, rtol=1e-8)


@pytest.mark.parametrize("seed", range(60))
def test_extreme_numbers_are_shared_as_from_scratch(seed: int) -> None:
    """Links lost, endless, a million times each other; links twice, shares of nothing, bounds of nothing."""
    rng = np.random.default_rng(seed)
    kind, num_links = int(rng.integers(5)), int(rng.integers(1, 14))
    unit = rng.choice([1.0, 1e9])
    capacity = unit * extreme_capacity(rng, kind, num_links)
    net = FlowNetwork(capacity)
    under_way: dict[int, tuple[Routes, float, float]] = {}
    for _ in range(30):
        num = int(rng.integers(0, 8))
        routes = extreme_routes(rng, num_links, num)
        count = rng.choice([0.0, 1.0, 3.0], num)
        most = rng.choice([0.0, 1e-3, 1e8, 1e9 / 3.0, np.inf, np.inf, np.inf], num)
        sizes = rng.choice([0, 1, 3, 1000, 10**6, 10**12], num)
        for place, flow in enumerate(net.start(routes, sizes, count=count, most=most)):
            under_way[int(flow)] = (routes.rows(np.array([place])), count[place], most[place])
        if rng.random() < 0.25:
            link = rng.integers(num_links, size=1)
            capacity = capacity.copy()
            capacity[link] = unit * extreme_capacity(rng, kind, 1)
            net.set_capacity(link, capacity[link])
        at_ns = net.next_ns()
        if at_ns == NEVER or rng.random() < 0.5:
            at_ns = net.now_ns + int(rng.integers(0, 300_000))
        for flow in net.advance(at_ns).flow.tolist():
            del under_way[flow]
        flows, rates = net.rates()
        assert flows.tolist() == sorted(under_way)
        if not under_way:
            continue
        parts = [under_way[flow] for flow in flows.tolist()]
        whole = Routes(
            np.concatenate(([0], np.cumsum([len(part[0].link) for part in parts]))),
            np.concatenate([part[0].link for part in parts]),
            np.concatenate([part[0].share for part in parts]),
        )
        wanted = fair_rates(
            whole,
            capacity,
            count=np.array([part[1] for part in parts]),
            most=np.array([part[2] for part in parts]),
        )
        np.testing.assert_allclose(rates, wanted, rtol=1e-6)
