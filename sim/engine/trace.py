"""The trace: when each instruction was reached, started, left and over.

One schema for predictions and executions.

The file form and the meaning of each column: `docs/reference/trace.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.encoded import KINDS, Ints

if TYPE_CHECKING:
    from collections.abc import Callable

    from exactmap.sim.engine.summary import StepSummary

__all__ = ["TRACE_COLUMNS", "TRACE_VERSION", "OpTexts", "Trace", "kind_of_text"]

TRACE_VERSION = 1
TRACE_COLUMNS: tuple[str, ...] = (
    "step",
    "dp",
    "inner",
    "pp",
    "index",
    "line",
    "op",
    "a_ns",
    "s_ns",
    "e_ns",
    "done_ns",
)
"""Columns in the order of the file."""

_KIND_BY_WORD = {op.value: code for code, op in enumerate(KINDS)}


def kind_of_text(text: str) -> int:
    """Kind code (index into `KINDS`) of an instruction's text, -1 if there is no such kind."""
    word = text.split(" ", 1)[0]
    return _KIND_BY_WORD.get(word.split("{", 1)[0], -1)


class OpTexts(Sequence[str]):
    """Instruction texts, formatted when they are asked for: of a million rows few are ever shown."""

    def __init__(self, num: int, text_of: Callable[[int], str]) -> None:
        self._num = num
        self._text_of = text_of

    def __len__(self) -> int:
        """Number of rows."""
        return self._num

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Text of one row, or of some."""
        if isinstance(index, slice):
            return [self._text_of(at) for at in range(*index.indices(self._num))]
        if not -self._num <= index < self._num:
            raise IndexError(index)
        return self._text_of(index % self._num)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Rows of one or more steps, sorted by (step, dp, inner, pp, index); all columns have shape [rows].

    Parameters
    ----------
    source
        ``events``, ``replay`` or ``run``.
    plan_sha256
        Hash of the plan file's bytes, empty for a plan that never was a file.
    mover
        ``engine`` or ``inline``.
    kind
        Index into `exactmap.sim.engine.encoded.KINDS`.
    op
        Instruction texts.
    a_ns, s_ns, e_ns, done_ns
        Reached, started, left, over; -1 where there is no such time.
    replicas
        Replica -> how many equal replicas it stands for; those not named stand for themselves.
    """

    source: str
    plan_sha256: str
    mover: str
    step: Ints
    dp: Ints
    inner: Ints
    pp: Ints
    index: Ints
    line: Ints
    kind: NDArray[np.int8]
    op: Sequence[str]
    a_ns: Ints
    s_ns: Ints
    e_ns: Ints
    done_ns: Ints
    replicas: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.step)

    @property
    def steps(self) -> tuple[int, ...]:
        """Numbers of the steps that the trace holds."""
        return tuple(np.unique(self.step).tolist())

    def of_step(self, step: int) -> Trace:
        """The rows of one step.

        Raises
        ------
        InvalidInputError
            If the trace does not hold that step.
        """
        first, last = np.searchsorted(self.step, [step, step + 1]).tolist()
        if first == last:
            held = ", ".join(map(str, self.steps[:8]))
            raise InvalidInputError(
                "the trace does not hold that step", got=str(step), expected=f"one of {held}"
            )
        return self.rows(first, last)

    def rows(self, first: int, last: int) -> Trace:
        """Rows first..last-1 as a trace of their own."""
        op = self.op
        texts = OpTexts(last - first, lambda at: op[first + at])
        names = ("step", "dp", "inner", "pp", "index", "line", "kind", "a_ns", "s_ns", "e_ns", "done_ns")
        parts = {name: getattr(self, name)[first:last] for name in names}
        return replace(self, op=texts, **parts)

    def actor(self, pp: int, dp: int = 0, inner: int = 0) -> Trace:
        """The rows of one rank; the trace must hold a single step.

        Raises
        ------
        InvalidInputError
            If the trace does not hold that rank, or holds several steps.
        """
        at = np.flatnonzero((self.pp == pp) & (self.dp == dp) & (self.inner == inner))
        if np.count_nonzero(self.index[at] == 0) != 1:
            where = f"pp={pp} dp={dp} inner={inner}"
            raise InvalidInputError("the trace does not hold one step of that rank", got=where)
        return self.rows(int(at[0]), int(at[-1]) + 1)

    def actor_starts(self) -> Ints:
        """Row of the first instruction of each (step, rank), and the number of rows as last entry."""
        return np.append(np.flatnonzero(self.index == 0), len(self)).astype(np.int64)

    def same_times(self, other: Trace) -> bool:
        """Whether both hold the same rows and, to the nanosecond, the same times."""
        names = ("step", "dp", "inner", "pp", "index", "kind", "a_ns", "s_ns", "e_ns", "done_ns")
        return len(self) == len(other) and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in names
        )

    def summary(self, step: int | None = None) -> StepSummary:
        """What one step comes to: makespan, period, bubbles, busy and exposed time.

        Parameters
        ----------
        step
            Which step; may be left out if the trace holds one.

        Raises
        ------
        InvalidInputError
            If the trace does not hold that step, or holds several and none is named.
        """
        from exactmap.sim.engine.summary import summarize  # noqa: PLC0415 - summary reads this module's Trace

        if step is None and len(self.steps) != 1:
            raise InvalidInputError(
                "the trace holds several steps", got=str(len(self.steps)), hint="name one"
            )
        trace: Trace = self if step is None else self.of_step(step)
        # pyright sees this folder under two names, so two classes of this name.
        return summarize(trace)  # pyright: ignore[reportArgumentType]
