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
    "Experts",
    "LatentAttention",
    "LayerKind",
    "Mixer",
    "Mlp",
    "ModelConfig",
    "ModelKind",
    "Part",
    "StageLike",
    "StageShape",
    "StateSpace",
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


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): queries, keys, values from narrow latents.

    Parameters
    ----------
    q_rank
        Width of the queries' latent; 0: queries come straight from the stream.
    kv_rank
        Width of the latent that keys and values come from.
    nope_dim, rope_dim, v_dim
        Per head: channels without and with rotary positions of a query or key; channels of a value.
    """

    q_rank: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of experts in place of a dense MLP.

    Parameters
    ----------
    num_experts, top_k, ffn
        Routed experts, how many of them a token visits, the inner width of each.
    shared_ffn
        Inner width of the shared experts together, which every token visits; 0: none.
    first_dense
        Layers at the front that have a dense MLP.
    every
        One layer in so many has experts (the last of each group); the others are dense.
    latent
        Width that tokens are projected to before they are routed (latent experts); 0: the stream's.
    most_hosts
        Hosts that a token's experts lie on at most (node-limited routing); 0: no limit.
    """

    num_experts: int
    top_k: int
    ffn: int
    shared_ffn: int = 0
    first_dense: int = 0
    every: int = 1
    latent: int = 0
    most_hosts: int = 0


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A Mamba-2 mixer (arXiv:2405.21060).

    Parameters
    ----------
    heads, head_dim, state, groups, conv
        Heads, channels of a head, size of the state, groups that share B and C, taps of the convolution.
    """

    heads: int
    head_dim: int
    state: int
    groups: int
    conv: int = 4


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
    gated
        Whether the MLPs multiply by a gate (three matrices) or not (two); None: as the family does.
    latent
        Multi-head latent attention; None: the usual kind.
    experts
        Mixture of experts; None: every MLP is dense.
    clamped
        Whether the gate is clamped and its partner shifted (GPT-OSS).
    window, window_every
        Tokens of a sliding window, 0: none; one layer in `window_every` (the last of each group) sees the
        whole sequence nevertheless, 0: none does.
    state_space
        The mixer of state-space layers; None: there are none.
    pattern
        Layers one by one where they are not alike: ``M`` a state-space layer, ``*`` attention, ``-`` a dense
        MLP, ``E`` experts, each a layer of its own (Nemotron-H's notation); empty: layers as the other
        fields say.
    mtp_layers
        Depths that predict further tokens (multi-token prediction, arXiv:2412.19437), each with a projection
        of 2 hidden to hidden, layers of its own and the shared head.
    mtp_pattern
        Layers of a depth in the notation of `pattern`; empty: one like the model's last.
    mtp_repeated
        Whether all depths run the same layers again, which are kept in 16 bits (Nemotron 3).
    vocab_multiple
        The vocabulary is padded to a multiple of so many tokens times the tensor-parallel size.

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
    gated: bool | None = None
    latent: LatentAttention | None = None
    experts: Experts | None = None
    window: int = 0
    window_every: int = 0
    clamped: bool = False
    state_space: StateSpace | None = None
    pattern: str = ""
    mtp_layers: int = 0
    mtp_pattern: str = ""
    mtp_repeated: bool = False
    vocab_multiple: int = 1

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
    def has_gate(self) -> bool:
        """Whether the MLPs multiply by a gate."""
        return self.kind is ModelKind.LLAMA if self.gated is None else self.gated

    @property
    def is_plain(self) -> bool:
        """Whether all layers are alike, with usual attention and a dense MLP: what the engine runs."""
        return (
            self.gated in (None, self.kind is ModelKind.LLAMA)
            and self.latent is None
            and self.experts is None
            and not (self.window or self.pattern or self.mtp_layers or self.clamped)
        )

    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """Return the kind of each layer, front to back."""
        if self.pattern:
            return tuple(_PATTERN[letter] for letter in self.pattern)
        return tuple(LayerKind(self._mixer(number), self._mlp(number)) for number in range(self.layers))

    def mtp_kinds(self) -> tuple[LayerKind, ...]:
        """Return the kinds of the layers of one further prediction."""
        if self.mtp_pattern:
            return tuple(_PATTERN[letter] for letter in self.mtp_pattern)
        return self.layer_kinds()[-1:]

    def _mixer(self, number: int) -> Mixer:
        if not self.window or (self.window_every and (number + 1) % self.window_every == 0):
            return Mixer.FULL
        return Mixer.WINDOW

    def _mlp(self, number: int) -> Mlp:
        experts = self.experts
        if experts is None or number < experts.first_dense or (number + 1) % experts.every:
            return Mlp.DENSE
        return Mlp.EXPERTS

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


_PATTERN = {
    "M": LayerKind(Mixer.STATE_SPACE, Mlp.NONE),
    "*": LayerKind(Mixer.FULL, Mlp.NONE),
    "-": LayerKind(Mixer.NONE, Mlp.DENSE),
    "E": LayerKind(Mixer.NONE, Mlp.EXPERTS),
}


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
