"""Traffic on a built fabric: its routes, its fair rates, its times, in one report."""

from __future__ import annotations

import numpy as np

from exactmap.topology.fabric.build import BuiltFabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.fabric.wiring import Wiring
from exactmap.topology.flows.bundles import Bundles
from exactmap.topology.flows.detour import live_routes
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.health import Health
from exactmap.topology.flows.patterns import Traffic
from exactmap.topology.flows.report import (
    Spreads,
    TrafficReport,
    collisions,
    hot_links,
    tier_series,
    tier_use,
)
from exactmap.topology.flows.shares import Shares
from exactmap.topology.flows.times import LinkUse, simulate_flows
from exactmap.topology.links import Floats, LinkTable, Routes

__all__ = ["traffic_report"]

MAX_ENTRIES = 20_000_000
"""Links of sprayed flows, all together, up to which lost ones are avoided one by one: 320 MB."""


def traffic_report(
    fabric: BuiltFabric,
    traffic: Traffic,
    *,
    spread: Spread,
    seed: int = 0,
    paths: int = 1,
    health: Health | None = None,
    num_bytes: int = 0,
    top: int = 10,
) -> TrafficReport:
    """Let flows share a fabric, all at once.

    Parameters
    ----------
    fabric, traffic
        The fabric, and who sends to whom.
    spread, seed
        How flows choose their paths.
    paths
        Paths by ECMP that each flow is striped over evenly, as several queue pairs do: plane after plane.
    health
        Lost and slow links, which routes avoid where they can; all whole if left out.
    num_bytes
        Bytes of each flow, to play them until all have arrived; 0 for rates alone.
    top
        Hot links to name at most.

    Raises
    ------
    InfeasibleError
        If lost links cut a GPU off.
    """
    health = health or Health.whole()
    table, routes, capacity = _routes(fabric, traffic, spread, seed, paths, health)
    shares = Shares(routes, capacity)
    rate = shares.rates()
    load = np.zeros(table.num_links)
    load[shares.used] = shares.load(rate)[shares.kind]
    met = None
    if spread is Spread.ECMP:
        sprayed = None if len(health.links) else _mean_sprayed(fabric, traffic)
        met = collisions(table, routes, rate, _alone(table, routes, capacity), sprayed)
    into = np.bincount(traffic.second) if traffic.num_flows else np.zeros(1, dtype=np.int64)
    arrive, series = None, None
    if num_bytes and traffic.num_flows:
        use = LinkUse(capacity)
        times = simulate_flows(
            np.zeros(traffic.num_flows, dtype=np.int64),
            np.full(traffic.num_flows, num_bytes),
            routes,
            capacity,
            latency_ns=fabric.latency_ns(traffic.first, traffic.second),
            use=use,
        )
        arrive, series = Spreads.of(times.arrive_ns), tier_series(table, use)
    return TrafficReport(
        spread=spread.value,
        seed=seed,
        num_paths=paths,
        num_flows=traffic.num_flows,
        most_into_one=int(into.max()),
        bytes_per_s=Spreads.of(rate),
        total_bytes_per_s=float(rate.sum()),
        tiers=tier_use(table, capacity, load),
        hot=hot_links(
            table,
            routes,
            (traffic.first, traffic.second),
            capacity=capacity,
            load=load,
            alone=_alone(table, routes, capacity, fabric.num_gpus),
            top=top,
        ),
        collisions=met,
        num_bytes=num_bytes,
        arrive_ns=arrive,
        series=series,
    )


def _routes(
    fabric: BuiltFabric, traffic: Traffic, spread: Spread, seed: int, paths: int, health: Health
) -> tuple[LinkTable, Routes, Floats]:
    """Links, routes, what each link can carry; over bundles where spraying makes their links alike."""
    first, second = traffic.first, traffic.second
    if spread is Spread.SPRAY and isinstance(fabric, FatTree):
        bundles = Bundles(fabric, health)
        routes = bundles.routes(first, second)
        if not len(health.links) or int(bundles.num_cables(routes.link).sum()) > MAX_ENTRIES:
            return bundles, routes, bundles.capacity_bytes_per_s(np.arange(bundles.num_links))
    # Queue pairs of a flow are dealt out over the ports of its interface in turn.
    stripes = [
        live_routes(
            fabric,
            first,
            second,
            health,
            spread=spread,
            seed=seed + (stripe << 40),
            plane=stripe % fabric.spec.planes if paths > 1 else None,
        )
        for stripe in range(paths if spread is Spread.ECMP else 1)
    ]
    return fabric.links, _striped(stripes), health.capacity(fabric.links)


def _striped(stripes: list[Routes]) -> Routes:
    """Flows that are spread evenly over several routes."""
    if len(stripes) == 1:
        return stripes[0]
    num = stripes[0].num_flows
    lengths = np.array([np.diff(stripe.start) for stripe in stripes])
    flow = np.concatenate([np.repeat(np.arange(num), each) for each in lengths])
    order = np.argsort(flow, kind="stable")
    link = np.concatenate([stripe.link for stripe in stripes])[order]
    share = np.concatenate([stripe.share for stripe in stripes])[order] / len(stripes)
    start = np.concatenate(([0], np.cumsum(lengths.sum(axis=0)))).astype(np.int64)
    return Routes(start, link, share)


def _alone(table: LinkTable, routes: Routes, capacity: Floats, num_senders: int = 0) -> Floats:
    """Rate of each flow if there were interfaces only; with the number of GPUs, only those of senders."""
    kept = table.tier(routes.link) == 0
    if num_senders:
        sending = routes.link < num_senders
        if isinstance(table, Wiring):
            sending = table.ends(routes.link)[0] < num_senders
        kept &= sending
    before = np.concatenate(([0], np.cumsum(kept)))
    return fair_rates(Routes(before[routes.start], routes.link[kept], routes.share[kept]), capacity)


def _mean_sprayed(fabric: BuiltFabric, traffic: Traffic) -> float | None:
    """Mean rate if all were sprayed over a whole fat tree."""
    if not isinstance(fabric, FatTree) or not traffic.num_flows:
        return None
    bundles = Bundles(fabric)
    capacity = bundles.capacity_bytes_per_s(np.arange(bundles.num_links))
    return float(fair_rates(bundles.routes(traffic.first, traffic.second), capacity).mean())
