"""Reads a plan file's bytes: phase 1 of `docs/reference/plan-format.md`, section 7.

One pass over the lines; the first line that is wrong is the verdict. Common instruction lines are taken many
at a time (`line_columns`), all others one by one. What the text says is not judged here: that is
`exactmap.sim.plan.check`.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

import numpy as np

from exactmap.sim.plan.header import HEADER_ORDER, RULES, header_kind
from exactmap.sim.plan.instruction import Instruction, Op
from exactmap.sim.plan.line_columns import Lines, lines_of
from exactmap.sim.plan.plan import Program
from exactmap.sim.plan.program_rows import ProgramRows
from exactmap.sim.plan.raw_text import MAX_FILE_BYTES, MAX_LINE_BYTES, each_line, first_bad_line, wrong_size
from exactmap.sim.plan.rep import Repeat
from exactmap.sim.plan.text import (
    INDEX_MAX,
    INSTRUCTION_WORDS,
    PROGRAM_NAME,
    VARIABLE,
    index_fields,
    matches_grammar,
    parse_instruction,
)
from exactmap.sim.plan.typed import plan_of
from exactmap.sim.plan.verdict import PlanError

if TYPE_CHECKING:
    from exactmap.sim.plan.plan import Plan

__all__ = ["MAX_FILE_BYTES", "MAX_INSTRUCTIONS", "MAX_LINE_BYTES", "read_plan", "sha256_of", "wrong_size"]

MAX_INSTRUCTIONS: Final = 1 << 24

_REP: Final = re.compile(r"REP ([a-z])=(0|[1-9][0-9]*)\.\.(0|[1-9][0-9]*) \{")
_PROGRAM: Final = re.compile(rf"program ({PROGRAM_NAME})")
_END: Final = Instruction(Op.END)


def sha256_of(data: bytes) -> str:
    """Hexadecimal SHA-256 of the file's bytes: the plan's name on every trace and result."""
    return hashlib.sha256(data).hexdigest()


def read_plan(data: bytes, name: str = "plan") -> Plan:
    """Read a plan's text.

    Parameters
    ----------
    data
        The file's bytes.
    name
        The file's name, for messages.

    Returns
    -------
    Plan
        What the text says, REP written out; not yet checked (`check_plan`).

    Raises
    ------
    PlanError
        With the code and line of the first failure of phase 1.
    """
    try:
        return _Reader(data, name).read()
    except PlanError:
        raise
    except RecursionError as error:  # pragma: no cover - no recursion on input depth is known
        raise PlanError("text.size", 1, "the plan nests too deeply", name=name) from error


class _Reader:
    """State of the pass over one file's lines."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name
        self.headers: dict[str, list[tuple[int, re.Match[str]]]] = {kind: [] for kind in HEADER_ORDER}
        self.programs: list[Program] = []
        self.program_lines: list[int] = []
        self.num_instructions = 0
        self.opened = ""  # name of the program whose line was just read
        self.program: ProgramRows | None = None
        self.repeat: Repeat | None = None

    def fail(
        self,
        code: str,
        line: int,
        what: str,
        *,
        op: str = "",
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
    ) -> PlanError:
        return PlanError(code, line, what, name=self.name, op=op, got=got, expected=expected, hint=hint)

    def read(self) -> Plan:
        data = self.data
        if not 0 < len(data) <= MAX_FILE_BYTES:
            raise wrong_size(len(data), self.name)
        bad = first_bad_line(data, self.name)
        readable = data if bad is None else data[: bad[0]]
        found = self._read_header(readable)
        if found is not None:
            start, number = found
            self._read_programs(readable[start:], number)
        if bad is not None:
            raise bad[1]
        if not self.programs or self.program is not None:
            raise self.fail(
                "text.order",
                data.count(b"\n"),
                "the file ends too early",
                expected="the header, then a program, then END",
                hint="the file may be cut off: write the plan again",
            )
        self._check_hash()
        return plan_of(self.headers, tuple(self.programs), self.program_lines)

    def _read_header(self, text: bytes) -> tuple[int, int] | None:
        """Read up to the first `program` line; gives its place in the text and its number."""
        position = -1
        order = {kind: index for index, kind in enumerate(HEADER_ORDER)}
        for number, (start, line) in enumerate(each_line(text), 1):
            if number == 1:
                match = RULES["exactmap-plan"].pattern.fullmatch(line)
                if match is None or RULES["exactmap-plan"].out_of_bounds(match):
                    raise self.fail(
                        "text.version",
                        1,
                        "this is no plan of a known version",
                        got=repr(line[:60]),
                        expected="'exactmap-plan 1.MINOR'",
                    )
                self.headers["exactmap-plan"].append((number, match))
                position = 0
                continue
            kind = header_kind(line)
            if kind is None:
                raise self.fail(
                    "text.keyword",
                    number,
                    "unknown first word",
                    got=repr(line.split(" ", 1)[0][:60]),
                    expected="a header line",
                )
            position = self._check_order(order, position, kind, number)
            if kind == "program":
                return start, number
            rule = RULES[kind]
            match = rule.pattern.fullmatch(line)
            if match is None:
                raise self.fail(
                    "text.line",
                    number,
                    f"not a valid {kind} line",
                    got=repr(line[:120]),
                    hint="the grammar is in docs/reference/plan-format.md, section 6",
                )
            wrong = rule.out_of_bounds(match)
            if wrong is not None:
                raise self.fail("text.range", number, f"{kind}: {wrong}")
            self.headers[kind].append((number, match))
        return None

    def _check_order(self, order: dict[str, int], position: int, kind: str, number: int) -> int:
        place = order[kind]
        if place < position or (place == position and not RULES[kind].repeats):
            what = (
                "repeated"
                if place == position
                else f"out of order: it stands before {HEADER_ORDER[position]}"
            )
            raise self.fail("text.order", number, f"header line {kind} is {what}")
        for missing in HEADER_ORDER[position + 1 : place]:
            if RULES[missing].required:
                raise self.fail("text.order", number, f"header line {missing} is missing", got=kind)
        return place

    def _read_programs(self, text: bytes, first_line: int) -> None:
        """Read the bodies from the first `program` line on."""
        lines = lines_of(text)
        starts = lines.starts.tolist()
        begin = 0
        for index in [*np.flatnonzero(~lines.common).tolist(), len(lines.common)]:
            if index > begin:
                self._read_run(lines, text, first_line, begin, index)
            if index < len(lines.common):
                line = text[starts[index] : starts[index + 1] - 1].decode("ascii")
                self._read_line(line, first_line + index, lines, first_line)
            begin = index + 1

    def _read_run(self, lines: Lines, text: bytes, first_line: int, begin: int, end: int) -> None:
        """Common lines from `begin` to `end`."""
        program = self.program
        if program is not None and self.repeat is None:
            room = MAX_INSTRUCTIONS - self.num_instructions
            if end - begin > room:
                self.num_instructions = MAX_INSTRUCTIONS
                self._count(1, first_line + begin + room)
            self.num_instructions += end - begin
            program.add_run(begin, end)
            return
        for index in range(begin, end):
            line = text[lines.starts[index] : lines.starts[index + 1] - 1].decode("ascii")
            self._read_line(line, first_line + index, lines, first_line)

    def _read_line(self, line: str, number: int, lines: Lines, first_line: int) -> None:
        """One line of a body."""
        program = self.program
        instruction = parse_instruction(line) if program is not None and self.repeat is None else None
        if instruction is None:
            self._read_other(line, number)
            if self.opened:
                self.program = ProgramRows(self.opened, lines, first_line)
                self.opened = ""
        elif program is not None:
            program.add([instruction], [number])
            self._count(len(instruction.members) or 1, number)

    def _count(self, more: int, number: int) -> None:
        self.num_instructions += more
        if self.num_instructions > MAX_INSTRUCTIONS:
            raise self.fail(
                "text.rep",
                number,
                "too many instructions",
                got=str(self.num_instructions),
                expected=f"at most {MAX_INSTRUCTIONS}",
            )

    def _read_other(self, line: str, number: int) -> None:
        """A line of a body that is no plain instruction: program, END, REP, `}`, or an error."""
        word = line.split(" ", 1)[0]
        kind = header_kind(line)
        if kind is None and word not in INSTRUCTION_WORDS and not word.startswith("FB{"):
            raise self.fail(
                "text.keyword", number, "unknown first word", got=repr(word[:60]), expected="an instruction"
            )
        if kind is not None:
            if kind != "program" or self.program is not None:
                raise self.fail(
                    "text.order", number, f"{kind} line inside a program", expected="END before it"
                )
            self._open_program(line, number)
        elif self.program is None:
            raise self.fail(
                "text.order",
                number,
                "instruction after END",
                op=line[:120],
                expected="a program line or the end",
            )
        elif word == "REP":
            self._open_repeat(line, number)
        elif word == "}":
            self._close_repeat(line, number)
        else:
            self._read_instruction(line, number)

    def _open_program(self, line: str, number: int) -> None:
        match = _PROGRAM.fullmatch(line)
        if match is None:
            raise self.fail("text.line", number, "not a valid program line", got=repr(line[:120]))
        self.opened = match[1]
        self.program_lines.append(number)

    def _open_repeat(self, line: str, number: int) -> None:
        match = _REP.fullmatch(line)
        if match is None:
            raise self.fail(
                "text.line", number, "not a valid REP line", got=repr(line[:120]), expected="'REP i=A..B {'"
            )
        first, last = int(match[2]), int(match[3])
        if max(first, last) > INDEX_MAX:
            raise self.fail(
                "text.range",
                number,
                "REP count out of range",
                got=str(max(first, last)),
                expected=f"at most {INDEX_MAX}",
            )
        if self.repeat is not None:
            raise self.fail("text.rep", number, "REP inside a REP")
        if first > last:
            raise self.fail("text.rep", number, "REP counts down", got=f"{first}..{last}")
        self.repeat = Repeat(match[1], first, last)

    def _close_repeat(self, line: str, number: int) -> None:
        if line != "}":
            raise self.fail(
                "text.line", number, "not a valid end of a REP", got=repr(line[:120]), expected="'}'"
            )
        repeat = self.repeat
        if repeat is None:
            raise self.fail("text.rep", number, "'}' without a REP")
        if not repeat.templates:
            raise self.fail("text.rep", number, "an empty REP")
        self._count(repeat.num_instructions, number)
        assert self.program is not None, "a REP stands in a program"
        self.program.add(*repeat.expand())
        self.repeat = None

    def _read_instruction(self, line: str, number: int) -> None:
        if not matches_grammar(line):
            raise self.fail(
                "text.line",
                number,
                "not a valid instruction",
                got=repr(line[:120]),
                hint="the grammar is in docs/reference/plan-format.md, section 6",
            )
        largest = max(index_fields(line), default=0)
        if largest > INDEX_MAX:
            raise self.fail(
                "text.range",
                number,
                "a number is out of range",
                op=line[:120],
                got=str(largest),
                expected=f"at most {INDEX_MAX}",
            )
        if any(match[2] == "0" for match in VARIABLE.finditer(line)):
            raise self.fail("text.range", number, "a remainder by 0", op=line[:120])
        if self.repeat is None:
            if "(" in line:
                raise self.fail("text.rep", number, "a variable outside a REP", op=line[:120])
        elif line != "END":
            wrong = self.repeat.add(line, number)
            if wrong is not None:
                raise self.fail("text.rep", number, wrong, op=line[:120])
            return
        else:
            raise self.fail("text.rep", number, "END inside a REP", hint="close the REP with '}' first")
        self._count(1, number)
        assert self.program is not None, "an instruction stands in a program"
        self.program.add([_END], [number])
        self.programs.append(self.program.program())
        self.program = None

    def _check_hash(self) -> None:
        first = self.data.index(b"\n")
        body = self.data[self.data.index(b"\n", first + 1) + 1 :]
        declared = self.headers["body"][0][1]["sha256"]
        actual = hashlib.sha256(body).hexdigest()
        if declared != actual:
            raise self.fail(
                "text.hash",
                2,
                "the body was changed after it was written",
                got=actual,
                expected=declared,
                hint="if the change is meant, write the plan again with the tool that made it",
            )
