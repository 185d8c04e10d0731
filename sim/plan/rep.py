"""`REP i=A..B { .. }`: lines written once for each i, numbers of the form (a*i + b) or ((a*i + b) % c)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from exactmap.sim.plan.instruction import Instruction
from exactmap.sim.plan.text import INDEX_MAX, VARIABLE, parse_instruction

__all__ = ["Repeat"]

_AFFINE: Final = re.compile(r"\(([0-9]*)([a-z])(?:([+-])([0-9]+))?\)")


class Repeat:
    """An open REP: variable `letter` runs over first..last, both included."""

    def __init__(self, letter: str, first: int, last: int) -> None:
        self.letter = letter
        self.first = first
        self.last = last
        self.templates: list[tuple[str, int]] = []

    @property
    def num_instructions(self) -> int:
        """Instructions after expansion; a braid counts as its members."""
        per_turn = sum(line.count("|") + 1 for line, _ in self.templates)
        return per_turn * (self.last - self.first + 1)

    def add(self, line: str, number: int) -> str | None:
        """Take one line of the grammar; returns what is wrong with its variables, or None."""
        for match in VARIABLE.finditer(line):
            scale, letter, offset = _affine(match)
            if letter != self.letter:
                return f"unknown variable {letter!r}, expected {self.letter!r}"
            for i in (self.first, self.last):  # the value grows with i
                value = scale * i + offset
                if not 0 <= value <= INDEX_MAX:
                    return f"{match[0]} is {value} for {letter}={i}, expected 0 to {INDEX_MAX}"
        self.templates.append((line, number))
        return None

    def expand(self) -> tuple[list[Instruction], list[int]]:
        """All instructions in order, and the line of the file that each came from."""
        instructions: list[Instruction] = []
        makers = [_maker(line) for line, _ in self.templates]
        for i in range(self.first, self.last + 1):
            instructions.extend(make(i) for make in makers)
        lines = [number for _, number in self.templates] * (self.last - self.first + 1)
        return instructions, lines


def _affine(match: re.Match[str]) -> tuple[int, str, int]:
    affine = _AFFINE.fullmatch(match[1] or match[3])
    assert affine is not None, "the pattern of VARIABLE admits nothing else"
    scale, letter, sign, offset = affine.groups()
    return int(scale or "1"), letter, int(f"{sign or ''}{offset or 0}")


def _maker(line: str) -> Callable[[int], Instruction]:
    """Function that gives the instruction of a template for one i."""
    if "(" not in line:
        fixed = _parsed(line)
        return lambda _: fixed

    def write(match: re.Match[str], i: int) -> str:
        scale, _, offset = _affine(match)
        value = scale * i + offset
        return str(value % int(match[2]) if match[2] else value)

    return lambda i: _parsed(VARIABLE.sub(lambda match: write(match, i), line))


def _parsed(line: str) -> Instruction:
    instruction = parse_instruction(line)
    assert instruction is not None, f"grammar and bounds were checked before: {line}"
    return instruction
