"""Work of a Mamba-2 layer (arXiv:2405.21060): projections, convolution, a scan in chunks, a norm."""

from __future__ import annotations

from exactmap.sim.workload.kernel import Kernel, KernelKind, memory, products
from exactmap.sim.workload.model import ModelConfig
from exactmap.sim.workload.operators import Pass
from exactmap.sim.workload.training import Split

__all__ = ["state_space_kernels"]

_CHUNK = 256
"""Tokens that the scan works on at once, as mamba_ssm's kernels do."""


def state_space_kernels(model: ModelConfig, split: Split, tokens: int, act: int) -> list[Kernel]:
    """Kernels of one mixer on one rank; heads and groups are divided by tp.

    A chunk of c tokens multiplies C and B over its square (state wide, each group), that square with the
    inputs (head_dim wide, each head), and builds and applies the state (state x head_dim, each head).
    """
    space = model.state_space
    assert space is not None, "a state-space layer without its sizes"
    heads, groups = -(-space.heads // split.tp), -(-space.groups // split.tp)
    inner, shared = heads * space.head_dim, 2 * groups * space.state
    out = products("ssm_in", "mamba", tokens, model.hidden, 2 * inner + shared + heads)
    wide = float(tokens * (inner + shared) * act)
    out += memory("ssm_convolution", "mamba", 2 * wide, 4 * wide)
    flop = tokens * (
        2.0 * _CHUNK / 2 * (groups * space.state + heads * space.head_dim)
        + 4.0 * heads * space.state * space.head_dim
    )
    states = tokens / _CHUNK * heads * space.head_dim * space.state * 4.0
    moved = 2.0 * tokens * (2 * inner + shared) * act + 4.0 * states
    scan = KernelKind.SCAN
    out += [
        Kernel("ssm_scan", Pass.F, scan, "mamba", flop, moved, launches=5, wide=True),
        Kernel("ssm_scan", Pass.I, scan, "mamba", 3.0 * flop, 3.0 * moved, launches=11, wide=True),
    ]
    out += memory("ssm_norm", "mamba", 3.0 * tokens * inner * act, 5.0 * tokens * inner * act, 2)
    return out + products("ssm_out", "mamba", tokens, inner, model.hidden)
