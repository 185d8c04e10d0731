"""Stragglers and jitter: edits of durations, in integers and from a seed.

A slow GPU, a hot rack or a noisy host changes how long works take, never what happens in which order. Jitter
draws from a counter generator (SplitMix64, Steele, Lea and Flood 2014), so a draw depends on seed,
coordinates and instruction alone: the same on every machine and whatever else is drawn.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from exactmap.errors import InvalidInputError
from exactmap.sim.engine.durations import ActorDurations, Durations, split_replica
from exactmap.sim.engine.encoded import WORK_KINDS, Ints

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["jitter", "slow_down"]

_PER_MILLE = 1000
_MASK = 2**64 - 1


def slow_down(
    durations: Durations,
    factor: Fraction | int | str,
    *,
    pp: Iterable[int] | None = None,
    dp: int | None = None,
) -> Durations:
    """Multiply the works of some ranks by `factor`, rounded half up to whole ns.

    Parameters
    ----------
    durations
        What to edit; it stays as it is.
    factor
        At least 0, exact: a `Fraction`, an integer, or decimal text such as ``"1.25"``.
    pp
        Pipeline ranks; all if None.
    dp
        One replica, which gets a lane of its own; all if None.

    Raises
    ------
    InvalidInputError
        If the factor is negative or a rank or replica does not exist.

    Examples
    --------
    >>> from exactmap.sim.engine.perturb import slow_down
    >>> slower = slow_down(durations, "1.25", pp=[3])  # doctest: +SKIP
    """
    exact = Fraction(factor)
    if exact < 0:
        raise InvalidInputError("a slow-down factor is negative", got=str(factor))
    known = {rank for _, rank in durations.actors}
    ranks = known if pp is None else set(pp)
    if not ranks <= known:
        raise InvalidInputError("the plan has no such pipeline rank", got=f"pp={min(ranks - known)}")
    edited = durations if dp is None else split_replica(durations, dp)
    actors = {
        (lane, rank): _scaled(actor, exact)
        if rank in ranks and (dp is None or edited.lanes[lane].dp == dp)
        else actor
        for (lane, rank), actor in edited.actors.items()
    }
    return replace(edited, actors=actors)


def jitter(durations: Durations, per_mille: int, seed: int) -> Durations:
    """Lengthen each work by a share drawn evenly from 0..`per_mille` thousandths, rounded down to whole ns.

    Lanes draw apart from each other; replicas of one lane stay equal (`split_replica` parts them first).

    Raises
    ------
    InvalidInputError
        If `per_mille` is negative or over 1,000,000.
    """
    if not 0 <= per_mille <= 1_000_000:
        raise InvalidInputError("jitter is out of range", got=f"{per_mille}", expected="0..1000000 per mille")
    actors = {
        (number, rank): _jittered(
            actor, per_mille, (seed, durations.lanes[number].dp, *durations.lanes[number].inner, rank)
        )
        for (number, rank), actor in durations.actors.items()
    }
    return replace(durations, actors=actors)


def _scaled(actor: ActorDurations, factor: Fraction) -> ActorDurations:
    is_work = WORK_KINDS[actor.program.kind]
    # Python integers: an exact fraction may have a large numerator.
    scaled = {int(ns): _round_half_up(int(ns) * factor) for ns in np.unique(actor.comp_ns[is_work])}
    comp_ns = actor.comp_ns.copy()
    comp_ns[is_work] = [scaled[ns] for ns in actor.comp_ns[is_work].tolist()]
    return replace(actor, comp_ns=comp_ns)


def _round_half_up(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _jittered(actor: ActorDurations, per_mille: int, key: tuple[int, ...]) -> ActorDurations:
    draws = _draw(key, actor.program.num_instructions, per_mille + 1)
    extra = actor.comp_ns // _PER_MILLE * draws + actor.comp_ns % _PER_MILLE * draws // _PER_MILLE
    comp_ns = np.where(WORK_KINDS[actor.program.kind], actor.comp_ns + extra, actor.comp_ns)
    return replace(actor, comp_ns=comp_ns)


def _draw(key: tuple[int, ...], num: int, bound: int) -> Ints:
    """`num` integers in 0..bound-1; their unevenness is below bound / 2**32."""
    state = np.uint64(0)
    for word in key:
        state = _mix(np.array([(int(state) * 31 + word) & _MASK], dtype=np.uint64))[0]
    counters = np.arange(num, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + state
    return ((_mix(counters) >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function, one step on from `value`."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
