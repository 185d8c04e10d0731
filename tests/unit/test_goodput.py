"""Goodput in closed form: against simulated interruptions, published runs and the limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.errors import InvalidInputError
from exactmap.sim.resilience.goodput import (
    LLAMA3_PER_GPU_HOUR,
    best_interval_s,
    expected_goodput,
    mean_time_s,
)


def _simulated(mean: float, stall: float, restart: float, interval: float, seed: int) -> dict[str, float]:
    """Shares of a long run, interruption by interruption."""
    rng = np.random.default_rng(seed)
    time = dict.fromkeys(("work", "stalled", "lost", "restarting"), 0.0)
    until = rng.exponential(mean)
    for _ in range(20_000):
        while until < interval + stall:
            time["lost"] += until
            until = rng.exponential(mean)
            while until < restart:
                time["restarting"] += until
                until = rng.exponential(mean)
            time["restarting"] += restart
            until -= restart
        until -= interval + stall
        time["work"] += interval
        time["stalled"] += stall
    total = sum(time.values())
    return {name: spent / total for name, spent in time.items()}


@pytest.mark.parametrize(
    ("mean", "stall", "restart", "interval"),
    [(10_000, 10, 300, 400), (800, 20, 300, 150), (800, 5, 900, 60), (300, 30, 200, 300), (1e6, 1, 10, 5000)],
)
def test_shares_are_those_of_simulated_interruptions(
    mean: float, stall: float, restart: float, interval: float
) -> None:
    """20,000 stretches each, to a hundredth."""
    found = expected_goodput(mean, stall_s=stall, restart_s=restart, interval_s=interval)
    simulated = _simulated(mean, stall, restart, interval, seed=7)

    assert found.goodput == pytest.approx(simulated["work"], abs=0.01)
    assert found.stalled == pytest.approx(simulated["stalled"], abs=0.01)
    assert found.restarting == pytest.approx(simulated["restarting"], abs=0.01)
    assert found.lost == pytest.approx(simulated["lost"], abs=0.01)


@given(st.floats(0.1, 100), st.floats(200, 1e7), st.floats(0, 2000))
def test_no_interval_is_better_than_the_best(stall: float, mean: float, restart: float) -> None:
    best = expected_goodput(mean, stall_s=stall, restart_s=restart)
    others = expected_goodput(
        mean, stall_s=stall, restart_s=restart, interval_s=best.interval_s * np.geomspace(0.01, 50, 400)
    )

    assert others.goodput.max() <= best.goodput * (1 + 1e-9)


@given(st.floats(0, 100), st.floats(200, 1e7), st.floats(0, 2000), st.floats(1, 1e5), st.floats(0, 60))
def test_shares_sum_to_one_and_fall_with_the_rate(
    stall: float, mean: float, restart: float, interval: float, lag: float
) -> None:
    times = {"stall_s": stall, "restart_s": restart, "interval_s": interval, "lag_s": lag}
    found, worse = expected_goodput(mean, **times), expected_goodput(mean / 2, **times)
    parts = (found.goodput, found.stalled, found.lost, found.restarting)

    assert sum(parts) == pytest.approx(1.0)
    assert all(part >= -1e-9 for part in parts)
    assert worse.goodput <= found.goodput


def test_llama_3() -> None:
    """419 interruptions in 54 days on 16,384 GPUs, and more than 90 % of the time at work."""
    mean = mean_time_s(16_384)

    assert 54 * 24 * 3600 / mean == pytest.approx(419)
    assert mean_time_s(220_000) / 60 == pytest.approx(13.8, abs=0.05)
    for restart_s in (120.0, 300.0, 600.0):
        assert expected_goodput(mean, stall_s=5.0, restart_s=restart_s).goodput > 0.9


def test_limits() -> None:
    """Where nothing interrupts only stalls are left; free checkpoints lose restarts alone."""
    never = mean_time_s(1000, 0.0)
    assert np.isinf(never)
    kept = expected_goodput(never, stall_s=10.0, restart_s=600.0, interval_s=90.0)
    assert (kept.goodput, kept.stalled, kept.lost, kept.restarting) == pytest.approx((0.9, 0.1, 0.0, 0.0))
    assert expected_goodput(never, stall_s=10.0, restart_s=600.0).goodput == 1.0
    free = expected_goodput(1000.0, stall_s=0.0, restart_s=100.0)
    assert free.goodput == pytest.approx(np.exp(-0.1))
    assert free.interval_s == pytest.approx(0.0)


def test_arrays_are_many_numbers() -> None:
    gpus = np.array([1024, 16_384, 220_000])
    many = expected_goodput(mean_time_s(gpus), stall_s=5.0, restart_s=300.0)

    for number, each in enumerate(gpus):
        one = expected_goodput(mean_time_s(each), stall_s=5.0, restart_s=300.0)
        assert many.goodput[number] == pytest.approx(float(one.goodput), rel=1e-12)
    assert (np.diff(many.goodput) < 0).all()
    assert best_interval_s(np.full(3, 5.0), mean_time_s(gpus)) == pytest.approx(many.interval_s)


def test_mistakes() -> None:
    with pytest.raises(InvalidInputError, match="a time below nothing"):
        expected_goodput(1000.0, stall_s=-1.0, restart_s=1.0)
    with pytest.raises(InvalidInputError, match="no work between checkpoints"):
        expected_goodput(1000.0, stall_s=1.0, restart_s=1.0, interval_s=0.0)
    with pytest.raises(InvalidInputError, match="no such rate"):
        mean_time_s(0)
    assert pytest.approx(1.9731e-5, rel=1e-4) == LLAMA3_PER_GPU_HOUR
