"""Local search: change an order a little where it is critical, keep what is not worse.

The critical path of a candidate ends at the last work that counts and goes back through works that start just
when another ends. Only where it passes from one work of a rank to the next can a change help: the later one is
moved before the earlier one, or before the whole run of weight gradients there. Moves keep microbatches of a
stage in order, and memory within its limit. Equal candidates are accepted, so the search walks plateaus.
"""

from __future__ import annotations

from random import Random

from exactmap.sim.schedules.auto.problem import Problem, Sequences
from exactmap.sim.schedules.auto.timing import Timing, time_sequences
from exactmap.sim.schedules.auto.weave import frame, weave

__all__ = ["climb", "score"]

_NONE = 1 << 40


def score(timing: Timing, objective: str) -> tuple[int, int]:
    """What candidates are compared by: the objective, then the sum of what all ranks take."""
    if objective == "barrier":
        return timing.makespan_ns, sum(timing.last_ns)
    spans = [last - first for first, last in zip(timing.first_ns, timing.last_ns, strict=True)]
    return max(spans), sum(spans)


def climb(
    problem: Problem, sequences: Sequences, objective: str, works: int, rng: Random
) -> tuple[Sequences, int, int]:
    """The best sequences found from `sequences` at the price of `works`: also how many timed, works spent."""
    timing = time_sequences(problem, sequences)
    assert timing is not None
    now = score(timing, objective)
    tried = spent = 0
    num_works = problem.num_works
    junctions = _junctions(problem, sequences, timing, objective)
    while spent < works and junctions:
        rank, place = junctions[rng.randrange(len(junctions))]
        spent += num_works // 50 + 1
        kind, from_ns = rng.random(), 0
        if kind < 0.15:
            spent += num_works
            other = _woven(problem, sequences, rank, place, rng)
        else:
            move = _pulled if kind < 0.5 else _moved
            found = move(problem, sequences, timing, rank, place, rng)
            if found is None:
                continue
            other, from_ns = found
        if other is None:
            continue
        tried += 1
        spent += int(num_works * max(1.1 - from_ns / max(timing.makespan_ns, 1), 0.1))
        new = time_sequences(problem, other, timing, from_ns)
        if new is None:
            continue
        value = score(new, objective)
        if value <= now:
            changed = value < now or rng.random() < 0.5
            if changed:
                sequences, timing, now = other, new, value
                junctions = _junctions(problem, sequences, timing, objective)
    return sequences, tried, spent


def _junctions(
    problem: Problem, sequences: Sequences, timing: Timing, objective: str
) -> list[tuple[int, int]]:
    """(rank, place) where the critical path comes from the work just before on the same rank."""
    end_ns, duration_ns = timing.end_ns, problem.duration_ns
    waits_for, delay_ns = problem.waits_for, problem.delay_ns
    last = timing.last_ns
    values = last if objective == "barrier" else [b - a for a, b in zip(timing.first_ns, last, strict=True)]
    top = max(values)
    rank = values.index(top)
    rank_of, m, items = problem.rank_of, problem.num_microbatches, problem.num_stages * problem.num_microbatches
    places: dict[int, dict[int, int]] = {}
    found: list[tuple[int, int]] = []
    number = sequences[rank][-1]
    while True:
        where = places.get(rank)
        if where is None:
            where = places[rank] = {other: place for place, other in enumerate(sequences[rank])}
        place = where[number]
        begin = end_ns[number] - duration_ns[number]
        before = sequences[rank][place - 1] if place else -1
        source = waits_for[number]
        if place and end_ns[before] == begin:
            found.append((rank, place))
            if source < 0 or end_ns[source] + delay_ns[number] < begin or len(found) % 2:
                number = before
                continue
        if source < 0 or end_ns[source] + delay_ns[number] != begin:
            return found
        number = source
        rank = rank_of[(number % items) // m]


def _moved(
    problem: Problem, sequences: Sequences, timing: Timing, rank: int, place: int, rng: Random
) -> tuple[Sequences, int] | None:
    """The work at `place` moved forward past one work, or past a run of weight gradients."""
    items = problem.num_stages * problem.num_microbatches
    sequence = sequences[rank]
    number = sequence[place]
    stop = place - 1
    if number < 2 * items and sequence[stop] >= 2 * items and rng.random() < 0.6:
        while stop and sequence[stop - 1] >= 2 * items:
            stop -= 1
    elif rng.random() < 0.3:
        stop = max(stop - rng.randrange(1, 6), 0)
    return _inserted(problem, sequences, timing, rank, place, stop)


def _pulled(
    problem: Problem, sequences: Sequences, timing: Timing, rank: int, place: int, rng: Random
) -> tuple[Sequences, int] | None:
    """A weight gradient from behind moved into a gap of the rank before `place`."""
    items = problem.num_stages * problem.num_microbatches
    end_ns, duration_ns = timing.end_ns, problem.duration_ns
    sequence = sequences[rank]
    gaps = [
        at
        for at in range(max(1, place - 60), place + 1)
        if end_ns[sequence[at]] - duration_ns[sequence[at]] > end_ns[sequence[at - 1]]
    ]
    if not gaps:
        return None
    stop = gaps[rng.randrange(len(gaps))]
    before = set(sequence[:stop])
    for at in range(stop + 1, len(sequence)):
        if sequence[at] >= 2 * items and sequence[at] - items in before:
            return _inserted(problem, sequences, timing, rank, at, stop)
    return None


def _inserted(
    problem: Problem, sequences: Sequences, timing: Timing, rank: int, place: int, stop: int
) -> tuple[Sequences, int] | None:
    """The work at `place` put before that at `stop`, and the time from which on all may change."""
    items, m = problem.num_stages * problem.num_microbatches, problem.num_microbatches
    sequence = sequences[rank]
    number = sequence[place]
    for other in sequence[stop:place]:
        if other // m == number // m or other % items == number % items:
            return None
    changed = sequence[:stop] + [number] + sequence[stop:place] + sequence[place + 1 :]
    grows, limit, level = problem.grows, problem.limits[rank], 0
    if number < items:
        for other in changed:
            level += grows[other]
            if level > limit:
                return None
    from_ns = timing.end_ns[sequence[stop - 1]] if stop else 0
    return [*sequences[:rank], changed, *sequences[rank + 1 :]], from_ns


def _woven(
    problem: Problem, sequences: Sequences, rank: int, place: int, rng: Random
) -> Sequences | None:
    """The pass at or before `place` moved past another pass, and all weight gradients put in anew."""
    items, m = problem.num_stages * problem.num_microbatches, problem.num_microbatches
    frames = frame(problem, sequences)
    at = sum(1 for number in sequences[rank][: place + 1] if number < 2 * items) - 1
    passes = frames[rank]
    at += rng.randrange(2)
    if not 0 < at < len(passes):
        return None
    late, early = passes[at], passes[at - 1]
    if rng.random() < 0.8:
        if late // m == early // m or late % items == early % items:
            return None
        frames[rank] = [*passes[: at - 1], late, early, *passes[at + 1 :]]
    return weave(problem, frames, rng.choice((0.01, 0.5, 1.0)), [_NONE] * problem.num_ranks)
