"""Public configurations of many families: their shapes are the presets', their sizes the published ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.huggingface import ImportedModel, read_huggingface_config
from exactmap.sim.workload.parameters import count_parameters
from exactmap.sim.workload.presets import find_preset, preset_names

CONFIGS = Path(__file__).parents[1] / "golden" / "huggingface"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))


def document(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def read_changed(folder: Path, name: str, **changes: Any) -> ImportedModel:
    """A public file with some keys changed; None takes a key away."""
    keys = {key: value for key, value in (document(name) | changes).items() if value is not None}
    path = folder / "config.json"
    path.write_text(json.dumps(keys), encoding="utf-8")
    return read_huggingface_config(path)


@pytest.mark.parametrize("name", [name for name in NAMES if name in preset_names()])
def test_a_file_gives_the_preset_of_its_name(name: str) -> None:
    """To the last field: two ways to the same model."""
    imported = read_huggingface_config(CONFIGS / f"{name}.json")

    assert replace(imported.config, name=name) == find_preset(name)


@pytest.mark.parametrize(
    ("name", "total", "active", "rounding"),
    [
        # Billions from the model cards: weights of the repositories.
        ("gemma-7b", 8.54, 8.54, 0.005),
        ("gemma-2-27b", 27.2, 27.2, 0.05),
        ("gemma-3-27b", 27.0, 27.0, 0.05),
        ("glm-4-32b", 32.6, 32.6, 0.05),
        ("olmo-2-32b", 32.2, 32.2, 0.05),
        ("qwen3-32b", 32.8, 32.8, 0.05),
        ("qwen2-57b-a14b", 57.4, 14.0, 0.3),
    ],
)
def test_models_without_a_preset_have_their_published_sizes(
    name: str, total: float, active: float, rounding: float
) -> None:
    """What is left out (norms, biases) is too small to be seen."""
    count = count_parameters(read_huggingface_config(CONFIGS / f"{name}.json").config)

    assert count.trunk / 1e9 == pytest.approx(total, abs=rounding)
    assert count.active / 1e9 == pytest.approx(active, abs=rounding)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("qwen3-32b", "left out: norms of queries and keys"),
        ("qwen2.5-72b", "left out: biases of queries, keys and values"),
        ("gemma-2-27b", "left out: final_logit_softcapping, attn_logit_softcapping"),
        ("gpt-oss-20b", "left out: sinks of attention"),
        ("deepseek-v3", "rope_scaling is left out"),
        ("llama4-scout", "attention works in chunks of 8192 tokens: longer sequences cannot be priced"),
        ("gemma-3-27b", "text_config is read"),
        ("nemotron-h-8b", "attention has no positions"),
    ],
)
def test_what_is_left_out_is_said(name: str, note: str) -> None:
    """Costs hardly depend on it, yet the model is not quite this one."""
    notes = read_huggingface_config(CONFIGS / f"{name}.json").notes

    assert any(note in each for each in notes)


def test_windows_follow_the_list_of_layers(tmp_path: Path) -> None:
    """All, none, or all but the last of each group."""
    full, window = "full_attention", "sliding_attention"
    threes = [window, window, full] * 8

    def read(types: list[str]) -> tuple[int, int]:
        config = read_changed(tmp_path, "gpt-oss-20b", layer_types=types).config
        return config.window, config.window_every

    assert read(threes) == (128, 3)
    assert read([window] * 24) == (128, 0)
    assert read([full] * 24) == (0, 0)
    with pytest.raises(InvalidInputError, match="layers with a window lie in no regular order"):
        read([full, window] * 12)
    with pytest.raises(InvalidInputError, match="layer_types: not supported"):
        read([full, "chunked_attention"] * 12)


def test_a_window_of_qwen_is_off_unless_asked_for(tmp_path: Path) -> None:
    """And may begin at a layer only if that is the first, or behind the last."""

    def read(**changes: Any) -> int:
        return read_changed(tmp_path, "qwen2.5-72b", use_sliding_window=True, **changes).config.window

    assert read_changed(tmp_path, "qwen2.5-72b").config.window == 0
    assert read(max_window_layers=80) == 0
    assert read(max_window_layers=0) == 131_072
    with pytest.raises(InvalidInputError, match="a window that begins at a layer is not supported"):
        read(max_window_layers=21)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("deepseek-v3", {"kv_lora_rank": None}, "kv_lora_rank: the key is missing"),
        ("deepseek-v3", {"moe_layer_freq": 2}, "moe_layer_freq: not supported: got 2"),
        ("mixtral-8x7b", {"num_local_experts": None}, "num_local_experts: the key is missing"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "a token visits more experts than there are: got 9"),
        (
            "nemotron-4-340b",
            {"hidden_act": "silu"},
            'hidden_act: not supported: got "silu", expected "relu2"',
        ),
        ("nemotron-h-8b", {"hybrid_override_pattern": None}, "hybrid_override_pattern: the key is missing"),
        ("nemotron-h-8b", {"num_hidden_layers": 50}, "not a letter for each layer: got 52, expected 50"),
        ("nemotron-h-8b", {"mamba_num_heads": None}, "mamba_num_heads: the key is missing"),
        ("qwen3-30b-a3b", {"mlp_only_layers": [3]}, "dense layers elsewhere than in front: got [3]"),
        ("qwen3-30b-a3b", {"moe_intermediate_size": 0}, "moe_intermediate_size: wrong value: got 0"),
        ("gemma-3-27b", {"text_config": 3}, "text_config: wrong value: got 3, expected an object"),
    ],
)
def test_what_cannot_be_priced_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    """Nothing is guessed."""
    with pytest.raises(InvalidInputError) as caught:
        read_changed(tmp_path, name, **changes)

    assert message in str(caught.value)


def test_missing_keys_of_all_blocks_are_listed_together(tmp_path: Path) -> None:
    """Of attention, experts and the rest."""
    with pytest.raises(InvalidInputError) as caught:
        read_changed(tmp_path, "deepseek-v3", v_head_dim=None, num_experts_per_tok=None, vocab_size=None)

    for key in ("v_head_dim", "num_experts_per_tok", "vocab_size"):
        assert f"{key}: the key is missing" in str(caught.value)


def test_dense_layers_in_front_may_be_a_list(tmp_path: Path) -> None:
    """Qwen names the layers that have no experts."""
    experts = read_changed(tmp_path, "qwen3-30b-a3b", mlp_only_layers=[0, 1, 2]).config.experts

    assert experts is not None
    assert experts.first_dense == 3


def test_further_tokens_of_a_hybrid_have_a_pattern_of_their_own(tmp_path: Path) -> None:
    """Nemotron 3: attention and experts, the same for all depths, so that two have the parameters of one."""
    further = {"num_nextn_predict_layers": 2, "mtp_hybrid_override_pattern": "*E"}

    config = read_changed(tmp_path, "nemotron3-nano-30b-a3b", **further).config
    count = count_parameters(config)

    assert (config.mtp_layers, config.mtp_pattern, config.mtp_repeated) == (2, "*E", True)
    assert count.prediction == count_parameters(replace(config, mtp_layers=1)).prediction
    with pytest.raises(InvalidInputError, match="mtp_hybrid_override_pattern: the key is missing"):
        read_changed(tmp_path, "nemotron3-nano-30b-a3b", num_nextn_predict_layers=1)


def test_layers_of_a_hybrid_may_be_words(tmp_path: Path) -> None:
    """As newer files have them."""
    words = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    pattern = document("nemotron3-nano-30b-a3b")["hybrid_override_pattern"]

    read = read_changed(
        tmp_path,
        "nemotron3-nano-30b-a3b",
        hybrid_override_pattern=None,
        layers_block_type=[words[letter] for letter in pattern],
    )

    assert read.config.pattern == pattern
