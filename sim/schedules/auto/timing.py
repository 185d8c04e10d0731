"""When the works of given sequences start, and how much memory they hold: the judge of every candidate.

The times equal those of `exactmap.sim.schedules.timeline.walk` for the same order, at a third of its cost.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from exactmap.sim.schedules.auto.problem import Problem, Sequences

__all__ = ["Timing", "fits", "peaks", "time_sequences"]


@dataclass(frozen=True, slots=True)
class Timing:
    """End of every work by its number (-1: never), and the span of each rank, first start to last end."""

    end_ns: list[int]
    first_ns: list[int]
    last_ns: list[int]

    @property
    def makespan_ns(self) -> int:
        """End of the last work: the barrier clock."""
        return max(self.last_ns)

    @property
    def period_ns(self) -> int:
        """Longest span of a rank: the steady clock, without a barrier between steps."""
        return max(last - first for first, last in zip(self.first_ns, self.last_ns, strict=True))

    def value(self, objective: str) -> int:
        """Makespan or period."""
        return self.makespan_ns if objective == "barrier" else self.period_ns


def time_sequences(
    problem: Problem, sequences: Sequences, base: Timing | None = None, from_ns: int = 0
) -> Timing | None:
    """Start every work as early as its rank and its input allow; nothing if works wait in a circle.

    If `base` is given, it is the timing of sequences that differ only in works that start at `from_ns` or
    later; what starts before is taken over.
    """
    duration_ns, waits_for, delay_ns = problem.duration_ns, problem.waits_for, problem.delay_ns
    p = problem.num_ranks
    waiter: dict[int, int] = {}
    stopped_at = [-1] * p
    if base is None or from_ns <= 0:
        end_ns = [-1] * len(duration_ns)
        left = [iter(sequence) for sequence in sequences]
        now_ns, first_ns = [0] * p, [-1] * p
    else:
        known, now_ns, first_ns, left = base.end_ns, [], [], []
        end_ns = known.copy()
        for rank, sequence in enumerate(sequences):
            place = bisect_left(sequence, from_ns, key=lambda number: known[number] - duration_ns[number])
            now_ns.append(known[sequence[place - 1]] if place else 0)
            first_ns.append(base.first_ns[rank] if place else -1)
            rest = sequence[place:]
            for number in rest:
                end_ns[number] = -1
            left.append(iter(rest))
    runnable = list(range(p))
    done = 0
    while runnable:
        rank = runnable.pop()
        now = now_ns[rank]
        number = stopped_at[rank]
        works = left[rank]
        if number < 0:
            number = next(works, -1)
        while number >= 0:
            source = waits_for[number]
            if source >= 0:
                made = end_ns[source]
                if made < 0:
                    waiter[source] = rank
                    stopped_at[rank] = number
                    break
                made += delay_ns[number]
                if made > now:
                    now = made
            if first_ns[rank] < 0:
                first_ns[rank] = now
            now += duration_ns[number]
            end_ns[number] = now
            if number in waiter:
                runnable.append(waiter.pop(number))
            number = next(works, -1)
        else:
            stopped_at[rank] = -1
            done += 1
        now_ns[rank] = now
    return Timing(end_ns, first_ns, now_ns) if done == p else None


def peaks(problem: Problem, sequences: Sequences) -> list[int]:
    """Most memory that each rank holds at once; depends on its sequence alone."""
    grows = problem.grows
    result: list[int] = []
    for sequence in sequences:
        level = peak = 0
        for number in sequence:
            level += grows[number]
            if level > peak:
                peak = level
        result.append(peak)
    return result


def fits(problem: Problem, sequences: Sequences) -> bool:
    """Whether every rank stays within its limit."""
    return all(peak <= limit for peak, limit in zip(peaks(problem, sequences), problem.limits, strict=True))
