"""A decoder-only transformer as numbers: its shape, its parameters, and how they lie in parts and stages.

Parameters of one layer, h = hidden, q = heads x head_dim, k = kv_heads x head_dim, f = ffn::

    gpt    2 LayerNorms with bias 4h;  qkv h(q+2k) + (q+2k);  projection qh + h;  MLP hf + f + fh + h
    llama  2 RMSNorms 2h;              qkv h(q+2k);           projection qh;      gated MLP 3hf

Outside the layers: token embedding vocab x h (``wte``), learned positions x h for gpt (``wpe``), a final norm
(``norm``: 2h for gpt, h for llama) and an untied head vocab x h (``head``). Counts follow the public
weights of GPT-2 (openai/gpt-2) and Llama 3 (meta-llama/llama3); the tests compare them with the published
totals.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from exactmap.errors import InvalidInputError, Place

__all__ = [
    "ModelConfig",
    "ModelKind",
    "Part",
    "StageLike",
    "StageShape",
    "stage_parameters",
    "stage_parts",
]


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


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of a decoder-only transformer.

    Parameters
    ----------
    kind
        Family: GPT or Llama.
    layers, hidden, heads, kv_heads, head_dim, ffn, vocab
        Number of layers, width of the residual stream, query heads, key/value heads, width of a head, inner
        width of the MLP, number of tokens in the vocabulary.
    positions
        Longest sequence in tokens; for GPT also the number of learned position vectors.
    tied
        Whether the head reuses the token embedding.
    norm_eps
        The epsilon of the norms.
    rope_theta
        Base of the rotary angles (Llama; GPT ignores it).
    name
        What to call the model in tables.

    Raises
    ------
    InvalidInputError
        If a size is not positive or the sizes do not fit each other; all problems are listed.

    Examples
    --------
    >>> gpt2 = ModelConfig(
    ...     ModelKind.GPT,
    ...     layers=12,
    ...     hidden=768,
    ...     heads=12,
    ...     kv_heads=12,
    ...     head_dim=64,
    ...     ffn=3072,
    ...     vocab=50257,
    ...     positions=1024,
    ...     tied=True,
    ... )
    >>> gpt2.num_parameters()
    124439808
    """

    kind: ModelKind
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    positions: int
    tied: bool
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    name: str = "custom"

    def __post_init__(self) -> None:
        """Check every size and how the sizes fit each other."""
        problems = self._find_problems()
        if problems:
            message = f"model {self.name!r} cannot be built"
            raise problems[0] if len(problems) == 1 else InvalidInputError(message, problems=problems)

    def _find_problems(self) -> list[InvalidInputError]:
        sizes = {
            "layers": self.layers,
            "hidden": self.hidden,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "ffn": self.ffn,
            "vocab": self.vocab,
            "positions": self.positions,
        }
        problems = [
            InvalidInputError(
                "size must be positive",
                where=Place(field=f"model.{field}"),
                got=str(value),
                expected="at least 1",
            )
            for field, value in sizes.items()
            if value < 1
        ]
        if self.kv_heads >= 1 and self.heads % self.kv_heads:
            problems.append(
                InvalidInputError(
                    "key/value heads do not divide the query heads",
                    where=Place(field="model.kv_heads"),
                    got=str(self.kv_heads),
                    expected=f"a divisor of {self.heads}",
                )
            )
        if self.kind is ModelKind.LLAMA and self.head_dim % 2:
            problems.append(
                InvalidInputError(
                    "rotary positions turn pairs of channels",
                    where=Place(field="model.head_dim"),
                    got=str(self.head_dim),
                    expected="an even number",
                )
            )
        if not self.norm_eps > 0.0:
            problems.append(
                InvalidInputError(
                    "epsilon must be positive", where=Place(field="model.norm_eps"), got=repr(self.norm_eps)
                )
            )
        if not self.rope_theta > 0.0:
            problems.append(
                InvalidInputError(
                    "rotary base must be positive",
                    where=Place(field="model.rope_theta"),
                    got=repr(self.rope_theta),
                )
            )
        return problems

    @property
    def attention_width(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    def layer_matrix_parameters(self) -> int:
        """Parameters of one layer that sit in matrices, so that matrix products read them."""
        num_mlp_matrices = 2 if self.kind is ModelKind.GPT else 3
        projections = (
            self.hidden * (self.attention_width + 2 * self.kv_width) + self.attention_width * self.hidden
        )
        return projections + num_mlp_matrices * self.hidden * self.ffn

    def layer_parameters(self) -> int:
        """Parameters of one layer, norms and biases included."""
        if self.kind is ModelKind.GPT:
            biases = self.attention_width + 2 * self.kv_width + self.hidden + self.ffn + self.hidden
            return self.layer_matrix_parameters() + biases + 4 * self.hidden
        return self.layer_matrix_parameters() + 2 * self.hidden

    def part_parameters(self, part: Part) -> int:
        """Parameters of one part; `Part.LAYERS` is all layers, and a tied head has none of its own."""
        match part:
            case Part.WTE:
                return self.vocab * self.hidden
            case Part.WPE:
                return self.positions * self.hidden if self.kind is ModelKind.GPT else 0
            case Part.LAYERS:
                return self.layers * self.layer_parameters()
            case Part.NORM:
                return (2 if self.kind is ModelKind.GPT else 1) * self.hidden
            case Part.HEAD:
                return 0 if self.tied else self.vocab * self.hidden

    def num_parameters(self) -> int:
        """All parameters, each counted once."""
        return sum(self.part_parameters(part) for part in Part)

    def num_matrix_parameters(self) -> int:
        """Parameters that matrix products read for every token: in the layers, and the head, tied or not."""
        return self.layers * self.layer_matrix_parameters() + self.vocab * self.hidden


class StageLike(Protocol):
    """What costs depend on in a stage: the stages of a plan have it, and so has `StageShape`."""

    @property
    def num_layers(self) -> int:
        """Layers in the stage."""
        ...

    @property
    def embedding(self) -> bool:
        """Whether the token embedding is here."""
        ...

    @property
    def head(self) -> bool:
        """Whether the final norm and the head are here."""
        ...


@dataclass(frozen=True, slots=True)
class StageShape:
    """A stage without its place: how many layers, with or without embedding and head."""

    num_layers: int
    embedding: bool = False
    head: bool = False


def stage_parts(model: ModelConfig, stage: StageLike) -> tuple[Part, ...]:
    """Parts that a stage owns, in the order of a bucket's ``holds`` list.

    Examples
    --------
    >>> llama = ModelConfig(
    ...     ModelKind.LLAMA,
    ...     layers=4,
    ...     hidden=64,
    ...     heads=4,
    ...     kv_heads=2,
    ...     head_dim=16,
    ...     ffn=128,
    ...     vocab=259,
    ...     positions=128,
    ...     tied=False,
    ... )
    >>> [part.value for part in stage_parts(llama, StageShape(2, embedding=True))]
    ['wte', 'layers']
    """
    owned = {
        Part.WTE: stage.embedding,
        Part.WPE: stage.embedding,
        Part.LAYERS: stage.num_layers > 0,
        Part.NORM: stage.head,
        Part.HEAD: stage.head,
    }
    return tuple(part for part, here in owned.items() if here and model.part_parameters(part) > 0)


def stage_parameters(model: ModelConfig, stage: StageLike) -> int:
    """Parameters of a stage; a tied head away from the embedding counts as a copy of it."""
    outside = sum(
        model.part_parameters(part) for part in stage_parts(model, stage) if part is not Part.LAYERS
    )
    if stage.head and model.tied and not stage.embedding:
        outside += model.part_parameters(Part.WTE)
    return stage.num_layers * model.layer_parameters() + outside
