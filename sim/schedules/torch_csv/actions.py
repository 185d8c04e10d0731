"""Actions of PyTorch's pipeline schedules: a cell of its CSV as data, and back.

A cell is ``[stage][kind][microbatch]``: ``2F0``, ``3W2``, ``0SEND_F3``; without a microbatch for
``1UNSHARD``, ``1RESHARD``, ``1REDUCE_GRAD``; ``(0F1;7B0)OVERLAP_F_B`` holds passes that are done as one.
``F I W B`` mean here what they mean in a plan. A SEND carries the stage of its sender, a RECV that of its
receiver: ``0SEND_F3`` meets ``1RECV_F3``, and ``1SEND_B3`` meets ``0RECV_B3``.

Form: ``torch/distributed/pipelining/schedules.py`` of PyTorch 2.13.0, class ``_Action``. Its own reader
accepts any text that *begins* like an action, so ``0BFOO`` passes for ``0B`` there; here a cell is an
action or an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, Op

__all__ = ["ACTION_CODES", "ACTION_KINDS", "Action", "ActionKind", "Actions", "parse_cell"]

Ints = NDArray[np.int64]


class ActionKind(StrEnum):
    """What an action does; the value is the word in the file."""

    F = "F"
    I = "I"
    W = "W"
    B = "B"
    UNSHARD = "UNSHARD"
    RESHARD = "RESHARD"
    REDUCE_GRAD = "REDUCE_GRAD"
    SEND_F = "SEND_F"
    RECV_F = "RECV_F"
    SEND_B = "SEND_B"
    RECV_B = "RECV_B"


ACTION_KINDS: tuple[ActionKind, ...] = tuple(ActionKind)
"""Code -> kind of action."""
ACTION_CODES: dict[ActionKind, int] = {kind: code for code, kind in enumerate(ACTION_KINDS)}
"""Kind of action -> code; those of passes come first."""

_PASSES = (Op.F, Op.I, Op.W, Op.B)
NUM_PASS_KINDS = len(_PASSES)
_OF_STAGE = frozenset({ActionKind.UNSHARD, ActionKind.RESHARD, ActionKind.REDUCE_GRAD})
_KIND_OF = {str(kind): kind for kind in ACTION_KINDS}
_OP_CODES = np.array([CODES[op] for op in _PASSES], dtype=np.int8)

_NUMBER = "(0|[1-9][0-9]{0,8})"
_OF_ITEM = "|".join(kind for kind in ACTION_KINDS if kind not in _OF_STAGE)
_ITEM = re.compile(f"{_NUMBER}({_OF_ITEM}){_NUMBER}")
_STAGE = re.compile(f"{_NUMBER}({'|'.join(sorted(_OF_STAGE))})")
_OVERLAP = re.compile(r"\(([^()]*)\)OVERLAP_F_B")
# What torch's reader looks for at the beginning of a cell.
_TORCH_PREFIX = re.compile(r"[0-9]+(?:F|I|B|W|UNSHARD|RESHARD|REDUCE_GRAD|SEND_F|RECV_F|SEND_B|RECV_B)[0-9]*")


class Action(NamedTuple):
    """One action; `microbatch` is -1 where the kind has none."""

    kind: ActionKind
    stage: int
    microbatch: int = -1

    def __str__(self) -> str:
        """As the file writes it."""
        return f"{self.stage}{self.kind}{self.microbatch if self.microbatch >= 0 else ''}"


def parse_cell(text: str) -> tuple[Action, ...]:
    """The actions of a cell that is not idle: one, or the members of an overlap.

    Raises
    ------
    ValueError
        If the text is no action; its arguments are what is wrong, and a hint or None.

    Examples
    --------
    >>> [str(action) for action in parse_cell("(0F1;7B0)OVERLAP_F_B")]
    ['0F1', '7B0']
    >>> parse_cell("0BFOO")
    Traceback (most recent call last):
    ValueError: ('this is no action', "torch's own reader takes it for '0B'")
    """
    action = _parse_single(text)
    if action is not None:
        return (action,)
    overlap = _OVERLAP.fullmatch(text)
    if overlap is None:
        prefix = _TORCH_PREFIX.match(text)
        hint = None if prefix is None else f"torch's own reader takes it for {prefix[0]!r}"
        if prefix is not None and prefix[0] == text:
            hint = (
                "passes and messages end in a microbatch, collectives do not; "
                "numbers have no leading zeros and at most nine digits"
            )
        raise ValueError("this is no action", hint)
    members = tuple(_parse_single(part.strip(" ")) for part in overlap[1].split(";"))
    passes = tuple(
        member for member in members if member is not None and ACTION_CODES[member.kind] < NUM_PASS_KINDS
    )
    if len(passes) < len(members) or len(members) < 2:
        raise ValueError("an overlap holds two passes or more", "such as (0F1;7B0)OVERLAP_F_B")
    return passes


def _parse_single(text: str) -> Action | None:
    match = _ITEM.fullmatch(text)
    if match is not None:
        return Action(_KIND_OF[match[2]], int(match[1]), int(match[3]))
    match = _STAGE.fullmatch(text)
    return None if match is None else Action(_KIND_OF[match[2]], int(match[1]))


@dataclass(frozen=True, slots=True, eq=False)
class Actions:
    """Actions of one rank as columns, each of shape [n]; the members of an overlap are rows of their own.

    Parameters
    ----------
    kind
        Codes (`ACTION_KINDS`).
    stage, microbatch
        Operands; microbatch -1 where the kind has none.
    overlap
        The same number, at least 0, on the neighbouring rows of an overlap; -1 elsewhere.
    cell
        Place in the row of the file, from 1, idle cells counted.
    """

    kind: NDArray[np.int8]
    stage: Ints
    microbatch: Ints
    overlap: Ints
    cell: Ints

    @staticmethod
    def of(cells: Iterable[tuple[int, Sequence[Action]]]) -> Actions:
        """Columns of some cells: (place from 1, its actions).

        Examples
        --------
        >>> Actions.of([(1, [Action(ActionKind.F, 0, 0)]), (3, [Action(ActionKind.B, 0, 0)])]).cells()
        ['0F0', '0B0']
        """
        rows: list[tuple[int, int, int, int, int]] = []
        num_overlaps = 0
        for place, actions in cells:
            overlap = -1
            if len(actions) > 1:
                overlap, num_overlaps = num_overlaps, num_overlaps + 1
            rows += [(ACTION_CODES[a.kind], a.stage, a.microbatch, overlap, place) for a in actions]
        columns = np.array(rows, dtype=np.int64).reshape(len(rows), 5).T
        return Actions(columns[0].astype(np.int8), *columns[1:])

    @staticmethod
    def numbered(rows: Sequence[tuple[int, int, int, int]]) -> Actions:
        """Columns of (code, stage, microbatch, overlap) rows; places count the cells that they make."""
        columns = np.array(rows, dtype=np.int64).reshape(len(rows), 4).T
        overlap = columns[3]
        follows = np.zeros(len(rows), dtype=np.bool_)
        follows[1:] = (overlap[1:] >= 0) & (overlap[1:] == overlap[:-1])
        return Actions(
            columns[0].astype(np.int8), columns[1], columns[2], overlap, np.cumsum(~follows, dtype=np.int64)
        )

    def __len__(self) -> int:
        """Number of actions, the members of an overlap counted one by one."""
        return len(self.kind)

    @property
    def is_pass(self) -> NDArray[np.bool_]:
        """Which rows are passes, shape [n]."""
        return self.kind < NUM_PASS_KINDS

    @property
    def op(self) -> NDArray[np.int8]:
        """Kind codes of the plan's instructions, of rows that are passes, shape [n]."""
        return _OP_CODES[self.kind]

    def taken(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Actions:
        """The actions of some rows."""
        return Actions(
            self.kind[rows], self.stage[rows], self.microbatch[rows], self.overlap[rows], self.cell[rows]
        )

    def name(self, row: int) -> str:
        """One action as the file writes it."""
        return str(Action(ACTION_KINDS[self.kind[row]], int(self.stage[row]), int(self.microbatch[row])))

    def cells(self) -> list[str]:
        """Text of every cell that is not idle."""
        texts: list[str] = []
        members: list[str] = []
        overlaps = self.overlap.tolist()
        rows = zip(self.kind.tolist(), self.stage.tolist(), self.microbatch.tolist(), strict=True)
        for at, (kind, stage, microbatch) in enumerate(rows):
            text = f"{stage}{ACTION_KINDS[kind]}{microbatch if microbatch >= 0 else ''}"
            if overlaps[at] < 0:
                texts.append(text)
                continue
            members.append(text)
            if at + 1 == len(overlaps) or overlaps[at + 1] != overlaps[at]:
                texts.append(f"({';'.join(members)})OVERLAP_F_B")
                members = []
        return texts
