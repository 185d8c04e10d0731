"""Work of layers against closed formulas: FLOPs by operator, F to I to W, what splits leave of a whole."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.workload.layer_work import Kernel, KernelKind, LayerWork, head_work, layer_work
from exactmap.sim.workload.model import (
    Experts,
    LatentAttention,
    LayerKind,
    Mixer,
    Mlp,
    ModelConfig,
    ModelKind,
    StateSpace,
)
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Precision, Software, Split

_BATCH = Batch(4096, 2, 4)
_TOKENS = 8192
_SOFTWARE = Software("megatron-bridge", "26.02")
_LLAMA = ModelConfig(
    ModelKind.LLAMA,
    layers=4,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14_336,
    vocab=128_256,
    positions=8192,
    tied=False,
)
_GPT = replace(_LLAMA, kind=ModelKind.GPT, kv_heads=32, ffn=16_384)
_MOE = replace(_LLAMA, experts=Experts(64, 4, 1408, shared_ffn=2816))
_DEEPSEEK = replace(_LLAMA, heads=128, kv_heads=128, latent=LatentAttention(1536, 512, 128, 64, 128))
_MAMBA = replace(
    _LLAMA, pattern="M*-E", state_space=StateSpace(128, 64, 128, 8), experts=Experts(64, 4, 1408)
)
_SPACE = LayerKind(Mixer.STATE_SPACE, Mlp.NONE)
_EXPERTS = LayerKind(mlp=Mlp.EXPERTS)


def _work(
    model: ModelConfig, kind: LayerKind | None = None, split: Split | None = None, batch: Batch = _BATCH
) -> LayerWork:
    return layer_work(model, kind or LayerKind(), split or Split(), batch, Precision(), _SOFTWARE)


def _flop(work: LayerWork, step: Pass = Pass.F, *, names: str = "") -> float:
    return sum(
        kernel.flop
        for kernel in work.kernels
        if kernel.step is step and (not names or kernel.name in names.split())
    )


def test_a_layer_of_llama_multiplies_its_matrices_and_half_the_square() -> None:
    """2 FLOPs per weight and token; attention 4 s^2 width of which the mask leaves half."""
    products = 2.0 * _TOKENS * _LLAMA.layer_matrix_parameters()
    attention = 2 * 2.0 * 4096**2 * 4096

    assert _flop(_work(_LLAMA)) == pytest.approx(products + attention)
    assert _flop(_work(_LLAMA), names="qkv") == 2.0 * _TOKENS * 4096 * (4096 + 2 * 1024)
    assert _flop(_work(_LLAMA), names="up down") == 2.0 * _TOKENS * 3 * 4096 * 14_336


def test_a_layer_of_gpt_has_two_matrices_and_72_b_s_h_squared() -> None:
    """Narayanan et al. (arXiv:2104.04473): 24 B s h^2 (1 + s / 6h) forward, the whole square counted."""
    unfused = Software("megatron", "2021", fused_attention=False)
    work = layer_work(_GPT, LayerKind(), Split(), _BATCH, Precision(), unfused)
    b, s, h = 2, 4096, 4096

    assert _flop(work) == pytest.approx(24 * b * s * h**2 * (1 + s / (6 * h)))
    assert sum(_flop(work, step) for step in Pass) == pytest.approx(72 * b * s * h**2 * (1 + s / (6 * h)))


@pytest.mark.parametrize("window", [1, 128, 1024, 4095, 4096, 10_000])
def test_a_window_sees_that_many_tokens_back(window: int) -> None:
    model = replace(_LLAMA, window=window)
    found = _flop(_work(model, LayerKind(Mixer.WINDOW)), names="attention")
    # Token i sees i before it and half of itself (the half of a square), or the window.
    pairs = sum(min(i + 0.5, window) for i in range(4096))

    assert found == pytest.approx(4.0 * 2 * pairs * 4096)
    assert _flop(_work(model), names="attention") == _flop(_work(_LLAMA), names="attention")


def test_latent_attention_goes_through_narrow_matrices() -> None:
    """DeepSeek-V2 (arXiv:2405.04434): down to 1536 and 512 + 64, up to 128 heads of 192 and 128 + 128."""
    matrices = {
        "q_down": 4096 * 1536,
        "kv_down": 4096 * (512 + 64),
        "q_up": 1536 * 128 * 192,
        "kv_up": 512 * 128 * (128 + 128),
        "projection": 128 * 128 * 4096,
    }
    work = _work(_DEEPSEEK)
    for name, weights in matrices.items():
        assert _flop(work, names=name) == 2.0 * _TOKENS * weights, name
    assert _flop(work, names="attention") == pytest.approx(2.0 * 2 * 4096**2 / 2 * 128 * (192 + 128))


def test_queries_without_a_latent_come_straight_from_the_stream() -> None:
    model = replace(_DEEPSEEK, latent=LatentAttention(0, 512, 128, 64, 128))

    assert _flop(_work(model), names="q_up") == 2.0 * _TOKENS * 4096 * 128 * 192
    assert _flop(_work(model), names="q_down") == 0.0


def test_a_token_visits_its_experts_the_shared_ones_and_the_router() -> None:
    work = _work(_MOE, _EXPERTS)

    assert _flop(work, names="expert_up expert_down") == 2.0 * _TOKENS * 4 * 3 * 4096 * 1408
    assert _flop(work, names="shared_up shared_down") == 2.0 * _TOKENS * 3 * 4096 * 2816
    assert _flop(work, names="router") == 2.0 * _TOKENS * 4096 * 64


def test_natural_routing_makes_the_busiest_rank_busier_and_a_capacity_does_not() -> None:
    args = (_MOE, _EXPERTS, Split(dp=8, ep=8), _BATCH, Precision())
    even, natural, capped = (
        _flop(layer_work(*args, replace(_SOFTWARE, **changes)), names="expert_up")  # type: ignore[arg-type]
        for changes in ({}, {"balanced": False}, {"balanced": False, "capacity_factor": 1.0})
    )

    assert natural == pytest.approx(1.25 * even)
    assert capped == even


def test_a_mamba_layer_scans_in_chunks_of_256() -> None:
    """Dao and Gu (arXiv:2405.21060): in and out projections, per token half a chunk of C B and of values."""
    work = _work(_MAMBA, _SPACE)
    inner, groups, state, heads = 128 * 64, 8, 128, 128

    assert _flop(work, names="ssm_in") == 2.0 * _TOKENS * 4096 * (2 * inner + 2 * groups * state + heads)
    assert _flop(work, names="ssm_out") == 2.0 * _TOKENS * inner * 4096
    chunk = 2 * 128 * (groups * state + inner)
    states = 4 * heads * state * 64
    assert _flop(work, names="ssm_scan") == pytest.approx(_TOKENS * (chunk + states))


def test_work_of_a_mamba_layer_grows_with_tokens_and_not_with_the_sequence() -> None:
    short, long = (_work(_MAMBA, _SPACE, batch=Batch(*shape)) for shape in ((2048, 8, 1), (16_384, 1, 1)))

    assert _flop(short) == _flop(long)
    assert _flop(_work(_LLAMA, batch=Batch(16_384, 1, 1))) > _flop(_work(_LLAMA, batch=Batch(2048, 8, 1)))


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (_LLAMA, LayerKind()),
        (_GPT, LayerKind()),
        (_MOE, _EXPERTS),
        (_DEEPSEEK, LayerKind()),
        (_MAMBA, _SPACE),
    ],
)
def test_products_cost_the_same_forward_and_for_each_gradient(model: ModelConfig, kind: LayerKind) -> None:
    """F : I : W is 1 : 1 : 1 for products; fused attention computes its scores again: 1 : 2.5 : 0."""
    work = _work(model, kind)
    by_pass: defaultdict[str, dict[Pass, float]] = defaultdict(lambda: dict.fromkeys(Pass, 0.0))
    for kernel in work.kernels:
        if kernel.kind in (KernelKind.GEMM, KernelKind.GROUPED):
            by_pass[kernel.name][kernel.step] += kernel.flop
    assert by_pass
    for name, flops in by_pass.items():
        assert len(set(flops.values())) == 1, name
    assert _flop(work, Pass.I, names="attention") == 2.5 * _flop(work, names="attention")
    assert _flop(work, Pass.W, names="attention ssm_scan") == 0.0


def test_shapes_of_products_multiply_to_their_flops() -> None:
    for model, kind in ((_LLAMA, LayerKind()), (_MOE, _EXPERTS), (_DEEPSEEK, LayerKind())):
        for kernel in _work(model, kind).kernels:
            if kernel.kind in (KernelKind.GEMM, KernelKind.GROUPED):
                assert kernel.flop == 2.0 * kernel.m * kernel.n * kernel.k * kernel.batch


_splits = st.builds(
    lambda tp, cp, ep: Split(tp=tp, cp=cp, dp=8, ep=ep, sequence_parallel=tp > 1),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 8]),
)


@given(_splits, st.sampled_from([(_LLAMA, LayerKind()), (_MOE, _EXPERTS), (_DEEPSEEK, LayerKind())]))
def test_ranks_together_do_what_one_would(split: Split, case: tuple[ModelConfig, LayerKind]) -> None:
    """Tensor, context and expert parallelism cut work and repeat none; an expert's ranks see no more."""
    model, kind = case
    whole, part = _work(model, kind), _work(model, kind, split)
    # Every rank of a latent model projects down to the latent for all tokens of its context rank.
    latent = "" if model.latent is None else "q_down kv_down"
    for step in Pass:
        repeated = _flop(part, step, names=latent) if latent else 0.0
        total = (_flop(part, step) - repeated) * split.tp * split.cp + repeated * split.cp
        assert total == pytest.approx(_flop(whole, step))


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_experts_that_ranks_share_are_cut_and_see_all_their_tokens(ep: int, etp: int) -> None:
    whole = _work(_MOE, _EXPERTS, Split(dp=32))
    part = _work(_MOE, _EXPERTS, Split(dp=32, ep=ep, etp=etp))

    assert _flop(part) == pytest.approx(_flop(whole))
    weights = {
        kernel.name: kernel.m * kernel.n * kernel.batch
        for kernel in part.kernels
        if kernel.step is Pass.W and kernel.name.startswith("expert")
    }
    assert sum(weights.values()) == 64 * 3 * 4096 * 1408 / (ep * etp)


def test_without_sequence_parallel_what_lies_between_products_is_repeated() -> None:
    def moved(split: Split) -> float:
        return sum(
            kernel.num_bytes
            for kernel in _work(_LLAMA, split=split).kernels
            if kernel.name.startswith(("norm", "residual"))
        )

    assert moved(Split(tp=4)) == moved(Split())
    assert moved(Split(tp=4, sequence_parallel=True)) == moved(Split()) / 4


def test_the_head_multiplies_the_vocabulary_padded_to_the_ranks() -> None:
    model = replace(_LLAMA, vocab=50_257, vocab_multiple=128)
    one, eight = (head_work(model, Split(tp=tp), _BATCH, Precision(), _SOFTWARE).kernels[0] for tp in (1, 8))

    assert one.flop == 2.0 * _TOKENS * 4096 * 50_304
    assert eight.flop == 2.0 * _TOKENS * 4096 * 51_200 / 8


def _named(kernels: tuple[Kernel, ...], name: str) -> float:
    return sum(kernel.num_bytes for kernel in kernels if kernel.name == name)


def test_narrow_products_cast_what_they_read_and_wide_ones_do_not() -> None:
    def casts(compute: str, scaling: str) -> tuple[LayerWork, float]:
        precision = Precision(compute, compute, scaling)
        work = layer_work(_LLAMA, LayerKind(), Split(), _BATCH, precision, _SOFTWARE)
        return work, _named(work.kernels, "casts")

    assert casts("bf16", "")[1] == 0.0
    eight, four = casts("fp8", "mx"), casts("fp4", "nv")
    assert eight[1] > four[1] > 0.0
    assert _flop(eight[0]) == _flop(_work(_LLAMA))


def test_frozen_weights_have_no_gradient_of_their_own() -> None:
    """LoRA (arXiv:2106.09685): backward is the input gradient, and adapters that are narrow."""
    adapted = replace(_SOFTWARE, adapter_rank=16)
    work = layer_work(_LLAMA, LayerKind(), Split(), _BATCH, Precision(), adapted)

    assert _flop(work, Pass.W) == 0.0
    assert _flop(work) == _flop(_work(_LLAMA))
    assert _flop(work, Pass.I) == _flop(_work(_LLAMA), Pass.I)
    trained = sum(kernel.m * kernel.n for kernel in work.kernels if kernel.step is Pass.W)
    pairs = ((4096, 6144), (4096, 4096), (4096, 2 * 14_336), (14_336, 4096))
    assert trained == sum(16 * (inner + outer) for inner, outer in pairs)


def test_an_eager_framework_runs_more_kernels_for_the_same_flops() -> None:
    eager = layer_work(_LLAMA, LayerKind(), Split(), _BATCH, Precision(), Software("torchtitan"))
    fused = _work(_LLAMA)

    assert sum(map(_flop, (eager, eager), (Pass.F, Pass.I))) == sum(
        map(_flop, (fused, fused), (Pass.F, Pass.I))
    )
    assert sum(kernel.launches for kernel in eager.kernels) > sum(kernel.launches for kernel in fused.kernels)
    assert sum(kernel.num_bytes for kernel in eager.kernels) > sum(
        kernel.num_bytes for kernel in fused.kernels
    )
