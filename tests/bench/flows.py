"""Shared links: how fast 10,000 flows are shared out anew, and how near fair rates come to queues of chunks.

Usage: python tests/bench/flows.py [--quick]
Prints three tables; 5 if a sharing takes 50 ms or more, or a flow of the fluid model misses 10 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flow_cases import LeafSpine, plain_rates

from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.fabric import Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.flows.bundles import Bundles
from exactmap.topology.flows.chunks import Discipline, chunk_times
from exactmap.topology.flows.shares import Shares
from exactmap.topology.flows.times import simulate_flows
from exactmap.topology.links import Floats, Ints, Routes

NUM_FLOWS = 10_000
GOAL_MS = 50.0
GOAL_ERROR = 0.10
MIB = 1 << 20


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="fewer repetitions and seeds, no plain algorithm"
    )
    quick = parser.parse_args().quick
    slowest_ms = _sharing(quick=quick)
    _moments(quick=quick)
    worst = _chunks(quick=quick)
    print(f"\nslowest sharing of {NUM_FLOWS} flows: {slowest_ms:.1f} ms (goal: under {GOAL_MS:.0f})")
    print(f"worst flow against chunks in turn: {100 * worst:.1f} % (goal: within {100 * GOAL_ERROR:.0f})")
    return 0 if slowest_ms < GOAL_MS and worst < GOAL_ERROR else 5


def _sharing(*, quick: bool) -> float:
    """Median time to share out rates, ready and from routes; returns the slowest ready one in ms."""
    print(f"{NUM_FLOWS} flows between random GPUs, shared out anew (median of 7)\n")
    print(f"{'fabric':42} {'entries':>9} {'rates':>6} {'ready ms':>9} {'from routes':>11} {'plain':>16}")
    slowest = 0.0
    rng = np.random.default_rng(1)
    for num_gpus, how in (
        (16_416, "ecmp"),
        (65_664, "ecmp"),
        (220_032, "ecmp"),
        (1_152, "ecmp"),
        (4_608, "slow links"),
        (16_416, "slow links"),
        (10_368, "sprayed"),
        (220_032, "bundles"),
    ):
        fabric = build_fabric(replace(load_cluster("gb300-nvl72"), num_gpus=num_gpus))
        source = rng.integers(num_gpus, size=NUM_FLOWS)
        target = (source + rng.integers(1, num_gpus, NUM_FLOWS)) % num_gpus
        spread = Spread.SPRAY if how == "sprayed" else Spread.ECMP
        if how == "bundles":
            assert isinstance(fabric, FatTree)
            bundles = Bundles(fabric)
            routes = bundles.routes(source, target)
            capacity = bundles.capacity_bytes_per_s(np.arange(bundles.num_links))
        else:
            routes = fabric.routes(source, target, spread=spread, seed=7)
            capacity = fabric.links.capacity_bytes_per_s(np.arange(fabric.links.num_links))
        if how == "slow links":
            # Each link with a rate of its own: as many levels as links.
            capacity = capacity * rng.uniform(0.3, 1.0, len(capacity))
        shares = Shares(routes, capacity)
        ready_ms, rates = _median_ms(shares.rates)
        whole_ms, _ = _median_ms(lambda routes=routes, capacity=capacity: Shares(routes, capacity).rates())
        plain = _plain(routes, capacity, rates) if not quick and how != "sprayed" else "-"
        slowest = max(slowest, ready_ms)
        name = f"{num_gpus} GPUs, {fabric.spec.num_tiers} tiers, {how}"
        print(
            f"{name:42} {len(routes.link):9} {len(np.unique(rates.round(3))):6} {ready_ms:9.1f} "
            f"{whole_ms:11.1f} {plain:>16}"
        )
    return slowest


def _plain(routes: Routes, capacity: Floats, rates: Floats) -> str:
    began = time.perf_counter()
    plain = plain_rates(routes, capacity)
    spent_ms = 1e3 * (time.perf_counter() - began)
    assert np.allclose(plain, rates, rtol=1e-9)
    return f"{spent_ms:.0f} ms, same"


def _median_ms(work: Callable[[], Floats]) -> tuple[float, Floats]:
    times: list[float] = []
    rates = work()
    for _ in range(7):
        began = time.perf_counter()
        rates = work()
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times)), rates


def _moments(*, quick: bool) -> None:
    """Flows of uneven size that start together and end one by one."""
    print("\nflows of 1 MB to 1 GB that start together and end one by one\n")
    print(f"{'fabric':42} {'flows':>6} {'moments':>8} {'seconds':>8} {'ms each':>8}")
    rng = np.random.default_rng(2)
    for num_gpus, num_flows in ((1_152, 1_000), (16_416, 2_000), *(() if quick else ((16_416, 10_000),))):
        fabric = build_fabric(replace(load_cluster("gb300-nvl72"), num_gpus=num_gpus))
        source = rng.integers(num_gpus, size=num_flows)
        target = (source + rng.integers(1, num_gpus, num_flows)) % num_gpus
        routes = fabric.routes(source, target, spread=Spread.ECMP)
        capacity = fabric.links.capacity_bytes_per_s(np.arange(fabric.links.num_links))
        sizes = rng.integers(10**6, 10**9, num_flows)
        began = time.perf_counter()
        times = simulate_flows(np.zeros(num_flows, dtype=np.int64), sizes, routes, capacity)
        spent = time.perf_counter() - began
        name = f"{num_gpus} GPUs, {fabric.spec.num_tiers} tiers, ecmp"
        each_ms = 1e3 * spent / times.num_moments
        print(f"{name:42} {num_flows:6} {times.num_moments:8} {spent:8.2f} {each_ms:8.2f}")


def _chunks(*, quick: bool) -> float:
    """Errors of the fluid model against chunks of 16 KiB; returns the worst of those served in turn."""
    print(
        "\nfluid against chunks of 16 KiB, 64 hosts of 100 Gb/s, 8 leaves, window 8: error of a flow's time\n"
    )
    print(
        f"{'traffic':42} {'queues':12} {'flows':>6} {'median':>8} {'95 %':>8} {'worst':>8} {'last flow':>9}"
    )
    worst = 0.0
    full, narrow = LeafSpine(8, 8, 8, 12.5e9, 12.5e9), LeafSpine(8, 8, 2, 12.5e9, 12.5e9)
    for discipline in Discipline:
        for name, fabric in (
            ("permutation, 8 spines", full),
            ("permutation, 2 spines", narrow),
            ("permutation, 8 spines, sprayed", full),
            ("permutation of 4 to 64 MiB, 2 spines", narrow),
            ("incast of 63", full),
            ("200 random flows within 20 ms, 2 spines", narrow),
        ):
            found: list[Floats] = []
            last = 0.0
            for seed in range(1 if quick else 3):
                errors, error_of_last = _compare(name, fabric, seed, discipline)
                found.append(errors)
                last = max(last, error_of_last)
            errors = np.concatenate(found)
            if discipline is Discipline.ROUND_ROBIN:
                worst = max(worst, float(errors.max()))
            low, high, most = np.quantile(errors, (0.5, 0.95, 1.0))
            print(f"{name:42} {discipline:12} {len(errors):6} {low:8.2%} {high:8.2%} {most:8.2%} {last:9.2%}")
    return worst


def _compare(name: str, fabric: LeafSpine, seed: int, discipline: Discipline) -> tuple[Floats, float]:
    rng = np.random.default_rng(seed)
    starts: Ints = np.zeros(64, dtype=np.int64)
    sizes = np.full(64, 16 * MIB)
    order = rng.permutation(64)
    source, target = order, np.roll(order, 1)
    if "4 to 64" in name:
        sizes = rng.integers(4 * MIB, 64 * MIB, 64)
    elif "incast" in name:
        source, target = np.arange(1, 64), np.zeros(63, dtype=np.int64)
        sizes, starts = np.full(63, 4 * MIB), starts[1:]
    elif "200" in name:
        source = rng.integers(64, size=200)
        target = (source + rng.integers(1, 64, size=200)) % 64
        sizes, starts = rng.integers(4 * MIB, 64 * MIB, 200), rng.integers(0, 20_000_000, 200)
    spray = "sprayed" in name
    routes = fabric.routes(source, target, spray=spray, seed=seed)
    fluid = simulate_flows(starts, sizes, routes, fabric.capacity).end_ns
    chunks = np.array(
        chunk_times(
            fabric.paths(routes),
            sizes.tolist(),
            fabric.capacity.tolist(),
            start_ns=starts.tolist(),
            window=64 if spray else 8,
            discipline=discipline,
        )
    )
    errors = np.abs((fluid - starts) / (chunks - starts) - 1.0)
    return errors, abs(float(fluid.max() / chunks.max()) - 1.0)


if __name__ == "__main__":
    sys.exit(main())
