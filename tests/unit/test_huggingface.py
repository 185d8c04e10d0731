"""Hugging Face configurations: the file's form, keys that are missing, what is refused with all reasons."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.workload.huggingface import read_huggingface_config

GPT2: dict[str, object] = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-05,
}
LLAMA: dict[str, object] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}


def write(folder: Path, config: dict[str, object]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def test_gpt2_and_llama_have_their_published_sizes(tmp_path: Path) -> None:
    """A file or the folder that holds it."""
    assert read_huggingface_config(write(tmp_path, GPT2)).config.num_parameters() == 124_439_808
    write(tmp_path, LLAMA)
    llama = read_huggingface_config(tmp_path)
    assert llama.config.num_parameters() == 8_030_261_248
    assert (llama.config.rope_theta, llama.config.norm_eps, llama.notes) == (500_000.0, 1e-5, ())


def test_scaled_rotary_positions_are_noted(tmp_path: Path) -> None:
    """Costs do not depend on them; the user is told all the same."""
    imported = read_huggingface_config(write(tmp_path, LLAMA | {"rope_scaling": {"factor": 8.0}}))

    assert "rope_scaling is left out" in imported.notes[0]


def test_biases_are_noted(tmp_path: Path) -> None:
    """They cost next to nothing; the user is told that they are not there."""
    imported = read_huggingface_config(write(tmp_path, LLAMA | {"attention_bias": True, "mlp_bias": True}))

    assert "left out: attention_bias, mlp_bias" in imported.notes[0]


def test_missing_keys_are_listed_in_one_error(tmp_path: Path) -> None:
    """Nothing is guessed."""
    config = {key: value for key, value in LLAMA.items() if key not in {"hidden_size", "vocab_size"}}

    with pytest.raises(InvalidInputError) as caught:
        read_huggingface_config(write(tmp_path, config))

    assert "hidden_size: the key is missing" in str(caught.value)
    assert "vocab_size: the key is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "mamba"}, 'unknown architecture: got "mamba", expected one of gpt2, llama, mistral'),
        ({"model_type": None}, "unknown architecture"),
        ({"hidden_act": "gelu"}, 'hidden_act: not supported: got "gelu"'),
        ({"num_hidden_layers": "32"}, 'num_hidden_layers: wrong value: got "32"'),
        ({"num_hidden_layers": True}, "num_hidden_layers: wrong value: got true"),
        ({"num_key_value_heads": 5}, "key/value heads do not divide"),
    ],
)
def test_what_the_model_cannot_be_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    """Another architecture, activation or type."""
    with pytest.raises(InvalidInputError) as caught:
        read_huggingface_config(write(tmp_path, LLAMA | change))

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"model_type": "gpt2", "model_type": "llama"}', "[" * 100_000]
)
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    """No traceback for any text."""
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(InvalidInputError):
        read_huggingface_config(path)


def test_the_base_of_the_rotation_may_be_nested(tmp_path: Path) -> None:
    """Transformers 5 writes it into `rope_parameters`, which wins over a key beside it."""
    nested = {"rope_parameters": {"rope_theta": 250_000.0, "rope_type": "default"}}
    read = read_huggingface_config(write(tmp_path, LLAMA | nested))
    scaled = {"rope_parameters": {"rope_theta": 250_000.0, "rope_type": "llama3", "factor": 8.0}}
    noted = read_huggingface_config(write(tmp_path, LLAMA | scaled))

    assert (read.config.rope_theta, read.notes) == (250_000.0, ())
    assert "rope_parameters is left out" in noted.notes[0]
    with pytest.raises(InvalidInputError, match="an object"):
        read_huggingface_config(write(tmp_path, LLAMA | {"rope_parameters": 3}))


def test_a_scenario_takes_its_model_from_the_file(tmp_path: Path) -> None:
    """With a size changed beside it."""
    write(tmp_path, LLAMA)
    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        "exactmap: 1\ncluster: h100-8\nmodel: {huggingface: config.json, layers: 4}\n"
        "training: {sequence: 4096, batch: 64 sequences}\n",
        encoding="utf-8",
    )

    model = load_scenario(scenario).model

    assert (model.layers, model.hidden, model.kv_heads) == (4, 4096, 8)
