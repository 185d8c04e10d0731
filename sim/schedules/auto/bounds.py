"""What no order can beat: lower bounds of the makespan and of the period.

Each is a proof for any order, uneven stages and any memory weights. Notation: S stages, rank r holds some of
them, ``down`` the chain of F with its hops, ``up`` that of I; k = works that fit into memory at once.

work
    A rank cannot start before its first input, and does all its works.
first microbatch, last microbatch
    Between the first F of a rank and its first I the first microbatch goes to the last stage and back; all
    the rank can do meanwhile is F, as many as fit into memory: idle >= (p-1)(I+2c) + (p-k)F
    (arXiv:2401.10241, section 3.1). Backwards in time the same holds after the last F, filled by I and W.
weight gradients
    After the last I of a rank its microbatch still goes down to stage 0; meanwhile the rank has only the W
    that fit into memory.
stash
    A microbatch holds memory on a rank from its F until its I or W at least as long as its way to the last
    stage and back. k places for m microbatches; the places fill one F after another and empty one after
    another.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import isqrt

from exactmap.sim.schedules.auto.problem import Problem

__all__ = ["Bound", "lower_bound"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound in ns and the argument that gave it."""

    value_ns: int
    name: str


def lower_bound(problem: Problem, objective: str) -> Bound:
    """The best of all bounds for ``barrier`` (makespan) or ``period``."""
    bounds = _Bounds(problem)
    parts = bounds.barrier() if objective == "barrier" else bounds.period()
    return max(parts, key=lambda bound: bound.value_ns)


def _most(weights: list[tuple[int, int]], room: int, count: int) -> int:
    """Most value of at most `count` items of each (value, size) in `room`; parts count if sizes differ."""
    sizes = {size for _, size in weights}
    if len(sizes) == 1 and 0 not in sizes:
        room -= room % sizes.pop()
    total = 0
    for value, size in sorted(weights, key=lambda item: item[1] / max(item[0], 1)):
        if count * size > room:
            return total + value * room // size
        total += count * value
        room -= count * size
    return total


class _Bounds:
    """Chains of a problem and the bounds that follow."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        rank_of = problem.rank_of
        hop = [problem.hop_ns if a != b else 0 for a, b in pairwise(rank_of)]
        num_stages = problem.num_stages
        self.arrives = [0] * num_stages  # earliest start of F
        for stage in range(1, num_stages):
            self.arrives[stage] = self.arrives[stage - 1] + problem.forward_ns[stage - 1] + hop[stage - 1]
        self.returns = [0] * num_stages  # earliest start of I
        self.returns[-1] = self.arrives[-1] + problem.forward_ns[-1]
        for stage in range(num_stages - 2, -1, -1):
            self.returns[stage] = self.returns[stage + 1] + problem.input_ns[stage + 1] + hop[stage]
        self.rests = [0] * num_stages  # from the end of I to the end of W of stage 0
        self.rests[0] = problem.weight_ns[0]
        for stage in range(1, num_stages):
            self.rests[stage] = self.rests[stage - 1] + hop[stage - 1] + problem.input_ns[stage - 1]

    def barrier(self) -> list[Bound]:
        problem = self.problem
        found = [Bound(self.returns[0] + problem.input_ns[0] + self.rests[0], "critical path")]
        for rank in range(problem.num_ranks):
            head = self.arrives[problem.stages_of[rank][0]]
            found += [Bound(head + bound.value_ns, bound.name) for bound in self._span(rank)]
            found += [Bound(head + bound.value_ns, bound.name) for bound in self._to_first_stage(rank)]
        return found

    def period(self) -> list[Bound]:
        """Spans of ranks; that of the first stage's rank starts at 0, so chains that end there count."""
        problem = self.problem
        found = [Bound(self.returns[0] + problem.input_ns[0] + self.rests[0], "critical path")]
        for rank in range(problem.num_ranks):
            head = self.arrives[problem.stages_of[rank][0]]
            found += self._span(rank)
            found += [Bound(head + bound.value_ns, bound.name) for bound in self._to_first_stage(rank)]
        return found

    def _work(self, rank: int) -> int:
        problem = self.problem
        stages = problem.stages_of[rank]
        each = sum(problem.forward_ns[s] + problem.input_ns[s] + problem.weight_ns[s] for s in stages)
        return each * problem.num_microbatches

    def _parts(self, rank: int) -> tuple[int, int, int, int, bool]:
        """Front idle; way from last F to last I; what fills it; W after the last I; are both apart."""
        problem = self.problem
        stages, m, limit = problem.stages_of[rank], problem.num_microbatches, problem.limits[rank]
        low, high = stages[0], stages[-1]
        adds, frees = problem.adds, problem.frees
        f, i, w = problem.forward_ns, problem.input_ns, problem.weight_ns
        front = self.returns[high] - self.arrives[low] - _most([(f[s], adds[s]) for s in stages], limit, m)
        back = self.returns[low] + i[low] - self.arrives[high] - f[high]
        in_flight = [(i[s] + w[s], adds[s]) for s in stages]
        waiting = [(w[s], adds[s] - frees[s]) for s in stages]
        filled = _most_of_either(in_flight, waiting, limit, m)
        # The W of the last I itself is there in any case; the others lay beside its stash.
        left = min(_most(waiting, limit - adds[low], m) + w[low], sum(w[s] for s in stages) * m)
        return max(front, 0), back, filled, left, sum(adds[s] for s in stages) * m > limit

    def _span(self, rank: int) -> list[Bound]:
        """From the first start to the last end of a rank."""
        problem = self.problem
        work = self._work(rank)
        front, back, filled, _, apart = self._parts(rank)
        tail = max(back + problem.weight_ns[problem.stages_of[rank][0]] - filled, 0)
        found = [Bound(work, "work")]
        if front or tail:
            idle = front + tail if apart else max(front, tail)
            found.append(Bound(work + idle, "first and last microbatch"))
        until_w, until_i = self._stash(rank)
        last_w = min(problem.weight_ns[stage] for stage in problem.stages_of[rank])
        found.append(Bound(max(until_w, until_i + last_w), "stash"))
        return found

    def _to_first_stage(self, rank: int) -> list[Bound]:
        """From the first start of a rank until stage 0 is done with the last microbatch."""
        work = self._work(rank)
        front, back, filled, left, apart = self._parts(rank)
        rests = self.rests[self.problem.stages_of[rank][0]]
        _, until_i = self._stash(rank)
        return [
            Bound(work + front * apart + back + rests - filled, "last microbatch"),
            Bound(work + front + rests - left, "weight gradients"),
            Bound(until_i + rests, "stash"),
        ]

    def _stash(self, rank: int) -> tuple[int, int]:
        """Least time from the first start of a rank to its last W, and to its last I, by places of memory."""
        problem = self.problem
        stages, m, limit = problem.stages_of[rank], problem.num_microbatches, problem.limits[rank]
        f, i, w = (
            [column[s] for s in stages]
            for column in (problem.forward_ns, problem.input_ns, problem.weight_ns)
        )
        num = m * len(stages)
        stays = [self.returns[s] + problem.input_ns[s] - self.arrives[s] for s in stages]
        until_w, until_i = 0, 0
        kept = min(problem.adds[s] - problem.frees[s] for s in stages)
        if kept > 0:  # A place is held until W, so at least for the duration of W after I.
            places, total = limit // kept, m * (sum(stays) + sum(w))
            until_w = _places(total, num, places, min(f) + min(w))
            until_i = _places(total, num, places, min(f) + min(i)) - max(w)
            if len(stages) == 1:
                in_turn = -(-m // places) * (stays[0] + w[0])
                until_w, until_i = max(until_w, in_turn), max(until_i, in_turn - w[0])
        added = min(problem.adds[s] for s in stages)
        if added > 0:
            places = limit // added
            until_i = max(until_i, _places(m * sum(stays), num, places, min(f) + min(i)))
            if len(stages) == 1:
                until_i = max(until_i, -(-m // places) * stays[0])
        return until_w, until_i


def _places(total_ns: int, num: int, places: int, apart_ns: int) -> int:
    """Least span in which `places` hold `num` items for `total_ns` in all.

    u places that start and end one after another, `apart_ns` for both, hold u*span - u(u-1)/2*apart; an order
    may use fewer places than there are.
    """
    most = min(places, num)
    best = isqrt(2 * total_ns // max(apart_ns, 1))
    tried = {min(max(used, 1), most) for used in (best - 1, best, best + 1, most)}
    return min(-(-(2 * total_ns + used * (used - 1) * apart_ns) // (2 * used)) for used in tried)


def _most_of_either(
    first: list[tuple[int, int]], second: list[tuple[int, int]], room: int, count: int
) -> int:
    """Most value where each stage's `count` items may be of either kind (value, size), parts allowed."""
    whole = count * sum(max(a[0], b[0]) for a, b in zip(first, second, strict=True))
    if any(size == 0 for _, size in (*first, *second)):
        return whole
    return min(whole, max(value * room // size for value, size in (*first, *second)))
