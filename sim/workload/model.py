"""A decoder-only transformer as numbers: its shape.

Parameters of one layer of the two plain families, h = hidden, q = heads x head_dim, k = kv_heads x head_dim,
f = ffn::

    gpt    2 LayerNorms with bias 4h;  qkv h(q+2k) + (q+2k);  projection qh + h;  MLP hf + f + fh + h
    llama  2 RMSNorms 2h;              qkv h(q+2k);           projection qh;      gated MLP 3hf

Outside the layers: token embedding vocab x h (``wte``), learned positions x h for gpt (``wpe``), a final norm
(``norm``: 2h for gpt, h for llama) and an untied head vocab x h (``head``). Counts follow the public
weights of GPT-2 (openai/gpt-2) and Llama 3 (meta-llama/llama3); the tests compare them with the published
totals. `exactmap.sim.workload.parameters` counts latent attention, experts and state spaces too.
"""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.errors import InvalidInputError
from exactmap.sim.workload.blocks import Experts, LatentAttention, StateSpace
from exactmap.sim.workload.kinds import PATTERN, LayerKind, Mixer, Mlp, ModelKind, Part
from exactmap.sim.workload.model_checks import find_problems
from exactmap.sim.workload.parameters import LayerParameters, count_layer, count_parameters
from exactmap.sim.workload.plain import special_features
from exactmap.sim.workload.stage_parts import StageLike, StageShape, stage_parameters, stage_parts

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
        Layers that predict further tokens (multi-token prediction, arXiv:2412.19437), each with a projection
        of 2 hidden to hidden and the shared head.
    vocab_multiple
        The vocabulary is padded to a multiple of so many tokens times the tensor-parallel size; counts of
        parameters leave the padding out, products do not.

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
    vocab_multiple: int = 1

    def __post_init__(self) -> None:
        """Check every size and how the sizes fit each other."""
        problems = find_problems(self)
        if problems:
            message = f"model {self.name!r} cannot be built"
            raise problems[0] if len(problems) == 1 else InvalidInputError(message, problems=problems)

    @property
    def has_gate(self) -> bool:
        """Whether the MLPs multiply by a gate."""
        return self.kind is ModelKind.LLAMA if self.gated is None else self.gated

    @property
    def is_plain(self) -> bool:
        """Whether all layers are alike, with usual attention and a dense MLP: what the engine runs."""
        return not special_features(self)

    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """Return the kind of each layer, front to back."""
        if self.pattern:
            return tuple(PATTERN[letter] for letter in self.pattern)
        return tuple(LayerKind(self._mixer(number), self._mlp(number)) for number in range(self.layers))

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

    def padded_vocab(self, tp: int = 1) -> int:
        """Tokens of the vocabulary, padded for so many tensor-parallel ranks."""
        multiple = self.vocab_multiple * tp
        return -(-self.vocab // multiple) * multiple

    def layer_matrix_parameters(self, kind: LayerKind | None = None) -> int:
        """Parameters of one layer that sit in matrices which a token meets, so that products read them."""
        return self._count_layer(kind).matrices

    def layer_parameters(self, kind: LayerKind | None = None) -> int:
        """Parameters of one layer, norms, biases and all experts included.

        Parameters
        ----------
        kind
            Which layer; may be left out where all are alike.

        Raises
        ------
        InvalidInputError
            If no kind is given and layers differ.
        """
        return self._count_layer(kind).total

    def _count_layer(self, kind: LayerKind | None) -> LayerParameters:
        kinds = {kind} if kind is not None else set(self.layer_kinds())
        if len(kinds) > 1:
            raise InvalidInputError(
                "layers differ, and none is named", got=f"{len(kinds)} kinds in {self.name}", expected="one"
            )
        return count_layer(self, kinds.pop())

    def part_parameters(self, part: Part) -> int:
        """Parameters of one part; `Part.LAYERS` is all layers of the trunk, and a tied head has none."""
        match part:
            case Part.WTE:
                return self.vocab * self.hidden
            case Part.WPE:
                return self.positions * self.hidden if self.kind is ModelKind.GPT else 0
            case Part.LAYERS:
                return count_parameters(self).layers.total
            case Part.NORM:
                return (2 if self.kind is ModelKind.GPT else 1) * self.hidden
            case Part.HEAD:
                return 0 if self.tied else self.vocab * self.hidden

    def num_parameters(self) -> int:
        """All parameters that are trained, each counted once."""
        return count_parameters(self).total

    def num_active_parameters(self) -> int:
        """Parameters that work on a token: of the routed experts those that it visits, tables whole.

        Layers that predict further tokens are left out, as publications do.
        """
        return count_parameters(self).active

    def num_matrix_parameters(self) -> int:
        """Parameters that products read for every token, as often as they do.

        Matrices of the layers (of routed experts those that a token visits) and the head, tied or not, with
        its padding; a layer that predicts a further token reads the head once more.
        """
        count = count_parameters(self)
        head = (1 + self.mtp_layers) * self.padded_vocab() * self.hidden
        return count.layers.matrices + count.prediction.matrices + head
