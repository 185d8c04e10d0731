"""How wide an interval is: scatter where runs were checked, wider for what was not, and never narrower."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.cost.kernels.constants import gpu_constants, has_own_constants, nearest_release
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.interval import interval_of
from exactmap.sim.step.predict import predict_step
from exactmap.sim.workload.model import Experts, ModelConfig, ModelKind
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
_KNOWN = Software("megatron-bridge", "26.02")
_ANY = Software("megatron-bridge", "any")
_CHECKED = TrainingSetup(
    _MODEL, Split(dp=64), Batch(8192, 1, 1), replace(load_cluster("h100-8"), num_gpus=64), software=_KNOWN
)


def _width(setup: TrainingSetup) -> float:
    found = interval_of(setup)

    assert found.low * found.high == pytest.approx(1.0)
    return found.high


def test_a_checked_run_has_the_scatter_of_its_gpu() -> None:
    """1.2816 standard deviations hold 80 % of a normal distribution."""
    scatter = gpu_constants(_CHECKED.cluster.gpu).scatter

    assert log(_width(_CHECKED)) == pytest.approx(1.2816 * scatter)
    assert interval_of(_CHECKED).warnings == ()


def test_experts_have_a_scatter_of_their_own() -> None:
    setup = replace(_CHECKED, model=replace(_MODEL, experts=Experts(64, 4, 1408)))

    assert log(_width(setup)) == pytest.approx(1.2816 * gpu_constants(setup.cluster.gpu).scatter_experts)


@pytest.mark.parametrize("release", ["24.01", "99.12", "nightly"])
def test_a_release_that_nothing_was_fitted_on_is_wider_and_says_so(release: str) -> None:
    """It is priced as the newest."""
    unknown = replace(_CHECKED, software=Software("megatron-bridge", release))
    newest = replace(_CHECKED, software=Software("megatron-bridge", nearest_release(_ANY)))

    assert _width(unknown) > _width(newest) == _width(_CHECKED)
    assert any("megatron-bridge" in warning for warning in interval_of(unknown).warnings)
    assert predict_step(unknown).step_ns == predict_step(newest).step_ns


def test_a_release_that_mends_a_known_one_is_known() -> None:
    mended = replace(_CHECKED, software=Software("megatron-bridge", "26.02.01"))

    assert _width(mended) == _width(_CHECKED)


def test_a_framework_that_was_never_measured_is_wider() -> None:
    unknown = replace(_CHECKED, software=Software("my-own", "1.0"))

    assert _width(unknown) > _width(_CHECKED)
    assert interval_of(unknown).warnings == ("software my-own 1.0: no constants of its own",)


def test_where_no_release_was_told_apart_the_familys_constants_stand_for_all() -> None:
    assert has_own_constants(Software("torchtitan", "2024-12"))
    assert has_own_constants(Software("torchtitan"))
    assert not has_own_constants(Software("nemo", "23.01"))


def test_a_gpu_that_no_run_was_checked_on_is_wider_and_says_so() -> None:
    setup = replace(_CHECKED, cluster=replace(load_cluster("v100-8"), num_gpus=64))
    warnings = interval_of(setup).warnings

    assert any("no published run was checked" in warning for warning in warnings)
    assert log(_width(setup)) > 1.2816 * gpu_constants(setup.cluster.gpu).scatter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": Split(dp=65_536)}, "65,536 GPUs: 10.7 x outside the checked 8 to 6,144"),
        ({"batch": Batch(1 << 20, 1, 1)}, "1,048,576 tokens a sequence: 4 x outside"),
        ({"model": replace(_MODEL, hidden=36_864)}, "36,864 hidden: 2 x outside"),
        ({"model": replace(_MODEL, hidden=64)}, "64 hidden: 12 x outside"),
    ],
)
def test_beyond_the_checked_range_it_is_wider_and_says_how_far(
    changes: dict[str, object], words: str
) -> None:
    setup = replace(_CHECKED, **changes)  # type: ignore[arg-type]

    assert _width(setup) > _width(_CHECKED)
    assert any(words in warning for warning in interval_of(setup).warnings)


@given(st.integers(0, 24), st.integers(0, 12), st.sampled_from(["26.02", "", "1.0"]))
def test_farther_out_is_never_narrower(doublings: int, sequence: int, release: str) -> None:
    def at(more: int) -> float:
        return _width(
            replace(
                _CHECKED,
                split=Split(dp=64 << (doublings + more)),
                batch=Batch(8192 << (sequence + more), 1, 1),
                software=Software("megatron-bridge", release),
            )
        )

    assert at(1) >= at(0) >= _width(_CHECKED)


def test_the_interval_is_around_the_prediction() -> None:
    found = predict_step(_CHECKED)

    assert found.low_ns < found.step_ns < found.high_ns
    assert found.high_ns / found.step_ns == pytest.approx(_width(_CHECKED))
