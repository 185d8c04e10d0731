"""The footprint's formulas: worked by hand, and divided as tensor parallelism divides."""

from __future__ import annotations

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.footprint import (
    PrecisionBytes,
    StageFootprint,
    bucket_elements,
    stage_footprint,
)
from exactmap.sim.workload.model import ModelConfig, ModelKind, StageShape

GPT2 = ModelConfig(
    ModelKind.GPT,
    layers=12,
    hidden=768,
    heads=12,
    kv_heads=12,
    head_dim=64,
    ffn=3072,
    vocab=50257,
    positions=1024,
    tied=True,
)
LLAMA = ModelConfig(
    ModelKind.LLAMA,
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14336,
    vocab=128256,
    positions=8192,
    tied=False,
)
BF16 = PrecisionBytes(act_bytes=2, param_bytes=2, grad_bytes=4, moment_bytes=4)


def test_one_gpt2_layer_by_hand() -> None:
    """Per token: w = 2 H + A + M, a = Q + U + heads + 2, g = Q + H + U floats, plus the norms' sums."""
    sizes = stage_footprint(GPT2, StageShape(1), microbatch=2, seq=1024)
    tokens = 2048

    assert sizes.h_bytes == sizes.message_bytes == tokens * 768 * 4
    assert sizes.w_bytes == tokens * (2 * 768 + 768 + 3072) * 4
    assert sizes.a_bytes == tokens * (3 * 768 + 3072 + 12 + 2) * 4
    assert sizes.g_bytes == tokens * (3 * 768 + 768 + 3072) * 4 + 4 * 768 * 4


def test_one_llama_layer_by_hand() -> None:
    """Keys and values are narrower, gate and up double the inner width before the activation."""
    sizes = stage_footprint(LLAMA, StageShape(1), microbatch=1, seq=8192)
    qkv = (32 + 2 * 8) * 128

    assert sizes.w_bytes == 8192 * (3 * 4096 + 14336) * 4
    assert sizes.a_bytes == 8192 * (qkv + 2 * 14336 + 32 + 2) * 4
    assert sizes.g_bytes == 8192 * (qkv + 4096 + 2 * 14336) * 4 + 2 * 4096 * 4


def test_parameters_are_the_models_own() -> None:
    """Widths that are multiples of 16 need no padding: the elements are the published counts."""
    whole = stage_footprint(GPT2, StageShape(12, embedding=True, head=True), 1, 1)
    parts = ("wte", "wpe", "layers", "norm", "head")
    # 50257 x 768 is a multiple of 16, as is everything else
    assert bucket_elements(whole, parts) == 124_439_808
    assert whole.elements["head"] == 0

    away = stage_footprint(GPT2, StageShape(6, head=True), 1, 1)
    assert away.elements["head"] == 50257 * 768
    assert away.elements["wte"] == away.elements["wpe"] == 0

    llama = stage_footprint(LLAMA, StageShape(32, embedding=True, head=True), 1, 1)
    assert bucket_elements(llama, parts) == 8_030_261_248


def test_gradients_between_layers_are_kept_where_a_stage_has_several() -> None:
    """One [T, H] per layer but the last; one more under an embedding."""
    base = stage_footprint(GPT2, StageShape(1), 1, 256)
    three = stage_footprint(GPT2, StageShape(3), 1, 256)
    first = stage_footprint(GPT2, StageShape(3, embedding=True), 1, 256)

    assert three.g_bytes == 3 * base.g_bytes + 2 * base.h_bytes
    assert first.g_bytes == three.g_bytes + base.h_bytes


def test_the_fused_pass_needs_one_layers_g_however_many_layers() -> None:
    """B's workspace does not grow with the stage; nor do those of F, I and W."""
    one = stage_footprint(LLAMA, StageShape(1), 1, 512)
    many = stage_footprint(LLAMA, StageShape(8), 1, 512)

    assert one.workspace_bytes == many.workspace_bytes
    assert one.workspace_bytes["B"] == one.workspace_bytes["I"] + one.g_bytes + 2 * one.h_bytes


def test_logits_never_exist_as_a_whole() -> None:
    """The head's workspace holds 128 tokens of logits, whatever the sequence."""
    short = stage_footprint(LLAMA, StageShape(0, head=True), 1, 1024)
    long = stage_footprint(LLAMA, StageShape(0, head=True), 1, 8192)

    rotary = (8192 - 1024) * 128 * 4
    assert long.workspace_bytes["W"] - short.workspace_bytes["W"] == rotary
    assert long.workspace_bytes["W"] < 8192 * 128256


def test_one_sliced_layer_by_hand() -> None:
    """A quarter of the tokens at a time; keys and values of all of them, and their gradients, in `k`."""
    whole = stage_footprint(LLAMA, StageShape(1), microbatch=2, seq=8192)
    slice_ = stage_footprint(LLAMA, StageShape(1), microbatch=2, seq=8192, slices=4)
    tokens = 2 * 2048

    assert slice_.h_bytes == slice_.message_bytes == tokens * 4096 * 4
    assert slice_.a_bytes == tokens * (4096 + 2 * 14336 + 32 + 2) * 4
    assert slice_.w_bytes * 4 == whole.w_bytes
    assert slice_.g_bytes == tokens * ((32 + 2 * 8) * 128 + 4096 + 2 * 14336) * 4 + 2 * 4096 * 4
    assert slice_.k_bytes == 2 * 8192 * 2 * (2 * 8 * 128) * 4
    assert whole.k_bytes == 0
    assert slice_.elements == whole.elements


def test_all_slices_hold_what_the_whole_holds_and_the_gradients_of_keys_and_values() -> None:
    """Stashes of every slice and the k slot: the microbatch's stash, dK and dV on top, nothing twice."""
    whole = stage_footprint(GPT2, StageShape(3), microbatch=1, seq=1024)
    slice_ = stage_footprint(GPT2, StageShape(3), microbatch=1, seq=1024, slices=8)

    gradients = 3 * 1024 * 2 * 768 * 4
    assert 8 * (slice_.a_bytes + slice_.w_bytes) + slice_.k_bytes == whole.a_bytes + whole.w_bytes + gradients


def test_workspaces_of_slices_shrink_but_for_the_rotary_table() -> None:
    """The table covers every position, whichever slice runs; attention's tiles do not grow with the keys."""
    whole = stage_footprint(LLAMA, StageShape(1), microbatch=1, seq=8192)
    slice_ = stage_footprint(LLAMA, StageShape(1), microbatch=1, seq=8192, slices=8)
    table = 8192 * 128 * 4

    assert slice_.workspace_bytes["W"] - table == (whole.workspace_bytes["W"] - table) // 8
    tiles = (64 * 256 + 2 * 64) * 4
    assert slice_.workspace_bytes["F"] == table + tiles + 1024 * (4096 + (32 + 2 * 8) * 128) * 4


def test_recomputation_and_offload_by_hand() -> None:
    """An F without a stash brings its own; RC throws its output away; host memory holds a, then w."""
    sizes = stage_footprint(GPT2, StageShape(2, head=True), 2, 512, slices=2)

    assert sizes.offload_bytes == sizes.a_bytes + sizes.w_bytes
    assert sizes.stashless_bytes == sizes.workspace_bytes["F"] + sizes.a_bytes + sizes.w_bytes
    assert sizes.recompute_bytes == sizes.workspace_bytes["F"] + 2 * 256 * 768 * 4


def widths(sizes: StageFootprint) -> list[int]:
    slots = [sizes.h_bytes, sizes.a_bytes, sizes.w_bytes, sizes.g_bytes, sizes.k_bytes]
    return [*slots, *sizes.workspace_bytes.values()]


@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt", "llama"])
def test_tensor_parallelism_and_narrow_numbers_shrink_everything(model: ModelConfig) -> None:
    """Half the bytes per number and a quarter of the rank's share: never more, nearly in proportion."""
    stage = StageShape(4, head=True)
    full = stage_footprint(model, stage, 1, 1024, slices=2)
    half = stage_footprint(model, stage, 1, 1024, slices=2, precision=BF16)
    quarter = stage_footprint(model, stage, 1, 1024, slices=2, tp=4)

    for many, few in zip(widths(full), widths(half), strict=True):
        assert many / 2 <= few < many
    assert quarter.a_bytes == pytest.approx(full.a_bytes / 4, rel=1e-3)
    assert quarter.w_bytes == pytest.approx(full.w_bytes / 4, rel=1e-3)
    assert half.k_bytes == full.k_bytes // 2
    assert quarter.k_bytes == full.k_bytes // 4
    assert quarter.elements["layers"] < 0.26 * full.elements["layers"]


def test_heads_that_tensor_parallelism_does_not_divide_are_rounded_up() -> None:
    """8 key heads on 16 ranks: one each, no fewer."""
    eight = stage_footprint(LLAMA, StageShape(1), 1, 1024, tp=8)
    sixteen = stage_footprint(LLAMA, StageShape(1), 1, 1024, tp=16)

    qkv = {8: (4 + 2) * 128, 16: (2 + 2) * 128}
    for tp, sizes in ((8, eight), (16, sixteen)):
        heads, outside = 32 // tp, 1024 // tp
        assert sizes.a_bytes == 4 * (1024 * (qkv[tp] + heads + 2 * 14336 // tp) + 2 * outside)


@pytest.mark.parametrize(
    ("microbatch", "seq", "tp", "message"),
    [
        (0, 8, 1, "microbatch"),
        (1, 0, 1, "seq"),
        (1, 8, 0, "tp"),
        (1, 1025, 1, "longer than the model's positions"),
    ],
)
def test_impossible_shapes_are_refused(microbatch: int, seq: int, tp: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        stage_footprint(GPT2, StageShape(1), microbatch, seq, tp=tp)


@pytest.mark.parametrize(
    ("slices", "message"),
    [(0, "count must be positive"), (3, "1024 tokens in 3 slices"), (2048, "2048 slices")],
)
def test_slices_divide_the_sequence(slices: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        stage_footprint(GPT2, StageShape(1), 1, 1024, slices=slices)


def test_numbers_without_bytes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="act_bytes"):
        PrecisionBytes(act_bytes=0)
