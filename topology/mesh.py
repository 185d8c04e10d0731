"""Parallel axes laid onto ranks.

A mesh is a mixed-radix number: with the order (tp, cp, ep, dp, pp), innermost first, ::

    rank = tp + TP * (cp + CP * (ep + EP * (dp + DP * pp)))

so ranks that differ only in the innermost axis are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import prod

from exactmap.errors import InvalidInputError, Place

__all__ = ["DEFAULT_ORDER", "Axis", "Coords", "Mesh"]


class Axis(StrEnum):
    """A parallel axis."""

    TP = "tp"
    CP = "cp"
    EP = "ep"
    PP = "pp"
    DP = "dp"


DEFAULT_ORDER: tuple[Axis, ...] = (Axis.TP, Axis.CP, Axis.EP, Axis.DP, Axis.PP)
"""Axes from the innermost (neighbouring ranks) to the outermost."""


@dataclass(frozen=True, slots=True)
class Coords:
    """A rank's place on every axis."""

    tp: int = 0
    cp: int = 0
    ep: int = 0
    pp: int = 0
    dp: int = 0

    def on(self, axis: Axis) -> int:
        """Place on one axis."""
        return int(getattr(self, axis.value))

    def moved(self, places: Mapping[Axis, int]) -> Coords:
        """Return the same coordinates with some axes changed."""
        return Coords(**{axis.value: places.get(axis, self.on(axis)) for axis in Axis})


@dataclass(frozen=True, slots=True)
class Mesh:
    """Sizes of the parallel axes and their order onto ranks.

    Parameters
    ----------
    tp, cp, ep, pp, dp
        Size of the tensor, context, expert, pipeline and data axis.
    order
        All five axes, innermost first.

    Raises
    ------
    InvalidInputError
        If a size is below 1, or `order` is no permutation of the axes.

    Examples
    --------
    >>> mesh = Mesh(tp=2, pp=2, dp=2)
    >>> mesh.num_ranks, mesh.coords(5)
    (8, Coords(tp=1, cp=0, ep=0, pp=1, dp=0))
    >>> mesh.group(5, [Axis.DP])
    (5, 7)
    """

    tp: int = 1
    cp: int = 1
    ep: int = 1
    pp: int = 1
    dp: int = 1
    order: tuple[Axis, ...] = DEFAULT_ORDER

    def __post_init__(self) -> None:
        """Check sizes and order."""
        for axis in Axis:
            if self.size(axis) < 1:
                raise InvalidInputError(
                    "an axis must have a size",
                    where=Place(field=f"mesh.{axis}"),
                    got=str(self.size(axis)),
                    expected="at least 1",
                )
        if sorted(self.order) != sorted(Axis):
            raise InvalidInputError(
                "the order must name each axis once",
                where=Place(field="mesh.order"),
                got=",".join(self.order),
                expected="a permutation of " + ",".join(DEFAULT_ORDER),
            )

    def size(self, axis: Axis) -> int:
        """Size of an axis."""
        return int(getattr(self, axis.value))

    @property
    def num_ranks(self) -> int:
        """Ranks in the whole mesh."""
        return self.tp * self.cp * self.ep * self.pp * self.dp

    def group_size(self, axes: Iterable[Axis]) -> int:
        """Members of one group along `axes`."""
        return prod(self.size(axis) for axis in set(axes))

    def num_groups(self, axes: Iterable[Axis]) -> int:
        """Groups along `axes` in the whole mesh."""
        return self.num_ranks // self.group_size(axes)

    def stride(self, axis: Axis) -> int:
        """Distance in ranks between neighbours on an axis."""
        return prod(self.size(inner) for inner in self.order[: self.order.index(axis)])

    def coords(self, rank: int) -> Coords:
        """Place of a rank on every axis."""
        self._check_rank(rank)
        places: dict[str, int] = {}
        for axis in self.order:
            rank, places[axis.value] = divmod(rank, self.size(axis))
        return Coords(**places)

    def rank(self, coords: Coords) -> int:
        """Rank at given coordinates; the inverse of `coords`."""
        rank = 0
        for axis in reversed(self.order):
            place = coords.on(axis)
            if not 0 <= place < self.size(axis):
                raise InvalidInputError(
                    "no such place on the mesh",
                    where=Place(field=axis.value),
                    got=str(place),
                    expected=f"0 to {self.size(axis) - 1}",
                )
            rank = rank * self.size(axis) + place
        return rank

    def group(self, rank: int, axes: Iterable[Axis]) -> tuple[int, ...]:
        """Ranks that differ from `rank` only on `axes`, itself included, ascending."""
        self._check_rank(rank)
        coords = self.coords(rank)
        chosen = set(axes)
        base = rank - sum(coords.on(axis) * self.stride(axis) for axis in chosen)
        return tuple(base + offset for offset in self._offsets(chosen))

    def groups(self, axes: Iterable[Axis]) -> Iterator[tuple[int, ...]]:
        """All groups along `axes`, in order of their first rank."""
        chosen = set(axes)
        offsets = self._offsets(chosen)
        for base in self._offsets(set(Axis) - chosen):
            yield tuple(base + offset for offset in offsets)

    def peer(self, rank: int, axis: Axis, step: int) -> int | None:
        """Rank `step` places further along an axis, or None beyond its ends."""
        place = self.coords(rank).on(axis) + step
        return rank + step * self.stride(axis) if 0 <= place < self.size(axis) else None

    def _offsets(self, axes: set[Axis]) -> list[int]:
        offsets = [0]
        for axis in self.order:
            if axis in axes:
                stride = self.stride(axis)
                offsets = [place * stride + offset for place in range(self.size(axis)) for offset in offsets]
        return offsets

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < self.num_ranks:
            raise InvalidInputError("no such rank", got=str(rank), expected=f"0 to {self.num_ranks - 1}")
