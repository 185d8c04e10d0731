"""The fields of a model: sizes, and what follows from them alone."""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.sim.workload.blocks import Experts, LatentAttention, StateSpace
from exactmap.sim.workload.kinds import PATTERN, LayerKind, Mixer, Mlp, ModelKind

__all__ = ["ModelShape"]


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder-only transformer, and what follows from them alone; nothing is checked.

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
        The vocabulary is padded to a multiple of so many tokens times the tensor-parallel size; counts of
        parameters leave the padding out, products do not.
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

    @property
    def has_gate(self) -> bool:
        """Whether the MLPs multiply by a gate."""
        return self.kind is ModelKind.LLAMA if self.gated is None else self.gated

    def layer_kinds(self) -> tuple[LayerKind, ...]:
        """Return the kind of each layer, front to back."""
        if self.pattern:
            return tuple(PATTERN[letter] for letter in self.pattern)
        return tuple(LayerKind(self._mixer(number), self._mlp(number)) for number in range(self.layers))

    def mtp_kinds(self) -> tuple[LayerKind, ...]:
        """Return the kinds of the layers of one further prediction."""
        if self.mtp_pattern:
            return tuple(PATTERN[letter] for letter in self.mtp_pattern)
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

    def padded_vocab(self, tp: int = 1) -> int:
        """Tokens of the vocabulary, padded for so many tensor-parallel ranks."""
        multiple = self.vocab_multiple * tp
        return -(-self.vocab // multiple) * multiple
