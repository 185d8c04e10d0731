"""Products: waves, memory, experts; between measured shapes, and beyond them."""

from __future__ import annotations

from math import log

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.cost.kernels.gemm import ProductModel, deviations, physics_of, product_model
from exactmap.sim.cost.kernels.left_out import left_out_products, quantile
from exactmap.sim.cost.kernels.measured import gemm_points, table
from exactmap.sim.cost.kernels.products import ProductPhysics
from exactmap.sim.cost.kernels.surface import Residuals

TABLES = [(row["gpu"], row["dtype"]) for row in table("product-physics.csv")]


def physics(num_sms: int = 100) -> ProductPhysics:
    """A GPU of round numbers: 100 SMs, 10,000 flop/ns each, no memory worth a word."""
    return ProductPhysics(num_sms, 10e3, 128.0, 2000.0, 1e6, 0.9, 0.6, 2.0)


def model(gpu: str, dtype: str) -> ProductModel:
    """Model of a measured GPU."""
    found = product_model(gpu, dtype)
    assert found is not None
    return found


def test_one_tile_more_than_a_full_wave_opens_another() -> None:
    """128 x 256 tiles, 100 SMs: 100 tiles take a wave; one more takes half as long again."""
    of = physics()
    one, more, two = (of.time_ns(128 * tiles, 256, 8192) - 2000 for tiles in (100, 101, 200))

    assert 1.5 * one < more < two < 2.1 * one


def test_a_product_just_above_full_waves_costs_more_per_flop() -> None:
    """On H100 66 x 8 tiles of 128 x 256 fill four waves; a row more opens a fifth."""
    of = model("H100", "bf16").physics
    full, above = of.time_ns(128 * 66, 256 * 8, 8192), of.time_ns(128 * 66 + 1, 256 * 8, 8192)

    assert above > 1.1 * full


def test_few_tiles_are_split_along_k() -> None:
    """A product of four tiles and a long k does not run on four of a hundred SMs alone."""
    of = physics()
    alone = 2000 + 2.0 * 128 * 256 * (65536 + 128) / 10e3

    assert of.time_ns(256, 512, 65536) < 0.4 * alone


@pytest.mark.parametrize(("gpu", "dtype"), TABLES)
def test_more_work_takes_more_time(gpu: str, dtype: str) -> None:
    """Twice the rows, columns or depth: 1.5 to 2.4 times; small products, all floor, repeat within 3 %."""
    of = model(gpu, dtype)
    for m, n, k in ((2048, 4096, 4096), (3000, 5000, 7000), (8192, 8192, 8192), (512, 2048, 2048)):
        time = of.time_ns(m, n, k)
        for twice in ((2 * m, n, k), (m, 2 * n, k), (m, n, 2 * k)):
            assert of.time_ns(*twice) > (0.97 if m == 512 else 1.5) * time, (m, n, k, twice)
            assert of.time_ns(*twice) < 2.4 * time, (m, n, k, twice)


@pytest.mark.parametrize("gpu", ["B200", "B300", "GB200", "GB300"])
def test_narrower_formats_are_faster(gpu: str) -> None:
    """16, 8, 4 bits on Blackwell at a large product, without casts."""
    times = [model(gpu, dtype).time_ns(8192, 8192, 8192) for dtype in ("bf16", "fp8_block", "fp4")]

    assert times[0] > 1.5 * times[1] > 1.5 * 1.3 * times[2]


@pytest.mark.parametrize("gpu", ["H100", "H200"])
def test_eight_bits_reach_about_twice_sixteen(gpu: str) -> None:
    """Once the cast is taken off, FP8 on Hopper is close to twice as fast."""
    ratio = model(gpu, "bf16").time_ns(4096, 8192, 8192) / model(gpu, "fp8").time_ns(4096, 8192, 8192)

    assert 1.7 < ratio < 2.5


@pytest.mark.parametrize(("gpu", "dtype"), TABLES)
def test_measured_shapes_are_met(gpu: str, dtype: str) -> None:
    """At a measured shape the model gives the mean of the shape's two orders."""
    of = model(gpu, dtype)
    found = physics_of(gpu, dtype)
    assert found is not None
    off = deviations(gemm_points(gpu, dtype), *found)
    for m, n, k in ((4096, 4096, 4096), (8192, 2048, 16384), (16384, 8192, 1024)):
        mean = (off[m, n, k] + off[n, m, k]) / 2
        if max(abs(off[m, n, k]), abs(off[n, m, k])) < 0.5:
            assert log(of.time_ns(m, n, k) / of.physics.time_ns(m, n, k)) == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(("gpu", "dtype"), TABLES)
def test_left_out_shapes_are_foretold(gpu: str, dtype: str) -> None:
    """A fifth of the shapes, and their transposed twins, from the other four fifths."""
    _, errors = left_out_products(gpu, dtype)

    assert quantile(errors, 0.5) <= 0.08
    assert quantile(errors, 0.9) <= 0.2


def test_experts_in_one_kernel_beat_their_loop() -> None:
    """Thirty-two experts of 200 tokens: tiles of all fill the GPU together."""
    of = model("H100", "bf16")

    together, loop = of.time_ns(200, 2048, 2048, 32), 32 * of.time_ns(200, 2048, 2048)

    assert together < 0.7 * loop


def test_many_tokens_of_an_expert_cost_less_each() -> None:
    """Skinny products of experts are bound by the weights that they read."""
    of = model("B200", "bf16")
    few, many = (of.time_ns(tokens, 4096, 2048, 64) / tokens for tokens in (16, 1024))

    assert few > 3 * many


def test_outside_says_how_far() -> None:
    """Inside 1; four times the largest side 4; k counts like a side; both orders alike."""
    residuals = model("H100", "bf16").residuals

    assert residuals.outside(4096, 4096, 4096) == 1
    assert residuals.outside(65536, 4096, 4096) == pytest.approx(4)
    assert residuals.outside(4096, 65536, 4096) == pytest.approx(4)
    assert residuals.outside(4096, 4096, 256) == pytest.approx(4)


def test_a_surface_needs_a_grid() -> None:
    """One measured product is no surface."""
    with pytest.raises(InvalidInputError, match="too few measured products"):
        Residuals.of({(1024, 1024, 1024): 0.1})


def test_gaps_of_a_surface_are_filled_from_its_neighbours() -> None:
    """A place without a measurement takes what those around it say."""
    points = {(m, n, k): 0.2 for m in (1024, 2048, 4096) for n in (1024, 2048, 4096) for k in (512, 1024)}
    del points[2048, 2048, 512]

    assert Residuals.of(points).factor(2048, 2048, 512) == pytest.approx(1.2214, rel=0.01)


def test_a_gpu_without_measurements_has_no_model() -> None:
    """V100's products were not measured; the clock then takes a constant share of its peak."""
    assert product_model("V100", "bf16") is None
    assert product_model("A100-80G", "fp8") is None
