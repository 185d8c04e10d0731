"""Time of collectives inside a domain by physics: latency, protocol, rate; a few constants per GPU type.

Ring, n members, buffer S, chunk c = S/n, as many steps as it takes ((n-1), all-reduce 2(n-1)) ::

    T = base + steps x step(c) + c / copy                      copy: a member's own share
    step(c) = min(h_LL + c/r_LL, h_LL128 + c/r_LL128)          up to about c* steps/(steps + 1)
              (h_S^p + (c/r_S)^p)^(1/p)                        beyond: the Simple protocol

The library's tuner weighs a protocol's latency per step and once against its rate, so its threshold grows
with the steps and settles. One law serves all-reduce, all-gather and reduce-scatter of a type, at any n.

Pairs (all-to-all), m = S/n to each of n-1 others at once, l = log2 n ::

    T = min(base + h l + max(m / r_LL, (n-1) m / r), ((simple + h l)^p + ((n-1) m / r + m / copy)^p)^(1/p))

In-switch reduction (NVLS): the GPUs' copies bound it, whatever n is; its pipeline fills with `stages` loops
of (channels x members x chunk) bytes. The chunk is NCCL's: 128 KiB, and 64, 32, 16 KiB below 64, 8, 2
loops.

Broadcast: a chain of n-1 hops, pipelined in pieces.

No step of the Simple protocol is faster than the link: its law was fitted up to 512 MiB and has no limit
of its own.

Sources: NCCL's tuner and enqueue.cc (github.com/NVIDIA/nccl) for the form; the constants are fitted.
"""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.topology.collectives.operations import Collective, num_passes

if TYPE_CHECKING:
    from exactmap.topology.collectives.constants import LinkConstants

__all__ = [
    "PIECES",
    "broadcast_ns",
    "inside_ns",
    "num_steps",
    "nvls_fill_bytes",
    "nvls_ns",
    "pair_ns",
    "ring_ns",
    "simple_step_ns",
    "step_ns",
    "switched",
]

Floats = NDArray[np.float64]

_CHUNK_BYTES = 128 * 1024
_SWITCH_DOUBLINGS = 1.5
"""Spread of the change of protocol: so far apart are those of the measured curves by one law."""
PIECES = (1, 8, 64, 512, 4096, 32768)
"""Parts of a buffer that a chain may pass on one by one: a long chain needs many."""


def num_steps(op: Collective, num_ranks: int) -> int:
    """Steps of a ring."""
    return num_passes(op) * (num_ranks - 1)


def step_ns(k: LinkConstants, chunk: Floats, steps: int) -> Floats:
    """Time of one step of a ring that takes a number of them."""
    low = np.minimum(
        k.ll_step_ns + chunk * (1e9 / k.ll_bytes_per_s),
        k.ll128_step_ns + chunk * (1e9 / k.ll128_bytes_per_s),
    )
    return switched(k, chunk, steps, low, simple_step_ns(k, chunk))


def simple_step_ns(k: LinkConstants, chunk: Floats) -> Floats:
    """Time of one step of a ring in the Simple protocol."""
    moving = chunk * (1e9 / k.simple_bytes_per_s)
    step = (k.simple_step_ns**k.sharpness + moving**k.sharpness) ** (1.0 / k.sharpness)
    least: Floats = np.maximum(step, chunk * (1e9 / k.link_bytes_per_s))
    return least


def switched(k: LinkConstants, chunk: Floats, steps: int, low: Floats, simple: Floats) -> Floats:
    """Change from the times of the low protocols to those of Simple, about the threshold.

    Where a library changes is known to a doubling or so; a jump at the wrong place would err by all of it.
    """
    if isinf(k.switch_bytes):
        return low
    doublings = np.log2(chunk / (k.switch_bytes * steps / (steps + 1)))
    share: Floats = np.clip(0.5 + doublings / _SWITCH_DOUBLINGS, 0.0, 1.0)
    mixed: Floats = low ** (1.0 - share) * simple**share
    return mixed


def ring_ns(k: LinkConstants, op: Collective, num_ranks: int, sizes: Floats) -> Floats:
    """Time of a ring inside a domain."""
    steps, chunk = num_steps(op, num_ranks), sizes / num_ranks
    return k.base_ns + steps * step_ns(k, chunk, steps) + chunk * (1e9 / k.copy_bytes_per_s)


def pair_ns(k: LinkConstants, num_ranks: int, sizes: Floats) -> Floats:
    """Time of an all-to-all inside a domain."""
    message, further = sizes / num_ranks, k.pair_doubling_ns * np.log2(num_ranks)
    # Pairs move at once, so each has its own rate, but all leave a GPU over one link.
    leaving = (num_ranks - 1) * message * (1e9 / k.pair_bytes_per_s)
    low = k.pair_base_ns + further + np.maximum(message * (1e9 / k.pair_ll_bytes_per_s), leaving)
    moving = leaving + message * (1e9 / k.pair_copy_bytes_per_s)
    p = k.pair_sharpness
    simple: Floats = ((k.pair_simple_ns + further) ** p + moving**p) ** (1.0 / p)
    least: Floats = np.minimum(low, simple)
    return least


def nvls_fill_bytes(k: LinkConstants, num_members: int, sizes: Floats) -> Floats:
    """Bytes that pass until the pipeline of in-switch reduction is full."""
    width = k.nvls_channels * num_members
    chunk = np.full_like(sizes, _CHUNK_BYTES)
    for loops, smaller in ((64, 65536), (8, 32768), (2, 16384)):
        chunk = np.where((sizes < loops * width * chunk) & (chunk > smaller), smaller, chunk)
    return k.nvls_stages * np.minimum(width * chunk, sizes)


def nvls_ns(k: LinkConstants, num_ranks: int, sizes: Floats) -> Floats:
    """Time of an all-reduce in the switches of a domain."""
    return k.nvls_base_ns + (sizes + nvls_fill_bytes(k, num_ranks, sizes)) * (1e9 / k.nvls_bytes_per_s)


def broadcast_ns(k: LinkConstants, num_ranks: int, sizes: Floats) -> Floats:
    """Time of a broadcast inside a domain: every hop passes a piece on while the next comes in."""
    hops = num_ranks - 1
    # A piece more costs a step, a piece less keeps the later hops idle: small buffers go whole.
    times: Floats = np.array([(hops + pieces - 1) * step_ns(k, sizes / pieces, hops) for pieces in PIECES])
    least: Floats = k.base_ns + times.min(axis=0)
    return least


def inside_ns(k: LinkConstants, op: Collective, num_ranks: int, sizes: Floats) -> Floats:
    """Time of a collective inside a domain without in-switch reduction."""
    if op is Collective.ALL_TO_ALL:
        return pair_ns(k, num_ranks, sizes)
    if op is Collective.POINT_TO_POINT:
        # Half of an all-to-all of two, in which each sends half of the buffer.
        return pair_ns(k, 2, 2 * sizes)
    if op is Collective.BROADCAST:
        return broadcast_ns(k, num_ranks, sizes)
    return ring_ns(k, op, num_ranks, sizes)
