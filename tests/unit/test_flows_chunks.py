"""The fluid model against chunks that queue at every link: 64 hosts, two tiers, all kinds of traffic."""

from __future__ import annotations

import numpy as np
import pytest
from flow_cases import LeafSpine
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.chunks import Discipline, chunk_times
from exactmap.topology.flows.times import simulate_flows
from exactmap.topology.links import Ints

MIB = 1 << 20
RATE = 12.5e9
FULL = LeafSpine(8, 8, 8, RATE, RATE)
NARROW = LeafSpine(8, 8, 2, RATE, RATE)
EVEN = np.full(64, 16 * MIB)
TOGETHER = np.zeros(64, dtype=np.int64)


def errors(
    fabric: LeafSpine,
    pairs: tuple[Ints, Ints],
    num_bytes: Ints,
    start_ns: Ints,
    *,
    spray: bool = False,
    seed: int,
) -> NDArray[np.float64]:
    """Relative error of each flow's time, fluid against chunks."""
    routes = fabric.routes(*pairs, spray=spray, seed=seed)
    fluid = simulate_flows(start_ns, num_bytes, routes, fabric.capacity).end_ns - start_ns
    ends = chunk_times(
        fabric.paths(routes),
        num_bytes.tolist(),
        fabric.capacity.tolist(),
        start_ns=start_ns.tolist(),
        window=64 if spray else 8,
    )
    return fluid / (np.array(ends) - start_ns) - 1.0


def permutation(seed: int) -> tuple[Ints, Ints]:
    """Each host sends to one other, and hears from one other."""
    order = np.random.default_rng(seed).permutation(64)
    return order, np.roll(order, 1)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fabric", [FULL, NARROW], ids=["ecmp", "oversubscribed"])
def test_permutation_with_collisions(fabric: LeafSpine, seed: int) -> None:
    """Every flow within 10 %, half of them within 1 %."""
    found = np.abs(errors(fabric, permutation(seed), EVEN, TOGETHER, seed=seed))
    assert found.max() < 0.10
    assert np.median(found) < 0.01


def test_permutation_sprayed() -> None:
    """Every flow within 10 %, though chunks take turns of paths and meet by chance."""
    assert np.abs(errors(FULL, permutation(0), EVEN, TOGETHER, spray=True, seed=0)).max() < 0.10


@pytest.mark.parametrize("num_senders", [7, 63])
def test_incast(num_senders: int) -> None:
    """Every flow within 10 %."""
    pairs = (np.arange(1, num_senders + 1), np.zeros(num_senders, dtype=np.int64))
    starts = np.zeros(num_senders, dtype=np.int64)
    found = np.abs(errors(FULL, pairs, np.full(num_senders, 4 * MIB), starts, seed=0))
    assert found.max() < 0.10


@pytest.mark.parametrize(
    ("num_flows", "seed"), [(80, 0), *(pytest.param(200, seed, marks=pytest.mark.slow) for seed in range(2))]
)
def test_uneven_flows_that_come_and_go(num_flows: int, seed: int) -> None:
    """Flows of 4 to 64 MiB, ten per ms, on the oversubscribed fabric: within 10 %, each."""
    rng = np.random.default_rng(seed)
    source = rng.integers(64, size=num_flows)
    target = (source + rng.integers(1, 64, size=num_flows)) % 64
    sizes = rng.integers(4 * MIB, 64 * MIB, num_flows)
    starts = rng.integers(0, 100_000 * num_flows, num_flows)
    found = np.abs(errors(NARROW, (source, target), sizes, starts, seed=seed))
    assert found.max() < 0.10
    assert np.median(found) < 0.01


def test_a_lone_flow_fills_its_path() -> None:
    """All chunks on the first link, then the last one over the other three."""
    ends = chunk_times([[[0, 1, 2, 3]]], [64 << 14], [1e9] * 4)
    assert ends == [(64 + 3) << 14]


def test_first_come_first_served_is_not_fair() -> None:
    """In the linear network the long flow's window is spread over three queues: it gets less than half."""
    paths = [[[0, 1, 2]], [[0]], [[1]], [[2]]]
    fair = chunk_times(paths, [MIB] * 4, [1e9] * 3)
    assert [end / (2 * MIB) for end in fair] == pytest.approx([1.0] * 4, rel=0.05)
    unfair = chunk_times(paths, [MIB] * 4, [1e9] * 3, discipline=Discipline.FIRST_COME)
    assert max(unfair[1:]) < 0.75 * unfair[0]


def test_chunks_need_bytes_and_rates() -> None:
    """Nothing to send, or a lost link, is refused."""
    with pytest.raises(InvalidInputError, match="a flow needs bytes, and a link a rate"):
        chunk_times([[[0]]], [0], [1e9])
    with pytest.raises(InvalidInputError, match="a flow needs bytes, and a link a rate"):
        chunk_times([[[0]]], [1], [0.0])
