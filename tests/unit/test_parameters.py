"""Parameters of every kind of model against published counts, and counted in other ways."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from model_cases import models

from exactmap.sim.workload.model import ModelConfig, Part
from exactmap.sim.workload.parameters import count_layer, count_parameters
from exactmap.sim.workload.presets import find_preset

TOTALS = {
    # Billions as published, half of the last digit that is given, and where.
    "llama3.1-8b": (8.03, 0.005, "meta-llama/Llama-3.1-8B, weights"),
    "llama3.1-70b": (70.55, 0.005, "meta-llama/Llama-3.1-70B, weights"),
    "mistral-7b": (7.24, 0.005, "mistralai/Mistral-7B-v0.1, weights"),
    "qwen2.5-72b": (72.7, 0.05, "Qwen2.5-72B model card"),
    "palm-540b": (540.35, 0.05, "arXiv:2204.02311 table 1; a norm more per layer here"),
    "nemotron-4-340b": (341.0, 0.05, "arXiv:2406.11704: 9.4 embedding and 331.6 others"),
    "mixtral-8x7b": (46.7, 0.05, "mistral.ai, Mixtral of experts"),
    "mixtral-8x22b": (140.6, 0.05, "mistralai/Mixtral-8x22B-v0.1, weights: 141"),
    "deepseek-v2": (236, 0.5, "arXiv:2405.04434"),
    "deepseek-v2-lite": (15.7, 0.05, "arXiv:2405.04434 appendix B"),
    "deepseek-v3": (671, 0.5, "arXiv:2412.19437"),
    "qwen3-30b-a3b": (30.5, 0.05, "Qwen3-30B-A3B model card"),
    "qwen3-235b-a22b": (235, 0.5, "Qwen3-235B-A22B model card"),
    "gpt-oss-20b": (20.91, 0.02, "arXiv:2508.10925 table 1; its biases are left out here"),
    "gpt-oss-120b": (116.83, 0.05, "arXiv:2508.10925 table 1; its biases are left out here"),
    "llama4-maverick": (400, 1.0, "Llama 4 model card, with a vision encoder"),
    "nemotron-h-8b": (8.1, 0.05, "nvidia/Nemotron-H-8B-Base, weights"),
    "nemotron-h-56b": (56.3, 0.05, "nvidia/Nemotron-H-56B-Base, weights"),
    "nemotron3-nano-30b-a3b": (31.6, 0.05, "Nemotron 3 Nano report, table of sizes"),
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_those_published(name: str) -> None:
    """Within the rounding of the publication; layers that predict further tokens are not in them."""
    billions, rounding, _ = TOTALS[name]

    assert count_parameters(find_preset(name)).trunk / 1e9 == pytest.approx(billions, abs=rounding)


def test_grok_and_kimi_are_near_what_their_makers_say() -> None:
    """314 B (xai-org/grok-1) is a round figure; 1.04 T (arXiv:2507.20534) 1 % above the released weights."""
    assert find_preset("grok-1").num_parameters() / 1e9 == pytest.approx(314, rel=0.01)
    assert find_preset("kimi-k2").num_parameters() / 1e12 == pytest.approx(1.04, rel=0.015)


ACTIVE = {
    # Billions as published with the table of tokens, half of the last digit, and where.
    "mixtral-8x7b": (12.9, 0.05, "mistral.ai, Mixtral of experts"),
    "mixtral-8x22b": (39, 0.5, "mistral.ai, Mixtral 8x22B"),
    "deepseek-v2": (21, 0.5, "arXiv:2405.04434"),
    "deepseek-v3": (37, 0.6, "arXiv:2412.19437: 37"),
    "qwen3-30b-a3b": (3.3, 0.06, "Qwen3-30B-A3B model card"),
    "qwen3-235b-a22b": (22, 0.5, "Qwen3-235B-A22B model card"),
    "llama4-scout": (17, 0.5, "Llama 4 model card"),
    "llama4-maverick": (17, 0.5, "Llama 4 model card"),
    "nemotron3-nano-30b-a3b": (3.6, 0.05, "Nemotron 3 Nano report: 3.2 without the table"),
}


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_are_those_published(name: str) -> None:
    """Within the rounding; DeepSeek cuts 37.55 to 37."""
    billions, rounding, _ = ACTIVE[name]

    assert find_preset(name).num_active_parameters() / 1e9 == pytest.approx(billions, abs=rounding)


def test_active_parameters_without_the_table_of_tokens() -> None:
    """OpenAI counts the head and not the table (arXiv:2508.10925 table 1); so does NVIDIA's 3.2 B."""
    expected = {"gpt-oss-20b": 3.61, "gpt-oss-120b": 5.13, "nemotron3-nano-30b-a3b": 3.2}

    for name, billions in expected.items():
        count = count_parameters(find_preset(name))
        assert (count.active - count.embedding) / 1e9 == pytest.approx(billions, abs=0.03)


def test_kimi_k2_works_with_32_6_billion() -> None:
    """arXiv:2507.20534 table 2; within 1 %."""
    assert find_preset("kimi-k2").num_active_parameters() / 1e9 == pytest.approx(32.6, rel=0.01)


def test_parts_are_those_published() -> None:
    """Nemotron-4: 3.2 + 12.5 (2402.16819), 9.4 + 331.6 (2406.11704); GLM-4.5 with MTP, no tables: 355."""
    small, large = (count_parameters(find_preset(f"nemotron-4-{size}")) for size in ("15b", "340b"))
    glm = count_parameters(find_preset("glm-4.5"))

    assert (small.embedding + small.head) / 1e9 == pytest.approx(3.1, abs=0.1)
    assert small.layers.total / 1e9 == pytest.approx(12.5, abs=0.05)
    assert (large.embedding + large.head) / 1e9 == pytest.approx(9.4, abs=0.05)
    assert large.layers.total / 1e9 == pytest.approx(331.6, abs=0.05)
    assert (glm.total - glm.embedding - glm.head) / 1e9 == pytest.approx(355, abs=0.5)


def test_a_further_token_of_deepseek_v3_takes_a_layer_and_a_projection() -> None:
    """The released 685 B are 671 B and 14 B of MTP, which hold table and head once more (its README)."""
    model = find_preset("deepseek-v3")
    count = count_parameters(model)

    copies = 2 * model.vocab * model.hidden
    assert (count.prediction.total + copies) / 1e9 == pytest.approx(14, abs=0.7)
    assert count.total == count.trunk + count.prediction.total


@given(models())
def test_a_model_is_the_sum_of_its_layers(model: ModelConfig) -> None:
    """Whatever kinds they are of; active ones never exceed the total and are all of a dense model."""
    count = count_parameters(model)
    layers = [count_layer(model, kind) for kind in model.layer_kinds()]

    assert count.layers.total == sum(layer.total for layer in layers)
    assert count.layers.active == sum(layer.active for layer in layers)
    assert model.num_parameters() == count.prediction.total + sum(
        model.part_parameters(part) for part in Part
    )
    assert model.num_active_parameters() <= count.trunk
    if model.experts is None or model.experts.top_k == model.experts.num_experts:
        assert model.num_active_parameters() == count.trunk


@given(models())
def test_a_layer_more_is_a_layer_more(model: ModelConfig) -> None:
    """Where layers are alike."""
    if len(set(model.layer_kinds())) > 1 or model.window_every or model.pattern:
        return
    more = replace(model, layers=model.layers + 1)
    if len(set(more.layer_kinds())) == 1:
        assert more.num_parameters() - model.num_parameters() == model.layer_parameters()


def test_padding_is_multiplied_by_and_not_counted() -> None:
    """GPT-2's 50,257 tokens, padded to a multiple of 128 for 8 ranks: 51,200, as Megatron trains it."""
    padded = replace(find_preset("gpt2"), vocab_multiple=128)

    assert padded.padded_vocab(8) == 51_200
    assert padded.num_parameters() == 124_439_808
    more = padded.num_matrix_parameters() - find_preset("gpt2").num_matrix_parameters()
    assert more == (50_304 - 50_257) * 768
