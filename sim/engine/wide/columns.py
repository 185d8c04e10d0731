"""Columns: what the wide replay steps side by side, and where their durations come from.

A column is one set of pipeline ranks 0..pp-1: one replica at one (tp, cp, ep) coordinate, in one of the steps
that are simulated at once. Columns are numbered through ::

    column = (((step * DP + dp) * EP + ep) * CP + cp) * TP + tp

so that members of a tensor group are neighbours. A GPU is a pipeline rank of a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints

__all__ = ["Columns", "PickyTimes", "WideTimes"]


@dataclass(frozen=True, slots=True)
class Columns:
    """How many columns there are along each axis."""

    num_steps: int = 1
    dp: int = 1
    ep: int = 1
    cp: int = 1
    tp: int = 1

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """Sizes, outermost first: steps, dp, ep, cp, tp."""
        return (self.num_steps, self.dp, self.ep, self.cp, self.tp)

    def __len__(self) -> int:
        """Number of columns."""
        return self.num_steps * self.dp * self.ep * self.cp * self.tp


class WideTimes(Protocol):
    """Durations of every instruction and message of every column, made on demand: never all at once.

    Arrays have shape [instructions or messages, columns asked for], in integer ns, and may be views: who
    receives one does not write into it. A duration does not depend on when or how often it is asked for.
    """

    @property
    def columns(self) -> Columns:
        """The columns."""
        ...

    def comp_ns(self, pp: int, first: int, last: int, columns: slice) -> Ints:
        """What compute spends on instructions first..last-1 of pipeline rank `pp`: works, posts, else 0."""
        ...

    def op_ns(self, pp: int, index: int, columns: slice) -> Ints:
        """[columns] duration of the group operation or copy that the post `index` starts."""
        ...

    def wire_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        """What messages first..last-1 of the plan's channel number `channel` occupy the channel for."""
        ...

    def lat_ns(self, channel: int, first: int, last: int, columns: slice) -> Ints:
        """What only delays these messages."""
        ...


@runtime_checkable
class PickyTimes(WideTimes, Protocol):
    """Durations that can be asked for of some instructions alone: those at which no time passes stay out."""

    def works_ns(self, pp: int, indices: Ints, columns: slice) -> Ints:
        """[indices, columns] `comp_ns` of the instructions `indices`, which ascend."""
        ...
