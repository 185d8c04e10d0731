"""Closed sets of a model's description: families, parts, kinds of layers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["PATTERN", "LayerKind", "Mixer", "Mlp", "ModelKind", "Part"]


class ModelKind(StrEnum):
    """Family of a model: which norm, activation, positions and biases it has."""

    GPT = "gpt"
    """LayerNorm with bias, GELU, learned positions, biases."""
    LLAMA = "llama"
    """RMSNorm, SwiGLU, rotary positions, grouped-query attention, no bias."""


class Part(StrEnum):
    """A part of a stage's parameters, as the buckets of a plan name it."""

    WTE = "wte"
    WPE = "wpe"
    LAYERS = "layers"
    NORM = "norm"
    HEAD = "head"


class Mixer(StrEnum):
    """What a layer mixes tokens with."""

    FULL = "full"
    """Causal attention over the whole sequence."""
    WINDOW = "window"
    """Causal attention over the last `ModelConfig.window` tokens."""
    STATE_SPACE = "state_space"
    """A Mamba-2 scan."""
    NONE = "none"


class Mlp(StrEnum):
    """What a layer does with each token by itself."""

    DENSE = "dense"
    EXPERTS = "experts"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class LayerKind:
    """One layer: how it mixes tokens, and what follows."""

    mixer: Mixer = Mixer.FULL
    mlp: Mlp = Mlp.DENSE


PATTERN = {
    "M": LayerKind(Mixer.STATE_SPACE, Mlp.NONE),
    "*": LayerKind(Mixer.FULL, Mlp.NONE),
    "-": LayerKind(Mixer.NONE, Mlp.DENSE),
    "E": LayerKind(Mixer.NONE, Mlp.EXPERTS),
}
"""Layers by their letter in `ModelConfig.pattern`."""
