"""AdamW's update taken back: to what was there before, or to the update with another clip factor."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from kernel_table import OPENBLAS, PORTABLE, AdamwStep, call, kernels
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NUM = 1003
LR, BETA1, BETA2, DECAY = 1e-2, 0.9, 0.95, 1e-3


@pytest.fixture(params=[PORTABLE, OPENBLAS], ids=["portable", "openblas"])
def table(request: pytest.FixtureRequest, numerics: ctypes.CDLL) -> Any:
    found = kernels(numerics, request.param)
    if found is None:
        pytest.skip("this build has no OpenBLAS")
    return found


def random(seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=NUM).astype(np.float32)


def step_of(number: int, scale: float, beta1: float = BETA1, beta2: float = BETA2) -> AdamwStep:
    corrections = (1 / (1 - beta1**number), 1 / (1 - beta2**number))
    return AdamwStep(LR, beta1, beta2, 1 - beta1, 1 - beta2, 1e-8, DECAY, *corrections, scale)


def update(table: Any, step: AdamwStep, grad: Floats, state: list[Floats]) -> None:
    call(table, "adamw", NUM, ctypes.byref(step), grad, *state)


def undo(table: Any, step: AdamwStep, right_scale: float | None, grad: Floats, state: list[Floats]) -> None:
    redo = right_scale is not None
    call(table, "adamw_undo", NUM, ctypes.byref(step), redo, right_scale or 0.0, grad, *state)


def trained(table: Any, num_steps: int, **betas: float) -> list[Floats]:
    """Weights and moments after some updates."""
    state = [random(1), np.zeros(NUM, np.float32), np.zeros(NUM, np.float32)]
    for number in range(1, num_steps + 1):
        update(table, step_of(number, 1.0, **betas), random(10 + number), state)
    return state


@pytest.mark.parametrize("betas", [{}, {"beta1": 0.0}, {"beta2": 0.0}], ids=["usual", "beta1=0", "beta2=0"])
@pytest.mark.parametrize("num_steps", [0, 1, 5])
@pytest.mark.parametrize("right_scale", [1.0, 0.3, 1e-3])
def test_a_wrong_update_becomes_the_right_one(
    table: Any, right_scale: float, num_steps: int, betas: dict[str, float]
) -> None:
    """Made with factor 1 and put right: as if made rightly, but for the rounding of the wrong moments."""
    grad = random(99)
    wrong, right = trained(table, num_steps, **betas), trained(table, num_steps, **betas)
    number = num_steps + 1
    update(table, step_of(number, 1.0, **betas), grad, wrong)
    rounding = [2.0**-22 * np.abs(moment.astype(np.float64)) for moment in wrong[1:]]
    undo(table, step_of(number, 1.0, **betas), right_scale, grad, wrong)
    update(table, step_of(number, right_scale, **betas), grad, right)

    first, second = (moment.astype(np.float64) for moment in right[1:])
    assert np.all(np.abs(wrong[1] - first) <= rounding[0] + 1e-6 * np.abs(first))
    assert np.all(np.abs(wrong[2] - second) <= rounding[1] + 1e-6 * second)
    size = np.sqrt((1 - betas.get("beta2", BETA2) ** number) / second) / (
        1 - betas.get("beta1", BETA1) ** number
    )
    bound = LR * size * (rounding[0] + np.abs(first) * (rounding[1] / second + 1e-6))
    assert np.all(np.abs(wrong[0] - right[0]) <= bound + 1e-6 * np.abs(right[0]) + 1e-8)


@pytest.mark.parametrize("num_steps", [1, 5])
def test_an_update_is_taken_back(table: Any, num_steps: int) -> None:
    """Weights and moments are what they were, within the rounding of what they had become."""
    before, state, grad = trained(table, num_steps), trained(table, num_steps), random(99)
    update(table, step_of(num_steps + 1, 1.0), grad, state)
    undo(table, step_of(num_steps + 1, 1.0), None, grad, state)

    np.testing.assert_allclose(state[0], before[0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(state[1], before[1], rtol=1e-6, atol=1e-7 * np.abs(grad).max())
    np.testing.assert_allclose(state[2], before[2], rtol=1e-5, atol=1e-7 * np.square(grad).max())


def test_nothing_is_left_of_a_first_update(table: Any) -> None:
    """Moments are zero again to the bit: noise in the first beside no second one would move weights far."""
    grad = random(99) * np.float32(1e6)
    state = trained(table, 0)
    update(table, step_of(1, 0.7), grad, state)
    undo(table, step_of(1, 0.7), None, grad, state)

    assert not state[1].any()
    assert not state[2].any()
    np.testing.assert_allclose(state[0], random(1), rtol=1e-6, atol=1e-7)


def test_the_second_moment_suffices_for_the_first(table: Any) -> None:
    """A wrong update so large that rounding takes the second moment: the next one has its usual size."""
    state, grad = trained(table, 3), random(99)
    update(table, step_of(4, 1e5), grad, state)
    undo(table, step_of(4, 1e5), None, grad, state)
    before = state[0].copy()
    update(table, step_of(4, 1.0), np.zeros(NUM, np.float32), state)

    assert np.abs(state[0] - before).max() < 20 * LR
