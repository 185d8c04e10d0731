"""A program as columns: one array per operand, so that a million instructions are a few arrays.

Rows stand in program order. A braid (`FB`) is one row; its members are rows of the nested table `members`, in
listed order. Names of queues and parts are numbers into short tuples that belong to the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, KINDS, Instruction, Op

__all__ = ["POOL_LETTERS", "InstructionTable"]

POOL_LETTERS = "hawgkpqo"
"""Pools in the order in which an instruction names their slots; the columns of `slots`."""

_PHASES = ("", "F", "I", "B")
_FB = CODES[Op.FB]


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
        """The same instructions as columns."""
        num = len(instructions)
        queues: dict[str, int] = {"": -1}
        parts: dict[str, int] = {"": -1}
        table = InstructionTable.empty(num)
        members: list[Instruction] = []
        table.op[:] = [CODES[each.op] for each in instructions]
        table.stage[:] = [each.stage for each in instructions]
        table.microbatch[:] = [each.microbatch for each in instructions]
        table.slice[:] = [each.slice for each in instructions]
        table.bucket[:] = [each.bucket for each in instructions]
        table.queue[:] = [queues.setdefault(each.queue, len(queues) - 1) for each in instructions]
        table.part[:] = [parts.setdefault(each.part, len(parts) - 1) for each in instructions]
        table.phase[:] = [_PHASES.index(each.phase) for each in instructions]
        for row, each in enumerate(instructions):
            for letter, index in each.slots:
                table.slots[row, POOL_LETTERS.index(letter)] = index
        for row in np.flatnonzero(table.op == _FB).tolist():
            braid = instructions[row].members
            table.first_member[row], table.num_members[row] = len(members), len(braid)
            members += braid
        return replace(
            table,
            queues=tuple(queues)[1:],
            parts=tuple(parts)[1:],
            members=InstructionTable.of(members) if members else None,
            marks=tuple(instruction.name for instruction in instructions if instruction.op is Op.MARK),
        )

    def __iter__(self) -> Iterator[Instruction]:
        """Instructions as objects, in program order."""
        marks = iter(self.marks)
        braid_members = tuple(self.members) if self.members is not None else ()
        queue_names, part_names = (*self.queues, ""), (*self.parts, "")
        named = _named_slots(self.slots)
        columns = (
            self.op.tolist(),
            self.stage.tolist(),
            self.microbatch.tolist(),
            self.slice.tolist(),
            self.part.tolist(),
            self.bucket.tolist(),
            self.queue.tolist(),
            self.phase.tolist(),
            named,
            self.first_member.tolist(),
            self.num_members.tolist(),
        )
        for op, stage, microbatch, cut, part, bucket, queue, phase, slots, first, num in zip(
            *columns, strict=True
        ):
            kind = KINDS[op]
            yield Instruction(
                kind,
                stage,
                microbatch,
                cut,
                part_names[part],
                bucket,
                queue_names[queue],
                _PHASES[phase],
                slots,
                braid_members[first : first + num],
                next(marks) if kind is Op.MARK else "",
            )


def _named_slots(slots: NDArray[np.int32]) -> Iterable[tuple[tuple[str, int], ...]]:
    """For each row the slots that it names, as (letter, number)."""
    named: list[tuple[tuple[str, int], ...]] = [()] * len(slots)
    for row in np.flatnonzero((slots >= 0).any(axis=1)).tolist():
        named[row] = tuple(
            (letter, number)
            for letter, number in zip(POOL_LETTERS, slots[row].tolist(), strict=True)
            if number >= 0
        )
    return named
