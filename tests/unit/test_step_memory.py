"""Memory of a rank: activations as published, state as ZeRO divides it, the peak of measured runs."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest

from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.accuracy import published_and_b200
from exactmap.sim.published.row import Row, may_fit
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.scenario.cluster_file import load_cluster
from exactmap.sim.step.activations import kept_bytes, layer_kept_bytes
from exactmap.sim.step.memory import StepMemory, predict_memory
from exactmap.sim.step.stages import price_stages
from exactmap.sim.workload.model import Experts, LayerKind, Mlp, ModelConfig, ModelKind
from exactmap.sim.workload.training import Batch, Precision, Recompute, Software, Split

_UNFUSED = Software("megatron", "2022", fused_attention=False)
_CORE = Recompute("modules", frozenset({"core_attn"}))
_WIDTHS = {"22B": (6144, 64), "175B": (12288, 96), "530B": (20480, 128), "1T": (25600, 160)}
"""Hidden size and heads of Korthikanti et al. (arXiv:2205.05198), table 3."""
_FIGURE_7 = {
    "sequence parallel": (0.6684, 0.6204, 0.5831, 0.5831),
    "selective": (0.4942, 0.5653, 0.6204, 0.6204),
    "both": (0.1618, 0.1849, 0.2027, 0.2027),
    "full": (0.0764, 0.0871, 0.0942, 0.0942),
}
"""Activations as shares of tensor parallelism alone, read off figure 7, good to about 0.2 %."""


def _gpt(hidden: int, heads: int, layers: int = 8) -> ModelConfig:
    return ModelConfig(
        ModelKind.GPT,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=4 * hidden,
        vocab=51_200,
        positions=2048,
        tied=True,
    )


_LLAMA = ModelConfig(
    ModelKind.LLAMA,
    layers=16,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_dim=128,
    ffn=14_336,
    vocab=128_256,
    positions=8192,
    tied=False,
)


def _kept(model: ModelConfig, split: Split, recompute: Recompute, batch: Batch) -> float:
    return layer_kept_bytes(model, LayerKind(), split, batch, Precision("fp16", "fp16"), recompute, _UNFUSED)


@pytest.mark.parametrize("t", [1, 8])
@pytest.mark.parametrize("width", _WIDTHS)
def test_a_layer_keeps_what_korthikanti_counts(width: str, t: int) -> None:
    """Equations 1, 2, 4 and 6 of arXiv:2205.05198, to the byte."""
    (h, a), s, b = _WIDTHS[width], 2048, 2
    model, batch = _gpt(h, a), Batch(s, b, 1)
    tensor, both = Split(tp=t), Split(tp=t, sequence_parallel=True)
    scores = 5 * a * s / h

    assert _kept(model, tensor, Recompute(), batch) == pytest.approx(s * b * h * (10 + 24 / t + scores / t))
    assert _kept(model, both, Recompute(), batch) == pytest.approx(s * b * h * (34 + scores) / t)
    assert _kept(model, tensor, _CORE, batch) == pytest.approx(s * b * h * (10 + 24 / t))
    assert _kept(model, both, _CORE, batch) == pytest.approx(s * b * h * 34 / t)
    assert _kept(model, tensor, Recompute("full"), batch) == pytest.approx(2 * s * b * h)


@pytest.mark.parametrize("number", range(4))
def test_shares_of_the_baseline_are_those_of_figure_7(number: int) -> None:
    h, a = list(_WIDTHS.values())[number]
    model, batch, tensor = _gpt(h, a), Batch(2048, 1, 1), Split(tp=8)
    both = replace(tensor, sequence_parallel=True)
    baseline = _kept(model, tensor, Recompute(), batch)
    found = {
        "sequence parallel": _kept(model, both, Recompute(), batch),
        "selective": _kept(model, tensor, _CORE, batch),
        "both": _kept(model, both, _CORE, batch),
        "full": _kept(model, tensor, Recompute("full"), batch),
    }
    for name, kept in found.items():
        assert kept / baseline == pytest.approx(_FIGURE_7[name][number], abs=0.003), name


def test_recomputing_a_share_of_the_layers_keeps_the_mean() -> None:
    model, split, batch = _gpt(6144, 64), Split(tp=8), Batch(2048, 4, 1)
    none, full = (_kept(model, split, Recompute(kind), batch) for kind in ("none", "full"))

    half = _kept(model, split, Recompute("full", share=0.5), batch)
    assert half == pytest.approx((none + full) / 2)


def test_fused_attention_keeps_no_scores_and_grows_with_the_sequence_alone() -> None:
    batches = [Batch(seq, 1, 1) for seq in (8192, 16384)]
    short, long = (
        layer_kept_bytes(_LLAMA, LayerKind(), Split(), batch, Precision(), Recompute(), Software("nemo"))
        for batch in batches
    )

    assert long == pytest.approx(2 * short)
    old = [_kept(_gpt(4096, 32), Split(), Recompute(), batch) for batch in batches]
    assert old[1] > 3 * old[0]


def _setup(split: Split, *, m: int = 8, model: ModelConfig = _LLAMA, **changes: object) -> TrainingSetup:
    cluster = replace(load_cluster("h100-8"), num_gpus=max(8, split.num_ranks))
    setup = TrainingSetup(model, split, Batch(4096, 1, m), cluster, software=Software("megatron", "2025"))
    return replace(setup, **changes)  # type: ignore[arg-type]


def _memory(setup: TrainingSetup) -> StepMemory:
    return predict_memory(setup, price_stages(LayerClock(setup)))


@pytest.mark.parametrize(
    ("zero", "divided"),
    [
        (0, ()),
        (1, ("optimizer",)),
        (2, ("optimizer", "gradients")),
        (3, ("optimizer", "gradients", "parameters")),
    ],
)
def test_zero_divides_what_its_stage_says_and_nothing_else(zero: int, divided: tuple[str, ...]) -> None:
    whole = _memory(_setup(Split(dp=8))).parts_bytes
    parts = _memory(_setup(Split(dp=8, zero=zero))).parts_bytes

    for name in ("parameters", "gradients", "optimizer"):
        assert parts[name] == pytest.approx(whole[name] / (8 if name in divided else 1)), name
    assert parts["activations"] == whole["activations"]


def test_state_of_a_parameter_is_eighteen_bytes_in_megatron() -> None:
    """2 the parameter, 4 its gradient, 12 the optimizer's copy and two moments."""
    parts = _memory(_setup(Split())).parts_bytes
    matrices = _LLAMA.layers * _LLAMA.layer_matrix_parameters() + 2 * _LLAMA.vocab * _LLAMA.hidden

    assert parts["parameters"] == pytest.approx(2 * matrices)
    assert parts["gradients"] == pytest.approx(4 * matrices)
    assert parts["optimizer"] == pytest.approx(12 * matrices)


def test_shards_within_a_node_repeat_the_state_over_the_others() -> None:
    everywhere = _memory(_setup(Split(dp=64, zero=3))).parts_bytes
    hybrid = _memory(_setup(Split(dp=64, zero=3, shards=8))).parts_bytes

    assert hybrid["parameters"] == pytest.approx(8 * everywhere["parameters"])
    assert hybrid["optimizer"] == pytest.approx(8 * everywhere["optimizer"])


def test_an_optimizer_on_the_host_leaves_the_gpu() -> None:
    here = _memory(_setup(Split())).parts_bytes
    half = replace(_setup(Split()).software, optimizer_offload=0.5)

    assert _memory(_setup(Split(), software=half)).parts_bytes["optimizer"] == here["optimizer"] / 2


def test_tensor_parallelism_divides_state_and_activations() -> None:
    one, eight = (_memory(_setup(Split(tp=tp, sequence_parallel=True))).parts_bytes for tp in (1, 8))

    for name in ("parameters", "gradients", "optimizer", "activations"):
        assert eight[name] == pytest.approx(one[name] / 8), name


def test_experts_are_divided_by_their_own_ranks() -> None:
    model = replace(_LLAMA, experts=Experts(64, 4, 1408))
    alone, spread = (_memory(_setup(Split(dp=8, ep=ep), model=model)).parts_bytes for ep in (1, 8))
    expert = 2 * 16 * 64 * 3 * 4096 * 1408

    assert alone["parameters"] - spread["parameters"] == pytest.approx(expert * 7 / 8)


@pytest.mark.parametrize("kind", ["1F1B", "interleaved-1F1B", "GPipe", "ZB-H1", "ZB-H2", "ZB-V", "DualPipeV"])
def test_microbatches_under_way_are_those_of_the_schedule(kind: str) -> None:
    """What the first rank of 4 holds, in microbatches of all its layers."""
    chunks = 2 if kind in ("interleaved-1F1B", "ZB-V", "DualPipeV") else 1
    setup = _setup(Split(pp=4, chunks=chunks), m=32, schedule=kind)
    plan = price_stages(LayerClock(setup))
    one, many = (
        predict_memory(replace(setup, batch=Batch(4096, 1, m)), plan).ranks_bytes[0] for m in (1, 32)
    )
    # Interleaved: 2 (p - 1) + (v - 1) p + 1 chunks (arXiv:2104.04473); ZB-H2: 2p - 1 (arXiv:2401.10241).
    under_way = {"GPipe": 32, "ZB-H2": 7, "interleaved-1F1B": 11 / 2}.get(kind, 4)

    assert many - one == pytest.approx((under_way - 1) * 4 * kept_bytes(setup, LayerKind()))


def test_the_last_rank_of_1f1b_keeps_one_microbatch_and_its_logits() -> None:
    setup = _setup(Split(pp=4), m=32, schedule="1F1B")
    memory = _memory(setup)
    logits = 10 * 4096 * _LLAMA.vocab
    spare = 2 * 4096 * 14_336 * 4

    # Rank 1 against rank 2: a microbatch more in flight, nothing else.
    each = memory.ranks_bytes[1] - memory.ranks_bytes[2]
    assert each == pytest.approx(4 * kept_bytes(setup, LayerKind()))
    assert memory.ranks_bytes[3] - memory.ranks_bytes[2] == pytest.approx(
        18 * _LLAMA.vocab * _LLAMA.hidden - each + logits - spare
    )


def test_the_peak_is_the_fullest_rank_and_its_parts_add_up() -> None:
    for split in (Split(), Split(dp=8, zero=3), Split(tp=2, pp=4), Split(pp=8, chunks=2)):
        memory = _memory(_setup(split, schedule="1F1B"))

        assert memory.peak_bytes == max(memory.ranks_bytes) == memory.ranks_bytes[memory.rank]
        assert sum(memory.parts_bytes.values()) == pytest.approx(memory.peak_bytes)
        assert memory.moment in ("backward", "logits")
        assert f"at {memory.moment}" in memory.parts_bytes
        assert memory.requirement_bytes < memory.peak_bytes


def test_a_large_vocabulary_moves_the_peak_to_the_logits() -> None:
    small, large = (
        _memory(_setup(Split(), model=replace(_LLAMA, vocab=vocab))) for vocab in (1_000, 500_000)
    )

    assert (small.moment, large.moment) == ("backward", "logits")
    assert large.parts_bytes["at logits"] == 10 * 4096 * 500_000


def test_full_recompute_still_holds_one_layer_whole() -> None:
    none, full = (_memory(_setup(Split(), recompute=Recompute(kind))) for kind in ("none", "full"))
    whole = kept_bytes(_setup(Split()), LayerKind())
    stream = 2 * 4096 * 4096

    assert none.parts_bytes["activations"] == pytest.approx(16 * whole)
    assert full.parts_bytes["activations"] == pytest.approx(16 * stream)
    assert full.peak_bytes < none.peak_bytes


@pytest.mark.parametrize("module", ["layernorm", "mlp", "save_products"])
def test_recomputing_a_module_never_keeps_more(module: str) -> None:
    setup = _setup(Split())
    less = replace(setup, recompute=Recompute("modules", frozenset({module})))

    assert kept_bytes(less, LayerKind()) < kept_bytes(setup, LayerKind())


@pytest.mark.parametrize("module", ["moe", "moe_act"])
def test_recomputing_experts_keeps_less_of_their_layers_alone(module: str) -> None:
    setup = _setup(Split(), model=replace(_LLAMA, experts=Experts(64, 4, 1408)))
    less = replace(setup, recompute=Recompute("modules", frozenset({module})))
    experts = LayerKind(mlp=Mlp.EXPERTS)

    assert kept_bytes(less, experts) < kept_bytes(setup, experts)
    assert kept_bytes(less, LayerKind()) == kept_bytes(setup, LayerKind())


def _error(row: Row, *, required: bool = False) -> float:
    setup = setup_of(row)
    memory = _memory(setup)
    found = memory.requirement_bytes if required else memory.peak_bytes
    return found / 2**30 / float(row["mem_gib"]) - 1.0


def _measured(name: str) -> list[Row]:
    return [row for row in published_and_b200() if row["set"] == name and row["mem_gib"]]


def test_peaks_of_eight_b200_are_within_two_percent_on_average() -> None:
    """Rows that nothing was fitted on; `max_memory_allocated` of Megatron-LM, from SimuMax."""
    errors = [abs(_error(row)) for row in _measured("b200_8gpu") if not may_fit(row)]

    assert len(errors) >= 18
    assert mean(errors) <= 0.02
    assert max(errors) <= 0.08


def test_what_korthikanti_says_a_model_requires_is_within_three_percent() -> None:
    errors = [abs(_error(row, required=True)) for row in _measured("korthikanti_t5")]

    assert len(errors) == 4
    assert max(errors) <= 0.03
