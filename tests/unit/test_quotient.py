"""Flows and links by symmetry: classes are found, and fair rates on classes are those of all flows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.topology.flows import quotient
from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.flows.quotient import Quotient, find_quotient, whole
from exactmap.topology.links import Floats, Ints, Routes


def test_replicas_of_a_network_are_one_class() -> None:
    """Three copies of two flows on a link and one of them on another: two flow classes, two link classes."""
    paths = [path for copy in range(3) for path in ([2 * copy], [2 * copy, 2 * copy + 1])]

    made = find_quotient(Routes.of(paths), np.ones(6))

    assert made.flow_class.tolist() == [0, 1, 0, 1, 0, 1]
    assert made.link_class.tolist() == [0, 1, 0, 1, 0, 1]
    assert made.num_flows.tolist() == made.num_links.tolist() == [3, 3]
    assert made.routes.link.tolist() == [0, 0, 1]
    assert np.allclose(made.routes.share, 1 / 3)
    assert (made.first_flow.tolist(), made.first_link.tolist()) == ([0, 1], [0, 1])


def test_one_collision_parts_who_meets_it() -> None:
    """Of four flows two meet on a link: they are a class, the others with their links another."""
    paths = [[0, 4], [1, 4], [2, 5], [3, 6]]

    made = find_quotient(Routes.of(paths), np.ones(7))

    assert made.flow_class.tolist() == [0, 0, 1, 1]
    assert made.link_class.tolist() == [0, 0, 1, 1, 2, 1, 1]


def test_colours_capacities_and_shares_part_classes() -> None:
    pairs = Routes.of([[0], [1]])

    assert len(find_quotient(pairs, np.ones(2)).num_flows) == 1
    assert len(find_quotient(pairs, np.ones(2), np.array([0, 1])).num_flows) == 2
    assert len(find_quotient(pairs, np.array([1.0, 2.0])).num_flows) == 2
    assert (
        len(find_quotient(Routes(pairs.start, pairs.link, np.array([1.0, 0.5])), np.ones(2)).num_flows) == 2
    )


def test_links_of_one_flow_that_take_other_parts_of_it_are_no_class() -> None:
    """A quarter over one link, three quarters over the next: the same flow, and the next is full first."""
    routes = Routes(np.array([0, 2]), np.array([0, 1]), np.array([0.25, 0.75]))

    made = find_quotient(routes, np.ones(2))

    assert made.link_class.tolist() == [0, 1]
    rates = fair_rates(made.routes, made.capacity, count=made.num_flows.astype(np.float64))
    assert rates.tolist() == fair_rates(routes, np.ones(2)).tolist() == [4 / 3]


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_hashes_that_meet_are_found_out(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hashes of a few bits classes come out wrong; whatever is handed out is equitable all the same."""
    wrong = 0
    found = quotient._is_equitable

    def counted(*asked: Any) -> bool:
        nonlocal wrong
        is_right = found(*asked)
        wrong += not is_right
        return is_right

    monkeypatch.setattr(quotient, "_is_equitable", counted)
    mixed = quotient._mixed
    monkeypatch.setattr(quotient, "_mixed", lambda value: mixed(value) & np.uint64(bits))
    paths = [path for copy in range(3) for path in ([2 * copy], [2 * copy, 2 * copy + 1], [6 + copy])]
    routes, capacity = Routes.of(paths), np.repeat([1.0, 2.0], [6, 3])
    colour = np.array([0, 0, 1] * 3)

    made = find_quotient(routes, capacity, colour)

    assert wrong > 0
    check_equitable(routes, capacity, made)
    assert np.array_equal(colour, colour[made.first_flow][made.flow_class])


def test_a_long_way_from_the_only_difference() -> None:
    """On a chain of links that meet flow after flow, a narrow first link is noticed at the far end."""
    paths = [[place, place + 1] for place in range(40)]
    capacity = np.ones(41)
    capacity[0] = 0.5

    assert len(find_quotient(Routes.of(paths), capacity).num_flows) == 40
    assert len(find_quotient(Routes.of(paths), np.ones(41)).num_flows) == 20


@st.composite
def lifted(draw: st.DrawFn) -> tuple[Routes, Floats, Ints, Floats]:
    """A small network, each flow and link of it many times over, joined by random circulant matchings."""
    num_flows, num_links = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    copies = draw(st.sampled_from([2, 3, 6]))
    part = draw(st.sampled_from([1, 2]))  # flows come in twice as many copies as links, or as many
    capacity = [draw(st.sampled_from([1.0, 2.0, 3.0, 10.0])) for _ in range(num_links)]
    demand = [draw(st.sampled_from([0.25, 1.0, 4.0, np.inf])) for _ in range(num_flows)]
    paths: list[list[int]] = []
    colour: list[int] = []
    for flow in range(num_flows):
        taken = draw(st.sets(st.integers(0, num_links - 1), min_size=1))
        shifts = {link: draw(st.integers(0, copies - 1)) for link in sorted(taken)}
        for copy in range(copies * part):
            paths.append([link * copies + (copy + shift) % copies for link, shift in shifts.items()])
            colour.append(flow)
    order = draw(st.permutations(range(len(paths))))
    return (
        Routes.of([paths[place] for place in order]),
        np.repeat(capacity, copies),
        np.array([colour[place] for place in order]),
        np.array([demand[colour[place]] for place in order]),
    )


def check_equitable(routes: Routes, capacity: Floats, made: Quotient) -> None:
    """Counted out: every flow of a class has the same shares by link class, and the other way round."""
    flow = np.repeat(np.arange(routes.num_flows), np.diff(routes.start))
    by_flow = np.zeros((routes.num_flows, len(made.num_links)))
    np.add.at(by_flow, (flow, made.link_class[routes.link]), routes.share)
    by_link = np.zeros((len(capacity), len(made.num_flows)))
    np.add.at(by_link, (routes.link, made.flow_class[flow]), routes.share)

    assert np.allclose(by_flow, by_flow[made.first_flow][made.flow_class])
    assert np.allclose(by_link, by_link[made.first_link][made.link_class])
    assert np.array_equal(capacity, made.capacity[made.link_class])


@given(lifted(), st.data())
def test_rates_of_classes_are_rates_of_flows(
    case: tuple[Routes, Floats, Ints, Floats], data: st.DataObject
) -> None:
    """Whatever classes are active, each flow's fair rate is that of its class; and classes are few."""
    routes, capacity, colour, demand = case
    made = find_quotient(routes, capacity, colour)
    check_equitable(routes, capacity, made)
    active = np.array([data.draw(st.booleans()) for _ in made.num_flows], dtype=np.bool_)
    flows, classes = np.flatnonzero(active[made.flow_class]), np.flatnonzero(active)

    of_flows = fair_rates(routes.rows(flows), capacity, most=demand[flows])
    of_classes = fair_rates(
        made.routes.rows(classes),
        made.capacity,
        count=made.num_flows[classes].astype(np.float64),
        most=demand[made.first_flow[classes]],
    )

    assert len(made.num_flows) == len(np.unique(colour))
    assert np.allclose(of_flows, of_classes[np.searchsorted(classes, made.flow_class[flows])], rtol=1e-12)


def test_the_finest_partition_changes_nothing() -> None:
    routes = Routes.of([[0, 1], [1, 2], [2]])

    made = whole(routes, np.array([1.0, 2.0, 3.0]))

    assert made.routes.link.tolist() == routes.link.tolist()
    assert made.routes.share.tolist() == routes.share.tolist()
    assert made.capacity.tolist() == [1.0, 2.0, 3.0]
