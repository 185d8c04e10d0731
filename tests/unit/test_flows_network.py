"""Flows that come and go: ends in whole ns, lost and mended links, what the links carried."""

from __future__ import annotations

import numpy as np
import pytest
from flow_cases import LeafSpine

from exactmap.errors import InvalidInputError
from exactmap.topology.flows.network import NEVER, FlowNetwork
from exactmap.topology.flows.times import LinkUse, simulate_flows
from exactmap.topology.links import Ints, Routes

GB = 1e9


def ints(*values: int) -> Ints:
    """An array of whole numbers."""
    return np.array(values, dtype=np.int64)


def test_two_flows_share_while_both_are_there() -> None:
    """Start at 0 and 50 on 10 bytes/ns with 1,000 bytes each: ends at 150 and 200."""
    times = simulate_flows(ints(0, 50), ints(1000, 1000), Routes.of([[0], [0]]), np.array([10 * GB]))
    assert times.end_ns.tolist() == [150, 200]
    assert times.makespan_ns == 200


def test_a_flow_that_ends_frees_the_next_links() -> None:
    """The long flow runs at 1/2 until the short one on link 0 is done, then is stopped by link 1."""
    routes = Routes.of([[0, 1], [0], [1]])
    times = simulate_flows(ints(0, 0, 0), ints(400, 100, 800), routes, np.array([1 * GB, 1.5 * GB]))
    # To 200: rates 1/2, 1/2, 1. Then link 1 is shared, 3/4 each, until 300 of the first are sent at 600.
    assert times.end_ns.tolist() == [600, 200, 800]


def test_latency_comes_after_the_last_byte() -> None:
    """It holds no link."""
    routes = Routes.of([[0], [0]])
    times = simulate_flows(ints(0, 100), ints(100, 100), routes, np.array([1 * GB]), latency_ns=ints(1000, 7))
    assert times.end_ns.tolist() == [100, 200]
    assert times.arrive_ns.tolist() == [1100, 207]


def test_whole_ns_are_rounded_up_but_not_by_rounding_errors() -> None:
    """A third of 3 GB/s for 1 GB is a second; 10 bytes at 3 bytes/ns are 4 ns."""
    three = Routes.of([[0]] * 3)
    times = simulate_flows(ints(0, 0, 0), np.full(3, 10**9), three, np.array([3 * GB]))
    assert times.end_ns.tolist() == [10**9] * 3
    assert simulate_flows(ints(0), ints(10), Routes.of([[0]]), np.array([3 * GB])).end_ns.tolist() == [4]
    third = simulate_flows(ints(0), ints(10**9), Routes.of([[0]]), np.array([1e9 / 3]))
    assert third.end_ns.tolist() == [3 * 10**9]
    # In floats 880000.0000000001 ns.
    elevenths = simulate_flows(
        np.zeros(11, int), np.full(11, 10**6), Routes.of([[0]] * 11), np.array([12.5 * GB])
    )
    assert elevenths.end_ns.tolist() == [880_000] * 11


def test_nothing_to_send_and_nothing_in_the_way() -> None:
    """A flow without bytes, or without links, ends when it starts."""
    times = simulate_flows(
        ints(5, 6, 7),
        ints(0, 10**9, 7),
        Routes.of([[0], [], [0]]),
        np.array([1 * GB]),
        latency_ns=ints(1, 2, 3),
    )
    assert times.end_ns.tolist() == [5, 6, 14]
    assert times.arrive_ns.tolist() == [6, 8, 17]


def test_equal_flows_as_one() -> None:
    """A count of 100 is 100 flows, to the ns."""
    capacity = np.array([7 * GB, 3 * GB])
    one = simulate_flows(
        ints(0, 10), ints(12345, 6789), Routes.of([[0], [0, 1]]), capacity, count=np.array([100.0, 3.0])
    )
    many = simulate_flows(
        np.repeat([0, 10], [100, 3]),
        np.repeat([12345, 6789], [100, 3]),
        Routes.of([[0]] * 100 + [[0, 1]] * 3),
        capacity,
    )
    assert one.end_ns.tolist() == [many.end_ns[0], many.end_ns[-1]]
    assert len(set(many.end_ns.tolist())) == 2


def test_a_lost_link_holds_its_flows_until_it_is_mended() -> None:
    """Rate 0 while it is lost; the bytes that are sent stay sent."""
    net = FlowNetwork(np.array([1 * GB, 1 * GB]))
    net.start(Routes.of([[0], [0, 1]]), ints(1000, 1000))
    assert net.advance(500).flow.tolist() == []
    net.set_capacity(ints(1), np.array([0.0]))
    assert net.next_ns() == 500 + 750
    assert net.advance(2000).flow.tolist() == [0]
    assert (net.next_ns(), net.num_flows) == (NEVER, 1)
    net.set_capacity(ints(1), np.array([0.5 * GB]))
    done = net.advance(NEVER)
    assert (done.flow.tolist(), done.end_ns.tolist()) == ([1], [2000 + 1500])


def test_who_is_held_up_for_ever_is_named() -> None:
    """A batch with a lost link ends, and says which flows did not."""
    times = simulate_flows(ints(0, 0), ints(10, 10), Routes.of([[0], [1]]), np.array([1 * GB, 0.0]))
    assert times.stuck.tolist() == [1]
    assert times.end_ns.tolist() == [10, NEVER]


def test_an_end_that_nothing_disturbs_does_not_drift() -> None:
    """1,000 flows pass on other links; the one whose rate they do not change ends as if alone."""
    net = FlowNetwork(np.array([0.7 * GB, 1 * GB]))
    net.start(Routes.of([[0]]), ints(7 * 10**6))
    for _ in range(1000):
        net.start(Routes.of([[1]]), ints(3333))
        net.advance(net.next_ns())
    assert net.next_ns() == 10**7


def test_an_end_does_not_drift_where_others_only_come_near() -> None:
    """1,000 flows come and go on its link, whose rate its own bound leaves them: it ends as if alone."""
    net = FlowNetwork(np.array([1 * GB]))
    net.start(Routes.of([[0]]), ints(7 * 10**5 + 1), most=np.array([0.07 * GB]))
    for _ in range(1000):
        net.start(Routes.of([[0]] * 2), ints(3333, 3331))
        while net.num_flows > 1:
            net.advance(net.next_ns())
    assert net.next_ns() == 10**7 + 15


def test_links_remember_what_they_carried() -> None:
    """Bytes, highest rate, flows at once, time for which a link was full."""
    capacity = np.array([1 * GB, 4 * GB])
    use = LinkUse(capacity)
    simulate_flows(ints(0, 0), ints(100, 300), Routes.of([[0, 1], [1]]), capacity, use=use)
    # Link 1 has 1 + 3 bytes/ns until both end at 100.
    assert use.num_bytes.tolist() == [100.0, 400.0]
    assert use.peak_bytes_per_s.tolist() == [1 * GB, 4 * GB]
    assert use.most_flows.tolist() == [1.0, 2.0]
    assert use.full_ns.tolist() == [100.0, 100.0]
    assert list(zip(use.from_ns, use.to_ns, strict=True)) == [(0, 100)]


def test_all_bytes_arrive() -> None:
    """Over every link goes what its flows send, whatever came and went meanwhile."""
    fabric = LeafSpine(4, 8, 3, GB, GB)
    rng = np.random.default_rng(11)
    source, target = rng.integers(32, size=150), rng.integers(32, size=150)
    routes = fabric.routes(source, target, seed=1)
    num_bytes = rng.integers(1, 10**6, 150)
    use = LinkUse(fabric.capacity)
    times = simulate_flows(rng.integers(0, 10**7, 150), num_bytes, routes, fabric.capacity, use=use)
    assert len(times.stuck) == 0
    flow = np.repeat(np.arange(150), np.diff(routes.start))
    sent = np.bincount(routes.link, num_bytes[flow], minlength=fabric.num_links)
    # Ends are rounded up to whole ns: at most a byte or so per moment and link.
    assert use.num_bytes == pytest.approx(sent, abs=times.num_moments * 1.0)


def test_same_input_same_ends() -> None:
    """Twice the same; and all the same with the flows listed in another order."""
    fabric = LeafSpine(4, 8, 3, GB, GB)
    rng = np.random.default_rng(2)
    source, target = rng.integers(32, size=80), rng.integers(32, size=80)
    routes = fabric.routes(source, target)
    starts, sizes = rng.integers(0, 10**6, 80), rng.integers(1, 10**6, 80)
    first = simulate_flows(starts, sizes, routes, fabric.capacity)
    again = simulate_flows(starts, sizes, routes, fabric.capacity)
    assert first.end_ns.tolist() == again.end_ns.tolist()
    order = rng.permutation(80)
    mixed = simulate_flows(starts[order], sizes[order], routes.rows(order), fabric.capacity)
    assert np.abs(mixed.end_ns - first.end_ns[order]).max() <= 1


def test_links_without_end_and_shares_of_nothing() -> None:
    """A flow that nothing bounds is over at once, whoever else is on its link; a share of 0 is no link."""
    net = FlowNetwork(np.array([np.inf, 1 * GB]))
    net.start(Routes.of([[0], [0, 1]]), ints(10**9, 1000))
    net.start(Routes(ints(0, 2), ints(0, 1), np.array([0.5, 0.0])), ints(10**9))
    done = net.advance(NEVER)
    assert (done.flow.tolist(), done.end_ns.tolist()) == ([0, 2, 1], [0, 0, 1000])


def test_a_bound_within_the_rounding_of_a_link_is_met() -> None:
    """A trickle beside a flow that fills link 0 keeps its bound when another comes to link 1, not 0."""
    net = FlowNetwork(np.array([1 * GB] * 3))
    net.start(Routes.of([[0], [0, 1]]), ints(10**9, 1), most=np.array([1 * GB, 5e-4]))
    net.start(Routes.of([[2]] * 4), np.full(4, 10**9))
    assert net.rates()[1].tolist() == [1 * GB, 5e-4, *[0.25 * GB] * 4]
    net.start(Routes.of([[1]]), ints(1), most=np.array([5e-4]))
    assert net.rates()[1].tolist() == [1 * GB, 5e-4, *[0.25 * GB] * 4, 5e-4]


def test_a_link_that_gets_an_end_in_the_moment_of_a_start() -> None:
    """Without a bound the flow would be over at once; the link is given one before time passes."""
    net = FlowNetwork(np.array([np.inf]))
    net.start(Routes.of([[0]]), ints(1000))
    assert net.rates()[1].tolist() == [np.inf]
    net.set_capacity(ints(0), np.array([1 * GB]))
    assert net.next_ns() == 1000


def test_time_does_not_run_backwards() -> None:
    """Nor can a flow have fewer bytes than none."""
    net = FlowNetwork(np.array([1.0]))
    net.advance(10)
    with pytest.raises(
        InvalidInputError, match="time does not run backwards: got 9 ns, expected 10 ns or later"
    ):
        net.advance(9)
    with pytest.raises(InvalidInputError, match="negative bytes"):
        simulate_flows(ints(0), ints(-1), Routes.of([[0]]), np.array([1.0]))
    with pytest.raises(InvalidInputError, match="each flow needs a start and bytes: got 2 starts, 1 sizes"):
        simulate_flows(ints(0, 0), ints(1), Routes.of([[0]]), np.array([1.0]))


def test_amounts_that_are_none_are_refused() -> None:
    """A negative rate would never end, a share without end has no rate at all."""
    net = FlowNetwork(np.array([1.0]))
    one = Routes.of([[0]])
    with pytest.raises(InvalidInputError, match="a link's rate cannot be below 0: got -1"):
        net.set_capacity(ints(0), np.array([-1.0]))
    with pytest.raises(InvalidInputError, match="a link's rate cannot be below 0: got nan"):
        FlowNetwork(np.array([np.nan]))
    with pytest.raises(InvalidInputError, match="a share has no end: got inf"):
        net.start(Routes(one.start, one.link, np.array([np.inf])), ints(1))
    with pytest.raises(InvalidInputError, match="a count has no end: got inf"):
        net.start(one, ints(1), count=np.array([np.inf]))
    with pytest.raises(InvalidInputError, match="a bound cannot be below 0: got -2"):
        net.start(one, ints(1), most=np.array([-2.0]))
    assert net.num_flows == 0
