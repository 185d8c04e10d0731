"""The float64 reference itself: its hand-written gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import reference_numpy as ref

MODELS = {
    "gpt2": ref.Model("gpt2", 2, 6, 2, 2, 4, 10, 11, 8, norm_eps=1e-3),
    "gpt2 tied": ref.Model("gpt2", 1, 6, 3, 1, 2, 10, 11, 8, norm_eps=1e-3, tied=True),
    "llama": ref.Model("llama", 2, 6, 2, 2, 4, 10, 11, 8, norm_eps=1e-3),
    "llama grouped tied": ref.Model("llama", 2, 6, 4, 2, 2, 10, 11, 8, norm_eps=1e-3, tied=True),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_gradients_equal_finite_differences(model: ref.Model) -> None:
    """Every number of every parameter: central differences agree to 1e-6 of the gradient's norm."""
    rng = np.random.default_rng(7)
    params = ref.initial(model, rng)
    tokens = rng.integers(0, model.vocab, (2, 5)).astype(np.int32)
    targets = rng.integers(-1, model.vocab, (2, 5)).astype(np.int32)
    scale = 0.1
    _, grads, _ = ref.loss_and_gradients(model, params, tokens, targets, scale)
    step = 1e-5

    for name, value in params.items():
        measured = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + step
            above, _, _ = ref.loss_and_gradients(model, params, tokens, targets, scale)
            value[index] = kept - step
            below, _, _ = ref.loss_and_gradients(model, params, tokens, targets, scale)
            value[index] = kept
            measured[index] = scale * (above - below) / (2 * step)
        error = np.linalg.norm(measured - grads[name])
        assert error <= 1e-6 * np.linalg.norm(grads[name]) + 1e-10, name


def test_loss_of_an_untrained_model_is_that_of_a_guess() -> None:
    """With all parameters near zero every token is equally likely: loss = ln vocab."""
    model = MODELS["llama"]
    rng = np.random.default_rng(0)
    params = {name: value * 1e-6 for name, value in ref.initial(model, rng).items()}
    tokens = rng.integers(0, model.vocab, (1, 8)).astype(np.int32)

    loss, _, _ = ref.loss_and_gradients(model, params, tokens, tokens, 1.0)

    assert loss / 8 == pytest.approx(np.log(model.vocab), rel=1e-6)


def test_positions_only_see_the_past() -> None:
    """Changing a token leaves the logits of earlier positions as they were, in both flavours."""
    for model in MODELS.values():
        rng = np.random.default_rng(3)
        params = ref.initial(model, rng)
        tokens = rng.integers(0, model.vocab, (1, 8)).astype(np.int32)
        changed = tokens.copy()
        changed[0, 5] = (changed[0, 5] + 1) % model.vocab

        before = ref.logits(model, params, tokens)
        after = ref.logits(model, params, changed)

        np.testing.assert_array_equal(before[0, :5], after[0, :5])
        assert np.abs(before[0, 5:] - after[0, 5:]).max() > 1e-6
