"""Fair rates: what the textbooks say, exactly; bounds, weights, lost links, links that are one."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from flow_cases import LeafSpine, plain_rates

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.shares import Shares
from exactmap.topology.links import Routes

INF = float("inf")


def rates(paths: list[list[int]], capacity: list[float], **more: list[float]) -> list[float]:
    """Fair rates of whole flows."""
    arrays = {name: np.array(values) for name, values in more.items()}
    return fair_rates(Routes.of(paths), np.array(capacity), **arrays).tolist()


def test_one_link_is_shared_evenly() -> None:
    """Flows on one link get equal parts of it."""
    assert rates([[0]] * 4, [1.0]) == [0.25] * 4


@pytest.mark.parametrize("num_links", [1, 2, 7, 50])
def test_the_linear_network(num_links: int) -> None:
    """One flow over all links, one on each: half each (Bertsekas and Gallager; Kelly)."""
    paths = [list(range(num_links)), *([link] for link in range(num_links))]
    assert rates(paths, [1.0] * num_links) == [0.5] * (num_links + 1)


def test_a_wide_link_after_a_narrow_one() -> None:
    """The flow on the wide link takes what the long one cannot."""
    assert rates([[0, 1], [0], [1]], [1.0, 2.0]) == [0.5, 0.5, 1.5]


def test_five_sessions_in_three_rounds() -> None:
    """Three sessions on one link get a third; who shares a link with one of them two thirds; then all of it.

    Built as the example by which Bertsekas and Gallager (section 6.5.2) explain the algorithm: one level
    after the other.
    """
    third = 1.0 / 3.0
    got = rates([[1], [0], [0, 1, 2], [2], [0]], [1.0, 1.0, 4.0 * third])
    assert got == pytest.approx([2 * third, third, third, 1.0, third], rel=1e-15)


def test_the_parking_lot() -> None:
    """Flow i enters at link i and all leave at the end: the last link is the only bottleneck."""
    num = 8
    assert rates([list(range(i, num)) for i in range(num)], [1.0] * num) == [1.0 / num] * num


def test_the_parking_lot_that_narrows() -> None:
    """With link i of rate 2**-i each flow is stopped by the last link; with growing links by its first."""
    num = 6
    narrowing = rates([list(range(i, num)) for i in range(num)], [2.0**-i for i in range(num)])
    assert narrowing == [2.0 ** -(num - 1) / num] * num
    growing = rates([list(range(i, num)) for i in range(num)], [2.0**i for i in range(num)])
    assert growing == [1.0] + [2.0 ** (i - 1) for i in range(1, num)]


def test_the_triangle() -> None:
    """Three links, three flows that take two each: half each."""
    assert rates([[0, 1], [1, 2], [2, 0]], [1.0, 1.0, 1.0]) == [0.5] * 3


def test_the_uneven_triangle() -> None:
    """Links of 1, 2 and 3: the first halves both of its flows, the third flow takes the rest of link 1."""
    assert rates([[0, 1], [1, 2], [2, 0]], [1.0, 2.0, 3.0]) == [0.5, 1.5, 0.5]


@pytest.mark.parametrize("num_senders", [1, 2, 31, 63])
def test_incast(num_senders: int) -> None:
    """N senders to one receiver get an N-th of its link, whatever their own are."""
    fabric = LeafSpine(8, 8, 8)
    routes = fabric.routes(np.arange(1, num_senders + 1), np.zeros(num_senders, dtype=np.int64))
    wide = np.where(fabric.tier(np.arange(fabric.num_links)) == 1, 64.0, 1.0)
    assert fair_rates(routes, wide).tolist() == [1.0 / num_senders] * num_senders


def test_a_bound_leaves_its_rest_to_others() -> None:
    """A flow that its sender holds back leaves the rest; bounds above the fair share do nothing."""
    assert rates([[0]] * 3, [9.0], most=[1.0, INF, INF]) == [1.0, 4.0, 4.0]
    assert rates([[0]] * 3, [9.0], most=[1.0, 3.5, INF]) == [1.0, 3.5, 4.5]
    assert rates([[0]] * 3, [9.0], most=[3.0, 8.0, INF]) == [3.0, 3.0, 3.0]


def test_counts_are_equal_flows() -> None:
    """A flow that stands for five is five flows."""
    assert rates([[0], [0]], [6.0], count=[5.0, 1.0]) == [1.0, 1.0]
    assert rates([[0], [0], [1]], [6.0, 1.0], count=[2.0, 0.0, 1.0]) == [3.0, 0.0, 1.0]


def test_shares_are_parts_of_a_rate() -> None:
    """A flow that sends a quarter over a link may be four times as fast as the link."""
    routes = Routes(np.array([0, 1, 2]), np.array([0, 0]), np.array([0.25, 1.0]))
    assert fair_rates(routes, np.array([5.0])).tolist() == [4.0, 4.0]
    alone = Routes(np.array([0, 2]), np.array([0, 1]), np.array([0.25, 0.75]))
    assert fair_rates(alone, np.array([1.0, 6.0])).tolist() == [4.0]


def test_what_nothing_bounds_is_infinite() -> None:
    """A flow without links, or over endless ones, has only its own bound."""
    assert rates([[], [], [0]], [INF], most=[INF, 2.0, INF]) == [INF, 2.0, INF]
    assert rates([[0], [0, 1]], [INF, 3.0]) == [INF, 3.0]
    assert rates([], [1.0]) == []


def test_a_lost_link_stops_its_flows_only() -> None:
    """Rate 0 for who crosses it; the others share what these do not take."""
    assert rates([[0, 1], [1], [1]], [0.0, 1.0]) == [0.0, 0.5, 0.5]


def test_some_flows_as_if_the_others_had_left() -> None:
    """What is prepared once is shared among any of the flows, in the order asked for."""
    shares = Shares(Routes.of([[0, 1], [0], [1], []]), np.array([1.0, 2.0]), most=np.array([INF] * 3 + [7.0]))
    assert shares.rates(np.array([2, 0])).tolist() == [1.0, 1.0]
    assert shares.rates(np.array([3, 1])).tolist() == [7.0, 1.0]
    load = dict(zip(shares.used.tolist(), shares.load(shares.rates())[shares.kind].tolist(), strict=True))
    assert load == {0: 1.0, 1: 2.0}


def test_links_that_are_one_are_merged_and_change_nothing() -> None:
    """Sprayed flows: all uplinks of a leaf are one link, the weakest of them; rates stay."""
    fabric = LeafSpine(4, 8, 16, up_rate=0.3)
    rng = np.random.default_rng(3)
    source, target = rng.integers(32, size=60), rng.integers(32, size=60)
    routes = fabric.routes(source, target, spray=True)
    capacity = fabric.capacity
    assert len(Shares(routes, capacity).capacity) <= 64 + 2 * 4
    assert fair_rates(routes, capacity) == pytest.approx(plain_rates(routes, capacity), rel=1e-12)
    capacity[fabric.up(2, 5)] *= 0.5
    assert fair_rates(routes, capacity) == pytest.approx(plain_rates(routes, capacity), rel=1e-12)


def test_counts_far_apart() -> None:
    """A million flows beside one: the one gets what is left, not what rounding leaves."""
    got = rates([[0], [0, 1], [1]], [1_000_001.0, 3.0], count=[1e6, 1.0, 1.0])
    assert got == pytest.approx([1.0, 1.0, 2.0], rel=1e-9)


def test_a_link_that_is_not_there() -> None:
    """A route over an unknown link, or a rate below 0, is refused."""
    with pytest.raises(InvalidInputError, match="takes a link that is not there"):
        rates([[0, 3]], [1.0, 1.0])
    with pytest.raises(
        InvalidInputError, match="a link's rate cannot be below 0: got -1, expected 0 or more"
    ):
        rates([[0]], [-1.0])


def test_the_page_prints_what_it_says() -> None:
    """The examples of docs/concepts/shared-links.md."""
    page = Path(__file__).parents[2] / "docs" / "concepts" / "shared-links.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert (found.failed, found.attempted) == (0, 8)
