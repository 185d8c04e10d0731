"""What a layer's work is made of: kernels with shapes, FLOPs and bytes, and exchanges; without any time."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Software

__all__ = ["Exchange", "Kernel", "KernelKind", "LayerWork", "is_eager", "memory", "products"]


class KernelKind(StrEnum):
    """What bounds a kernel, and which model prices it."""

    GEMM = "gemm"
    GROUPED = "grouped"
    """`batch` products of m x n x k in one launch, one per expert."""
    ATTENTION = "attention"
    """Fused attention: m = query tokens of a sequence, n = batch x query heads, k = head dim."""
    MEMORY = "memory"
    SCAN = "scan"


class Kernel(NamedTuple):
    """Work of one rank that one or several launches do.

    `module` is the part of the layer that recompute, offload and CUDA graphs name; `wide` kernels compute in
    16 bits where products are narrower (attention, router, head).
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
    """A collective inside a layer: `axis` is ``tp``, ``cp``, ``ep`` or ``etp``; `num_bytes` the full buffer.

    Collective ``ring`` passes blocks round beside attention; `num_bytes` is then one hop's. Collective
    ``experts`` sends each token to `copies` experts on at most `most_hosts` hosts (0: any); `num_bytes` is
    then one copy of a rank's tokens, and `row_bytes` that of one token.
    """

    name: str
    step: Pass
    axis: str
    collective: str
    num_bytes: float
    module: str
    copies: int = 1
    most_hosts: int = 0
    row_bytes: float = 0.0


class LayerWork(NamedTuple):
    """All of a layer."""

    kernels: tuple[Kernel, ...]
    exchanges: tuple[Exchange, ...]


def products(
    name: str, module: str, tokens: int, inner: int, outer: int, batch: int = 1, *, wide: bool = False
) -> list[Kernel]:
    """Forward, input and weight gradient of a weight [inner, outer]; `tokens` per expert if batch > 1.

    The weight's gradient is added to what earlier microbatches left: read and written in 32 bits.
    """
    flop = 2.0 * tokens * inner * outer * batch
    kind = KernelKind.GEMM if batch == 1 else KernelKind.GROUPED
    moved = 2.0 * batch * (tokens * (inner + outer) + inner * outer)
    kept = moved + 4.0 * batch * inner * outer
    return [
        Kernel(name, Pass.F, kind, module, flop, moved, tokens, outer, inner, batch, wide=wide),
        Kernel(name, Pass.I, kind, module, flop, moved, tokens, inner, outer, batch, wide=wide),
        Kernel(name, Pass.W, kind, module, flop, kept, inner, outer, tokens, batch, wide=wide),
    ]


def memory(name: str, module: str, forward: float, backward: float, launches: float = 1.0) -> list[Kernel]:
    """A kernel bound by memory: bytes of forward and of backward."""
    return [
        Kernel(name, Pass.F, KernelKind.MEMORY, module, 0.0, forward, launches=launches),
        Kernel(name, Pass.I, KernelKind.MEMORY, module, 0.0, backward, launches=launches),
    ]


def is_eager(software: Software) -> bool:
    """Whether what lies between products runs as PyTorch's own kernels, one by one."""
    return software.family in ("torchtitan", "composer", "deepspeed") and not software.compiled
