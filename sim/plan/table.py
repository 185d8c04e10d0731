"""A program as columns: one array per operand, so that a million instructions are a few arrays.

Rows stand in program order. A braid (`FB`) is one row; its members are rows of the nested table `members`, in
listed order. Names of queues and parts are numbers into short tuples that belong to the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, KINDS, Instruction, Op

__all__ = ["PHASES", "POOL_LETTERS", "InstructionTable"]

POOL_LETTERS = "hawgkpqo"
"""Pools in the order in which an instruction names their slots; the columns of `slots`."""

PHASES = ("", "F", "I", "B")
"""Phase code -> the pass that an exchange belongs to."""
_PHASE_CODES = {phase: code for code, phase in enumerate(PHASES)}
_FB = CODES[Op.FB]
_MARK = CODES[Op.MARK]
_NO_MEMBERS: tuple[Instruction, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class InstructionTable:
    """Instructions of one program as columns of equal length n; -1 where an instruction has no such operand.

    Attributes
    ----------
    op
        [n] kind codes (`KINDS`), int8.
    stage, microbatch, slice, bucket
        [n] operands, int32.
    part, queue
        [n] places in `parts` and `queues`, int32.
    phase
        [n] 1, 2, 3 for the passes F, I, B of an exchange, 0 for none, int8.
    slots
        [n, 8] slot numbers by pool (`POOL_LETTERS`), int32.
    first_member, num_members
        [n] rows of a braid in `members`, int32; 0 rows elsewhere.
    queues, parts
        Names of channels and groups, names of parts.
    members
        Rows of the braids' members; None without braids.
    marks
        Names of the MARKs, in program order.
    """

    op: NDArray[np.int8]
    stage: NDArray[np.int32]
    microbatch: NDArray[np.int32]
    slice: NDArray[np.int32]
    bucket: NDArray[np.int32]
    part: NDArray[np.int32]
    queue: NDArray[np.int32]
    phase: NDArray[np.int8]
    slots: NDArray[np.int32]
    first_member: NDArray[np.int32]
    num_members: NDArray[np.int32]
    queues: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    members: InstructionTable | None = None
    marks: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of instructions, END included, a braid counted once."""
        return len(self.op)

    @staticmethod
    def empty(
        num_rows: int, *, queues: tuple[str, ...] = (), parts: tuple[str, ...] = ()
    ) -> InstructionTable:
        """A table of `num_rows` ENDs without operands, to be filled in.

        Examples
        --------
        >>> [str(instruction.op) for instruction in InstructionTable.empty(2)]
        ['END', 'END']
        """

        def column() -> NDArray[np.int32]:
            return np.full(num_rows, -1, dtype=np.int32)

        return InstructionTable(
            op=np.full(num_rows, CODES[Op.END], dtype=np.int8),
            stage=column(),
            microbatch=column(),
            slice=column(),
            bucket=column(),
            part=column(),
            queue=column(),
            phase=np.zeros(num_rows, dtype=np.int8),
            slots=np.full((num_rows, len(POOL_LETTERS)), -1, dtype=np.int32),
            first_member=np.zeros(num_rows, dtype=np.int32),
            num_members=np.zeros(num_rows, dtype=np.int32),
            queues=queues,
            parts=parts,
        )

    @staticmethod
    def of(instructions: Sequence[Instruction]) -> InstructionTable:
        """The same instructions as columns.

        Raises
        ------
        KeyError, OverflowError, ValueError
            If an instruction holds what no text can: slots in another order, numbers beyond 32 bits.
        """
        num = len(instructions)
        if not num:
            return InstructionTable.empty(0)
        ops, stages, microbatches, cuts, parts, buckets, queues, phases, slots, members, names = zip(
            *instructions, strict=True
        )
        table = InstructionTable.empty(num)
        table.op[:] = [CODES[op] for op in ops]
        for column, values in (
            (table.stage, stages),
            (table.microbatch, microbatches),
            (table.slice, cuts),
            (table.bucket, buckets),
        ):
            column[:] = values
        table.phase[:] = [_PHASE_CODES[phase] for phase in phases]
        queue_names, table.queue[:] = _numbered(queues)
        part_names, table.part[:] = _numbered(parts)
        rows: dict[tuple[tuple[str, int], ...], int] = {}
        numbers = [rows.setdefault(each, len(rows)) for each in slots]
        table.slots[:] = np.array([_slot_row(each) for each in rows], dtype=np.int32)[numbers]
        joined: list[Instruction] = []
        for row in np.flatnonzero(table.op == _FB).tolist():
            table.first_member[row], table.num_members[row] = len(joined), len(members[row])
            joined += members[row]
        return replace(
            table,
            queues=queue_names,
            parts=part_names,
            members=InstructionTable.of(joined) if joined else None,
            marks=tuple(names[row] for row in np.flatnonzero(table.op == _MARK).tolist()),
        )

    def __iter__(self) -> Iterator[Instruction]:
        """Instructions as objects, in program order."""
        names, members = [""] * len(self), [_NO_MEMBERS] * len(self)
        for row, name in zip(np.flatnonzero(self.op == _MARK).tolist(), self.marks, strict=True):
            names[row] = name
        if self.members is not None:
            inner = tuple(self.members)
            for row in np.flatnonzero(self.num_members).tolist():
                first = int(self.first_member[row])
                members[row] = inner[first : first + int(self.num_members[row])]
        return map(
            Instruction._make,
            zip(
                map(KINDS.__getitem__, self.op.tolist()),
                self.stage.tolist(),
                self.microbatch.tolist(),
                self.slice.tolist(),
                map((*self.parts, "").__getitem__, self.part.tolist()),
                self.bucket.tolist(),
                map((*self.queues, "").__getitem__, self.queue.tolist()),
                map(PHASES.__getitem__, self.phase.tolist()),
                _named_slots(self.slots),
                members,
                names,
                strict=True,
            ),
        )


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Different names in the order in which they come, and each name's place there; -1 for none."""
    places = {"": -1}
    numbers = [places.setdefault(name, len(places) - 1) for name in names]
    return tuple(places)[1:], numbers


def _slot_row(slots: tuple[tuple[str, int], ...]) -> list[int]:
    row = [-1] * len(POOL_LETTERS)
    before = -1
    for letter, number in slots:
        place = POOL_LETTERS.index(letter)
        if place <= before or number < 0:
            raise ValueError(f"slots stand once each, in the order {POOL_LETTERS}: {slots}")
        row[place] = number
        before = place
    return row


def _named_slots(slots: NDArray[np.int32]) -> list[tuple[tuple[str, int], ...]]:
    """For each row the slots that it names, as (letter, number)."""
    named = np.empty(len(slots), dtype=object)
    pattern = np.packbits(slots >= 0, axis=1)[:, 0] if len(slots) else np.zeros(0, dtype=np.uint8)
    for bits in np.unique(pattern).tolist():
        rows = np.flatnonzero(pattern == bits)
        pairs = [
            _pairs(letter, slots[rows, place])
            for place, letter in enumerate(POOL_LETTERS)
            if bits & 128 >> place
        ]
        tuples = zip(*pairs, strict=True) if pairs else repeat((), len(rows))
        named[rows] = np.fromiter(tuples, dtype=object, count=len(rows))
    found: list[tuple[tuple[str, int], ...]] = named.tolist()
    return found


def _pairs(letter: str, numbers: NDArray[np.int32]) -> Iterable[tuple[str, int]]:
    """(letter, number) for each number; slots of one number share one pair where there are few numbers."""
    most = int(numbers.max())
    if most > len(numbers):
        return zip(repeat(letter), numbers.tolist(), strict=False)
    pairs = list(zip(repeat(letter), range(most + 1), strict=False))
    return map(pairs.__getitem__, numbers.tolist())
