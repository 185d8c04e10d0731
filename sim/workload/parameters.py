"""Parameters of a model, counted tensor by tensor, and how many of them work on a token.

h = hidden, q = heads x head_dim, k = kv_heads x head_dim, n = heads::

    attention      h (q + 2k) + q h
    latent         h (kv_rank + rope) + kv_rank n (nope + v) + n v h, and for queries h q_rank + q_rank n
                   (nope + rope), or h n (nope + rope) without a latent; a norm in each latent
    Mamba-2        h (2 inner + 2 groups state + heads) + inner h; convolution (inner + 2 groups state)
                   (taps + 1); decay, skip and step bias 3 heads; norm inner
    MLP            2 h f, with a gate 3 h f
    experts        router h E; E experts of 2 or 3 x width x f; shared experts like a dense MLP; latent
                   experts are as wide as the latent and have 2 h latent beside them
    norms          one before the mixer and one before the MLP: h, with a bias 2h
    gpt            a bias to each product of attention and MLP
    prediction     of a further token: projection 2h h, norms of both inputs and of the output, a layer

A routed expert works on `top_k` of `num_experts` tokens. What else a framework keeps for routing (a bias per
expert) and norms of queries and keys are left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass
from functools import lru_cache

from exactmap.sim.workload.kinds import LayerKind, Mixer, Mlp, ModelKind
from exactmap.sim.workload.shape import ModelShape

__all__ = ["LayerParameters", "ParameterCount", "count_layer", "count_parameters"]


@dataclass(frozen=True, slots=True)
class LayerParameters:
    """Parameters of one layer, or of several together.

    Parameters
    ----------
    mixer
        In matrices of attention or state space.
    mlp
        In matrices that every token meets after it: dense MLP, shared experts, router, latent projections.
    routed, visited
        In matrices of routed experts: of all, and of those that a token visits.
    others
        Norms, biases, convolutions.
    routed_others, visited_others
        Biases of routed experts: of all, and of those that a token visits.
    """

    mixer: int = 0
    mlp: int = 0
    routed: int = 0
    visited: int = 0
    others: int = 0
    routed_others: int = 0
    visited_others: int = 0

    @property
    def matrices(self) -> int:
        """In matrices that a token meets."""
        return self.mixer + self.mlp + self.visited

    @property
    def active(self) -> int:
        """All that work on a token."""
        return self.matrices + self.others + self.visited_others

    @property
    def total(self) -> int:
        """All."""
        return self.mixer + self.mlp + self.routed + self.others + self.routed_others

    def __add__(self, other: LayerParameters) -> LayerParameters:
        """Both together."""
        return LayerParameters(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, count: int) -> LayerParameters:
        """So many of them."""
        return LayerParameters(*(mine * count for mine in astuple(self)))


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters of a whole model, each counted once; the vocabulary without padding.

    Parameters
    ----------
    embedding, positions
        Tables of tokens and of learned positions.
    layers
        All layers of the trunk.
    norm, head
        Final norm; head, 0 if it is the token table.
    prediction
        Layers that predict further tokens, with their projections.
    """

    embedding: int
    positions: int
    layers: LayerParameters
    norm: int
    head: int
    prediction: LayerParameters

    @property
    def trunk(self) -> int:
        """Without the layers that predict further tokens: what publications count."""
        return self.embedding + self.positions + self.layers.total + self.norm + self.head

    @property
    def total(self) -> int:
        """All that are trained."""
        return self.trunk + self.prediction.total

    @property
    def active(self) -> int:
        """Of the trunk, those that work on a token; the tables count whole."""
        return self.embedding + self.positions + self.layers.active + self.norm + self.head

    @property
    def embedded(self) -> int:
        """In tables that are looked up and not multiplied by: a tied table is multiplied by."""
        return self.positions + (self.embedding if self.head else 0)


def count_layer(model: ModelShape, kind: LayerKind) -> LayerParameters:
    """Parameters of one layer.

    Parameters
    ----------
    model
        Its sizes.
    kind
        Which of its layers.
    """
    out = _count_mixer(model, kind.mixer)
    if kind.mlp is Mlp.DENSE:
        biases = _biases(model, model.ffn) if model.kind is ModelKind.GPT else 0
        out += LayerParameters(mlp=_mlp(model, model.hidden, model.ffn), others=_norm(model) + biases)
    elif kind.mlp is Mlp.EXPERTS:
        out += _count_experts(model)
    return out


def _norm(model: ModelShape) -> int:
    return (2 if model.kind is ModelKind.GPT else 1) * model.hidden


def _mlp(model: ModelShape, outside: int, inner: int) -> int:
    return (3 if model.has_gate else 2) * outside * inner


def _biases(model: ModelShape, inner: int) -> int:
    return (2 if model.has_gate else 1) * inner + model.hidden


def _count_mixer(model: ModelShape, mixer: Mixer) -> LayerParameters:
    hidden = model.hidden
    match mixer:
        case Mixer.NONE:
            return LayerParameters()
        case Mixer.STATE_SPACE:
            space = model.state_space
            assert space is not None, "a state-space layer without its sizes"
            matrices = hidden * (2 * space.inner + space.shared + space.heads) + space.inner * hidden
            others = (space.inner + space.shared) * (space.conv + 1) + 3 * space.heads + space.inner
            return LayerParameters(mixer=matrices, others=_norm(model) + others)
        case Mixer.FULL | Mixer.WINDOW:
            pass
    latent = model.latent
    if latent is not None:
        query = latent.nope_dim + latent.rope_dim
        keys = hidden * (latent.kv_rank + latent.rope_dim)
        keys += latent.kv_rank * model.heads * (latent.nope_dim + latent.v_dim)
        queries = hidden * latent.q_rank + (latent.q_rank or hidden) * model.heads * query
        matrices = keys + queries + model.heads * latent.v_dim * hidden
        return LayerParameters(mixer=matrices, others=_norm(model) + latent.q_rank + latent.kv_rank)
    wide = model.attention_width + 2 * model.kv_width
    biases = wide + hidden if model.kind is ModelKind.GPT else 0
    return LayerParameters(mixer=hidden * wide + model.attention_width * hidden, others=_norm(model) + biases)


def _count_experts(model: ModelShape) -> LayerParameters:
    experts = model.experts
    assert experts is not None, "a layer of experts without experts"
    hidden = model.hidden
    one = _mlp(model, experts.latent or hidden, experts.ffn)
    shared = _mlp(model, hidden, experts.shared_ffn)
    bias = shared_bias = 0
    if model.kind is ModelKind.GPT:
        bias = _biases(model, experts.ffn)
        shared_bias = _biases(model, experts.shared_ffn) if experts.shared_ffn else 0
    return LayerParameters(
        mlp=hidden * experts.num_experts + 2 * hidden * experts.latent + shared,
        routed=experts.num_experts * one,
        visited=experts.top_k * one,
        others=_norm(model) + shared_bias,
        routed_others=experts.num_experts * bias,
        visited_others=experts.top_k * bias,
    )


@lru_cache(maxsize=256)
def count_parameters(model: ModelShape) -> ParameterCount:
    """Parameters of a model.

    Examples
    --------
    >>> from exactmap.sim.workload.presets import find_preset
    >>> count = count_parameters(find_preset("mixtral-8x7b"))
    >>> round(count.total / 1e9, 1), round(count.active / 1e9, 1)
    (46.7, 12.9)
    """
    layers, kinds = LayerParameters(), model.layer_kinds()
    for kind, count in Counter(kinds).items():
        layers += count_layer(model, kind) * count
    ends = LayerParameters(mlp=2 * model.hidden * model.hidden, others=3 * _norm(model))
    prediction = ends
    for kind in model.mtp_kinds():
        prediction += count_layer(model, kind)
    return ParameterCount(
        embedding=model.vocab * model.hidden,
        positions=model.positions * model.hidden if model.kind is ModelKind.GPT else 0,
        layers=layers,
        norm=_norm(model),
        head=0 if model.tied else model.vocab * model.hidden,
        prediction=prediction * (min(1, model.mtp_layers) if model.mtp_repeated else model.mtp_layers),
    )
