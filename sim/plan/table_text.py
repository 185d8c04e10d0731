"""The lines of a program that is held as columns.

Rows of one shape (kind, operands that are there, queue, pools named) share one line with holes for the
numbers; a program has few shapes.
"""

from __future__ import annotations

from itertools import repeat
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.plan.instruction import CODES, KINDS, Op
from exactmap.sim.plan.table import PHASES, POOL_LETTERS, InstructionTable

__all__ = ["table_lines"]

_Ints: TypeAlias = NDArray[np.integer[Any]]

_FB: Final = CODES[Op.FB]
_MARK: Final = CODES[Op.MARK]


def table_lines(table: InstructionTable) -> list[str]:
    """Each row as its line, without LF.

    Examples
    --------
    >>> from exactmap.sim.plan.instruction import Instruction
    >>> table_lines(InstructionTable.of([Instruction(Op.F, 3, 4, slots=(("h", 0),)), Instruction(Op.END)]))
    ['F 3.4 h0', 'END']
    """
    lines = np.empty(len(table), dtype=object)
    for rows in _by_shape(table):
        lines[rows] = np.fromiter(_lines_of_shape(table, rows), dtype=object, count=len(rows))
    for row, name in zip(np.flatnonzero(table.op == _MARK).tolist(), table.marks, strict=True):
        lines[row] = f"MARK {name}"
    if table.members is not None:
        members = table_lines(table.members)
        for row in np.flatnonzero(table.op == _FB).tolist():
            first, num = int(table.first_member[row]), int(table.num_members[row])
            lines[row] = "FB{" + "|".join(members[first : first + num]) + "}"
    found: list[str] = lines.tolist()
    return found


def _by_shape(table: InstructionTable) -> list[_Ints]:
    """Rows of each shape."""
    if not len(table):
        return []
    shape: _Ints = np.packbits(table.slots >= 0, axis=1)[:, 0].astype(np.int64)
    for column in (table.stage, table.bucket, table.slice):
        shape = shape * 2 + (column >= 0)
    numbers: tuple[tuple[_Ints, int], ...] = (
        (table.op, len(KINDS)),
        (table.phase, len(PHASES)),
        (table.part + 1, len(table.parts) + 1),
        (table.queue + 1, len(table.queues) + 1),
    )
    for codes, num in numbers:
        shape = shape * num + codes
    order = np.argsort(shape, kind="stable")
    cuts = np.flatnonzero(np.diff(shape[order])) + 1
    return np.split(order, cuts)


def _lines_of_shape(table: InstructionTable, rows: _Ints) -> map[str]:
    """The lines of rows of one shape."""
    one = int(rows[0])
    words = [KINDS[int(table.op[one])].value]
    if table.phase[one]:
        words.append(PHASES[int(table.phase[one])])
    operand = ""
    columns: list[_Ints] = []
    if table.bucket[one] >= 0:
        operand = "%d/%d"
        columns += [table.stage, table.bucket]
    elif table.stage[one] >= 0:
        operand = "%d.%d"
        columns += [table.stage, table.microbatch]
        if table.slice[one] >= 0:
            operand += ".%d"
            columns.append(table.slice)
        if table.part[one] >= 0:
            operand += f":{table.parts[int(table.part[one])]}"
    if table.queue[one] >= 0:
        operand += f"@{table.queues[int(table.queue[one])]}"
    if operand:
        words.append(operand)
    for place, letter in enumerate(POOL_LETTERS):
        if table.slots[one, place] >= 0:
            words.append(f"{letter}%d")
            columns.append(table.slots[:, place])
    numbers = zip(*(column[rows].tolist() for column in columns), strict=True) if columns else repeat(())
    return map(" ".join(words).__mod__, numbers)
