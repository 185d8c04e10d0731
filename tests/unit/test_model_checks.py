"""Sizes that cannot be: of experts, latents, state spaces, windows and patterns, all listed at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.model import Experts, LatentAttention, ModelConfig, StateSpace
from exactmap.sim.workload.plain import special_features
from exactmap.sim.workload.presets import find_preset, preset_names

LLAMA = find_preset("byte-llama")
SPACE = StateSpace(8, 16, 16, 2)


def problems(**changes: Any) -> str:
    with pytest.raises(InvalidInputError) as caught:
        replace(LLAMA, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experts": Experts(8, 9, 64)},
            "model.experts.top_k: a token visits more experts than there are: got 9",
        ),
        ({"experts": Experts(0, 0, 64)}, "model.experts.num_experts: size must be positive"),
        (
            {"experts": Experts(8, 2, 64, shared_ffn=-1)},
            "model.experts.shared_ffn: count must not be negative",
        ),
        ({"experts": Experts(8, 2, 64, first_dense=4)}, "model.experts: no layer has experts: got 4 layers"),
        ({"experts": Experts(8, 2, 64, every=5)}, "model.experts: no layer has experts"),
        ({"latent": LatentAttention(0, 0, 16, 8, 16)}, "model.latent.kv_rank: size must be positive"),
        ({"latent": LatentAttention(0, 32, 0, 0, 16)}, "queries and keys have no channels"),
        ({"latent": LatentAttention(0, 32, 16, 7, 16)}, "model.latent.rope_dim: rotary positions turn pairs"),
        ({"window": -1}, "model.window: count must not be negative: got -1"),
        ({"window_every": 2}, "model.window_every: a share of layers without a window"),
        ({"window": 64, "window_every": 1}, "model.window_every: no layer has the window"),
        ({"pattern": "M*-x", "state_space": SPACE}, "model.pattern: unknown letters: got x"),
        ({"pattern": "*-*"}, "model.pattern: not a letter for each layer: got 3, expected 4 letters"),
        ({"pattern": "M-*-"}, "model.state_space: the pattern has layers of this kind: got none"),
        ({"pattern": "*-*-", "state_space": SPACE}, "model.pattern: no layer uses model.state_space"),
        ({"state_space": SPACE}, "model.pattern: no layer uses model.state_space: got ''"),
        (
            {"pattern": "M*M*", "state_space": StateSpace(8, 16, 16, 3)},
            "groups do not divide the heads: got 3",
        ),
        ({"pattern": "*E*E"}, "model.experts: the pattern has layers of this kind"),
        ({"pattern": "*-*-", "experts": Experts(8, 2, 64)}, "model.experts: no layer has experts"),
        ({"pattern": "*E*E", "experts": Experts(8, 2, 64, every=2)}, "model.experts.every: the pattern says"),
        ({"pattern": "*-*-", "window": 64}, "model.window: attention layers of a pattern see the whole"),
        ({"mtp_pattern": "*x"}, "model.mtp_pattern: unknown letters: got x"),
        ({"mtp_pattern": "*E"}, "model.experts: the pattern has layers of this kind"),
        ({"mtp_layers": -1}, "model.mtp_layers: count must not be negative"),
        ({"vocab_multiple": 0}, "model.vocab_multiple: size must be positive"),
    ],
)
def test_what_a_model_cannot_be_is_refused_under_its_field(changes: dict[str, Any], message: str) -> None:
    """One problem, one place."""
    assert message in problems(**changes)


def test_all_problems_are_listed() -> None:
    """Of all blocks at once."""
    found = problems(
        hidden=0, experts=Experts(8, 9, 0), latent=LatentAttention(-1, 0, 16, 8, 16), mtp_layers=-1
    )

    for field in ("hidden", "experts.top_k", "experts.ffn", "latent.q_rank", "latent.kv_rank", "mtp_layers"):
        assert f"model.{field}: " in found


def test_only_plain_models_have_a_plan() -> None:
    """Each feature makes a model another one; families' own MLPs do not."""
    assert special_features(replace(LLAMA, gated=True)) == ()
    assert special_features(replace(find_preset("gpt2"), gated=True)) == ("MLPs with a gate",)
    assert special_features(find_preset("nemotron-4-340b")) == ("MLPs without a gate",)
    assert special_features(find_preset("gpt-oss-120b")) == ("experts", "a clamped gate", "a sliding window")
    assert special_features(find_preset("deepseek-v3")) == (
        "latent attention",
        "experts",
        "layers that predict further tokens",
    )
    plain = {name for name in preset_names() if find_preset(name).is_plain}
    assert {"gpt3-175b", "llama3-405b", "dense-10t", "qwen2.5-72b"} <= plain
    assert not plain & {"mixtral-8x7b", "nemotron-h-8b", "mistral-7b"}


def test_a_model_may_have_all_blocks_at_once() -> None:
    """Nothing speaks against it."""
    model: ModelConfig = replace(
        LLAMA,
        latent=LatentAttention(0, 32, 16, 8, 16),
        experts=Experts(8, 2, 64, shared_ffn=64, latent=32),
        state_space=SPACE,
        pattern="M*E-",
        mtp_layers=1,
        vocab_multiple=128,
    )

    assert len(model.layer_kinds()) == 4
