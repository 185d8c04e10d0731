"""The bytes that C takes are the bytes that Python predicts, for every model, stage and shape of a grid."""

from __future__ import annotations

import ctypes
import itertools

import numpy as np
import pytest
import reference_numpy as ref
from numerics_library import PARTS, Stage, config_of

from exactmap.sim.workload.footprint import bucket_elements, stage_footprint
from exactmap.sim.workload.model import ModelConfig, ModelKind, StageShape

MODELS = [
    ref.Model("gpt2", 4, 64, 4, 4, 16, 256, 259, 256),
    ref.Model("gpt2", 4, 36, 3, 1, 10, 70, 257, 300, tied=True),
    ref.Model("llama", 4, 64, 4, 2, 16, 160, 259, 256),
    ref.Model("llama", 4, 30, 3, 1, 10, 50, 257, 300, tied=True),
    ref.Model("llama", 4, 128, 2, 2, 128, 344, 5000, 1024),
]
STAGES = [
    (0, 4, True, True),
    (0, 2, True, False),
    (1, 1, False, False),
    (1, 3, False, True),
    (0, 0, True, False),
    (4, 0, False, True),
]
SHAPES = [(1, 1), (1, 100), (3, 77), (2, 256)]


SLICES = [1, 2, 7, 11, 100]


def shape_of(model: ref.Model) -> ModelConfig:
    return ModelConfig(
        ModelKind.LLAMA if model.llama else ModelKind.GPT,
        layers=model.layers,
        hidden=model.hidden,
        heads=model.heads,
        kv_heads=model.kv_heads,
        head_dim=model.head_dim,
        ffn=model.ffn,
        vocab=model.vocab,
        positions=model.positions,
        tied=model.tied,
    )


def assert_equal_sizes(
    lib: ctypes.CDLL, model: ref.Model, cut: tuple[int, int, bool, bool], shape: tuple[int, int, int]
) -> None:
    """Every number of C's sizes against the footprint's."""
    first, num, embedding, head = cut
    microbatch, seq, slices = shape
    where = f"{model}, stage {first}+{num} {embedding} {head}, {microbatch} x {seq} in {slices}"
    want = stage_footprint(
        shape_of(model), StageShape(num, embedding=embedding, head=head), microbatch, seq, slices=slices
    )
    parts = config_of(
        model, microbatch, seq, first=first, num=num, embedding=embedding, head=head, slices=slices
    )
    with Stage(lib, parts) as stage:
        got = stage.sizes
        for name in ("h", "a", "w", "g", "k", "stashless", "recompute", "workspace_max"):
            assert getattr(got, f"{name}_bytes") == getattr(want, f"{name}_bytes"), (name, where)
        assert list(got.workspace_bytes) == [want.workspace_bytes[letter] for letter in "FIWB"], where
        assert all(size % 64 == 0 for size in (got.k_bytes, got.stashless_bytes, got.recompute_bytes)), where
        for part, mask in PARTS.items():
            assert stage.layout(mask)[1] == want.elements[part], (where, part)
        assert stage.num_floats == bucket_elements(want, tuple(PARTS)), where


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.kind}-{m.hidden}")
def test_sizes_equal_the_prediction(numerics: ctypes.CDLL, model: ref.Model) -> None:
    """Every kind of stage, whole sequences and slices of them."""
    for cut, (microbatch, seq), slices in itertools.product(STAGES, SHAPES, SLICES):
        if seq % slices == 0:
            assert_equal_sizes(numerics, model, cut, (microbatch, seq, slices))


@pytest.mark.parametrize("seed", range(8))
def test_sizes_of_random_stages_equal_the_prediction(numerics: ctypes.CDLL, seed: int) -> None:
    """Widths that are multiples of nothing, any divisor of the sequence as slices."""
    rng = np.random.default_rng(seed)
    for _ in range(25):
        kind = str(rng.choice(["gpt2", "llama"]))
        layers, kv_heads, length, slices = (int(n) for n in rng.integers(1, (7, 4, 40, 13)))
        model = ref.Model(
            kind,
            layers,
            hidden=int(rng.integers(1, 200)),
            heads=kv_heads * int(rng.integers(1, 5)),
            kv_heads=kv_heads,
            head_dim=2 * int(rng.integers(1, 40)),
            ffn=int(rng.integers(1, 300)),
            vocab=int(rng.integers(2, 700)),
            positions=length * slices + int(rng.integers(0, 9)),
            tied=bool(rng.integers(2)),
        )
        first = int(rng.integers(0, layers + 1))
        num = int(rng.integers(0, layers - first + 1))
        cut = (first, num, first == 0, first + num == layers)
        if num > 0 or cut[2] or cut[3]:
            assert_equal_sizes(numerics, model, cut, (int(rng.integers(1, 5)), length * slices, slices))
