"""Which tokens a training sample is made of: the same numbers that the C engine computes.

A file of N tokens has ``num_windows = (N - 1) // seq`` windows; window w holds tokens ``[w*seq, w*seq +
seq]``: seq inputs, and the same shifted by one as targets. Sample number g is window ``P(g % num_windows)``
of epoch ``g // num_windows``, where P is a seeded permutation of the windows: a four-round Feistel network
on the least even number of bits that holds them, repeated until its value is a window ("cycle walking",
Black and Rogaway 2002). Reading needs no table, so any sample of any epoch is found at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exactmap.errors import InvalidInputError

__all__ = ["Sampler", "Step", "validation_windows"]

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Step:
    """Shape of one training step: replicas, microbatches per replica, sequences per microbatch."""

    dp: int
    m: int
    microbatch: int

    @property
    def num_samples(self) -> int:
        """Sequences in one step over all replicas."""
        return self.dp * self.m * self.microbatch


@dataclass(frozen=True, slots=True)
class Sampler:
    """Finds the window of a sample.

    Parameters
    ----------
    num_tokens
        Tokens in the file.
    seq
        Tokens per sequence.
    seed
        Seed of the permutation (the plan's).

    Raises
    ------
    InvalidInputError
        If the file holds no whole window.

    Examples
    --------
    >>> sampler = Sampler(num_tokens=101, seq=10, seed=1)
    >>> sorted(sampler.window(g) for g in range(sampler.num_windows)) == list(range(10))
    True
    """

    num_tokens: int
    seq: int
    seed: int

    def __post_init__(self) -> None:
        """Refuse a file that is too short."""
        if self.num_windows < 1:
            raise InvalidInputError(
                "the token file is shorter than one sequence",
                got=f"{self.num_tokens} tokens",
                expected=f"at least {self.seq + 1} tokens",
            )

    @property
    def num_windows(self) -> int:
        """Windows in the file: samples in one epoch."""
        return (self.num_tokens - 1) // self.seq

    def window(self, sample: int) -> int:
        """Window of sample number `sample`, counted from 0 over the whole run."""
        epoch, index = divmod(sample, self.num_windows)
        half = _half_bits(self.num_windows)
        low_mask = (1 << half) - 1
        key = _random(self.seed, epoch)
        value = index
        while True:
            left, right = value >> half, value & low_mask
            for number in range(_ROUNDS):
                left, right = right, left ^ (_random(key + number, right) & low_mask)
            value = (left << half) | right
            if value < self.num_windows:
                return value

    def microbatch(self, step: Step, number: int, replica: int, index: int) -> NDArray[np.int64]:
        """Windows, shape (microbatch,), of microbatch `index` of `replica` in step `number` (from 0)."""
        first = number * step.num_samples + (replica * step.m + index) * step.microbatch
        return np.array([self.window(first + i) for i in range(step.microbatch)], np.int64)


def validation_windows(num_tokens: int, seq: int, num_sequences: int) -> NDArray[np.int64]:
    """Windows that a validation reads: `num_sequences` (or all, if fewer) spread evenly over the file.

    Examples
    --------
    >>> validation_windows(101, 10, 4).tolist()
    [0, 2, 5, 7]
    """
    num_windows = (num_tokens - 1) // seq
    count = min(num_sequences, num_windows)
    return np.array([i * num_windows // count for i in range(count)], np.int64)


def _half_bits(num_windows: int) -> int:
    """Half of the least even number of bits, at least 2, that holds every window."""
    bits = max(1, (num_windows - 1).bit_length())
    return (bits + 1) // 2


def _random(key: int, counter: int) -> int:
    """Value `counter` of the stream `key`: splitmix64 in counter mode, as the C engine's."""
    return _mix((_mix((key + _GAMMA) & _MASK) + (counter + 1) * _GAMMA) & _MASK)


def _mix(value: int) -> int:
    """The finaliser of splitmix64."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
