"""Rows of durations times random factors, in blocks that stay in the cache; maxima over members."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.state.factors import FACTOR_BITS, ONE
from exactmap.topology.state.streams import DRAWS_PER_WORD, draws16

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exactmap.sim.engine.encoded import Ints

__all__ = ["DRAWS_AT_ONCE", "HALF", "jittered", "longest", "rows_at_once"]

HALF = ONE >> 1
DRAWS_AT_ONCE = 2**15  #: so many lie in the cache with what is made of them
_FEW_COLUMNS = 128


def rows_at_once(num_columns: int) -> int:
    """How many rows are drawn at once: whole words."""
    return max(DRAWS_PER_WORD, DRAWS_AT_ONCE // num_columns // DRAWS_PER_WORD * DRAWS_PER_WORD)


def jittered(keys: NDArray[np.uint64], table: Ints, first: int, scaled: Ints, which: Ints, out: Ints) -> None:
    """Put durations scaled[which], each times its draw's factor, into the rows of `out`.

    Parameters
    ----------
    keys
        [columns] streams.
    table
        Factors by 16-bit draw.
    first
        Draw of the first row; the others follow.
    scaled
        [kinds, columns] durations.
    which
        [rows] kind of each.
    out
        [rows, columns].
    """
    at_once = rows_at_once(len(keys))
    for start in range(0, len(which), at_once):
        part, kinds = out[start : start + at_once], which[start : start + at_once]
        draw = first + start
        low, high = draw // DRAWS_PER_WORD, -(-(draw + len(kinds)) // DRAWS_PER_WORD)
        # Clipping takes the fast way through `take`; 16 bits never reach beyond the table.
        factors = table.take(draws16(keys, low, high), mode="clip")
        skip = draw - low * DRAWS_PER_WORD
        if len(keys) <= _FEW_COLUMNS:
            rows = factors.transpose(0, 2, 1).reshape(-1, len(keys))
            np.multiply(rows[skip : skip + len(kinds)], scaled[kinds], out=part)
        else:
            for row, kind in enumerate(kinds.tolist()):
                word, place = divmod(skip + row, DRAWS_PER_WORD)
                np.multiply(factors[word, :, place], scaled[kind], out=part[row])
        part += HALF
        part >>= FACTOR_BITS


def longest(work: Ints, axis: int) -> Ints:
    """Maximum over an axis, which stays with size 1; faster than numpy's over a short inner axis."""
    parts = np.moveaxis(work, axis, 0)
    longest = parts[0].copy()
    for part in parts[1:]:
        np.maximum(longest, part, out=longest)
    return np.expand_dims(longest, axis)
