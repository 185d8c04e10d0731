"""Bytes and parameters of one stage on one rank: what lowering needs to lay out an arena.

The numbers come from `exactmap.sim.workload.footprint`, which mirrors the C engine; all are per rank, after
tensor and context parallelism.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.plan import Precision
from exactmap.sim.workload.footprint import PrecisionBytes, stage_footprint
from exactmap.sim.workload.model import ModelConfig, StageLike

__all__ = ["ARENA_ALIGN_BYTES", "StageSizes", "align", "dtype_bytes", "size_stage"]

ARENA_ALIGN_BYTES = 64
"""Regions, pools and slots begin at multiples of this."""

_DTYPE_BITS = {"f32": 32, "bf16": 16, "f16": 16, "f8": 8, "f4": 4}
_TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class StageSizes:
    """Sizes of one stage for one microbatch.

    Parameters
    ----------
    h_bytes, a_bytes, w_bytes, g_bytes
        Slots of the four pools: stage boundary, stash for I alone, stash for W, what I leaves to W. Of a
        slice, where sequences are cut.
    message_bytes
        What is sent from stage to stage; at most `h_bytes`.
    workspace_bytes
        Scratch of each pass, by its letter ``F I W B``.
    elements
        Parameters of each part that the stage may hold (``wte wpe layers norm head``), padding included.
    staging_bytes
        Where the tokens and targets of a whole microbatch are put.
    k_bytes
        Keys and values of all slices and their gradients, for all layers; 0 where sequences are not cut.
    """

    h_bytes: int
    a_bytes: int
    w_bytes: int
    g_bytes: int
    message_bytes: int
    workspace_bytes: Mapping[str, int]
    elements: Mapping[str, int]
    staging_bytes: int = 0
    k_bytes: int = 0

    @property
    def host_bytes(self) -> int:
        """A stash on the host: its a slot, then its w slot."""
        return align(self.a_bytes) + align(self.w_bytes)

    def pass_bytes(self, op: str, *, keeps_stash: bool = True) -> int:
        """Workspace of a pass ``F I W B RC``.

        An F without a stash has a scratch one behind its own workspace, RC a place for the output that is
        thrown away.
        """
        if op == "RC":
            return align(self.workspace_bytes["F"]) + align(self.h_bytes)
        if op == "F" and not keeps_stash:
            return align(self.workspace_bytes["F"]) + self.host_bytes
        return self.workspace_bytes[op]


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

    Raises
    ------
    InvalidInputError
        If the plan format knows no such type.

    Examples
    --------
    >>> dtype_bytes("bf16", 3), dtype_bytes("f4", 3)
    (6, 2)
    """
    bits = _DTYPE_BITS.get(dtype)
    if bits is None:
        raise InvalidInputError("unknown data type", got=repr(dtype), expected=", ".join(_DTYPE_BITS))
    return -(-num_elements * bits // 8)


def size_stage(
    model: ModelConfig,
    stage: StageLike,
    microbatch: int,
    seq: int,
    precision: Precision,
    *,
    tp: int = 1,
    cp: int = 1,
    slices: int = 1,
) -> StageSizes:
    """Sizes of a stage on one rank; with ``tp = cp = 1`` and f32 those of the C engine to the byte.

    Parameters
    ----------
    model, stage
        The model, and which part of it the stage holds.
    microbatch, seq
        Sequences in a microbatch, tokens in a sequence.
    precision
        Data types of the plan.
    tp, cp
        Ranks that share each layer, ranks that share each sequence.
    slices
        Slices that the order cuts each sequence into.

    Raises
    ------
    InvalidInputError
        If `seq` cannot be shared by `cp` ranks and cut into `slices`, or the shapes do not fit the model.
    """
    if cp < 1 or seq % cp:
        raise InvalidInputError(
            "a sequence cannot be shared evenly", got=f"{seq} tokens over cp={cp}", hint="cp must divide seq"
        )
    if slices < 1 or seq // cp % slices:
        raise InvalidInputError(
            "a sequence cannot be cut evenly",
            got=f"{seq // cp} tokens in {slices} slices",
            hint="the number of slices must divide the tokens of a sequence on a rank",
        )
    if seq > model.positions:
        raise InvalidInputError(
            "the sequence is longer than the model's positions",
            got=f"{seq} tokens",
            expected=f"at most {model.positions}",
        )
    widths = PrecisionBytes(
        act_bytes=dtype_bytes(precision.act, 1),
        param_bytes=dtype_bytes(precision.param, 1),
        grad_bytes=dtype_bytes(precision.grad, 1),
        moment_bytes=dtype_bytes(precision.moment, 1),
    )
    footprint = stage_footprint(model, stage, microbatch, seq // cp, precision=widths, tp=tp, slices=slices)
    token_bytes = align(microbatch * (seq // cp) * _TOKEN_BYTES)
    return StageSizes(
        h_bytes=footprint.h_bytes,
        a_bytes=footprint.a_bytes,
        w_bytes=footprint.w_bytes,
        g_bytes=footprint.g_bytes,
        message_bytes=min(
            footprint.h_bytes, footprint.message_bytes * dtype_bytes(precision.comm, 1) // widths.act_bytes
        ),
        workspace_bytes=footprint.workspace_bytes,
        elements=footprint.elements,
        staging_bytes=(stage.embedding + stage.head) * token_bytes,
        k_bytes=footprint.k_bytes,
    )
