"""Models: exact parameter counts against published ones, and shapes that cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.model import (
    ModelConfig,
    ModelKind,
    Part,
    StageShape,
    stage_parameters,
    stage_parts,
)
from exactmap.sim.workload.presets import find_preset, preset_names, preset_source

PUBLISHED = {
    # Sizes of the released checkpoints.
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
}


@pytest.mark.parametrize(("name", "num_parameters"), PUBLISHED.items())
def test_parameter_counts_are_those_of_the_released_weights(name: str, num_parameters: int) -> None:
    """To the last parameter."""
    assert find_preset(name).num_parameters() == num_parameters


@pytest.mark.parametrize(
    ("name", "billions"),
    [("gpt3-175b", 174.6), ("megatron-145b", 145.6), ("megatron-530b", 529.6), ("megatron-1t", 1008.0)],
)
def test_parameter_counts_are_those_of_the_papers(name: str, billions: float) -> None:
    """As the papers round them: arXiv:2005.14165, 2104.04473 table 1, 2201.11990."""
    assert find_preset(name).num_parameters() / 1e9 == pytest.approx(billions, abs=0.05)


PLAIN = [name for name in preset_names() if find_preset(name).is_plain]


@pytest.mark.parametrize("name", PLAIN)
def test_stages_add_up_to_the_model(name: str) -> None:
    """Cut anywhere, a model has the same parameters, a tied head away from its embedding once more."""
    model = find_preset(name)
    first = StageShape(model.layers // 2, embedding=True)
    last = StageShape(model.layers - model.layers // 2, head=True)

    copy = model.vocab * model.hidden if model.tied else 0

    assert stage_parameters(model, first) + stage_parameters(model, last) == model.num_parameters() + copy
    whole = StageShape(model.layers, embedding=True, head=True)
    assert stage_parameters(model, whole) == model.num_parameters()


def test_layers_of_different_kinds_are_not_counted_by_number_alone() -> None:
    """Nobody can say how large a stage of three layers of DeepSeek-V3 is."""
    with pytest.raises(InvalidInputError, match="layers differ, and none is named"):
        stage_parameters(find_preset("deepseek-v3"), StageShape(3))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_names_its_source(name: str) -> None:
    """Shapes are facts."""
    assert preset_source(name)


def test_parts_follow_the_family() -> None:
    """A GPT has positions and a tied head; a Llama has neither."""
    whole = StageShape(12, embedding=True, head=True)

    assert stage_parts(find_preset("gpt2"), whole) == (Part.WTE, Part.WPE, Part.LAYERS, Part.NORM)
    assert stage_parts(find_preset("llama3-8b"), whole) == (Part.WTE, Part.LAYERS, Part.NORM, Part.HEAD)


def test_an_unknown_preset_names_the_nearest() -> None:
    """No guess is taken."""
    with pytest.raises(InvalidInputError, match="did you mean 'llama3-70b'"):
        find_preset("llama-3-70b")


def test_all_problems_of_a_shape_are_listed() -> None:
    """Sizes, heads and rotary pairs at once."""
    with pytest.raises(InvalidInputError) as caught:
        ModelConfig(
            ModelKind.LLAMA,
            layers=0,
            hidden=64,
            heads=4,
            kv_heads=3,
            head_dim=15,
            ffn=64,
            vocab=259,
            positions=8,
            tied=False,
        )

    message = str(caught.value)
    assert "model.layers: size must be positive: got 0" in message
    assert "model.kv_heads: key/value heads do not divide the query heads: got 3" in message
    assert "model.head_dim: rotary positions turn pairs of channels: got 15" in message


def test_an_odd_head_is_fine_without_rotary_positions() -> None:
    """GPT has learned positions."""
    assert replace(find_preset("gpt2"), head_dim=15).attention_width == 12 * 15
