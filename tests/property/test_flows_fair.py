"""Fair rates of random networks: optimal, as the plain algorithm has them, whatever the order or the unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flow_cases import check_reasons, extreme_network, plain_rates
from hypothesis import given, settings
from hypothesis import strategies as st

from exactmap.topology.flows.fair import fair_rates
from exactmap.topology.links import Floats, Routes


@st.composite
def networks(draw: st.DrawFn) -> tuple[Routes, Floats, dict[str, Any]]:
    """Flows over a few links, with shares, counts, bounds, links without rate or without end."""
    num_links = draw(st.integers(1, 12))
    link = st.integers(0, num_links - 1)
    paths = draw(st.lists(st.lists(link, max_size=6, unique=True), max_size=16))
    routes = Routes.of(paths)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    if draw(st.booleans()):
        routes = Routes(routes.start, routes.link, rng.integers(1, 9, len(routes.link)) / 8)
    rates = st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0, 2.0, 3.0, 7.0, float("inf")])
    capacity = np.array(draw(st.lists(rates, min_size=num_links, max_size=num_links)))
    more: dict[str, Any] = {}
    if draw(st.booleans()):
        more["count"] = rng.integers(1, 1000, len(paths)).astype(np.float64)
    if draw(st.booleans()):
        more["most"] = np.where(rng.random(len(paths)) < 0.5, rng.random(len(paths)) * 3, np.inf)
    return routes, capacity, more


@settings(max_examples=150, deadline=None)
@given(networks())
def test_every_flow_has_a_reason_for_its_rate(network: tuple[Routes, Floats, dict[str, Any]]) -> None:
    """Links are not overfull, and each flow is at its bound or the fastest on a full link: the definition."""
    routes, capacity, more = network
    check_reasons(routes, capacity, fair_rates(routes, capacity, **more), **more)


@pytest.mark.parametrize("seed", range(400))
def test_extreme_numbers_have_their_reasons_too(seed: int) -> None:
    """Rates from a millionth to 1e15 beside each other, levels equal up to rounding, flows of none."""
    routes, capacity, count, most = extreme_network(np.random.default_rng(seed))
    rate = fair_rates(routes, capacity, count=count, most=most)
    check_reasons(routes, capacity, rate, count=count, most=most)


@settings(max_examples=200, deadline=None)
@given(networks())
def test_as_the_plain_algorithm_has_them(network: tuple[Routes, Floats, dict[str, Any]]) -> None:
    """One level a round gives the same rates."""
    routes, capacity, more = network
    np.testing.assert_allclose(
        fair_rates(routes, capacity, **more), plain_rates(routes, capacity, **more), rtol=1e-9
    )


@settings(max_examples=100, deadline=None)
@given(networks(), st.integers(0, 2**32 - 1))
def test_order_and_unit_change_nothing(network: tuple[Routes, Floats, dict[str, Any]], seed: int) -> None:
    """Flows and links in another order have the same rates; capacities times 1e9 give rates times 1e9."""
    routes, capacity, more = network
    rate = fair_rates(routes, capacity, **more)
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(routes.num_flows), rng.permutation(len(capacity))
    mixed = routes.rows(order)
    mixed = Routes(mixed.start, names[mixed.link], mixed.share)
    elsewhere = np.empty_like(capacity)
    elsewhere[names] = capacity
    again = fair_rates(mixed, elsewhere, **{name: values[order] for name, values in more.items()})
    np.testing.assert_allclose(again, rate[order], rtol=1e-12)
    scaled = dict(more)
    if "most" in more:
        scaled["most"] = more["most"] * 1e9
    np.testing.assert_allclose(fair_rates(routes, capacity * 1e9, **scaled), rate * 1e9, rtol=1e-12)
