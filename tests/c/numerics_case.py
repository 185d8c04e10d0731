"""What tests of the stages' numerics start from: parameters, a batch, and when gradients count as equal."""

from __future__ import annotations

import numpy as np
import reference_numpy as ref
from numpy.typing import NDArray

__all__ = ["Tokens", "assert_close_gradients", "batch", "rounded"]

Tokens = NDArray[np.int32]


def rounded(model: ref.Model, seed: int) -> ref.Params:
    """Parameters that float32 holds exactly, so that both sides start from the same numbers."""
    params = ref.initial(model, np.random.default_rng(seed))
    return {name: value.astype(np.float32).astype(np.float64) for name, value in params.items()}


def batch(model: ref.Model, microbatch: int, seq: int, seed: int = 5) -> tuple[Tokens, Tokens]:
    """Tokens, and targets of which some are to be ignored."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, model.vocab, (microbatch, seq)).astype(np.int32)
    targets = rng.integers(0, model.vocab, (microbatch, seq)).astype(np.int32)
    if seq > 3:
        targets[0, 2] = -1
    return tokens, targets


def assert_close_gradients(
    got: dict[str, NDArray[np.float32]], want: ref.Params, limit: float = 1e-4
) -> None:
    """Each tensor within `limit` of its norm."""
    total = np.sqrt(sum(float((g**2).sum()) for g in want.values()))
    for name, expected in want.items():
        error = np.linalg.norm(got[name] - expected)
        assert error <= limit * max(np.linalg.norm(expected), 1e-6 * total), name
