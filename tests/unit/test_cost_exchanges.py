"""What overlap leaves of an exchange: never more than all, never less than what has nothing beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.cost.exchanges import ExchangeClock
from exactmap.sim.cost.kernels.clock import KernelClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.workload.layer_work import Exchange
from exactmap.sim.workload.model import ModelConfig, ModelKind
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Software, Split

_MODEL = ModelConfig(
    ModelKind.LLAMA,
    layers=8,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14_336,
    vocab=128_256,
    positions=8192,
    tied=False,
)
_BYTES = 64e6
_LONG = 1e12


def _clock(
    schedule: str = "none", *, family: str = "exactmap", release: str = "", **switches: bool
) -> ExchangeClock:
    cluster = replace(load_cluster("h100-8"), num_gpus=64)
    split = Split(tp=4, cp=2, pp=1, dp=8, ep=8, sequence_parallel=True)
    setup = TrainingSetup(
        _MODEL,
        split,
        Batch(8192, 1, 4),
        cluster,
        software=Software(family, release, **switches),  # type: ignore[arg-type]
        schedule=schedule,
    )
    return ExchangeClock(setup, KernelClock.of(cluster.gpu, setup.software, setup.precision))


def _exchange(collective: str, step: Pass = Pass.F, axis: str = "tp") -> Exchange:
    return Exchange("some", step, axis, collective, _BYTES, "attn", 4)


_EXCHANGES = (
    *(_exchange(each, step) for each in ("all_gather", "reduce_scatter", "all_reduce") for step in Pass),
    _exchange("ring", axis="cp"),
    _exchange("all_to_all", axis="cp"),
    _exchange("experts", axis="ep"),
)
_clocks = st.builds(
    lambda family, tp, ep, schedule: _clock(schedule, family=family, overlap_tp=tp, overlap_ep=ep),
    st.sampled_from(["exactmap", "megatron", "nemo", "torchtitan"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["none", "DualPipe"]),
)


@given(_clocks, st.sampled_from(_EXCHANGES), st.floats(0, 1e8), st.floats(1, 10))
def test_longer_work_beside_it_hides_no_less(
    clock: ExchangeClock, exchange: Exchange, ns: float, more: float
) -> None:
    short, long = clock.price(exchange, ns), clock.price(exchange, ns * more)

    assert short.total_ns == long.total_ns
    assert 0.0 <= long.exposed_ns <= short.exposed_ns <= short.total_ns
    assert short.slowdown_ns >= 0.0
    assert clock.price(exchange, 0.0).exposed_ns == pytest.approx(short.total_ns)


def test_without_overlap_all_of_it_is_waited_for() -> None:
    clock = _clock(family="torchtitan")
    for exchange in _EXCHANGES:
        if exchange.collective != "ring":
            assert clock.price(exchange, _LONG).exposed_ns == clock.price(exchange, 0.0).total_ns


def test_the_last_piece_that_is_scattered_has_nothing_beside_it() -> None:
    """In four pieces a quarter stays; what is gathered may hide behind three quarters of its product."""
    clock = _clock(overlap_tp=True)
    scatter, gather = (clock.price(_exchange(each), _LONG) for each in ("reduce_scatter", "all_gather"))

    assert scatter.exposed_ns == pytest.approx(scatter.total_ns / 4)
    assert gather.exposed_ns == 0.0
    product = gather.total_ns
    assert clock.price(_exchange("all_gather"), product).exposed_ns == pytest.approx(product / 4)


def test_a_sum_in_one_piece_cannot_be_pipelined() -> None:
    clock = _clock(overlap_tp=True)

    assert clock.price(_exchange("all_reduce"), _LONG).exposed_ns > 0.0


@pytest.mark.parametrize(
    ("family", "release", "hidden"),
    [
        ("megatron", "2021", False),
        ("megatron", "2022", True),
        ("nemo", "25.04", True),
        ("torchtitan", "", False),
    ],
)
def test_megatron_since_2022_sums_an_input_gradient_beside_the_weights(
    family: str, release: str, hidden: bool
) -> None:
    """arXiv:2205.05198, 4.2.2; forward has no product that does not wait for it."""
    clock = _clock(family=family, release=release)
    backward = clock.price(_exchange("reduce_scatter", Pass.I), _LONG)

    assert (backward.exposed_ns == 0.0) is hidden
    assert (backward.slowdown_ns > 0.0) is hidden
    forward = clock.price(_exchange("reduce_scatter"), _LONG)
    assert forward.exposed_ns == forward.total_ns


def test_each_hop_of_a_ring_hides_behind_a_block_of_attention() -> None:
    clock = _clock()
    ring = _exchange("ring", axis="cp")
    whole = clock.price(ring, 0.0)
    # Two ranks: one hop, beside half of attention.
    half = clock.price(ring, whole.total_ns)

    assert clock.price(ring, _LONG).exposed_ns == 0.0
    assert half.exposed_ns == pytest.approx(whole.total_ns / 2)


@pytest.mark.parametrize("schedule", ["none", "DualPipe", "DualPipeV"])
def test_experts_exchange_beside_another_microbatch_where_passes_are_woven(schedule: str) -> None:
    exchange = _exchange("experts", axis="ep")

    assert (_clock(schedule).price(exchange, _LONG).exposed_ns == 0.0) is (schedule != "none")
    assert _clock(schedule, overlap_ep=True).price(exchange, _LONG).exposed_ns == 0.0
