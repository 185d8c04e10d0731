"""What becomes of each thing that a plan says when it is handed over, and what that amounts to.

A *fact* is one thing that the plan (or its map) says. Each is handed over exactly, left to the target as its
own business, replaced by something else, or reason for a refusal. A fact that nobody spoke of makes a line
of its own, so that nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Grade", "Ledger", "Line", "Verdict"]


class Grade(StrEnum):
    """How a fact fares, from best to worst; a whole export is exact, approximate or refused."""

    EXACT = "exact"
    OWN = "own"
    APPROXIMATE = "approximate"
    REFUSED = "refused"


_UNKNOWN = "not handed over: this export does not know it"


@dataclass(frozen=True, slots=True)
class Line:
    """One fact and its fate.

    Parameters
    ----------
    fact
        Its name, such as ``train.lr``.
    says
        What the plan says.
    grade
        How it fares.
    how
        In the target's words; of all but exact lines, what happens instead.
    """

    fact: str
    says: str
    grade: Grade
    how: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """All lines of one target, in the plan's order."""

    target: str
    lines: tuple[Line, ...]

    @property
    def grade(self) -> Grade:
        """Refused if a line is, else approximate if a line is, else exact."""
        found = {line.grade for line in self.lines}
        return next((grade for grade in (Grade.REFUSED, Grade.APPROXIMATE) if grade in found), Grade.EXACT)

    def of(self, grade: Grade) -> tuple[Line, ...]:
        """Lines of one grade."""
        return tuple(line for line in self.lines if line.grade is grade)


class Ledger:
    """Collects the fate of each fact; what the plan does not say may be named and makes no line.

    Parameters
    ----------
    facts
        Name -> what the plan says.

    Examples
    --------
    >>> ledger = Ledger({"mesh.tp": "4", "clock": "free"})
    >>> ledger.exact("--tensor-model-parallel-size", "mesh.tp")
    >>> [(line.fact, line.grade.value) for line in ledger.verdict("megatron").lines]
    [('mesh.tp', 'exact'), ('clock', 'approximate')]
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        self._facts = dict(facts)
        self._lines: dict[str, list[Line]] = {name: [] for name in facts}

    def exact(self, how: str, *names: str) -> None:
        """Handed over as the plan says it."""
        self._add(Grade.EXACT, how, names)

    def own(self, how: str, *names: str) -> None:
        """Left to the target: it changes neither what a step computes nor in which order."""
        self._add(Grade.OWN, how, names)

    def instead(self, how: str, *names: str) -> None:
        """Cannot be said; `how` is what happens instead."""
        self._add(Grade.APPROXIMATE, how, names)

    def refuse(self, how: str, *names: str) -> None:
        """Cannot be said, and nothing like it can be run."""
        self._add(Grade.REFUSED, how, names)

    def verdict(self, target: str) -> Verdict:
        """All lines; a fact that has none is approximate, and says that it is unknown here."""
        lines = [
            line
            for name, found in self._lines.items()
            for line in found or [Line(name, self._facts[name], Grade.APPROXIMATE, _UNKNOWN)]
        ]
        return Verdict(target, tuple(lines))

    def _add(self, grade: Grade, how: str, names: tuple[str, ...]) -> None:
        for pattern in names:
            named = (
                [name for name in self._facts if name.startswith(pattern[:-1])]
                if pattern.endswith("*")
                else [pattern] * (pattern in self._facts)
            )
            for name in named:
                self._lines[name].append(Line(name, self._facts[name], grade, how))
