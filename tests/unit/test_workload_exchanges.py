"""What axes send inside a layer: the same bytes by any road, and none that a split does not need."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exactmap.sim.cost.layers import LayerClock, LayerPrice
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.predict import message_bytes
from exactmap.sim.step.traffic import Traffic, step_traffic
from exactmap.sim.workload.context_exchanges import context_exchanges
from exactmap.sim.workload.layer_work import Exchange, layer_work
from exactmap.sim.workload.model import Experts, LatentAttention, LayerKind, Mlp, ModelConfig, ModelKind
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split

_BATCH = Batch(4096, 2, 4)
_STREAM = 2 * 8192 * 4096
"""Bytes of all tokens between layers."""
_SOFTWARE = Software("megatron-bridge", "26.02")
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
_MOE = replace(_MODEL, experts=Experts(64, 4, 1408))
_EXPERTS = LayerKind(mlp=Mlp.EXPERTS)


def _exchanges(
    split: Split, model: ModelConfig = _MODEL, software: Software = _SOFTWARE
) -> tuple[Exchange, ...]:
    kind = _EXPERTS if model.experts else LayerKind()
    return layer_work(model, kind, split, _BATCH, Precision(), software).exchanges


def _setup(split: Split, model: ModelConfig = _MODEL, **changes: object) -> TrainingSetup:
    cluster = replace(load_cluster("h100-8"), num_gpus=max(8, split.num_ranks))
    setup = TrainingSetup(model, split, _BATCH, cluster, software=_SOFTWARE)
    return replace(setup, **changes)  # type: ignore[arg-type]


def _sent(split: Split, model: ModelConfig = _MODEL, **changes: object) -> dict[str, Traffic]:
    return {each.axis: each for each in step_traffic(_setup(split, model, **changes))}


def _ring(exchanges: tuple[Exchange, ...], step: Pass, ranks: int) -> float:
    """Bytes that a rank sends: S (n-1)/n for a gather or a scatter, twice that for a sum."""
    return sum(
        each.num_bytes * (ranks - 1) / ranks * (2 if each.collective == "all_reduce" else 1)
        for each in exchanges
        if each.step is step
    )


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_a_gather_and_a_scatter_send_what_a_sum_does(tp: int) -> None:
    """Sequence parallelism is free on the wire (arXiv:2205.05198, 4.2.2), but for one gather more for W."""
    sums = _exchanges(Split(tp=tp))
    pairs = _exchanges(Split(tp=tp, sequence_parallel=True))

    assert {each.collective for each in sums} == {"all_reduce"}
    assert {each.collective for each in pairs} == {"all_gather", "reduce_scatter"}
    for step in (Pass.F, Pass.I):
        assert _ring(pairs, step, tp) == _ring(sums, step, tp) == 2 * 2 * _STREAM * (tp - 1) / tp
    assert _ring(sums, Pass.W, tp) == 0.0
    assert _ring(pairs, Pass.W, tp) == 2 * _STREAM * (tp - 1) / tp


def test_one_rank_exchanges_nothing() -> None:
    assert _exchanges(Split()) == ()
    assert _exchanges(Split(dp=8), _MOE) == ()
    assert context_exchanges("ring", 1, 10.0, 20.0) == ()


def test_a_ring_passes_keys_and_values_on_and_their_gradients_back() -> None:
    """Ring Attention (arXiv:2310.01889): a hop has a rank's keys and values; of 8 heads, not of 32."""
    forward, backward = _exchanges(Split(cp=4))
    block = 2 * (8192 // 4) * 2 * 8 * 128

    assert (forward.collective, forward.step, forward.num_bytes) == ("ring", Pass.F, block)
    assert (backward.collective, backward.step, backward.num_bytes) == ("ring", Pass.I, 2 * block)
    assert _sent(Split(cp=4))["cp"].num_bytes == 3 * block * 3 * 8 * _BATCH.num_microbatches


def test_latent_attention_passes_keys_and_values_at_full_width() -> None:
    model = replace(_MODEL, kv_heads=32, latent=LatentAttention(1536, 512, 128, 64, 128))
    forward, _ = _exchanges(Split(cp=4), model)

    assert forward.num_bytes == 2 * (8192 // 4) * 32 * (192 + 128)


@given(st.integers(2, 64), st.floats(1, 1e9), st.floats(1, 1e9))
def test_heads_for_tokens_cost_less_the_more_ranks_there_are(ranks: int, query: float, keys: float) -> None:
    """Ulysses (arXiv:2309.14509) sends (n-1)/n of a rank's own; a ring and a gather n-1 blocks of others."""
    ring = context_exchanges("ring", ranks, query, keys)
    heads = context_exchanges("all_to_all", ranks, query, keys)
    gather = context_exchanges("all_gather", ranks, query, keys)
    forward = {
        "ring": sum(each.num_bytes * (ranks - 1) for each in ring if each.step is Pass.F),
        "gather": sum(each.num_bytes * (ranks - 1) / ranks for each in gather if each.step is Pass.F),
        "heads": sum(each.num_bytes * (ranks - 1) / ranks for each in heads if each.step is Pass.F),
    }

    assert forward["ring"] == pytest.approx(forward["gather"])
    assert forward["heads"] == pytest.approx((2 * query + keys) * (ranks - 1) / ranks)
    # Backward takes as much again for heads, twice as much round a ring.
    assert sum(each.num_bytes for each in ring if each.step is Pass.I) == pytest.approx(2 * keys)
    assert sum(each.num_bytes for each in gather if each.step is Pass.I) == pytest.approx(2 * ranks * keys)


def test_tokens_go_to_their_experts_and_back_in_both_directions() -> None:
    exchanges = _exchanges(Split(dp=8, ep=8), _MOE)

    assert sorted((each.name, each.step.value) for each in exchanges) == sorted(
        (name, step.value) for name in ("dispatch", "combine") for step in (Pass.F, Pass.I)
    )
    assert {(each.num_bytes, each.copies) for each in exchanges} == {(_STREAM, 4)}


def test_copies_of_a_token_that_stay_on_its_rank_are_not_sent() -> None:
    """Plain all-to-all: top 4, of which one in eight stays; 8 layers, out and back, forward and backward."""
    sent = _sent(Split(dp=8, ep=8), _MOE)["ep"]
    far = _sent(Split(dp=32, ep=32), _MOE)["ep"]
    each = _STREAM * 8 * 4 * _BATCH.num_microbatches

    assert (sent.num_bytes, sent.fabric_bytes) == (pytest.approx(4 * 7 / 8 * each), 0.0)
    # Three of four nodes are others.
    assert far.num_bytes == pytest.approx(4 * 31 / 32 * each)
    assert far.fabric_bytes == pytest.approx(4 * 3 / 4 * each)


def test_deepep_sends_a_token_once_to_each_node() -> None:
    deepep = replace(_SOFTWARE, dispatcher="deepep")
    plain, once = (
        _sent(Split(dp=32, ep=32), replace(_MOE, experts=Experts(64, 8, 1408)), software=each)["ep"]
        for each in (_SOFTWARE, deepep)
    )
    # 8 visits reach 4 (1 - .75^8) nodes, a quarter of them its own.
    reached = 4 * (1 - 0.75**8)

    assert once.fabric_bytes == pytest.approx(plain.fabric_bytes / 8 * reached)


def test_sequence_parallel_ranks_send_their_own_tokens_to_experts() -> None:
    whole, slices = (
        [
            each
            for each in _exchanges(Split(tp=4, dp=8, ep=8, sequence_parallel=on), _MOE)
            if each.axis == "ep"
        ]
        for on in (False, True)
    )

    assert slices[0].num_bytes == whole[0].num_bytes / 4


def test_latent_experts_exchange_the_narrow_tokens() -> None:
    experts = Experts(64, 4, 1408, latent=1024)
    wide, narrow = (
        _exchanges(Split(dp=8, ep=8), replace(_MOE, experts=each)) for each in (_MOE.experts, experts)
    )

    assert narrow[0].num_bytes == wide[0].num_bytes / 4


def test_ranks_of_one_expert_gather_and_sum_what_it_sees() -> None:
    exchanges = [
        each for each in _exchanges(Split(tp=2, dp=8, ep=4, etp=2), _MOE) if each.name.startswith("expert")
    ]

    assert {each.collective for each in exchanges} == {"all_gather", "reduce_scatter"}
    assert {each.num_bytes for each in exchanges} == {_STREAM * 4 * 2}


def test_gradients_of_a_step_cross_once_whatever_the_microbatches() -> None:
    """ZeRO 0 reduces all; stage 1 scatters and gathers; ZeRO 3 gathers twice a microbatch, scatters once."""
    parameters = 8 * _MODEL.layer_matrix_parameters() + 2 * _MODEL.vocab * _MODEL.hidden
    share = 7 / 8
    few, many = (_sent(Split(dp=8), batch=Batch(4096, 1, m))["dp"].num_bytes for m in (1, 16))

    assert few == many == pytest.approx(2 * 4 * parameters * share)
    assert _sent(Split(dp=8, zero=1))["dp"].num_bytes == pytest.approx((4 + 2) * parameters * share)
    sharded = _sent(Split(dp=8, zero=3))["dp"].num_bytes
    assert sharded == pytest.approx((4 + 2 * 2) * 4 * parameters * share)


def test_a_stage_sends_its_output_on_and_gets_a_gradient_back() -> None:
    sent = _sent(Split(tp=2, pp=4, sequence_parallel=True))["pp"].num_bytes

    assert message_bytes(_setup(Split(tp=2, pp=4, sequence_parallel=True))) == _STREAM / 2
    assert sent == 2 * _STREAM / 2 * _BATCH.num_microbatches
    assert _sent(Split(tp=2, pp=4, chunks=2, sequence_parallel=True))["pp"].num_bytes == 2 * sent


def test_only_what_leaves_a_node_is_on_the_fabric() -> None:
    inside = _sent(Split(tp=8, sequence_parallel=True))["tp"]
    beyond = _sent(Split(tp=16, sequence_parallel=True), replace(_MODEL, heads=32, kv_heads=16))["tp"]

    assert (inside.tier, inside.fabric_bytes) == ("scale_up", 0.0)
    # Two of sixteen links of the ring leave a node.
    assert beyond.fabric_bytes == pytest.approx(beyond.num_bytes / 8)


def _price(setup: TrainingSetup, kind: LayerKind) -> LayerPrice:
    work = layer_work(setup.model, kind, setup.split, setup.batch, setup.precision, setup.software)
    return LayerClock(setup).price(work)


@pytest.mark.parametrize(
    ("model", "split"),
    [
        (_MODEL, Split()),
        (_MODEL, Split(tp=8, sequence_parallel=True)),
        (_MODEL, Split(cp=4)),
        (_MOE, Split(dp=8, ep=8)),
    ],
)
def test_full_recompute_is_one_more_forward(model: ModelConfig, split: Split) -> None:
    """Kernels and exchanges of F run again in backward, and nothing else changes."""
    kind = _EXPERTS if model.experts else LayerKind()
    plain = _price(_setup(split, model), kind)
    again = _price(_setup(split, model, recompute=Recompute("full")), kind)
    half = _price(_setup(split, model, recompute=Recompute("full", share=0.5)), kind)

    assert again.pass_ns[Pass.F] == plain.pass_ns[Pass.F]
    assert again.pass_ns[Pass.W] == plain.pass_ns[Pass.W]
    assert again.parts_ns["recompute"] == pytest.approx(plain.pass_ns[Pass.F])
    assert again.pass_ns[Pass.I] - plain.pass_ns[Pass.I] == pytest.approx(plain.pass_ns[Pass.F])
    assert half.parts_ns["recompute"] == pytest.approx(plain.pass_ns[Pass.F] / 2)


def test_recomputing_modules_adds_their_forward_alone() -> None:
    """An MLP computed again includes its activation."""
    work = layer_work(_MODEL, LayerKind(), Split(), _BATCH, Precision(), _SOFTWARE)
    clock = LayerClock(_setup(Split()))
    for module, inside in (
        ("core_attn", {"core_attn"}),
        ("mlp", {"mlp", "mlp_act"}),
        ("layernorm", {"layernorm"}),
    ):
        setup = _setup(Split(), recompute=Recompute("modules", frozenset({module})))
        own = sum(
            clock.clock.time_ns(kernel)
            for kernel in work.kernels
            if kernel.module in inside and kernel.step is Pass.F
        )

        assert own > 0.0
        assert _price(setup, LayerKind()).parts_ns["recompute"] == pytest.approx(own), module


def test_saving_products_recomputes_only_what_lies_between_them() -> None:
    policy = Recompute("modules", frozenset({"save_products"}))
    full = _price(_setup(Split(), recompute=Recompute("full")), LayerKind()).parts_ns["recompute"]
    found = _price(_setup(Split(), recompute=policy), LayerKind()).parts_ns["recompute"]

    assert 0.0 < found < 0.5 * full


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("release", ["2021", "2025"])
def test_parts_of_a_layer_add_up_to_its_passes(overlap: bool, release: str) -> None:
    software = Software("megatron", release, overlap_tp=overlap, overlap_ep=overlap)
    for model, split in (
        (_MODEL, Split(tp=8, sequence_parallel=True)),
        (_MODEL, Split(tp=8)),
        (_MODEL, Split(cp=8)),
        (_MOE, Split(tp=2, dp=8, ep=8, etp=2, sequence_parallel=True)),
    ):
        price = _price(_setup(split, model, software=software), _EXPERTS if model.experts else LayerKind())

        assert sum(price.parts_ns.values()) == pytest.approx(price.total_ns)
        assert min(price.parts_ns.values()) >= 0.0


def test_a_rank_holds_the_matrices_of_its_layer() -> None:
    """Weights are counted off the gradients' shapes."""
    whole = _price(_setup(Split()), LayerKind())
    eighth = _price(_setup(Split(tp=8, sequence_parallel=True)), LayerKind())
    experts = _price(_setup(Split(dp=8, ep=8), _MOE), _EXPERTS)

    assert whole.weights == _MODEL.layer_matrix_parameters()
    assert eighth.weights == whole.weights // 8
    assert whole.matrices == 4
    assert experts.expert_weights == 64 // 8 * 3 * 4096 * 1408
    assert experts.weights == 4096 * (4096 + 2048) + 4096 * 4096 + 4096 * 64


def test_ranks_of_one_expert_need_not_be_those_of_tensor_parallelism() -> None:
    """Four ranks that share each expert exchange its tokens though nothing else is split."""
    setup = _setup(Split(dp=8, ep=2, etp=4), _MOE)
    price = _price(setup, _EXPERTS)
    sent = _sent(Split(dp=8, ep=2, etp=4), _MOE)["etp"]
    # All-gather and reduce-scatter, forward and backward, of what four ranks' tokens are to their experts.
    whole = _STREAM * 4 * 4

    assert price.parts_ns["etp scale_up"] > 0.0
    assert "tp scale_up" not in price.parts_ns
    assert (sent.ranks, sent.num_bytes) == (4, 4 * whole * 3 / 4 * 8 * _BATCH.num_microbatches)
