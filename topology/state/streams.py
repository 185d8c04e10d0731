"""Random numbers by component: a stream for each, so that nobody's draws depend on anybody else.

A stream has a key, and its draws are counted (SplitMix64; Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", 2014) ::

    key     = chain(seed, kind of stream, physical id, step, ...)
    word i  = mix(key + (i + 1) * golden)

so draw i of GPU 17 in step 4 is a function of these numbers alone: it stays the same whatever else is drawn,
in which order, by how many threads, and whichever components are added. A word holds four draws of 16 bits.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exactmap.topology.links import Ints

__all__ = ["DRAWS_PER_WORD", "Stream", "draws16", "stream_keys", "uniforms", "words"]

DRAWS_PER_WORD = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_CHAIN = np.uint64(31)


class Stream(IntEnum):
    """What is drawn; the numbers are part of every key, so they never change."""

    GPU_RATE = 1
    """How fast a GPU is, for good."""
    GPU_STEP = 2
    """How fast it is in one step."""
    GPU_WORK = 3
    """Jitter of its works."""
    HICCUP = 4
    """When it stands still."""
    HOST_RATE = 5
    """Whether a host is one of the slow ones."""
    INTERFACE_RATE = 6
    """How fast a network interface is, for good."""
    MESSAGE = 7
    """Jitter of the messages that a GPU sends."""
    COLLECTIVE = 8
    """Jitter of its part in group operations."""


def stream_keys(seed: int, stream: Stream, *parts: Ints | int) -> NDArray[np.uint64]:
    """Keys of streams; `parts` (ids, steps) are broadcast against each other.

    Examples
    --------
    >>> import numpy as np
    >>> three = stream_keys(7, Stream.GPU_WORK, np.arange(3), 4)
    >>> five = stream_keys(7, Stream.GPU_WORK, np.arange(5), 4)
    >>> three.tolist() == five[:3].tolist()
    True
    """
    key = np.array(_first_key(seed, int(stream)), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            key = _mixed(key * _CHAIN + np.asarray(part).astype(np.uint64) + _GOLDEN)
    return key


@lru_cache(maxsize=64)
def _first_key(seed: int, stream: int) -> int:
    """The chain up to the kind of stream: the same for all components, and asked for often."""
    key = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in (seed, stream):
            key = _mixed(key * _CHAIN + np.asarray(part).astype(np.uint64) + _GOLDEN)
    return int(key)


def words(
    keys: NDArray[np.uint64], first: int, last: int, out: NDArray[np.uint64] | None = None
) -> NDArray[np.uint64]:
    """Words first..last-1 of each stream, of shape [last - first, *keys.shape].

    Parameters
    ----------
    keys
        Keys of the streams.
    first, last
        Which words.
    out
        Where to put them.
    """
    with np.errstate(over="ignore"):
        steps = np.arange(first + 1, last + 1, dtype=np.uint64) * _GOLDEN
        state = np.add(steps.reshape(-1, *(1,) * keys.ndim), keys, out=out)
    return _mix_in_place(state)


def draws16(keys: NDArray[np.uint64], first_word: int, last_word: int) -> NDArray[np.uint16]:
    """Draws of 16 bits, of shape [words, streams, 4]: draw i stands in word i // 4 at place i % 4.

    `keys` has one axis.
    """
    block = words(keys, first_word, last_word).astype("<u8", copy=False)
    return block.view("<u2").reshape(*block.shape, DRAWS_PER_WORD)


def uniforms(keys: NDArray[np.uint64], first: int = 0, last: int = 1) -> NDArray[np.float64]:
    """Numbers in 0..1, never 1, of 53 bits each; of shape [last - first, *keys.shape]."""
    return (words(keys, first, last) >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def _mixed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _mix_in_place(np.array(value, dtype=np.uint64))


def _mix_in_place(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function."""
    shifted = np.empty_like(state)
    with np.errstate(over="ignore"):
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            np.right_shift(state, np.uint64(shift), out=shifted)
            state ^= shifted
            state *= factor
        np.right_shift(state, np.uint64(31), out=shifted)
        state ^= shifted
    return state
