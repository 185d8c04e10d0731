"""Errors that users see: one root, one family per exit code, one form of text.

A message says what is wrong, where, what was found, what was expected, and ends with a hint if there is one::

    scenario.yaml:12: model.num_heads: does not divide the hidden size: got 7, expected a divisor of 768
    hint: set model.num_heads to 6 or 8

The families follow the exit codes of the command line: 1 a bug in the tool, 2 usage (left to the option
parser), 3 invalid input, 4 infeasible, 5 check failed, 6 execution failed, 7 hung, 8 hardware or library
missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "CheckFailedError",
    "ExactmapError",
    "ExecutionFailedError",
    "ExecutionHungError",
    "InfeasibleError",
    "InvalidInputError",
    "MissingRequirementError",
    "Place",
]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an error sits: a file, a line counted from 1, and a field inside.

    Examples
    --------
    >>> str(Place("cpu.yaml", 12, "model.num_heads"))
    'cpu.yaml:12: model.num_heads'
    >>> str(Place("cpu.plan", 7))
    'cpu.plan:7'
    """

    file: str | Path | None = None
    line: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        """Render as ``file:line: field``, leaving out what is not known."""
        head = "" if self.file is None else str(self.file)
        if self.line is not None:
            head = f"{head}:{self.line}" if head else f"line {self.line}"
        return ": ".join(part for part in (head, self.field) if part)


class ExactmapError(Exception):
    """Root of all errors that exactmap raises on purpose.

    Parameters
    ----------
    what
        What is wrong, without a full stop; tests match this text.
    where
        The place, as a `Place` or as text that is already rendered.
    got, expected
        What was found and what would have been right, as text (numbers with their units).
    hint
        What the user can do about it.
    problems
        Several errors reported at once; each is rendered below this one's text.

    Examples
    --------
    >>> place = Place("a.yaml", 3, "plan.schedule")
    >>> print(ExactmapError("unknown schedule", where=place, got="'1f2b'", hint="did you mean '1f1b'?"))
    a.yaml:3: plan.schedule: unknown schedule: got '1f2b'
    hint: did you mean '1f1b'?
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        where: Place | str | None = None,
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        problems: Iterable[ExactmapError] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.got = got
        self.expected = expected
        self.hint = hint
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """Render the whole message, several lines if there is a hint or more than one problem."""
        pairs = (("got", self.got), ("expected", self.expected))
        facts = ", ".join(f"{word} {value}" for word, value in pairs if value is not None)
        place = "" if self.where is None else str(self.where)
        lines = [": ".join(part for part in (place, self.what, facts) if part)]
        lines.extend(str(problem) for problem in self.problems)
        if self.hint is not None:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class InvalidInputError(ExactmapError):
    """A scenario, plan, data file or argument is wrong (exit code 3)."""

    exit_code: ClassVar[int] = 3


class InfeasibleError(ExactmapError):
    """The input is well formed, yet no plan fits it (exit code 4)."""

    exit_code: ClassVar[int] = 4


class CheckFailedError(ExactmapError):
    """A comparison or a verification missed its bound (exit code 5)."""

    exit_code: ClassVar[int] = 5


class ExecutionFailedError(ExactmapError):
    """A run ended with an error (exit code 6)."""

    exit_code: ClassVar[int] = 6


class ExecutionHungError(ExactmapError):
    """A run made no progress and was stopped by its watchdog (exit code 7)."""

    exit_code: ClassVar[int] = 7


class MissingRequirementError(ExactmapError):
    """Hardware, a library or a program that is needed is not there (exit code 8)."""

    exit_code: ClassVar[int] = 8
