"""Work of attention: grouped-query and latent, fused and unfused, windows, context parallel."""

from __future__ import annotations

from exactmap.sim.workload.context_exchanges import context_exchanges
from exactmap.sim.workload.kernel import Exchange, Kernel, KernelKind, is_eager, memory, products
from exactmap.sim.workload.model import LayerKind, Mixer, ModelConfig, ModelKind
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Precision, Software, Split
from exactmap.sim.workload.unfused import has_fused_softmax, softmax_traffic

__all__ = ["attention_exchanges", "attention_kernels"]


_MASKED_SOFTMAX = ((2.0, 3.0), (1.0, 1.0))
"""Bytes per byte of scores and launches of a softmax in one kernel, forward and backward."""


def attention_kernels(
    model: ModelConfig,
    kind: LayerKind,
    split: Split,
    batch: Batch,
    precision: Precision,
    software: Software,
) -> list[Kernel]:
    """Projections, positions and attention of one layer on one rank; norm and residual are the layer's."""
    tokens, act = batch.microbatch * -(-batch.seq // split.cp), precision.act_bytes
    heads = -(-model.heads // split.tp)
    if model.latent is not None:
        latent = model.latent
        qk, v = latent.nope_dim + latent.rope_dim, latent.v_dim
        out = products("kv_down", "attn", tokens, model.hidden, latent.kv_rank + latent.rope_dim)
        if latent.q_rank:
            out += products("q_down", "attn", tokens, model.hidden, latent.q_rank)
        out += memory(
            "latent_norms",
            "layernorm",
            2.0 * tokens * (latent.q_rank + latent.kv_rank) * act,
            4.0 * tokens * (latent.q_rank + latent.kv_rank) * act,
            2,
        )
        out += products("q_up", "mla_up_proj", tokens, latent.q_rank or model.hidden, heads * qk)
        out += products("kv_up", "mla_up_proj", tokens, latent.kv_rank, heads * (latent.nope_dim + v))
        if software.family == "megatron-bridge":
            # In place for queries, and one kernel that takes keys and values apart and turned keys in
            # (Megatron-Core, fusions/fused_mla_yarn_rope_apply.py).
            turned = float(tokens * heads * (2 * latent.rope_dim + latent.nope_dim + v + qk + v) * act)
            out += memory("rotary", "mla_up_proj", turned, turned, 2)
        else:
            # Positions turn a part of each head; the pieces are then put together: keys, values and queries
            # are copied.
            turned = float(tokens * heads * (2 * qk + v) * act)
            out += memory("rotary", "mla_up_proj", 2 * turned, 2 * turned, 4)
    else:
        qk = v = model.head_dim
        kv_heads = -(-model.kv_heads // split.tp)
        out = products("qkv", "attn", tokens, model.hidden, (heads + 2 * kv_heads) * model.head_dim)
        if model.kind is ModelKind.LLAMA:
            turned = float(tokens * (heads + kv_heads) * model.head_dim * act)
            eager = is_eager(software)
            # Eager PyTorch turns complex numbers of 32 bits, and casts to and fro.
            out += memory(
                "rotary",
                "attn",
                (8 if eager else 2) * turned,
                (8 if eager else 2) * turned,
                8 if eager else 2,
            )
    span = model.window if kind.mixer is Mixer.WINDOW and model.window < batch.seq else batch.seq
    out += _core(span, heads, qk, v, split, batch, precision, software)
    return out + products("projection", "attn", tokens, heads * v, model.hidden)


def _core(
    span: int,
    heads: int,
    qk: int,
    v: int,
    split: Split,
    batch: Batch,
    precision: Precision,
    software: Software,
) -> list[Kernel]:
    rows = batch.microbatch * heads
    if software.fused_attention and not software.stored_scores:
        # Samples packed into a sequence are triangles along its diagonal.
        packed = software.packed_tokens and software.packed_tokens < span
        pairs = batch.seq * software.packed_tokens / 2 if packed else batch.seq * span - span * span / 2
        flop = 2.0 * pairs * rows * (qk + v) / split.cp
        moved = 2.0 * batch.seq / split.cp * rows * (qk + v) * precision.act_bytes
        shape = (batch.seq, rows, qk)
        kind = KernelKind.ATTENTION
        return [
            Kernel("attention", Pass.F, kind, "core_attn", flop, moved, *shape, launches=2, wide=True),
            Kernel(
                "attention", Pass.I, kind, "core_attn", 2.5 * flop, 2 * moved, *shape, launches=4, wide=True
            ),
        ]
    # Two products over the whole square, and a masked softmax with dropout between them.
    square = rows * batch.seq**2 * float(qk + v)
    scores = 2.0 * rows * batch.seq**2
    product = KernelKind.GEMM
    if software.stored_scores:
        # Transformer Engine's masked softmax takes as many keys as there are here; there is no dropout.
        moves, launches = _MASKED_SOFTMAX
    else:
        moves, launches = softmax_traffic(fused=has_fused_softmax(rows, batch.seq))
    softmax = memory("softmax", "core_attn", moves[0] * scores, moves[1] * scores)
    return [
        Kernel(
            "scores",
            Pass.F,
            product,
            "core_attn",
            2 * square,
            2 * scores,
            2 * rows * batch.seq,
            batch.seq,
            qk,
            launches=2,
            wide=True,
        ),
        *(kernel._replace(launches=count) for kernel, count in zip(softmax, launches, strict=True)),
        Kernel(
            "scores",
            Pass.I,
            product,
            "core_attn",
            4 * square,
            4 * scores,
            4 * rows * batch.seq,
            batch.seq,
            qk,
            launches=4,
            wide=True,
        ),
    ]


def attention_exchanges(model: ModelConfig, split: Split, batch: Batch, act: int) -> list[Exchange]:
    """Exchanges of context parallelism; latent attention passes its keys and values at full width."""
    tokens = batch.microbatch * -(-batch.seq // split.cp)
    heads = -(-model.heads // split.tp)
    if model.latent is not None:
        width = model.latent.nope_dim + model.latent.rope_dim + model.latent.v_dim
        query, keys = heads * model.latent.v_dim, heads * width
    else:
        query, keys = heads * model.head_dim, 2 * -(-model.kv_heads // split.tp) * model.head_dim
    sizes = (float(tokens * query * act), float(tokens * keys * act))
    return [
        Exchange("context", step, "cp", collective, size, "core_attn")
        for step, collective, size in context_exchanges(split.cp_exchange, split.cp, *sizes)
    ]
