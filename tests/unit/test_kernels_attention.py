"""Attention: heads that do not fill the GPU, head dimensions, measured sizes."""

from __future__ import annotations

import pytest

from exactmap.sim.cost.kernels.attention import AttentionModel, AttentionPhysics, attention_model
from exactmap.sim.cost.kernels.left_out import left_out_attention, quantile
from exactmap.sim.cost.kernels.measured import attention_points, table

GPUS = [row["gpu"] for row in table("attention-physics.csv")]


def model(gpu: str) -> AttentionModel:
    """Model of a measured GPU."""
    found = attention_model(gpu)
    assert found is not None
    return found


def flop(rows: int, seq: int) -> float:
    """Causal operations of forward with heads of 128."""
    return 2.0 * rows * seq * seq * 128


@pytest.mark.parametrize("gpu", GPUS)
def test_few_heads_of_short_sequences_do_not_fill_the_gpu(gpu: str) -> None:
    """Eight heads of 1,024 tokens have 64 pieces for more than 100 SMs; 256 of 16,384 have 32,768."""
    of = model(gpu)
    short, long = (flop(*size) / of.time_ns(*size) for size in ((8, 1024), (256, 16384)))

    assert short < 0.4 * long


def test_the_longest_piece_bounds_few_heads() -> None:
    """With as many SMs as pieces the last queries of a head, which see all keys, take the time."""
    of = AttentionPhysics(10_000, 100.0, 0.0, 0.0, 0.7)

    assert of.time_ns(8, 8192) == pytest.approx(100.0 * 8192 / 128)


@pytest.mark.parametrize("gpu", GPUS)
def test_measured_sizes_are_met(gpu: str) -> None:
    """At every measured size the model gives the measurement."""
    for (rows, seq), time in attention_points(gpu).items():
        assert model(gpu).time_ns(rows, seq) == pytest.approx(time, rel=1e-9)


@pytest.mark.parametrize("gpu", GPUS)
def test_left_out_lengths_are_foretold(gpu: str) -> None:
    """A length from those around it."""
    _, errors = left_out_attention(gpu)

    assert quantile(errors, 0.5) <= 0.08


def test_narrow_heads_follow_what_was_published() -> None:
    """FlashAttention-3 on H100, 16 k tokens: 497 TFLOP/s with heads of 64 where those of 128 reach 648."""
    of = model("H100").physics

    assert 0.5 / of.of_dim(64) == pytest.approx(497 / 648, rel=0.02)
    assert of.of_dim(128) == pytest.approx(1)


@pytest.mark.parametrize("gpu", GPUS)
def test_more_heads_and_longer_sequences_take_longer(gpu: str) -> None:
    """Monotone in both, inside and outside of what was measured; linear and squared where the GPU is full."""
    of = model(gpu)
    for rows, seq in ((4, 512), (8, 2048), (48, 4096), (256, 8192), (512, 65536)):
        assert of.time_ns(2 * rows, seq) > of.time_ns(rows, seq)
        assert of.time_ns(rows, 2 * seq) > of.time_ns(rows, seq)
    assert of.time_ns(512, 32768) == pytest.approx(8 * of.time_ns(256, 16384), rel=0.1)
