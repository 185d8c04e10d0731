"""The operators of a plain transformer's passes: FLOPs executed, bytes moved, shapes, on one rank of a stage.

A product C[m,n] = A[m,k] B[k,n] takes 2 m n k FLOPs. Forward (F) multiplies by each weight once, the input
gradient (I) and the weight gradient (W) once each. Causal attention over s tokens executes s (s+1) / 2 of
the s x s scores; forward takes two products of width head_dim over them, backward five, since it computes
the scores again (Dao, "FlashAttention-2", arXiv:2307.08691): all of them belong to I. *Model FLOPs* count
what the mathematics needs: backward twice forward, nothing computed again.

The head follows the engine that executes plans: F makes the logits, the loss and the gradient of its input
tile by tile and stores no logits; W makes the logits again for the weight gradient; I has the final norm
only.

Tensor parallelism divides heads, ffn and vocabulary by tp, and with sequence parallelism also the tokens
between the products; context parallelism divides the tokens of a sequence and balances the causal work over
its ranks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from exactmap.errors import InvalidInputError, Place
from exactmap.sim.workload.model import ModelConfig, ModelKind, StageLike
from exactmap.sim.workload.plain import require_plain

__all__ = [
    "Operator",
    "OperatorKind",
    "Pass",
    "attention_forward_flop",
    "embedding_operators",
    "head_operators",
    "layer_operators",
    "model_flop",
    "model_flop_per_token",
    "stage_operators",
    "total_flop",
]


class Pass(StrEnum):
    """A pass over a stage."""

    F = "F"
    I = "I"
    W = "W"


class OperatorKind(StrEnum):
    """What bounds an operator, and which measured curve prices it."""

    GEMM = "gemm"
    ATTENTION = "attention"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator on one rank, done `count` times.

    Parameters
    ----------
    name
        What it is: ``qkv``, ``attention``, ``norm1`` ...
    kind
        Product, attention, or bound by memory.
    step
        The pass that it belongs to.
    flop
        FLOPs executed, once.
    read_bytes, write_bytes
        Bytes moved, once, if nothing stays in cache between operators.
    m, n, k
        Shape of a product; for attention m = tokens of a sequence, n = batch x heads, k = head dimension.
    count
        How often it runs: once per layer of the stage.
    """

    name: str
    kind: OperatorKind
    step: Pass
    flop: int
    read_bytes: int
    write_bytes: int
    m: int = 0
    n: int = 0
    k: int = 0
    count: int = 1


def attention_forward_flop(seq: int, heads: int, head_dim: int) -> int:
    """FLOPs of causal attention over one sequence, forward: two products over s (s+1) / 2 scores a head."""
    return 2 * 2 * (seq * (seq + 1) // 2) * heads * head_dim


def model_flop_per_token(model: ModelConfig, seq: int) -> float:
    """Model FLOPs of a token, forward and backward: 6 a matrix parameter, and three times causal attention.

    Examples
    --------
    >>> from exactmap.sim.workload.presets import find_preset
    >>> round(model_flop_per_token(find_preset("llama3-8b"), 8192) / 1e9, 1)
    51.5
    """
    return model_flop(model, seq, 1) / seq


def model_flop(model: ModelConfig, seq: int, num_sequences: int) -> int:
    """Model FLOPs of so many sequences of a plain model, forward and backward, nothing computed again.

    To the last score, as the engine executes them; `exactmap.sim.workload.flops` has those of all models.
    """
    require_plain(model)
    products = 2 * model.num_matrix_parameters() * seq
    attention = model.layers * attention_forward_flop(seq, model.heads, model.head_dim)
    return 3 * (products + attention) * num_sequences


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes as one rank sees them, and the bytes of its numbers."""

    tokens: int
    outside: int
    seq: int
    batch: int
    hidden: int
    heads: int
    head_dim: int
    kv_heads: int
    ffn: int
    gates: int
    vocab: int
    cp: int
    act_bytes: int
    weight_bytes: int
    grad_bytes: int

    @property
    def attention(self) -> int:
        return self.heads * self.head_dim

    @property
    def qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


def _shape(
    model: ModelConfig,
    microbatch: int,
    seq: int,
    tp: int,
    cp: int,
    act_bytes: int,
    weight_bytes: int,
    grad_bytes: int,
) -> _Shape:
    for name, value in (("microbatch", microbatch), ("seq", seq), ("tp", tp), ("cp", cp)):
        if value < 1:
            raise InvalidInputError("count must be positive", where=Place(field=name), got=str(value))
    require_plain(model)
    tokens = microbatch * -(-seq // cp)
    return _Shape(
        tokens=tokens,
        outside=-(-tokens // tp),
        seq=seq,
        batch=microbatch,
        hidden=model.hidden,
        heads=-(-model.heads // tp),
        head_dim=model.head_dim,
        kv_heads=-(-model.kv_heads // tp),
        ffn=-(-model.ffn // tp),
        gates=1 if model.kind is ModelKind.GPT else 2,
        vocab=-(-model.vocab // tp),
        cp=cp,
        act_bytes=act_bytes,
        weight_bytes=weight_bytes,
        grad_bytes=grad_bytes,
    )


def _product(
    shape: _Shape, name: str, step: Pass, tokens: int, inner: int, outer: int, count: int
) -> Operator:
    """The product of a weight [inner, outer] in one pass: y = x w, dx = dy w^T, or dw = x^T dy."""
    activations = tokens * (inner + outer) * shape.act_bytes
    weight = inner * outer * shape.weight_bytes
    flop = 2 * tokens * inner * outer
    match step:
        case Pass.F:
            read = tokens * inner * shape.act_bytes + weight
            write = tokens * outer * shape.act_bytes
            m, n, k = tokens, outer, inner
        case Pass.I:
            read = tokens * outer * shape.act_bytes + weight
            write = tokens * inner * shape.act_bytes
            m, n, k = tokens, inner, outer
        case Pass.W:
            # The gradient is added to what earlier microbatches left: read and written.
            read = activations + inner * outer * shape.grad_bytes
            write = inner * outer * shape.grad_bytes
            m, n, k = inner, outer, tokens
    return Operator(name, OperatorKind.GEMM, step, flop, read, write, m, n, k, count)


def _memory(shape: _Shape, name: str, step: Pass, reads: int, writes: int, count: int) -> Operator:
    """An operator bound by memory that reads and writes so many activations."""
    size = shape.act_bytes
    return Operator(name, OperatorKind.MEMORY, step, 0, reads * size, writes * size, count=count)


def _attention(shape: _Shape, step: Pass, count: int) -> Operator:
    forward = attention_forward_flop(shape.seq, shape.heads, shape.head_dim) * shape.batch // shape.cp
    width, out = shape.tokens * shape.qkv * shape.act_bytes, shape.tokens * shape.attention * shape.act_bytes
    shapes = (shape.seq, shape.batch * shape.heads, shape.head_dim)
    if step is Pass.F:
        return Operator("attention", OperatorKind.ATTENTION, step, forward, width, out, *shapes, count)
    # Scores again, dv, dp, dq, dk: five products to the forward's two.
    return Operator(
        "attention", OperatorKind.ATTENTION, step, forward * 5 // 2, width + 2 * out, width, *shapes, count
    )


def _layer(shape: _Shape, step: Pass, count: int) -> list[Operator]:
    s, up = shape, shape.gates * shape.ffn
    weights = [
        ("qkv", s.hidden, s.qkv),
        ("projection", s.attention, s.hidden),
        ("up", s.hidden, up),
        ("down", s.ffn, s.hidden),
    ]
    out = [_product(s, name, step, s.tokens, inner, outer, count) for name, inner, outer in weights]
    stream = s.outside * s.hidden
    rotated = s.tokens * (s.heads + s.kv_heads) * s.head_dim if s.gates == 2 else 0
    match step:
        case Pass.F:
            out += [
                _attention(s, step, count),
                _memory(s, "norm1", step, stream, stream, count),
                _memory(s, "residual_norm2", step, 2 * stream, 2 * stream, count),
                _memory(s, "activation", step, s.tokens * up, s.tokens * s.ffn, count),
                _memory(s, "residual", step, 2 * stream, stream, count),
            ]
        case Pass.I:
            out += [
                _attention(s, step, count),
                _memory(s, "norm1", step, 3 * stream, stream, count),
                _memory(s, "norm2", step, 3 * stream, stream, count),
                _memory(s, "activation", step, s.tokens * (up + s.ffn), s.tokens * up, count),
            ]
        case Pass.W:
            # The products' inputs are made again from the normalised stream.
            out.append(_memory(s, "norm_outputs", step, 2 * stream, 2 * stream, count))
    if rotated and step is not Pass.W:
        out.append(_memory(s, "rotary", step, rotated, rotated, count))
    return out


def layer_operators(
    model: ModelConfig,
    step: Pass,
    microbatch: int,
    seq: int,
    *,
    tp: int = 1,
    cp: int = 1,
    act_bytes: int = 2,
    weight_bytes: int = 2,
    grad_bytes: int = 4,
    count: int = 1,
) -> tuple[Operator, ...]:
    """Operators of one layer's pass on one rank.

    Parameters
    ----------
    model
        The model.
    step
        The pass.
    microbatch, seq
        Sequences of a microbatch; tokens of a whole sequence.
    tp, cp
        Ranks that share a layer; ranks that share a sequence.
    act_bytes, weight_bytes, grad_bytes
        Bytes of an activation, of a weight as products read it, of a gradient as it is accumulated.
    count
        Layers.
    """
    return tuple(
        _layer(_shape(model, microbatch, seq, tp, cp, act_bytes, weight_bytes, grad_bytes), step, count)
    )


def embedding_operators(
    model: ModelConfig,
    step: Pass,
    microbatch: int,
    seq: int,
    *,
    tp: int = 1,
    cp: int = 1,
    act_bytes: int = 2,
    weight_bytes: int = 2,
    grad_bytes: int = 4,
) -> tuple[Operator, ...]:
    """Operators of the embedding's pass: a gather in F, a scatter-add in W."""
    s = _shape(model, microbatch, seq, tp, cp, act_bytes, weight_bytes, grad_bytes)
    size = s.tokens * s.hidden
    tables = 2 if model.kind is ModelKind.GPT else 1
    if step is Pass.F:
        read, write = tables * size * weight_bytes, size * act_bytes
    elif step is Pass.W:
        read, write = size * act_bytes + tables * size * grad_bytes, tables * size * grad_bytes
    else:
        return ()
    return (Operator("embedding", OperatorKind.MEMORY, step, 0, read, write),)


def head_operators(
    model: ModelConfig,
    step: Pass,
    microbatch: int,
    seq: int,
    *,
    tp: int = 1,
    cp: int = 1,
    act_bytes: int = 2,
    weight_bytes: int = 2,
    grad_bytes: int = 4,
) -> tuple[Operator, ...]:
    """Operators of final norm, head and loss; the module's text says what belongs to which pass."""
    s = _shape(model, microbatch, seq, tp, cp, act_bytes, weight_bytes, grad_bytes)
    stream, logits = s.outside * s.hidden, s.tokens * s.vocab
    match step:
        case Pass.F:
            return (
                _memory(s, "final_norm", step, stream, stream, 1),
                _product(s, "logits", Pass.F, s.tokens, s.hidden, s.vocab, 1),
                _memory(s, "loss", step, 2 * logits, logits, 1),
                replace(_product(s, "logits_gradient", Pass.I, s.tokens, s.hidden, s.vocab, 1), step=step),
            )
        case Pass.I:
            return (_memory(s, "final_norm", step, 2 * stream, stream, 1),)
        case Pass.W:
            return (
                replace(_product(s, "logits_again", Pass.F, s.tokens, s.hidden, s.vocab, 1), step=step),
                _memory(s, "loss_gradient", step, logits, logits, 1),
                _product(s, "head", step, s.tokens, s.hidden, s.vocab, 1),
            )


def stage_operators(
    model: ModelConfig,
    stage: StageLike,
    step: Pass,
    microbatch: int,
    seq: int,
    *,
    tp: int = 1,
    cp: int = 1,
    act_bytes: int = 2,
    weight_bytes: int = 2,
    grad_bytes: int = 4,
) -> tuple[Operator, ...]:
    """Operators of a stage's pass on one rank; parameters as `layer_operators`."""
    out: list[Operator] = []
    widths = {"act_bytes": act_bytes, "weight_bytes": weight_bytes, "grad_bytes": grad_bytes}
    if stage.embedding:
        out += embedding_operators(model, step, microbatch, seq, tp=tp, cp=cp, **widths)
    if stage.num_layers:
        out += layer_operators(model, step, microbatch, seq, tp=tp, cp=cp, **widths, count=stage.num_layers)
    if stage.head:
        out += head_operators(model, step, microbatch, seq, tp=tp, cp=cp, **widths)
    return tuple(out)


def total_flop(operators: tuple[Operator, ...]) -> int:
    """FLOPs that so many operators execute."""
    return sum(operator.flop * operator.count for operator in operators)
