"""Work of a mixture of experts: router, permutation, grouped products, shared experts, exchanges."""

from __future__ import annotations

from exactmap.sim.workload.kernel import Exchange, Kernel, KernelKind, memory, products
from exactmap.sim.workload.model import ModelConfig
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Precision, Software, Split

__all__ = ["NATURAL_IMBALANCE", "expert_exchanges", "expert_kernels"]

NATURAL_IMBALANCE = 1.25
"""Work of the busiest rank over the even share where routing is natural. Qwen3-30B on 16 H100 takes 1.5 times
as long as with forced balance, Moonlight on the same hardly longer (Megatron-Bridge verification cards)."""
_LAUNCH_OF_AN_EXPERT = 0.4
"""Of a launch from Python: Transformer Engine's grouped products launch one kernel per expert from C++."""
_CLAMPED = (30.0, 60.0, 10)
"""Streams and kernels of a clamped gate: taken apart, two clamps, a sigmoid, three products and a sum one by
one, each reading and writing; twice that in backward."""
_CLAMPED_COMPILED = (6.0, 10.0, 3)
"""The same where clamps and gate are compiled (one kernel for both products of experts takes neither)."""
_APART = (10.0, 12.0)
"""Streams of sorting and putting back where they are PyTorch's own kernels, forward and backward: rows are
picked, weighted in 32 bits, and added to zeros one by one; backward picks, weights, sums and adds."""
_PADDING = {"": 1, "tensor": 16, "row": 16, "block": 128, "mx": 32, "nv": 32}
"""Multiple that an expert's tokens are padded to, by how products are scaled (Transformer Engine)."""


def _busiest(software: Software) -> float:
    return 1.0 if software.balanced or software.capacity_factor else NATURAL_IMBALANCE


def expert_kernels(
    model: ModelConfig, split: Split, outside: int, precision: Precision, software: Software
) -> list[Kernel]:
    """Kernels of one layer's MLP of experts on one rank.

    Parameters
    ----------
    model, split, precision, software
        What is trained, and how.
    outside
        Tokens of this rank between products (its slice, with sequence parallel).
    """
    experts = model.experts
    assert experts is not None, "a layer of experts without experts"
    act = precision.act_bytes
    local = max(1, experts.num_experts // split.ep)
    gates = 2 if model.has_gate else 1
    # Ranks that share an expert see each other's tokens; else each token visits `top_k` experts of the group.
    visits = round(outside * experts.top_k * split.etp * _busiest(software))
    pad = _PADDING[precision.scaling]
    each = max(1, -(-(visits // local) // pad) * pad)
    inner, width = -(-experts.ffn // split.etp), experts.latent or model.hidden
    routed, wide = float(visits * width * act), float(visits * inner * act)
    out = products("router", "moe_router", outside, model.hidden, experts.num_experts, wide=True)
    scores = 4.0 * outside * experts.num_experts
    out += memory("routing", "moe_router", 6 * scores, 4 * scores, 12)
    if experts.latent:
        out += products("latent_down", "moe", outside, model.hidden, experts.latent)
        out += products("latent_up", "moe", outside, experts.latent, model.hidden)
    # All-to-all sorts tokens by rank before and by expert after; DeepEP and HybridEP sort by expert only.
    sorts = 1 if software.dispatcher in ("deepep", "hybridep") or local == 1 else 2
    forward, backward = (4.0, 4.0) if software.fused_permute else _APART
    out += memory("permute", "moe", forward * sorts * routed, backward * sorts * routed, 3 + 3 * sorts)
    fused = "fused_grouped_mlp" in software.flags
    grouped = products("expert_up", "moe", each, width, gates * inner, local)
    if not fused or model.clamped:
        forward, backward, count = (gates + 1.0, 2.0 * gates + 1, 1)
        if model.clamped:
            forward, backward, count = _CLAMPED_COMPILED if fused else _CLAMPED
        grouped += memory("expert_activation", "moe_act", forward * wide, backward * wide, count)
    grouped += products("expert_down", "moe", each, inner, width, local)
    if model.clamped:
        # Such experts have biases: each is scaled by its token's weight, added, and the pieces put together.
        grouped += memory("expert_bias", "moe", 6 * routed, 4 * routed + 2 * gates * wide, 4)
    if not software.grouped_gemm:
        # A module for each expert: what they give is put together by copies.
        grouped = [
            kernel._replace(kind=KernelKind.GEMM) if kernel.kind is KernelKind.GROUPED else kernel
            for kernel in grouped
        ]
        grouped += memory("permute", "moe", 2 * routed, 2 * routed, 2)
    # Before fused kernels a grouped product is a loop in C++ over its experts, on a few streams.
    each_launch = 1.0 if fused else 1.0 + _LAUNCH_OF_AN_EXPERT * local
    out += [
        kernel._replace(launches=each_launch)
        if kernel.name.startswith(("expert_up", "expert_down"))
        else kernel
        for kernel in grouped
    ]
    if experts.shared_ffn:
        shared = -(-experts.shared_ffn // split.tp)
        tokens = outside * (split.tp if split.sequence_parallel else 1)
        wide = float(tokens * shared * act)
        out += products("shared_up", "shared_experts", tokens, model.hidden, gates * shared)
        out += memory("shared_activation", "shared_experts", (gates + 1) * wide, (2 * gates + 1) * wide)
        out += products("shared_down", "shared_experts", tokens, shared, model.hidden)
    return out


def expert_exchanges(
    model: ModelConfig, split: Split, outside: int, act: int, software: Software
) -> list[Exchange]:
    """Tokens to their experts and back, in forward and backward; the ranks of one expert gather and sum."""
    experts = model.experts
    assert experts is not None, "a layer of experts without experts"
    width = experts.latent or model.hidden
    size = float(outside * width * act) * _busiest(software)
    out: list[Exchange] = []
    if split.ep > 1:
        out += [
            Exchange(
                name,
                step,
                "ep",
                "experts",
                size,
                "moe",
                experts.top_k,
                experts.most_hosts,
                float(width * act),
            )
            for name in ("dispatch", "combine")
            for step in (Pass.F, Pass.I)
        ]
    if split.etp > 1:
        whole = size * experts.top_k * split.etp
        out += [
            Exchange(f"expert {collective}", step, "etp", collective, whole, "moe")
            for collective in ("all_gather", "reduce_scatter")
            for step in (Pass.F, Pass.I)
        ]
    return out
