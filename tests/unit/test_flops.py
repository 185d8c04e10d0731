"""FLOPs of a token: from the kernels, against parameters and against published formulas."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from model_cases import models

from exactmap.sim.workload.flops import token_flop
from exactmap.sim.workload.model import Mixer, ModelConfig
from exactmap.sim.workload.operators import Pass, model_flop_per_token
from exactmap.sim.workload.presets import find_preset, preset_names
from exactmap.sim.workload.training import Recompute, Software

UNFUSED = Software("megatron", "2021", fused_attention=False)
SEQ = 128


def attention_flop(model: ModelConfig, seq: int) -> float:
    """Forward of attention for a token: two products over the scores that it has, on average."""
    widths = 2 * model.head_dim
    if model.latent is not None:
        widths = model.latent.nope_dim + model.latent.rope_dim + model.latent.v_dim
    kinds = (*model.layer_kinds(), *model.mtp_kinds() * model.mtp_layers)
    mixers = Counter(kind.mixer for kind in kinds)
    window = min(model.window, seq)
    scores = mixers[Mixer.FULL] * seq / 2 + mixers[Mixer.WINDOW] * (window - window**2 / (2 * seq))
    return 2 * model.heads * widths * scores


def scan_flop(model: ModelConfig, chunk: int = 256) -> float:
    """Forward of the scans for a token: half a chunk's square, and the state made and read."""
    space = model.state_space
    if space is None:
        return 0.0
    kinds = (*model.layer_kinds(), *model.mtp_kinds() * model.mtp_layers)
    scans = sum(kind.mixer is Mixer.STATE_SPACE for kind in kinds)
    square = chunk * (space.groups * space.state + space.inner)
    return scans * (square + 4 * space.inner * space.state)


@given(models())
def test_forward_multiplies_by_every_active_matrix_once(model: ModelConfig) -> None:
    """2 FLOPs a parameter, attention and scans apart; the kernels that are priced and the counts agree."""
    flop = token_flop(model, SEQ)

    products = 2 * model.num_matrix_parameters()
    others = attention_flop(model, SEQ) + scan_flop(model)

    assert flop.pass_flop(Pass.F) == pytest.approx(products + others, rel=1e-9)
    assert flop.pass_flop(Pass.W) == pytest.approx(products, rel=1e-9)
    assert flop.model == pytest.approx(3 * (products + others), rel=1e-9)


@pytest.mark.parametrize("name", preset_names())
def test_presets_too(name: str) -> None:
    """At sizes that are trained."""
    model = find_preset(name)

    expected = 6 * model.num_matrix_parameters() + 3 * (attention_flop(model, 4096) + scan_flop(model))

    assert token_flop(model, 4096).model == pytest.approx(expected, rel=1e-9)


def test_plain_models_have_the_engines_flops_too() -> None:
    """Which counts the diagonal of the scores: s (s + 1) / 2 instead of half a square."""
    model = find_preset("llama3-8b")

    assert token_flop(model, 8192).model == pytest.approx(model_flop_per_token(model, 8192), rel=1e-4)


@pytest.mark.parametrize("name", ["gpt3-175b", "megatron-530b", "megatron-1t"])
def test_full_recompute_executes_what_megatron_states(name: str) -> None:
    """96 B s l h^2 (1 + s/6h + V/16lh), equation 3 of arXiv:2104.04473: whole squares, layers four times."""
    model, seq = find_preset(name), 2048
    h, layers = model.hidden, model.layers

    flop = token_flop(model, seq, recompute=Recompute("full"), software=UNFUSED)

    stated = 96 * layers * h**2 * (1 + seq / (6 * h) + model.vocab / (16 * layers * h))
    assert flop.executed == pytest.approx(stated, rel=1e-9)


@pytest.mark.parametrize("name", ["gpt3-175b", "megatron-530b", "megatron-1t"])
def test_selective_recompute_adds_a_forward_of_the_scores(name: str) -> None:
    """arXiv:2205.05198: model FLOPs 72 B L s h^2 (1 + s/6h + v/12hL), and a forward 4 B L s^2 h more."""
    model, seq = find_preset(name), 2048
    h, layers = model.hidden, model.layers
    selective = Recompute("modules", frozenset({"core_attn"}))

    flop = token_flop(model, seq, recompute=selective, software=UNFUSED)

    stated = 72 * layers * h**2 * (1 + seq / (6 * h) + model.vocab / (12 * h * layers))
    assert flop.model == pytest.approx(stated, rel=1e-9)
    assert flop.executed - flop.model == pytest.approx(4 * layers * seq * h, rel=1e-9)


def test_palm_has_the_flops_of_its_appendix() -> None:
    """6 N + 12 L H Q T (arXiv:2204.02311, appendix B), N with the tied table and without norms."""
    model, seq = find_preset("palm-540b"), 2048

    flop = token_flop(model, seq, software=UNFUSED)

    stated = 6 * 540.35e9 + 12 * 118 * 48 * 256 * seq
    assert flop.model == pytest.approx(stated, rel=1e-4)


def test_deepseek_v3_has_about_the_flops_of_its_active_parameters() -> None:
    """37 B active (arXiv:2412.19437): 6 N D is 222 GFLOP a token; attention and MTP come on top."""
    flop = token_flop(find_preset("deepseek-v3"), 4096)
    attention = next(each for each in flop.operators if each.name == "attention")

    assert flop.model == pytest.approx(6 * 37e9 * (1 + 1 / 61) + attention.model, rel=0.03)


def test_fused_attention_computes_scores_again_in_backward() -> None:
    """2.5 times its forward where the mathematics needs twice; products do not."""
    flop = {each.name: each for each in token_flop(find_preset("llama3-8b"), 8192).operators}

    attention, up = flop["attention"], flop["up"]

    assert attention.pass_flop[Pass.I] == 2.5 * attention.pass_flop[Pass.F]
    assert attention.model == 3 * attention.pass_flop[Pass.F]
    assert up.model == up.executed == 3 * up.pass_flop[Pass.F]


def test_scores_of_latent_attention_have_two_widths() -> None:
    """Queries and keys of 192 channels, values of 128; without fused kernels over the whole square."""
    model, seq = find_preset("deepseek-v2-lite"), 2048
    flop = {each.name: each for each in token_flop(model, seq, software=UNFUSED).operators}

    assert flop["scores"].pass_flop[Pass.F] == 2 * 27 * 16 * (192 + 128) * seq
    assert flop["scores"].pass_flop[Pass.I] == 2 * flop["scores"].pass_flop[Pass.F]


def test_what_is_computed_again_belongs_to_backward() -> None:
    """Under full recompute: all forwards but the head's."""
    model = find_preset("mixtral-8x7b")
    plain, full = token_flop(model, 4096), token_flop(model, 4096, recompute=Recompute("full"))

    head = next(each for each in plain.operators if each.name == "head").pass_flop[Pass.F]

    assert full.model == plain.model
    assert full.executed - plain.executed == pytest.approx(plain.pass_flop(Pass.F) - head)
    assert full.pass_flop(Pass.I) - plain.pass_flop(Pass.I) == pytest.approx(full.executed - plain.executed)
