"""The bytes that C takes are the bytes that Python predicts, for every model, stage and shape of a grid."""

from __future__ import annotations

import ctypes
import itertools

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


@pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{m.kind}-{m.hidden}")
def test_sizes_equal_the_prediction(numerics: ctypes.CDLL, model: ref.Model) -> None:
    kind = ModelKind.LLAMA if model.llama else ModelKind.GPT
    config = ModelConfig(
        kind,
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
    for (first, num, embedding, head), (microbatch, seq) in itertools.product(STAGES, SHAPES):
        where = f"stage {first}+{num} {embedding} {head}, {microbatch} x {seq}"
        want = stage_footprint(config, StageShape(num, embedding=embedding, head=head), microbatch, seq)
        parts = config_of(model, microbatch, seq, first=first, num=num, embedding=embedding, head=head)
        with Stage(numerics, parts) as stage:
            got = stage.sizes
            assert [got.h_bytes, got.a_bytes, got.w_bytes, got.g_bytes] == [
                want.h_bytes,
                want.a_bytes,
                want.w_bytes,
                want.g_bytes,
            ], where
            assert list(got.workspace_bytes) == [want.workspace_bytes[letter] for letter in "FIWB"], where
            assert got.workspace_max_bytes == want.workspace_max_bytes, where
            for part, mask in PARTS.items():
                assert stage.layout(mask)[1] == want.elements[part], (where, part)
            assert stage.num_floats == bucket_elements(want, tuple(PARTS)), where
