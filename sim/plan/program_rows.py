"""The program that a reader is in the middle of: runs of common lines, and single instructions between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exactmap.sim.plan.instruction import Instruction
from exactmap.sim.plan.line_columns import Lines
from exactmap.sim.plan.plan import Program
from exactmap.sim.plan.table import InstructionTable

__all__ = ["ProgramRows"]

_COLUMNS = ("op", "stage", "microbatch", "slice", "bucket", "slots")
_NESTED = ("part", "phase", "first_member", "num_members")


class ProgramRows:
    """Rows of one program in order, until its END makes a `Program` of them."""

    def __init__(self, name: str, lines: Lines, first_line: int) -> None:
        self.name = name
        self.lines = lines
        self.first_line = first_line  # number of the first of `lines` in the file
        self.num_rows = 0
        self.runs: list[tuple[int, int, int]] = []  # row, first line, line behind the last
        self.odd: list[Instruction] = []
        self.odd_rows: list[int] = []
        self.numbers: list[Sequence[int]] = []  # lines of the file

    def add_run(self, begin: int, end: int) -> None:
        """Take common lines."""
        self.runs.append((self.num_rows, begin, end))
        self.num_rows += end - begin
        self.numbers.append(range(self.first_line + begin, self.first_line + end))

    def add(self, instructions: Sequence[Instruction], numbers: Sequence[int]) -> None:
        """Take instructions with the lines of the file that they came from."""
        self.odd_rows += range(self.num_rows, self.num_rows + len(instructions))
        self.odd += instructions
        self.num_rows += len(instructions)
        self.numbers.append(numbers)

    def program(self) -> Program:
        """The program, held as columns."""
        table = InstructionTable.empty(self.num_rows)
        for row, begin, end in self.runs:
            for name in (*_COLUMNS, "queue"):
                getattr(table, name)[row : row + end - begin] = getattr(self.lines, name)[begin:end]
        odd = InstructionTable.of(self.odd)
        for name in (*_COLUMNS, *_NESTED):
            getattr(table, name)[self.odd_rows] = getattr(odd, name)
        queues = self.lines.queues
        places = [queues.setdefault(name, len(queues)) for name in odd.queues]
        table.queue[self.odd_rows] = np.array([*places, -1], dtype=np.int32)[odd.queue]
        used, own = np.unique(table.queue, return_inverse=True)
        none = int(len(used) > 0 and used[0] < 0)
        table.queue[:] = own - none
        names = list(queues)
        return Program(
            self.name,
            replace(
                table,
                queues=tuple(names[number] for number in used[none:].tolist()),
                parts=odd.parts,
                members=odd.members,
                marks=odd.marks,
            ),
            self._numbers(),
        )

    def _numbers(self) -> Sequence[int]:
        """Lines of the file, as a range where they follow each other."""
        start, end = self.numbers[0][0], self.numbers[-1][-1] + 1
        following = all(
            one[-1] + 1 == two[0] for one, two in zip(self.numbers, self.numbers[1:], strict=False)
        )
        if following and end - start == self.num_rows:
            return range(start, end)
        return tuple(number for numbers in self.numbers for number in numbers)
