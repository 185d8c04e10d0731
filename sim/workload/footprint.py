"""Bytes of one stage on one rank: the stash and hand-over of an item, workspaces, padded parameters.

With one-rank stages (tp = 1) and 4-byte numbers these are the C engine's own sizes to the byte: the
formulas of `docs/reference/memory-layout.md`, which `backend_c/src/nn/layout.c` and `params.c` obey as well;
tests hold the two equal. With other widths, or tensor parallelism, they estimate the same layout on a GPU:
heads, ffn and vocabulary are divided by tp, and, as in sequence parallelism (Korthikanti et al., "Reducing
activation recomputation in large transformer models", 2022), so are the tokens of what lies outside the
products.

An item is a microbatch, or one of the equal token slices that its sequences are cut into (Li et al.,
"TeraPipe", arXiv:2102.07988; Sun et al., "Seq1F1B", arXiv:2406.03488). All is then sized for a slice's tokens
but the keys and values, which later slices read, and their gradients, to which later slices add.

Legend: T tokens of an item, H hidden, A query width, K key (or value) width, Q = A + 2K, M ffn, U = M
for gpt and 2M for llama, V vocabulary. Every piece starts at a multiple of 64 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.workload.model import ModelConfig, ModelKind, Part, StageLike
from exactmap.sim.workload.plain import require_plain

__all__ = [
    "PrecisionBytes",
    "StageFootprint",
    "bucket_elements",
    "stage_footprint",
]

_ALIGN_BYTES = 64
_ALIGN_ELEMENTS = 16
_STATISTIC_BYTES = 4
_HEAD_TILE_TOKENS = 128
_ATTENTION_ROWS = 64
_ATTENTION_COLS = 256


@dataclass(frozen=True, slots=True)
class PrecisionBytes:
    """Bytes per number of each class of tensors; the default is the C engine's float32.

    Statistics (1 / std of norms, log-sum-exp) and the rotary table are float32 whatever these say.
    """

    act_bytes: int = 4
    param_bytes: int = 4
    grad_bytes: int = 4
    moment_bytes: int = 4

    def __post_init__(self) -> None:
        """Refuse widths that no number has."""
        for name in ("act_bytes", "param_bytes", "grad_bytes", "moment_bytes"):
            value = getattr(self, name)
            if value < 1:
                raise InvalidInputError(
                    "a number needs at least one byte",
                    where=Place(field=name),
                    got=str(value),
                    expected="at least 1",
                )


@dataclass(frozen=True, slots=True)
class StageFootprint:
    """Sizes of one stage for one item, a microbatch or a slice of one, on one rank.

    Parameters
    ----------
    h_bytes, a_bytes, w_bytes, g_bytes
        Slots of the plan's pools: stage boundary ``[T, H]``, stash for I alone, stash for W, what I
        leaves to W.
    k_bytes
        Slot of a whole microbatch: keys, values and the gradients of both, of all layers; 0 without slices.
    message_bytes
        What one stage sends to the next: `h_bytes` without padding.
    workspace_bytes
        Scratch of each pass, by its letter ``F I W B``, the rotary table included.
    elements
        Numbers of each part that the stage may hold (``wte wpe layers norm head``), padding included; a
        tied head away from the embedding is a copy of it.
    """

    h_bytes: int
    a_bytes: int
    w_bytes: int
    g_bytes: int
    k_bytes: int
    message_bytes: int
    workspace_bytes: Mapping[str, int]
    elements: Mapping[str, int]

    @property
    def workspace_max_bytes(self) -> int:
        """Scratch that serves every pass."""
        return max(self.workspace_bytes.values())

    @property
    def stashless_bytes(self) -> int:
        """Scratch of an F that names no stash: its own, then a and w, which end with it."""
        return self.workspace_bytes["F"] + self.offload_bytes

    @property
    def recompute_bytes(self) -> int:
        """Scratch of RC, F once more: its own, then the output that nobody reads."""
        return self.workspace_bytes["F"] + self.h_bytes

    @property
    def offload_bytes(self) -> int:
        """An item's stash away from the device: a, then w."""
        return self.a_bytes + self.w_bytes


def _pad(num_bytes: int) -> int:
    return -(-num_bytes // _ALIGN_BYTES) * _ALIGN_BYTES


def _pad_elements(num_elements: int) -> int:
    return -(-num_elements // _ALIGN_ELEMENTS) * _ALIGN_ELEMENTS


@dataclass(frozen=True, slots=True)
class _Dims:
    """Sizes as one rank sees them."""

    gpt: bool
    sliced: bool
    tokens: int
    tokens_outside: int
    tokens_microbatch: int
    seq: int
    hidden: int
    heads: int
    head_dim: int
    attention: int
    kv: int
    ffn: int
    vocab: int
    act_bytes: int

    @property
    def qkv(self) -> int:
        return self.attention + 2 * self.kv

    @property
    def up(self) -> int:
        return self.ffn if self.gpt else 2 * self.ffn

    def activations(self, tokens: int, width: int) -> int:
        return _pad(tokens * width * self.act_bytes)

    @property
    def stream(self) -> int:
        """Bytes of one [T, H] outside the products."""
        return self.activations(self.tokens_outside, self.hidden)

    def statistics(self, tokens: int, width: int = 1) -> int:
        return _pad(tokens * width * _STATISTIC_BYTES)

    @property
    def norm_sums(self) -> int:
        """Bytes of the gradients of one norm's gain and bias over a microbatch."""
        return (2 if self.gpt else 1) * self.statistics(self.hidden)


def _dims(
    model: ModelConfig, microbatch: int, seq: int, slices: int, precision: PrecisionBytes, tp: int
) -> _Dims:
    tokens = microbatch * (seq // slices)

    def local(count: int) -> int:
        return -(-count // tp)

    return _Dims(
        gpt=model.kind is ModelKind.GPT,
        sliced=slices > 1,
        tokens=tokens,
        tokens_outside=local(tokens),
        tokens_microbatch=microbatch * seq,
        seq=seq,
        hidden=model.hidden,
        heads=local(model.heads),
        head_dim=model.head_dim,
        attention=local(model.heads) * model.head_dim,
        kv=local(model.kv_heads) * model.head_dim,
        ffn=local(model.ffn),
        vocab=local(model.vocab),
        act_bytes=precision.act_bytes,
    )


def _layer_a_bytes(d: _Dims) -> int:
    """rstd1, rstd2, qkv (sliced: q alone, the rest is in k), lse, u."""
    return (
        2 * d.statistics(d.tokens_outside)
        + d.activations(d.tokens, d.attention if d.sliced else d.qkv)
        + d.statistics(d.tokens, d.heads)
        + d.activations(d.tokens, d.up)
    )


def _layer_w_bytes(d: _Dims) -> int:
    """xhat1, o, xhat2, act."""
    return 2 * d.stream + d.activations(d.tokens, d.attention) + d.activations(d.tokens, d.ffn)


def _layer_g_bytes(d: _Dims) -> int:
    """dqkv, dx1, du, sums of the two norms."""
    return d.activations(d.tokens, d.qkv) + d.stream + d.activations(d.tokens, d.up) + 2 * d.norm_sums


def _layer_k_bytes(d: _Dims) -> int:
    """Keys and values side by side, and their gradients."""
    return 2 * d.activations(d.tokens_microbatch, 2 * d.kv) if d.sliced else 0


def _head_w_bytes(d: _Dims) -> int:
    """xhat, dy, lse, sums of the final norm."""
    return 2 * d.stream + d.statistics(d.tokens) + d.norm_sums


def _layer_scratch_bytes(d: _Dims, letter: str) -> int:
    """A norm's output or gradient; for I also dact, d_o; attention's tiles; for F of a slice qkv."""
    scratch = d.activations(d.tokens, d.hidden)
    tile = _ATTENTION_ROWS * _ATTENTION_COLS
    if letter == "F":
        scratch += _pad((tile + 2 * _ATTENTION_ROWS) * _STATISTIC_BYTES)
        scratch += d.activations(d.tokens, d.qkv) if d.sliced else 0
    if letter in "IB":
        scratch += d.activations(d.tokens, d.ffn) + d.activations(d.tokens, d.attention)
        scratch += _pad((2 * tile + _ATTENTION_ROWS) * _STATISTIC_BYTES)
    return scratch


def _head_scratch_bytes(d: _Dims, letter: str) -> int:
    """One tile of logits and the norm's output; for F also its gradient and statistics."""
    tile = min(d.tokens, _HEAD_TILE_TOKENS)
    scratch = d.activations(tile, d.vocab) + d.activations(tile, d.hidden)
    if letter == "F":
        scratch += d.activations(tile, d.hidden) + d.statistics(tile)
    return scratch


def _workspace_bytes(d: _Dims, stage: StageLike, letter: str) -> int:
    shared = 0 if d.gpt else _pad(d.seq * d.head_dim * _STATISTIC_BYTES)
    if letter == "F" and stage.head:
        shared += d.stream
    if letter == "B" and stage.num_layers > 0:
        shared += _layer_g_bytes(d) + 2 * d.stream
    layers = _layer_scratch_bytes(d, letter) if stage.num_layers > 0 else 0
    head = _head_scratch_bytes(d, letter) if stage.head and letter != "I" else 0
    return shared + max(layers, head)


def _layer_elements(d: _Dims) -> int:
    h, a, k, m = d.hidden, d.attention, d.kv, d.ffn
    if d.gpt:
        tensors = [h, h, h * d.qkv, d.qkv, a * h, h, h, h, h * m, m, m * h, h]
    else:
        tensors = [h, a * h, k * h, k * h, h * a, h, m * h, m * h, h * m]
    return sum(_pad_elements(t) for t in tensors)


def _part_elements(model: ModelConfig, stage: StageLike, d: _Dims) -> dict[str, int]:
    table = _pad_elements(d.vocab * d.hidden)
    positions = _pad_elements(model.positions * d.hidden) if d.gpt else 0
    own_head = stage.head and not (model.tied and stage.embedding)
    return {
        Part.WTE.value: table if stage.embedding else 0,
        Part.WPE.value: positions if stage.embedding else 0,
        Part.LAYERS.value: stage.num_layers * _layer_elements(d),
        Part.NORM.value: (2 if d.gpt else 1) * _pad_elements(d.hidden) if stage.head else 0,
        Part.HEAD.value: table if own_head else 0,
    }


def stage_footprint(
    model: ModelConfig,
    stage: StageLike,
    microbatch: int,
    seq: int,
    *,
    slices: int = 1,
    precision: PrecisionBytes | None = None,
    tp: int = 1,
) -> StageFootprint:
    """Sizes of a stage for microbatches of `microbatch` sequences of `seq` tokens, in `slices` slices.

    Parameters
    ----------
    model, stage
        The model, and which part of it the stage holds.
    microbatch, seq
        Sequences in a microbatch, tokens in a whole sequence.
    slices
        Equal parts that every sequence is cut into; all but `k_bytes` is then for one part.
    precision
        Widths of numbers; the default is float32 throughout, as in the C engine.
    tp
        Ranks that share each layer, sequence parallelism included.

    Returns
    -------
    StageFootprint
        Bytes, and padded numbers of parameters, per rank.

    Raises
    ------
    InvalidInputError
        If `microbatch`, `seq`, `slices` or `tp` is below 1, `slices` does not divide `seq`, or `seq` exceeds
        the model's positions.
    InfeasibleError
        If the model is not plain: the engine has no layout for it.

    Examples
    --------
    >>> from exactmap.sim.workload.model import StageShape
    >>> tiny = ModelConfig(
    ...     ModelKind.LLAMA,
    ...     layers=2,
    ...     hidden=64,
    ...     heads=4,
    ...     kv_heads=2,
    ...     head_dim=16,
    ...     ffn=128,
    ...     vocab=259,
    ...     positions=128,
    ...     tied=False,
    ... )
    >>> sizes = stage_footprint(tiny, StageShape(1, embedding=True), microbatch=1, seq=64)
    >>> sizes.h_bytes, sizes.a_bytes, sizes.w_bytes, sizes.g_bytes
    (16384, 99840, 81920, 131584)

    Half the tokens at a time; the keys, values and gradients of all 64 wait in one slot:

    >>> half = stage_footprint(tiny, StageShape(1, embedding=True), microbatch=1, seq=64, slices=2)
    >>> half.h_bytes, half.a_bytes, half.w_bytes, half.k_bytes
    (8192, 41728, 40960, 32768)
    """
    for name, value in (("microbatch", microbatch), ("seq", seq), ("slices", slices), ("tp", tp)):
        if value < 1:
            raise InvalidInputError(
                "count must be positive", where=Place(field=name), got=str(value), expected="at least 1"
            )
    if seq > model.positions:
        raise InvalidInputError(
            "the sequence is longer than the model's positions",
            where=Place(field="seq"),
            got=f"{seq} tokens",
            expected=f"at most {model.positions}",
        )
    if seq % slices:
        raise InvalidInputError(
            "a sequence cannot be cut into equal slices",
            where=Place(field="slices"),
            got=f"{seq} tokens in {slices} slices",
            expected="a divisor of the sequence length",
        )
    require_plain(model)
    d = _dims(model, microbatch, seq, slices, precision or PrecisionBytes(), tp)
    num_flows = max(0, stage.num_layers - (0 if stage.embedding else 1))
    return StageFootprint(
        h_bytes=d.stream,
        a_bytes=stage.num_layers * _layer_a_bytes(d),
        w_bytes=stage.num_layers * _layer_w_bytes(d) + (_head_w_bytes(d) if stage.head else 0),
        g_bytes=stage.num_layers * _layer_g_bytes(d) + num_flows * d.stream,
        k_bytes=stage.num_layers * _layer_k_bytes(d),
        message_bytes=d.tokens_outside * d.hidden * d.act_bytes,
        workspace_bytes={letter: _workspace_bytes(d, stage, letter) for letter in "FIWB"},
        elements=_part_elements(model, stage, d),
    )


def bucket_elements(footprint: StageFootprint, holds: tuple[str, ...]) -> int:
    """Numbers in a bucket that holds these parts of a stage, padding included."""
    return sum(footprint.elements[part] for part in holds)
