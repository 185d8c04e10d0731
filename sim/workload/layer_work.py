"""Work of one layer on one rank: kernels and exchanges of its passes, as training frameworks run them.

What lies between products is fused as the framework does it: Megatron and compilers fuse, eager PyTorch runs
a kernel for each step and keeps norms in 32 bits. Products narrower than 16 bits first cast what they read:
the input and the incoming gradient once each, written also transposed for the weight gradient, the weight
once a pass.
"""

from __future__ import annotations

from functools import lru_cache

from exactmap.sim.workload.adapter_work import with_adapters
from exactmap.sim.workload.attention_work import attention_exchanges, attention_kernels
from exactmap.sim.workload.expert_work import expert_exchanges, expert_kernels
from exactmap.sim.workload.kernel import (
    Exchange,
    Kernel,
    KernelKind,
    LayerWork,
    is_eager,
    memory,
    products,
)
from exactmap.sim.workload.model import LayerKind, Mixer, Mlp, ModelConfig
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.state_space_work import state_space_kernels
from exactmap.sim.workload.training import Batch, Precision, Software, Split
from exactmap.sim.workload.unfused import LAUNCHES, LOSS_BYTES, unfused_kernels

__all__ = ["Exchange", "Kernel", "KernelKind", "LayerWork", "head_work", "layer_work", "prediction_work"]


_BEHIND_NORM = frozenset({"qkv", "up", "q_down", "kv_down", "ssm_in"})
"""Products whose input a norm gives."""
_KEPT_WIDE = frozenset({"attn", "mamba"})


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
    act = precision.act_bytes
    tokens = batch.microbatch * -(-batch.seq // split.cp)
    outside = -(-tokens // split.tp) if split.sequence_parallel else tokens
    stream = float(outside * model.hidden * act)
    norm = 3 if is_eager(software) else 1
    if kind.mixer is not Mixer.NONE:
        kernels += memory("norm1", "layernorm", 2 * norm * stream, 4 * norm * stream, norm)
        if kind.mixer is Mixer.STATE_SPACE:
            kernels += state_space_kernels(model, split, tokens, act)
        else:
            kernels += attention_kernels(model, kind, split, batch, precision, software)
            exchanges += attention_exchanges(model, split, batch, act)
        kernels += memory("residual1", "residual", 3 * stream, 2 * stream)
        exchanges += _tensor_exchanges(model, split, tokens, act, "attn")
    if kind.mlp is not Mlp.NONE:
        kernels += memory("norm2", "layernorm", 2 * norm * stream, 4 * norm * stream, norm)
        if kind.mlp is Mlp.DENSE:
            kernels += _dense_kernels(model, split, tokens, act, software)
            exchanges += _tensor_exchanges(model, split, tokens, act, "mlp")
        else:
            kernels += expert_kernels(model, split, outside, precision, software)
            exchanges += expert_exchanges(model, split, outside, act, software)
        kernels += memory("residual2", "residual", 3 * stream, 2 * stream)
    if not software.fused_attention:
        kernels = unfused_kernels(kernels, stream, batch, precision, software)
    if precision.compute == "fp4" and model.state_space is not None:
        # Nemotron's recipes keep mixers and latent projections in 16 bits beside FP4 experts.
        kernels = [
            kernel._replace(wide=True) if kernel.module in _KEPT_WIDE or "latent" in kernel.name else kernel
            for kernel in kernels
        ]
    if software.adapter_rank:
        kernels = with_adapters(kernels, software.adapter_rank, act)
        exchanges = [exchange for exchange in exchanges if exchange.step is not Pass.W]
    if precision.narrow:
        kernels += _casts(kernels, precision, batch, software)
    return LayerWork(tuple(kernels), tuple(exchanges))


def _dense_kernels(
    model: ModelConfig, split: Split, tokens: int, act: int, software: Software
) -> list[Kernel]:
    inner = -(-model.ffn // split.tp)
    gates = 2 if model.has_gate else 1
    wide = float(tokens * inner * act)
    # Eager: the activation and the product with the gate are kernels of their own.
    extra = 2 if is_eager(software) and gates == 2 else 0
    return [
        *products("up", "mlp", tokens, model.hidden, gates * inner),
        *memory(
            "activation", "mlp_act", (gates + 1 + extra) * wide, (2 * gates + 1 + 2 * extra) * wide, 1 + extra
        ),
        *products("down", "mlp", tokens, inner, model.hidden),
    ]


def _casts(kernels: list[Kernel], precision: Precision, batch: Batch, software: Software) -> list[Kernel]:
    """Casts before narrow products: read in 16 bits, written narrow, as it is and transposed.

    Transformer Engine's norms give what the product behind them reads narrow already, and it keeps the narrow
    weights for all microbatches of a step; PyTorch casts both at every use.
    """
    narrow = 0.5 if precision.compute == "fp4" else 1.0
    engine = not is_eager(software) and software.family != "torchtitan"
    uses = batch.num_microbatches if engine else 1
    # One kernel for an expert's products and what lies between gives both narrow itself.
    fused = "fused_grouped_mlp" in software.flags
    out: list[Kernel] = []
    for kernel in kernels:
        if kernel.wide or kernel.kind not in (KernelKind.GEMM, KernelKind.GROUPED) or kernel.step is Pass.W:
            continue
        # F casts the input [m, k], I the gradient [m, k of the transposed product].
        moved = float(kernel.m * kernel.k * kernel.batch) * (2 + 2 * narrow)
        if kernel.step is Pass.F:
            if (engine and kernel.name in _BEHIND_NORM) or (fused and kernel.name == "expert_down"):
                moved = 0.0
            moved += kernel.n * kernel.k * kernel.batch * (2 + 2 * narrow) / uses
        elif fused and kernel.name == "expert_up":
            continue
        launches = 2.0 if kernel.kind is KernelKind.GEMM else 4.0
        out.append(
            Kernel("casts", kernel.step, KernelKind.MEMORY, kernel.module, 0.0, moved, launches=launches)
        )
    return out


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


@lru_cache(maxsize=1024)
def prediction_work(
    model: ModelConfig, split: Split, batch: Batch, precision: Precision, software: Software
) -> tuple[LayerWork, ...]:
    """Work of one further prediction: two norms and a projection of both inputs, then its layers.

    The trunk's output and the embedding of the next token are normalised, put side by side and projected
    (DeepSeek-V3, arXiv:2412.19437, section 2.2; Megatron-Core, transformer/multi_token_prediction.py); layers
    and the head follow.
    """
    act = precision.act_bytes
    tokens = batch.microbatch * -(-batch.seq // split.cp)
    outside = -(-tokens // split.tp) if split.sequence_parallel else tokens
    stream = float(outside * model.hidden * act)
    norm = 3 if is_eager(software) else 1
    kernels = memory("prediction_norms", "layernorm", 4 * norm * stream, 8 * norm * stream, 2 * norm)
    kernels += products("prediction", "mlp", tokens, 2 * model.hidden, -(-model.hidden // split.tp))
    if software.adapter_rank:
        kernels = with_adapters(kernels, software.adapter_rank, act)
    if precision.narrow:
        kernels += _casts(kernels, precision, batch, software)
    exchanges = _tensor_exchanges(model, split, tokens, act, "mlp")
    if software.adapter_rank:
        exchanges = [exchange for exchange in exchanges if exchange.step is not Pass.W]
    works = [LayerWork(tuple(kernels), tuple(exchanges))]
    works += [layer_work(model, kind, split, batch, precision, software) for kind in model.mtp_kinds()]
    return tuple(_kept_wide(work) for work in works) if model.mtp_repeated else tuple(works)


def _kept_wide(work: LayerWork) -> LayerWork:
    """Return the same work in 16 bits."""
    kernels = (kernel._replace(wide=True) for kernel in work.kernels if kernel.name != "casts")
    return work._replace(kernels=tuple(kernels))


@lru_cache(maxsize=1024)
def head_work(
    model: ModelConfig, split: Split, batch: Batch, precision: Precision, software: Software
) -> LayerWork:
    """Kernels and exchanges of the final norm, the head and the loss, which is computed in 32 bits."""
    tokens = batch.microbatch * -(-batch.seq // split.cp)
    vocab = model.padded_vocab(split.tp) // split.tp
    logits = float(tokens * vocab)
    kernels = products("head", "head", tokens, model.hidden, vocab, wide=True)
    passes: tuple[float, float] = (18, 12) if is_eager(software) else (10, 6)
    launches = (6.0, 6.0)
    if not software.fused_attention:
        passes, (forward, backward, *_) = LOSS_BYTES, LAUNCHES["loss"]
        launches = (forward, backward)
    kernels += [
        kernel._replace(launches=count)
        for kernel, count in zip(
            memory("loss", "head", passes[0] * logits, passes[1] * logits), launches, strict=True
        )
    ]
    exchanges = _tensor_exchanges(model, split, tokens, precision.act_bytes, "head")
    if software.adapter_rank:
        kernels = with_adapters(kernels, software.adapter_rank, precision.act_bytes)
        exchanges = [exchange for exchange in exchanges if exchange.step is not Pass.W]
    return LayerWork(tuple(kernels), tuple(exchanges))
