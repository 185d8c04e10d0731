"""Tokens to their experts: what more tokens, more hosts, a limit on hosts and each dispatcher cost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.cost.expert_exchange import expert_copies, expert_exchange_ns
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.topology.group_shape import GroupShape
from exactmap.topology.hardware import Cluster

_H100 = load_cluster("h100-8")
_GB200 = load_cluster("gb200-nvl72")
_DISPATCHERS = ("all_to_all", "all_gather", "deepep", "hybridep")


def _shape(per_domain: int, domains: int) -> GroupShape:
    return GroupShape(per_domain * domains, per_domain, domains, 1)


def _time(
    num_bytes: float,
    domains: int = 1,
    copies: int = 8,
    dispatcher: str = "deepep",
    *,
    most_hosts: int = 0,
    cluster: Cluster = _H100,
    per_domain: int = 8,
) -> float:
    return expert_exchange_ns(
        cluster, _shape(per_domain, domains), num_bytes, copies, dispatcher, most_hosts=most_hosts
    )


_dispatchers = st.sampled_from(_DISPATCHERS)
_domains = st.sampled_from([1, 2, 4, 8, 16])


@given(_dispatchers, _domains, st.integers(1, 8), st.floats(0, 1e9), st.floats(1, 4))
def test_more_tokens_never_take_less(
    dispatcher: str, domains: int, copies: int, num_bytes: float, factor: float
) -> None:
    before = _time(num_bytes, domains, copies, dispatcher)

    assert _time(num_bytes * factor, domains, copies, dispatcher) >= before > 0.0


@given(_dispatchers, st.integers(1, 8), st.sampled_from([8, 64]), st.floats(1e6, 1e9))
def test_more_hosts_never_take_less(dispatcher: str, copies: int, per_domain: int, num_bytes: float) -> None:
    cluster = _H100 if per_domain == 8 else _GB200
    times = [
        _time(num_bytes, domains, copies, dispatcher, cluster=cluster, per_domain=per_domain)
        for domains in (1, 2, 4, 8, 16)
    ]

    assert times == sorted(times)


@given(st.sampled_from(["deepep", "hybridep"]), st.sampled_from([2, 4, 8, 16]), st.integers(1, 16))
def test_a_limit_on_hosts_sends_less_between_them(dispatcher: str, domains: int, copies: int) -> None:
    """Node-limited routing (DeepSeek-V3, arXiv:2412.19437: at most 4): the tighter, the less."""
    shape = _shape(8, domains)
    outside = [expert_copies(shape, copies, dispatcher, most_hosts=most)[1] for most in range(1, domains + 1)]

    assert outside == sorted(outside)
    assert outside[-1] == expert_copies(shape, copies, dispatcher)[1]
    # One host of d is its own.
    assert outside[0] <= 1 - 1 / domains
    times = [_time(1e8, domains, copies, dispatcher, most_hosts=most) for most in range(1, domains + 1)]
    assert times == sorted(times)


@given(_domains, st.integers(1, 16))
def test_a_token_crosses_to_a_host_once_at_most(domains: int, copies: int) -> None:
    shape = _shape(8, domains)
    once, plain = (expert_copies(shape, copies, each)[1] for each in ("deepep", "all_to_all"))

    assert once <= plain + 1e-12
    assert once <= domains - 1
    if copies == 1:
        assert once == pytest.approx(plain)


def test_a_group_of_one_exchanges_nothing() -> None:
    assert expert_exchange_ns(_H100, GroupShape(1, 1, 1, 1), 1e9, 8, "deepep") == 0.0


@pytest.mark.parametrize(
    ("domains", "measured_us"),
    [(1, 491.0), (2, 749.0)],
)
def test_deepeps_own_times_come_back(domains: int, measured_us: float) -> None:
    """4,096 tokens of 7,168 bytes, top 8, on 8 and 16 H100: github.com/ai-dynamo/aiconfigurator."""
    assert _time(4096 * 7168, domains) / 1e3 == pytest.approx(measured_us, rel=0.15)


def test_a_slower_interface_costs_only_groups_that_leave_a_domain() -> None:
    slow = replace(_H100, scale_out=replace(_H100.scale_out, bytes_per_s=_H100.scale_out.bytes_per_s // 4))

    assert _time(1e8, 1, cluster=slow) == _time(1e8, 1)
    assert _time(1e8, 4, cluster=slow) > 3 * _time(1e8, 4)
