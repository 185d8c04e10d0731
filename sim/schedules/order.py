"""An order: what each pipeline rank computes, one work after another, before any time or message is known.

Notation of all schedules here: p ranks, m microbatches, v chunks per rank, S stages (p*v where each lies on
one rank), r a rank. ``F`` is the forward pass, ``I`` the gradient of the input, ``W`` that of the weights,
``B`` = I and W in one, ``RC`` the forward pass again, ``OFF`` and ``LD`` send the stash of an item to the
host and bring it back. An *item* is (stage, microbatch, slice); a *braid* is a run of neighbouring works that
are done as one.

Where it costs nothing, every stage meets its microbatches in ascending order in its backward pass, so that
gradients are summed in the same order by all schedules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exactmap.errors import InvalidInputError
from exactmap.sim.plan.instruction import CODES, KINDS, Op

__all__ = ["Order", "Work", "Works", "loop_placement", "vee_placement"]

Ints = NDArray[np.int64]

_OPS = (Op.F, Op.I, Op.W, Op.B, Op.RC, Op.OFF, Op.LD)
_F, _I, _W, _B, _RC, _OFF, _LD = (CODES[op] for op in _OPS)
# By kind code, any 8-bit number: whether it may stand in an order.
_KNOWN = np.isin(np.arange(256).astype(np.int8), [CODES[op] for op in _OPS])


class Work(NamedTuple):
    """One work of an order: a pass, or the start of a copy to or from the host.

    `braid` is the same number, at least 0, on the neighbouring works of a braid; -1 stands for none.
    """

    op: Op
    stage: int
    microbatch: int
    slice: int = 0
    braid: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Works:
    """Works of one rank as columns, each of shape [n]; iterating gives `Work`."""

    op: NDArray[np.int8]  #: kind codes (`exactmap.sim.plan.instruction.KINDS`)
    stage: Ints
    microbatch: Ints
    cut: Ints  #: slice of the sequence
    braid: Ints

    @staticmethod
    def of(works: Iterable[Work]) -> Works:
        """Columns of some works.

        Examples
        --------
        >>> [f"{w.op}{w.microbatch}" for w in Works.of([Work(Op.F, 0, 1), Work(Op.B, 0, 1)])]
        ['F1', 'B1']
        """
        rows = [(CODES[work.op], *work[1:]) for work in works]
        columns = np.array(rows, dtype=np.int64).reshape(len(rows), 5).T
        return Works(columns[0].astype(np.int8), *columns[1:])

    @staticmethod
    def columns(
        op: ArrayLike, stage: ArrayLike, microbatch: ArrayLike, cut: ArrayLike = 0, braid: ArrayLike = -1
    ) -> Works:
        """Works from kind codes and operands, each a number or a sequence; numbers are repeated.

        Examples
        --------
        >>> list(Works.columns(CODES[Op.F], 2, [0, 1]))[1]
        Work(op=<Op.F: 'F'>, stage=2, microbatch=1, slice=0, braid=-1)
        """
        parts = np.broadcast_arrays(op, stage, microbatch, cut, braid)
        return Works(
            parts[0].astype(np.int8).reshape(-1),
            *(part.astype(np.int64).reshape(-1) for part in parts[1:]),
        )

    @staticmethod
    def joined(parts: Sequence[Works]) -> Works:
        """Some lists of works, one behind the other."""
        return Works(
            *(
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("op", "stage", "microbatch", "cut", "braid")
            )
        )

    def taken(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Works:
        """The works of some rows, as numpy indexes them."""
        return Works(self.op[rows], self.stage[rows], self.microbatch[rows], self.cut[rows], self.braid[rows])

    def __len__(self) -> int:
        """Number of works, the members of a braid counted one by one."""
        return len(self.op)

    def __iter__(self) -> Iterator[Work]:
        """Works in order."""
        columns = (self.op, self.stage, self.microbatch, self.cut, self.braid)
        for op, *operands in zip(*(column.tolist() for column in columns), strict=True):
            yield Work(KINDS[op], *operands)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same works in the same order."""
        if not isinstance(other, Works):
            return NotImplemented
        return bool(np.array_equal(self._stacked(), other._stacked()))

    def _stacked(self) -> Ints:
        return np.stack([self.op.astype(np.int64), self.stage, self.microbatch, self.cut, self.braid])

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """Works of each pipeline rank in the order in which it does them.

    Parameters
    ----------
    num_microbatches
        Microbatches of one step, m.
    placement
        The ranks of each stage: one, or two that share its microbatches.
    ranks
        For each rank its works (`Works`, or any works, which become columns).
    num_slices
        Slices that each sequence is cut into along its tokens.

    Attributes
    ----------
    rank_of_item, forward_at, backward_at
        For item (stage*m + microbatch)*num_slices + slice: the rank that computes it, and the places of its F
        and of its I or B among that rank's works.

    Raises
    ------
    InvalidInputError
        If a work stands on a rank that does not hold its stage, stands twice, too early or is missing, if the
        parts of an item lie on two ranks, or if slices or braids are out of order.

    Examples
    --------
    >>> work = [[Work(Op.F, rank, 0), Work(Op.B, rank, 0)] for rank in (0, 1)]
    >>> order = Order(1, ((0,), (1,)), work)
    >>> order.num_ranks, order.num_stages
    (2, 2)
    """

    num_microbatches: int
    placement: tuple[tuple[int, ...], ...]
    ranks: Sequence[Works | Iterable[Work]]
    num_slices: int = 1
    rank_of_item: Ints = field(init=False, repr=False)
    forward_at: Ints = field(init=False, repr=False)
    backward_at: Ints = field(init=False, repr=False)

    @property
    def num_ranks(self) -> int:
        """Number of pipeline ranks, p."""
        return len(self.ranks)

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        return len(self.placement)

    @property
    def num_items(self) -> int:
        """Number of items: S*m*num_slices."""
        return self.num_stages * self.num_microbatches * self.num_slices

    def __eq__(self, other: object) -> bool:
        """Whether both have the same placement and the same works in the same order."""
        if not isinstance(other, Order):
            return NotImplemented
        mine = (self.num_microbatches, self.num_slices, self.placement)
        theirs = (other.num_microbatches, other.num_slices, other.placement)
        return mine == theirs and tuple(self.ranks) == tuple(other.ranks)

    __hash__ = None  # type: ignore[assignment]

    def works(self, rank: int) -> Works:
        """Works of one rank, as columns."""
        works = self.ranks[rank]
        assert isinstance(works, Works)
        return works

    def items(self, works: Works) -> Ints:
        """Number of the item of each work."""
        return (works.stage * self.num_microbatches + works.microbatch) * self.num_slices + works.cut

    def name(self, item: int) -> str:
        """An item as a plan writes it."""
        stage, rest = divmod(item, self.num_microbatches * self.num_slices)
        microbatch, cut = divmod(rest, self.num_slices)
        return f"{stage}.{microbatch}" + (f".{cut}" if self.num_slices > 1 else "")

    def __post_init__(self) -> None:
        """Check that every item is computed once, on a right rank and in a possible order there."""
        columns = tuple(works if isinstance(works, Works) else Works.of(works) for works in self.ranks)
        object.__setattr__(self, "ranks", columns)
        at = {code: np.full(self.num_items, -1, dtype=np.int64) for code in map(CODES.__getitem__, _OPS)}
        on = {code: np.full(self.num_items, -1, dtype=np.int64) for code in at}
        for rank, works in enumerate(columns):
            self._check_operands(rank, works)
            items = self.items(works)
            for code, places in at.items():
                rows = np.flatnonzero(works.op == code)
                if not len(rows):
                    continue
                mine = items[rows]
                again = places[mine] >= 0
                places[mine] = rows
                # Of an item that stands twice here, only one row is left in its place.
                again |= places[mine] != rows
                if again.any():
                    raise self._wrong(rank, code, int(mine[again][0]), "comes twice")
                on[code][mine] = rank
        self._check_items(at, on)
        backward = np.where(at[_B] >= 0, at[_B], at[_I])
        object.__setattr__(self, "rank_of_item", on[_F])
        object.__setattr__(self, "forward_at", at[_F])
        object.__setattr__(self, "backward_at", backward)
        if self.num_slices > 1:
            self._check_slices(at[_F], backward)

    def _check_operands(self, rank: int, works: Works) -> None:
        known = _KNOWN[works.op]
        limits = (
            (works.stage, self.num_stages),
            (works.microbatch, self.num_microbatches),
            (works.cut, self.num_slices),
        )
        for values, limit in limits:
            known &= (values >= 0) & (values < limit)
        here = np.array([rank in ranks for ranks in self.placement])
        known &= here[np.clip(works.stage, 0, self.num_stages - 1)]
        if not known.all():
            work = list(works)[int(np.flatnonzero(~known)[0])]
            what = "does not belong on this rank" if work.op in _OPS else "is no pass and no copy of a stash"
            raise _wrong(rank, f"{work.op} {work.stage}.{work.microbatch}", what)
        braid = works.braid
        inside = braid >= 0
        if inside.any():
            self._check_braids(rank, works, inside)

    def _check_braids(self, rank: int, works: Works, inside: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(inside)
        copies = inside & ((works.op == _OFF) | (works.op == _LD))
        starts = np.concatenate(([True], works.braid[1:] != works.braid[:-1]))[rows]
        runs = works.braid[rows[starts]]
        pairs = works.stage * self.num_microbatches + works.microbatch
        keys = works.braid[rows] * (int(pairs.max()) + 1) + pairs[rows]
        for wrong, what in (
            (copies.any(), "is a copy inside a braid"),
            (len(np.unique(runs)) < len(runs), "is in a braid whose works do not stand together"),
            (len(np.unique(keys)) < len(keys), "is in a braid with another work of its microbatch"),
        ):
            if wrong:
                work = list(works)[int(rows[0])]
                raise _wrong(rank, f"{work.op} {work.stage}.{work.microbatch}", what)

    def _check_items(self, at: dict[int, Ints], on: dict[int, Ints]) -> None:
        """Each item: F, then I and W or B, on one rank; RC, OFF and LD between."""
        rank = on[_F]
        fused = at[_B] >= 0
        backward = np.where(fused, at[_B], at[_I])
        copied = at[_OFF] >= 0
        stash_made = np.where(at[_RC] >= 0, at[_RC], at[_F])
        rules = (
            (_F, at[_F] < 0, "is missing"),
            (_W, fused & (at[_W] >= 0), "comes twice"),
            (_I, fused & (at[_I] >= 0), "comes twice"),
            (_I, ~fused & (at[_I] < 0), "is missing"),
            (_W, ~fused & (at[_W] < 0), "is missing"),
            (_B, fused & (at[_B] < at[_F]), "comes too early"),
            (_I, ~fused & (at[_I] < at[_F]), "comes too early"),
            (_W, ~fused & (at[_W] < at[_I]), "comes too early"),
            (_RC, (at[_RC] >= 0) & ((at[_RC] < at[_F]) | (at[_RC] > backward)), "is not between F and I"),
            (_OFF, copied != (at[_LD] >= 0), "or its LD is missing"),
            (_OFF, copied & (at[_OFF] < stash_made), "comes too early"),
            (_LD, copied & ((at[_LD] < at[_OFF]) | (at[_LD] > backward)), "is not between OFF and I"),
        )
        for code, wrong, what in rules:
            if wrong.any():
                item = int(np.flatnonzero(wrong)[0])
                held = self.placement[item // (self.num_microbatches * self.num_slices)]
                raise self._wrong(int(on[code][item]) if on[code][item] >= 0 else held[0], code, item, what)
        for code in at:
            apart = (on[code] >= 0) & (on[code] != rank)
            if apart.any():
                item = int(np.flatnonzero(apart)[0])
                raise self._wrong(int(on[code][item]), code, item, f"has its F on rank {rank[item]}")

    def _check_slices(self, forward: Ints, backward: Ints) -> None:
        shape = (-1, self.num_slices)
        rank = self.rank_of_item.reshape(shape)
        for code, wrong, what in (
            (_F, rank[:, 1:] != rank[:, :-1], "lies on another rank than the slice before"),
            (_F, np.diff(forward.reshape(shape)) < 0, "comes before that of an earlier slice"),
            (_I, np.diff(backward.reshape(shape)) > 0, "comes before that of a later slice"),
        ):
            if wrong.any():
                row, cut = (int(index[0]) for index in np.nonzero(wrong))
                item = row * self.num_slices + cut + 1
                raise self._wrong(int(self.rank_of_item[item]), code, item, what)

    def _wrong(self, rank: int, code: int, item: int, what: str) -> InvalidInputError:
        return _wrong(rank, f"{KINDS[code]} {self.name(item)}", what)


def _wrong(rank: int, work: str, what: str) -> InvalidInputError:
    return InvalidInputError(f"this is no order of a step: on rank {rank}, {work} {what}")


def loop_placement(num_ranks: int, num_chunks: int) -> tuple[tuple[int, ...], ...]:
    """Ranks of each stage when the stages go round the ranks: stage s lies on rank s mod p.

    Examples
    --------
    >>> loop_placement(3, 2)
    ((0,), (1,), (2,), (0,), (1,), (2,))
    """
    return tuple((rank,) for rank in range(num_ranks)) * num_chunks


def vee_placement(num_ranks: int, num_chunks: int = 2) -> tuple[tuple[int, ...], ...]:
    """Ranks of each stage when the stages go down the ranks and up again, as often as there are chunks.

    Examples
    --------
    >>> vee_placement(3)
    ((0,), (1,), (2,), (2,), (1,), (0,))
    """
    down = tuple((rank,) for rank in range(num_ranks))
    return tuple(ranks for chunk in range(num_chunks) for ranks in (down if chunk % 2 == 0 else down[::-1]))
