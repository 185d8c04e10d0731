"""What a reader says of a plan: accepted, or a code, a line and the reason.

Codes, lines and their order are fixed in `docs/reference/plan-format.md`, section 7; the C reader gives the
same.
"""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.errors import InvalidInputError, Place

__all__ = ["ACCEPTED", "PlanError", "StuckActor", "Verdict"]

ACCEPTED = "ok"
"""Code of the verdict on a valid plan."""


@dataclass(frozen=True, slots=True)
class StuckActor:
    """A program that cannot go on: rank `pp` of replica `dp` (-1: all without own ones) stands at `op`."""

    pp: int
    dp: int
    line: int
    op: str

    def __str__(self) -> str:
        """Render as ``rank R [dp D] line L: OP``."""
        replica = "" if self.dp < 0 else f" dp {self.dp}"
        return f"rank {self.pp}{replica} line {self.line}: {self.op}"


class PlanError(InvalidInputError):
    """A plan is refused (exit code 3).

    Parameters
    ----------
    code
        Verdict code, as `prog.slot`.
    line
        Line of the file, counted from 1; 0 for a plan that did not come from a file.
    what
        What is wrong.
    name
        The file's name, for the message.
    rank
        Pipeline rank whose program is at fault, or -1.
    op
        Text of the instruction at fault, if there is one.
    got, expected, hint
        As in `ExactmapError`.
    cycle
        Actors that wait for each other, the lowest first (deadlocks only).
    """

    def __init__(
        self,
        code: str,
        line: int,
        what: str,
        *,
        name: str = "plan",
        rank: int = -1,
        op: str = "",
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        cycle: tuple[StuckActor, ...] = (),
    ) -> None:
        subject = ": ".join(part for part in ("" if rank < 0 else f"rank {rank}", op) if part)
        text = f"{subject}: {what}" if subject else what
        if cycle:
            text = "\n".join([text, *(f"  {actor}" for actor in cycle)])
        super().__init__(
            text,
            where=Place(name, line if line > 0 else None, code),
            got=got,
            expected=expected,
            hint=hint,
        )
        self.code = code
        self.line = line
        self.rank = rank
        self.op = op
        self.reason = what
        self.cycle = cycle


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a plan's bytes; `code` is `ACCEPTED` and `line` 0 if there is nothing to object to."""

    code: str
    line: int = 0
    message: str = ""
    cycle: tuple[StuckActor, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether the plan may be used."""
        return self.code == ACCEPTED
