"""Bytes and parameters of one stage on one rank: what lowering needs to lay out an arena.

The numbers come from `exactmap.sim.workload.footprint`, which mirrors the C engine; all are per rank, after
tensor and context parallelism.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ARENA_ALIGN_BYTES", "DTYPE_BITS", "StageSizes", "align", "dtype_bytes"]

ARENA_ALIGN_BYTES = 64
"""Regions, pools and slots begin at multiples of this."""

DTYPE_BITS = {"f32": 32, "bf16": 16, "f16": 16, "f8": 8, "f4": 4}


@dataclass(frozen=True, slots=True)
class StageSizes:
    """Sizes of one stage for one microbatch.

    Parameters
    ----------
    h_bytes, a_bytes, w_bytes, g_bytes
        Slots of the four pools: stage boundary, stash for I alone, stash for W, what I leaves to W.
    message_bytes
        What is sent from stage to stage; at most `h_bytes`.
    workspace_bytes
        Scratch of each pass, by its letter ``F I W B``.
    elements
        Parameters of each part that the stage may hold (``wte wpe layers norm head``), padding included.
    """

    h_bytes: int
    a_bytes: int
    w_bytes: int
    g_bytes: int
    message_bytes: int
    workspace_bytes: Mapping[str, int]
    elements: Mapping[str, int]


def align(num_bytes: int) -> int:
    """Round up to the arena's alignment.

    Examples
    --------
    >>> align(0), align(1), align(64)
    (0, 64, 64)
    """
    return -(-num_bytes // ARENA_ALIGN_BYTES) * ARENA_ALIGN_BYTES


def dtype_bytes(dtype: str, num_elements: int) -> int:
    """Bytes of `num_elements` numbers of a plan's data type, a broken last byte counted whole.

    Examples
    --------
    >>> dtype_bytes("bf16", 3), dtype_bytes("f4", 3)
    (6, 2)
    """
    return -(-num_elements * DTYPE_BITS[dtype] // 8)
