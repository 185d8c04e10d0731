"""One line of a plan's program: its kind, its operands, the slots that it brings to life.

The meaning of each kind is fixed in `docs/reference/plan-format.md`, section 2.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["CODES", "KINDS", "NOTES", "PASSES", "POSTS", "WAITS", "WORK", "Instruction", "Op"]


class Op(StrEnum):
    """The instruction kinds of plan format 1; the value is the word in the file."""

    F = "F"
    I = "I"
    W = "W"
    B = "B"
    RC = "RC"
    FB = "FB"
    ZERO = "ZERO"
    OPT = "OPT"
    PV = "PV"
    UNDO = "UNDO"
    SF = "SF"
    SB = "SB"
    RF = "RF"
    RB = "RB"
    AG = "AG"
    RS = "RS"
    AR = "AR"
    A2A_D = "A2A_D"
    A2A_C = "A2A_C"
    KV = "KV"
    NORM = "NORM"
    CHK = "CHK"
    OFF = "OFF"
    LD = "LD"
    WS = "WS"
    WR = "WR"
    WC = "WC"
    WOFF = "WOFF"
    WLD = "WLD"
    LF = "LF"
    LB = "LB"
    FREE = "FREE"
    MARK = "MARK"
    END = "END"


KINDS: tuple[Op, ...] = tuple(Op)
"""Kind code -> instruction kind: programs and orders that are held as arrays hold codes."""
CODES: dict[Op, int] = {op: code for code, op in enumerate(KINDS)}
"""Instruction kind -> kind code."""

PASSES = frozenset({Op.F, Op.I, Op.W, Op.B, Op.RC})
"""Works that compute one item."""
WORK = frozenset({Op.F, Op.I, Op.W, Op.B, Op.RC, Op.FB, Op.ZERO, Op.OPT, Op.PV, Op.UNDO})
POSTS = frozenset(
    {
        Op.SF,
        Op.SB,
        Op.RF,
        Op.RB,
        Op.AG,
        Op.RS,
        Op.AR,
        Op.A2A_D,
        Op.A2A_C,
        Op.KV,
        Op.NORM,
        Op.CHK,
        Op.OFF,
        Op.LD,
    }
)
WAITS = frozenset({Op.WS, Op.WR, Op.WC, Op.WOFF, Op.WLD})
NOTES = frozenset({Op.LF, Op.LB, Op.FREE, Op.MARK, Op.END})


class Instruction(NamedTuple):
    """One instruction; fields that its kind does not have keep their defaults (-1, empty).

    `WC` keeps its post's operands: (stage, bucket), or (phase, item), or the group alone.
    """

    op: Op
    stage: int = -1
    microbatch: int = -1
    slice: int = -1  #: -1 where the plan has one slice
    part: str = ""
    bucket: int = -1  #: index K of bucket S/K, with S in `stage`
    queue: str = ""  #: name of the channel or group
    phase: str = ""  #: "F", "I" or "B": the pass that A2A_D, A2A_C and KV belong to
    slots: tuple[tuple[str, int], ...] = ()  #: (pool letter, slot index), in the order h a w g k p q o
    members: tuple[Instruction, ...] = ()  #: the works of an FB
    name: str = ""  #: of a MARK

    def slot(self, pool: str) -> int:
        """Slot index that this instruction names in `pool`, or -1."""
        for letter, index in self.slots:
            if letter == pool:
                return index
        return -1
