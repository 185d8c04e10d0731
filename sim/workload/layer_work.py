"""Work of one layer on one rank: kernels and exchanges of its passes, as training frameworks run them.

A `Kernel` is one launch (or several alike) with shapes, FLOPs and bytes; an `Exchange` is a collective inside
the layer. Nothing here has a time; `exactmap.sim.cost.kernels` and `exactmap.sim.step` price them.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from exactmap.sim.workload.context_exchanges import context_exchanges
from exactmap.sim.workload.model import LayerKind, Mixer, Mlp, ModelConfig
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Precision, Software, Split
from exactmap.sim.workload.unfused import (
    ACTIVATION_BYTES,
    LAUNCHES,
    LOSS_BYTES,
    NORM_BYTES,
    RESIDUAL_BYTES,
    accumulate_bytes,
    has_fused_softmax,
    softmax_traffic,
)

__all__ = ["Exchange", "Kernel", "KernelKind", "LayerWork", "head_work", "layer_work"]


class KernelKind(StrEnum):
    """What bounds a kernel, and which model prices it."""

    GEMM = "gemm"
    GROUPED = "grouped"
    """`batch` products of m x n x k in one launch, one per expert."""
    ATTENTION = "attention"
    """Fused attention: m = tokens of a sequence that queries come from, n = batch x query heads, k = head dim."""
    MEMORY = "memory"
    SCAN = "scan"


class Kernel(NamedTuple):
    """Work of one rank that one or several launches do.

    `module` is the part of the layer that recompute, offload and CUDA graphs name; `wide` kernels compute in 16
    bits where products are narrower (attention, router, head).
    """

    name: str
    step: Pass
    kind: KernelKind
    module: str
    flop: float = 0.0
    num_bytes: float = 0.0
    m: int = 0
    n: int = 0
    k: int = 0
    batch: int = 1
    launches: float = 1.0
    wide: bool = False


class Exchange(NamedTuple):
    """A collective inside a layer: `axis` is ``tp``, ``cp`` or ``ep``; `num_bytes` the full buffer.

    Collective ``ring`` passes blocks round beside attention; `num_bytes` is then one hop's.
    """

    name: str
    step: Pass
    axis: str
    collective: str
    num_bytes: float
    module: str


class LayerWork(NamedTuple):
    """All of a layer."""

    kernels: tuple[Kernel, ...]
    exchanges: tuple[Exchange, ...]


def _products(name: str, module: str, tokens: int, inner: int, outer: int, batch: int = 1) -> list[Kernel]:
    """Forward, input gradient and weight gradient of a weight [inner, outer]; `tokens` per expert if batch > 1."""
    flop = 2.0 * tokens * inner * outer * batch
    kind = KernelKind.GEMM if batch == 1 else KernelKind.GROUPED
    moved = 2.0 * batch * (tokens * (inner + outer) + inner * outer)
    return [
        Kernel(name, Pass.F, kind, module, flop, moved, tokens, outer, inner, batch),
        Kernel(name, Pass.I, kind, module, flop, moved, tokens, inner, outer, batch),
        Kernel(
            name, Pass.W, kind, module, flop, moved + 4.0 * batch * inner * outer, inner, outer, tokens, batch
        ),
    ]


def _memory(name: str, module: str, forward: float, backward: float, launches: float = 1.0) -> list[Kernel]:
    """A kernel bound by memory: bytes of forward and of backward."""
    return [
        Kernel(name, Pass.F, KernelKind.MEMORY, module, 0.0, forward, launches=launches),
        Kernel(name, Pass.I, KernelKind.MEMORY, module, 0.0, backward, launches=launches),
    ]


@lru_cache(maxsize=4096)
def layer_work(
    model: ModelConfig,
    kind: LayerKind,
    split: Split,
    batch: Batch,
    precision: Precision,
    software: Software,
) -> LayerWork:
    """Kernels and exchanges of one layer for one microbatch on one rank."""
    kernels: list[Kernel] = []
    exchanges: list[Exchange] = []
    tp, act = split.tp, precision.act_bytes
    tokens = batch.microbatch * -(-batch.seq // split.cp)
    outside = -(-tokens // tp) if split.sequence_parallel else tokens
    stream = float(outside * model.hidden * act)
    if kind.mixer in (Mixer.FULL, Mixer.WINDOW):
        q, kv = -(-model.attention_width // tp), -(-model.kv_width // tp)
        kernels += _memory("norm1", "layernorm", 2 * stream, 4 * stream)
        kernels += _products("qkv", "attn", tokens, model.hidden, q + 2 * kv)
        kernels += _attention(model, kind, split, batch, precision, software)
        kernels += _products("projection", "attn", tokens, q, model.hidden)
        kernels += _memory("residual1", "residual", 3 * stream, 2 * stream)
        exchanges += _tensor_exchanges(model, split, tokens, act, "attn")
        exchanges += [
            Exchange("context", step, "cp", collective, size, "core_attn")
            for step, collective, size in context_exchanges(
                split.cp_exchange, split.cp, float(tokens * q * act), float(2 * tokens * kv * act)
            )
        ]
    if kind.mlp is Mlp.DENSE:
        inner = -(-model.ffn // tp)
        gates = 2 if model.has_gate else 1
        kernels += _memory("norm2", "layernorm", 2 * stream, 4 * stream)
        kernels += _products("up", "mlp", tokens, model.hidden, gates * inner)
        wide = float(tokens * inner * act)
        kernels += _memory("activation", "mlp_act", (gates + 1) * wide, (2 * gates + 1) * wide)
        kernels += _products("down", "mlp", tokens, inner, model.hidden)
        kernels += _memory("residual2", "residual", 3 * stream, 2 * stream)
        exchanges += _tensor_exchanges(model, split, tokens, act, "mlp")
    if kind.mlp is Mlp.EXPERTS:
        kernels += _expert_kernels(model, split, outside, act)
        exchanges += _expert_exchanges(model, split, outside, act)
    if not software.fused_attention:
        kernels = _unfused(kernels, stream, batch, precision, software)
    return LayerWork(tuple(kernels), tuple(exchanges))


def _unfused(
    kernels: list[Kernel], stream: float, batch: Batch, precision: Precision, software: Software
) -> list[Kernel]:
    """Small kernels and launches of Megatron before its fused ones (`exactmap.sim.workload.unfused`)."""
    out = []
    for kernel in kernels:
        step = 0 if kernel.step is Pass.F else 1
        if kernel.name.startswith("norm"):
            size, count = NORM_BYTES[step] * stream, LAUNCHES["norm"][step]
            out.append(kernel._replace(num_bytes=size, launches=count))
        elif kernel.name.startswith("residual"):
            size, count = RESIDUAL_BYTES[step] * stream, LAUNCHES["residual"][step]
            out.append(kernel._replace(num_bytes=size, launches=count))
        elif kernel.name == "activation":
            size = ACTIVATION_BYTES[step] / (2, 3)[step] * kernel.num_bytes
            out.append(kernel._replace(num_bytes=size, launches=LAUNCHES["activation"][step]))
        elif kernel.kind is KernelKind.GEMM and kernel.name != "scores":
            count = LAUNCHES["products"][(Pass.F, Pass.I, Pass.W).index(kernel.step)]
            out.append(kernel._replace(launches=count))
            if kernel.step is Pass.W:
                each = accumulate_bytes(software.family, software.release, precision.grad_bytes)
                # The first microbatch's gradient is the buffer.
                added = 1.0 - 1.0 / batch.num_microbatches
                size = each * kernel.m * kernel.n * added
                out.append(Kernel("accumulate", Pass.W, KernelKind.MEMORY, kernel.module, 0.0, size, launches=2))
        else:
            out.append(kernel)
    return out


def _attention(
    model: ModelConfig, kind: LayerKind, split: Split, batch: Batch, precision: Precision, software: Software
) -> list[Kernel]:
    heads = -(-model.heads // split.tp)
    span = model.window if kind.mixer is Mixer.WINDOW and model.window < batch.seq else batch.seq
    pairs = batch.seq * span - span * span / 2
    flop = 4.0 * pairs * heads * model.head_dim * batch.microbatch / split.cp
    moved = 4.0 * batch.microbatch * batch.seq / split.cp * heads * model.head_dim * precision.act_bytes
    shape = (batch.seq, batch.microbatch * heads, model.head_dim)
    if software.fused_attention:
        return [
            Kernel("attention", Pass.F, KernelKind.ATTENTION, "core_attn", flop, moved, *shape, wide=True),
            Kernel(
                "attention",
                Pass.I,
                KernelKind.ATTENTION,
                "core_attn",
                2.5 * flop,
                2 * moved,
                *shape,
                wide=True,
            ),
        ]
    # Products over the whole square and a softmax with dropout between them.
    square = 2.0 * batch.microbatch * heads * batch.seq**2 * model.head_dim
    scores = 2.0 * batch.microbatch * heads * batch.seq**2
    fused = has_fused_softmax(batch.microbatch * heads, batch.seq)
    moves, launches = softmax_traffic(fused=fused)
    return [
        Kernel(
            "scores",
            Pass.F,
            KernelKind.GEMM,
            "core_attn",
            2 * square,
            2 * scores,
            2 * batch.microbatch * heads * batch.seq,
            batch.seq,
            model.head_dim,
            1,
            2,
            wide=True,
        ),
        *(
            kernel._replace(launches=count)
            for kernel, count in zip(
                _memory("softmax", "core_attn", moves[0] * scores, moves[1] * scores), launches, strict=True
            )
        ),
        Kernel(
            "scores",
            Pass.I,
            KernelKind.GEMM,
            "core_attn",
            4 * square,
            4 * scores,
            4 * batch.microbatch * heads * batch.seq,
            batch.seq,
            model.head_dim,
            1,
            4,
            wide=True,
        ),
    ]


def _tensor_exchanges(model: ModelConfig, split: Split, tokens: int, act: int, module: str) -> list[Exchange]:
    if split.tp == 1:
        return []
    size = float(tokens * model.hidden * act)
    if not split.sequence_parallel:
        return [Exchange("sum", step, "tp", "all_reduce", size, module) for step in (Pass.F, Pass.I)]
    out = [Exchange("gather", step, "tp", "all_gather", size, module) for step in Pass]
    return out + [
        Exchange("scatter", step, "tp", "reduce_scatter", size, module) for step in (Pass.F, Pass.I)
    ]


def _expert_kernels(model: ModelConfig, split: Split, outside: int, act: int) -> list[Kernel]:
    experts = model.experts
    assert experts is not None
    local = max(1, experts.num_experts // split.ep)
    gates = 2 if model.has_gate else 1
    spread = split.tp if split.sequence_parallel else 1
    # Tokens of all ranks of the expert group meet at the experts that this rank holds.
    visits = outside * experts.top_k * (spread if split.etp > 1 else 1)
    each = max(1, visits // local)
    inner = -(-experts.ffn // split.etp)
    stream = float(outside * model.hidden * act)
    routed = float(visits * model.hidden * act)
    wide = float(visits * inner * act)
    out = _memory("norm2", "layernorm", 2 * stream, 4 * stream)
    out += _products("router", "moe_router", outside, model.hidden, experts.num_experts)
    out += _memory("permute", "moe", 4 * routed, 4 * routed, 8)
    out += _products("expert_up", "moe", each, model.hidden, gates * inner, local)
    out += _memory("expert_activation", "moe_act", (gates + 1) * wide, (2 * gates + 1) * wide)
    out += _products("expert_down", "moe", each, inner, model.hidden, local)
    if experts.shared_ffn:
        shared = -(-experts.shared_ffn // split.tp)
        tokens = outside * spread
        out += _products("shared_up", "shared_experts", tokens, model.hidden, gates * shared)
        out += _products("shared_down", "shared_experts", tokens, shared, model.hidden)
    return out + _memory("residual2", "residual", 3 * stream, 2 * stream)


def _expert_exchanges(model: ModelConfig, split: Split, outside: int, act: int) -> list[Exchange]:
    experts = model.experts
    assert experts is not None
    if split.ep == 1:
        return []
    size = float(outside * experts.top_k * model.hidden * act)
    return [
        Exchange(name, step, "ep", "all_to_all", size, "moe")
        for name in ("dispatch", "combine")
        for step in (Pass.F, Pass.I)
    ]


@lru_cache(maxsize=1024)
def head_work(
    model: ModelConfig, split: Split, batch: Batch, precision: Precision, software: Software
) -> LayerWork:
    """Kernels and exchanges of the final norm, the head and the loss."""
    tokens = batch.microbatch * -(-batch.seq // split.cp)
    vocab = -(-model.vocab // split.tp)
    logits = float(tokens * vocab)
    kernels = [
        kernel._replace(wide=True) for kernel in _products("head", "head", tokens, model.hidden, vocab)
    ]
    if software.fused_attention:
        kernels += _memory("loss", "head", 10 * logits, 6 * logits, 6)
    else:
        loss = _memory("loss", "head", LOSS_BYTES[0] * logits, LOSS_BYTES[1] * logits)
        kernels += [
            kernel._replace(launches=count) for kernel, count in zip(loss, LAUNCHES["loss"], strict=True)
        ]
    return LayerWork(
        tuple(kernels), tuple(_tensor_exchanges(model, split, tokens, precision.act_bytes, "head"))
    )
