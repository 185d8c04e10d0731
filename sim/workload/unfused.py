"""What Megatron of 2021 to 2023 runs where later releases have fused kernels: attention, loss, small kernels.

Scores are stored. Two batched products and between them a softmax in one kernel (scaled, masked) and a
dropout; the softmax kernel takes only multiples of four matrices (batch x heads on a rank) and 16 to 2,048
keys, everything else goes through PyTorch's softmax in 32 bits, six kernels instead of one
(Megatron-LM, megatron/model/fused_softmax.py). Cross entropy over a split vocabulary works on logits in 32
bits: widen, maximum, subtract, exponential, sum, divide; backward multiplies and narrows
(megatron/core/tensor_parallel/cross_entropy.py).

Launches here are counted from those modules; bytes are per element of the buffer named.
"""

from __future__ import annotations

from exactmap.sim.workload.kernel import Kernel, KernelKind
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Batch, Precision, Software

__all__ = [
    "ACTIVATION_BYTES",
    "LAUNCHES",
    "LOSS_BYTES",
    "NORM_BYTES",
    "RESIDUAL_BYTES",
    "accumulate_bytes",
    "has_fused_softmax",
    "softmax_traffic",
    "unfused_kernels",
]

NORM_BYTES = (2.0, 6.0)
"""Streams that a layer norm moves, forward and backward: backward adds the residual's gradient apart."""
RESIDUAL_BYTES = (3.5, 3.5)
"""Bias, dropout and addition in one kernel with a byte-wide mask; backward sums the bias's gradient apart."""
ACTIVATION_BYTES = (2.0, 4.0)
"""GELU with its bias."""
LOSS_BYTES = (42.0, 18.0)
"""Bytes per logit of forward and backward: seven passes over 32 bits, then three."""

LAUNCHES = {
    "norm": (1.0, 2.0),
    "residual": (1.0, 3.0),
    "activation": (1.0, 2.0),
    "products": (1.5, 1.0, 2.0),
    "loss": (14.0, 6.0),
}
"""Kernels of forward and backward; of products: forward (with a bias apart for one in two), input, weight."""


def has_fused_softmax(matrices: int, keys: int) -> bool:
    """Whether the fused softmax takes so many score matrices on a rank.

    Examples
    --------
    >>> has_fused_softmax(16, 1024), has_fused_softmax(2, 1024)
    (True, False)
    """
    return matrices % 4 == 0 and 16 < keys <= 2048 and keys % 4 == 0


def softmax_traffic(*, fused: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Bytes per byte of scores, and launches, of softmax and dropout: forward and backward."""
    if fused:
        return (4.0, 4.5), (2.0, 2.0)
    return (4.0 + 16.5, 4.5 + 12.0), (8.0, 8.0)


def accumulate_bytes(family: str, release: str, grad_bytes: float) -> float:
    """Bytes per weight that adding a microbatch's gradient moves in a kernel of its own.

    Where gradients are accumulated in 32 bits since 2022, the weight gradient's product adds them itself.
    """
    if family == "megatron" and not release.startswith("2021"):
        return 0.0
    return 2.0 + 2.0 * grad_bytes


def unfused_kernels(
    kernels: list[Kernel], stream: float, batch: Batch, precision: Precision, software: Software
) -> list[Kernel]:
    """Return the kernels of a layer with the bytes and launches that they have without fusion.

    Parameters
    ----------
    kernels
        The layer's.
    stream
        Bytes of the residual stream on this rank.
    batch, precision, software
        How it is trained: gradients of later microbatches are added to the first one's.
    """
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
                out.append(
                    Kernel("accumulate", Pass.W, KernelKind.MEMORY, kernel.module, 0.0, size, launches=2)
                )
        else:
            out.append(kernel)
    return out
