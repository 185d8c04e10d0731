"""Work of low-rank adapters (LoRA, arXiv:2106.09685) beside frozen products.

A frozen weight has no gradient; its input gradient stays. Beside it two narrow products, whose time is what
they read and write, and the sum of both outputs.
"""

from __future__ import annotations

from exactmap.sim.workload.kernel import Kernel, KernelKind
from exactmap.sim.workload.operators import Pass

__all__ = ["with_adapters"]

_ADAPTED = frozenset({"qkv", "projection", "up", "down"})
"""NeMo and Megatron-Bridge adapt all linear layers of attention and MLP."""


def with_adapters(kernels: list[Kernel], rank: int, act: int) -> list[Kernel]:
    """Kernels of a layer whose products are frozen, with adapters of a rank beside them.

    Parameters
    ----------
    kernels
        The layer as it is trained whole.
    rank, act
        Inner width of the adapters; bytes of an activation.
    """
    products = (KernelKind.GEMM, KernelKind.GROUPED)
    out = [kernel for kernel in kernels if kernel.step is not Pass.W or kernel.kind not in products]
    for kernel in kernels:
        if kernel.name not in _ADAPTED or kernel.step is not Pass.F:
            continue
        tokens, outer, inner = float(kernel.m), float(kernel.n), float(kernel.k)
        # Forward reads the input, writes the narrow product's output and adds it; backward the same twice
        # over.
        forward = act * tokens * (inner + 2 * rank + 3 * outer)
        backward = act * tokens * (2 * inner + 4 * rank + 2 * outer) + act * tokens * 2 * inner
        out += [
            Kernel("adapter", Pass.F, KernelKind.MEMORY, kernel.module, 0.0, forward, launches=3),
            Kernel("adapter", Pass.I, KernelKind.MEMORY, kernel.module, 0.0, backward, launches=5),
            Kernel("adapter", Pass.W, KernelKind.GEMM, kernel.module, m=kernel.k, n=rank, k=1, wide=True),
            Kernel("adapter", Pass.W, KernelKind.GEMM, kernel.module, m=rank, n=kernel.n, k=1, wide=True),
        ]
    return out
