"""The search: list scheduling, patterns, the hand-made orders, then local search, under one budget of works.

All steps draw on the same purse: a candidate costs as many works as it has. So the same input and the same
budget try the same candidates on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from random import Random
from time import monotonic

import numpy as np

from exactmap.sim.schedules.auto.bounds import lower_bound
from exactmap.sim.schedules.auto.dispatch import Rule, dispatch
from exactmap.sim.schedules.auto.improve import climb, score
from exactmap.sim.schedules.auto.pattern import Pattern, frames_of, least_gaps, scaled, slowdown
from exactmap.sim.schedules.auto.problem import NO_LIMIT, Problem, Sequences
from exactmap.sim.schedules.auto.rules import rules
from exactmap.sim.schedules.auto.timing import peaks, time_sequences
from exactmap.sim.schedules.auto.weave import frame, weave

__all__ = ["Candidate", "Search"]

_NONE = 1 << 40
_CANDIDATES_AT_GOAL = 60
Maker = Callable[[Problem], Sequences | None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An order, what it is worth, and what made it (a maker works for any number of microbatches).

    The value is the objective, then memory where there is no limit, then the other clock, then the sum of
    what all ranks take.
    """

    value: tuple[int, int, int, int]
    sequences: Sequences
    name: str
    make: Maker | None


class Search:
    """Candidates of one problem, the best first; `works_left` is what may still be tried.

    Once the lower bound is reached, a tenth of the budget, or some candidates, are left for the other clock;
    once both bounds are, nothing, unless memory can still be saved.
    """

    def __init__(self, problem: Problem, objective: str, works: int, deadline_s: float | None) -> None:
        self.problem, self.objective = problem, objective
        self.works_left = works
        self.goal_ns = lower_bound(problem, objective).value_ns
        self.other = "period" if objective == "barrier" else "barrier"
        self.other_goal_ns = lower_bound(problem, self.other).value_ns
        self.works_at_goal = max(works // 10, _CANDIDATES_AT_GOAL * problem.num_works)
        self.reached = False
        self.deadline_s = deadline_s
        self.unlimited = min(problem.limits) == NO_LIMIT
        self.num_candidates = 0
        self.best: list[Candidate] = []
        self.rng = Random(1)

    def done(self, keep: float = 0) -> bool:
        """Whether less than `keep` works are left, or the caller's time is over."""
        return self.works_left <= keep or (self.deadline_s is not None and monotonic() > self.deadline_s)

    def judge(self, sequences: Sequences | None, name: str, make: Maker | None = None) -> Candidate | None:
        """Time sequences and keep them if they are among the best; nothing if they are no order."""
        self.num_candidates += 1
        self.works_left -= self.problem.num_works
        if sequences is None:
            return None
        timing = time_sequences(self.problem, sequences)
        if timing is None:
            return None
        held = peaks(self.problem, sequences)
        if any(peak > limit for peak, limit in zip(held, self.problem.limits, strict=True)):
            return None
        first, second = score(timing, self.objective)
        if first <= self.goal_ns and not self.reached:
            self.reached = True
            self.works_left = min(self.works_left, self.works_at_goal)
        other_ns, _ = score(timing, self.other)
        if first <= self.goal_ns and other_ns <= self.other_goal_ns and not self.unlimited:
            self.works_left = 0
        memory = max(held) if self.unlimited else 0
        candidate = Candidate((first, memory, other_ns, second), sequences, name, make)
        if all(candidate.value != other.value for other in self.best):
            self.best = sorted([*self.best, candidate], key=lambda item: item.value)[:6]
        return candidate

    def start_from(self, name: str, make: Maker) -> None:
        """Take a given order, and the same frame with its weight gradients woven anew."""
        sequences = make(self.problem)
        if sequences is None or self.judge(sequences, name, make) is None:
            return
        frames = frame(self.problem, sequences)
        if all(len(passes) < len(all_works) for passes, all_works in zip(frames, sequences, strict=True)):
            for gap_share in (0.01, 0.5, 1.0):
                again = partial(_woven_again, make=make, gap_share=gap_share)
                woven = weave(self.problem, frames, gap_share, [_NONE] * self.problem.num_ranks)
                self.judge(woven, f"{name}, woven anew", again)

    def list_scheduling(self, works: float) -> None:
        """Rules one after another until `works` are spent."""
        stop = max(self.works_left - works, 0)
        for rule in rules(self.problem):
            if self.done(stop):
                return
            self.judge(dispatch(self.problem, rule), rule.name, partial(_by_rule, rule=rule))

    def patterns(self, works: float) -> None:
        """Random patterns scaled to the limit, then changes of the best ones."""
        whole, stop = self.works_left, max(self.works_left - works, 0)
        pool: list[tuple[tuple[int, int, int, int], Pattern]] = []
        seeds = self._seeds()
        while not self.done(stop):
            fresh = len(pool) < 3 or self.rng.random() < 0.15
            pattern = next(seeds, None) if self.works_left > whole - works * 0.4 else None
            if pattern is None and fresh:
                pattern = self._random_pattern()
            elif pattern is None:
                pattern = self._changed(pool[min(int(self.rng.expovariate(0.7)), len(pool) - 1)][1])
            made = _by_pattern(self.problem, pattern)
            found = self.judge(made, "pattern", partial(_by_pattern, pattern=pattern))
            if found is None:
                self.works_left += self.problem.num_works // 2  # It was given up half-way.
                continue
            if len(pool) < 5 or found.value <= pool[-1][0]:
                pool = [item for item in pool if item[0] != found.value]
                pool = sorted([*pool, (found.value, pattern)], key=lambda item: item[0])[:5]

    def improve(self, works: float) -> None:
        """Local search from the best candidates, most effort on the first."""
        if self.reached:
            return
        stop = max(self.works_left - works, 0)
        for share, candidate in zip((0.5, 0.6, 1.0), self.best[:3], strict=False):
            works_here = int((self.works_left - stop) * share)
            sequences, name = candidate.sequences, candidate.name.removesuffix(", improved") + ", improved"
            while works_here > 0 and not self.done(stop):
                step = min(works_here, 40 * self.problem.num_works)
                better, tried, spent = climb(self.problem, sequences, self.objective, step, self.rng)
                self.num_candidates += tried
                self.works_left -= spent
                works_here -= spent
                found = self.judge(better, name)
                if found is None or spent < step:
                    break
                sequences = better

    def _seeds(self) -> Iterator[Pattern]:
        """Even patterns of several depths: F and I move on at the same pace, turns at once."""
        problem = self.problem
        p, chunks = problem.num_ranks, problem.num_stages // problem.num_ranks
        none = (_NONE,) * p
        even = least_gaps(problem)
        loop = chunks > 1 and problem.placement[0] == problem.placement[p]
        paces = ((1.0, 1.0), (1.0, 2.0), (2.0, 1.0))
        for held, (down, up), gap_share in product((1.0, 0.95, 1.05, 0.85), paces, (0.5, 0.01, 1.0)):
            if loop:
                # Interleaving: a hop down and one up take a chunk's share of the period, all chunks one.
                wide = np.full(len(even), held / chunks)
                wide[: problem.num_stages] *= down / (down + up)
                wide[problem.num_stages :] *= up / (down + up)
                for station in range(p - 1, len(wide), p):
                    wide[station] = p / chunks - (p - 1) * float(wide[station - 1])
                wide[problem.num_stages - 1] = 0.0
                yield Pattern(tuple(wide.tolist()), p, 1.0 / chunks, 1.0, gap_share, none)
            gaps = even * np.where(np.arange(len(even)) < problem.num_stages, down, up)
            fitted = scaled(problem, gaps, held)
            yield Pattern(fitted, 1, 1.0, slowdown(problem, fitted, held), gap_share, none)

    def _random_pattern(self) -> Pattern:
        problem, rng = self.problem, self.rng
        num_stages, p = problem.num_stages, problem.num_ranks
        least = least_gaps(problem)
        gaps = least.copy()
        steps = [rng.choice((0.5, 0.7, 1.0, 1.0, 1.4, 2.0)) for _ in range(2 * num_stages // p)]
        for station in range(2 * num_stages - 1):
            gaps[station] *= steps[station // p]
            if (station + 1) % p == 0:
                gaps[station] = rng.choice((0.0, 0.1, 0.25, 0.5, 0.75, 1.0))
        group, spacing = 1, 1.0
        chunks = num_stages // p
        if chunks > 1 and rng.random() < 0.4:
            group, spacing = p, rng.choice((1.0, 1.0, 1.2, 0.8)) / chunks
            gaps[:] = spacing * rng.choice((0.4, 0.5, 0.55))
            for station in range(p - 1, 2 * num_stages - 1, p):
                gaps[station] = max(p * spacing - (p - 1) * float(gaps[station - 1]), 0.0)
            gaps[num_stages - 1] = rng.choice((0.0, 0.1, 0.3))
        held = rng.choice((0.75, 0.9, 0.95, 1.0, 1.05))
        fitted = tuple(gaps.tolist()) if group > 1 else scaled(problem, gaps, held)
        slow = slowdown(problem, fitted, held)
        if slow > 1:  # Even the shortest stays are too long for one period: longer ones may still be better.
            fitted = tuple((gaps * rng.choice((0.5, 1.0, 1.0, 1.2))).tolist())
            slow = slowdown(problem, fitted, held)
        return Pattern(fitted, group, spacing, slow, rng.choice((0.01, 0.5, 1.0)), (_NONE,) * p)

    def _changed(self, pattern: Pattern) -> Pattern:
        problem, rng = self.problem, self.rng
        p = problem.num_ranks
        gaps = np.maximum(np.array(pattern.gaps), least_gaps(problem))
        for _ in range(rng.choice((1, 1, 2))):
            kind = rng.randrange(6)
            if kind == 0:
                first = rng.randrange(0, len(gaps), p)
                gaps[first : first + p - 1] *= rng.uniform(0.8, 1.25)
            elif kind == 1:
                turn = min(rng.randrange(1, 2 * problem.num_stages // p + 1) * p - 1, len(gaps) - 1)
                gaps[turn] = max(gaps[turn] + rng.gauss(0, 0.2), 0.0)
            elif kind == 2:
                gaps[rng.randrange(len(gaps))] += rng.gauss(0, 0.15)
            elif kind == 3:
                gaps *= rng.uniform(0.93, 1.08)
                slow = pattern.slowdown * rng.uniform(0.92, 1.06) if pattern.slowdown > 1 else 1.0
                pattern = replace(pattern, slowdown=max(slow, 1.0))
            elif kind == 4:
                start = rng.randrange(len(gaps))
                gaps[start : start + rng.randrange(1, p + 1)] += rng.gauss(0, 0.05)
            else:
                share = rng.choice((0.01, 0.25, 0.5, 0.75, 1.0))
                late = rng.choice((0, 0, 1, 2))
                backlog = tuple(late * rank for rank in range(p)) if late else (_NONE,) * p
                pattern = replace(pattern, gap_share=share, backlog=backlog)
        spacing = pattern.spacing * rng.uniform(0.95, 1.05) if pattern.group > 1 else 1.0
        return replace(pattern, gaps=tuple(gaps.tolist()), spacing=spacing)


def _by_rule(problem: Problem, rule: Rule) -> Sequences:
    return dispatch(problem, rule)


def _woven_again(problem: Problem, make: Maker, gap_share: float) -> Sequences | None:
    sequences = make(problem)
    if sequences is None:
        return None
    return weave(problem, frame(problem, sequences), gap_share, [_NONE] * problem.num_ranks)


def _by_pattern(problem: Problem, pattern: Pattern) -> Sequences | None:
    return weave(problem, frames_of(problem, pattern), pattern.gap_share, pattern.backlog)


def remake(search: Search, candidates: Iterable[Candidate]) -> None:
    """Make candidates of a shorter step again for the search's own number of microbatches."""
    for candidate in candidates:
        if candidate.make is not None:
            search.judge(candidate.make(search.problem), candidate.name, candidate.make)
