"""The survey: all candidates of a space priced in whole arrays, the best of them kept, the others counted.

The space is gone through cut by cut (tp, cp, microbatch). A cut's candidates are columns: rules and memory
take rows away, `exactmap.sim.planner.array_form` prices what is left. Kept are the best of all, the best
with each value of each choice, and of what was refused the counts and the nearest misses.

Where the time allowed runs out, a bound says how much better the unseen could be: the passes of each unseen
cut, priced as they are and spread evenly over all GPUs, with no bubble and nothing exchanged between ranks.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exactmap.sim.planner.array_form import memory_bytes, passes_ns, tail_ns
from exactmap.sim.planner.candidate import Candidate, Rejection, SearchSpace, judge, miss_key
from exactmap.sim.planner.cut import Cut, cuts_of
from exactmap.sim.planner.front import Front
from exactmap.sim.planner.layout_table import LayoutTable

if TYPE_CHECKING:
    from exactmap.sim.planner.estimate import Estimate, Estimator

__all__ = ["CHOICES", "Survey", "survey"]

CHOICES = ("schedule", "tp", "cp", "pp", "chunks", "microbatch", "zero")
"""What a candidate chooses; the number of replicas follows."""

Value = str | int
Indices = NDArray[np.intp]
Told = Callable[[float], None]


@dataclass(slots=True)
class Survey:
    """What a survey found.

    Attributes
    ----------
    kept
        Candidates worth a closer look, each with its step time in ns: the best of all, ascending.
    best_of
        (choice, value) -> the best candidate with it, and its step time.
    counts
        Rule -> how many candidates it refused.
    nearest
        Rule -> its nearest miss.
    nearest_of
        (choice, value) -> the nearest miss of candidates with it.
    front
        Candidates that none beats in step time, GPUs and memory at once; None where it was not asked for.
    num_priced, num_refused
        Candidates that fit, and those that do not.
    num_unseen
        Candidates of cuts that were not gone through for want of time.
    bound_ns
        No candidate unseen takes less; infinite if all were seen.
    """

    kept: list[tuple[float, Candidate]] = field(default_factory=list)
    best_of: dict[tuple[str, Value], tuple[float, Candidate]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    nearest: dict[str, Rejection] = field(default_factory=dict)
    nearest_of: dict[tuple[str, Value], Rejection] = field(default_factory=dict)
    front: Front | None = None
    num_priced: int = 0
    num_refused: int = 0
    num_unseen: int = 0
    bound_ns: float = float("inf")

    def refuse(self, rejection: Rejection) -> None:
        """Count a candidate that a rule refused, and keep it where none missed by less."""
        rule = rejection.rule
        self.counts[rule] = self.counts.get(rule, 0) + 1
        self.num_refused += 1
        known = self.nearest.get(rule)
        if known is None or rejection.excess < known.excess:
            self.nearest[rule] = rejection
        for choice in CHOICES:
            key = (choice, getattr(rejection.candidate, choice))
            other = self.nearest_of.get(key)
            if other is None or miss_key(rejection) < miss_key(other):
                self.nearest_of[key] = rejection

    def take_back(self, rejection: Rejection) -> None:
        """Refuse a candidate that was kept."""
        self.kept = [entry for entry in self.kept if entry[1] != rejection.candidate]
        gone = [key for key, entry in self.best_of.items() if entry[1] == rejection.candidate]
        for key in gone:
            same = [each for each in self.kept if getattr(each[1], key[0]) == key[1]]
            self.best_of.pop(key)
            if same:
                self.best_of[key] = min(same)
        self.num_priced -= 1
        self.refuse(rejection)

    def add(self, priced: Estimate | Rejection, num_kept: int) -> None:
        """Take in a candidate that was priced by itself."""
        if isinstance(priced, Rejection):
            self.refuse(priced)
            return
        self.num_priced += 1
        entry = (float(priced.step_ns), priced.candidate)
        for choice in CHOICES:
            key = (choice, getattr(priced.candidate, choice))
            self.best_of[key] = min(self.best_of.get(key, entry), entry)
        insort(self.kept, entry)
        del self.kept[num_kept:]

    def put_in_words(self, space: SearchSpace, estimator: Estimator) -> None:
        """Say of each nearest miss why it was refused; columns only know by how much."""
        for rule, rejection in self.nearest.items():
            self.nearest[rule] = _in_words(rejection, space, estimator)
        for key, rejection in self.nearest_of.items():
            if key not in self.best_of:
                self.nearest_of[key] = _in_words(rejection, space, estimator)


def _in_words(rejection: Rejection, space: SearchSpace, estimator: Estimator) -> Rejection:
    if rejection.why:
        return rejection
    judged = judge(space, rejection.candidate)
    said = judged if isinstance(judged, Rejection) else estimator.price(judged)
    return said if isinstance(said, Rejection) else rejection


def survey(
    space: SearchSpace,
    estimator: Estimator,
    *,
    num_kept: int = 512,
    deadline: float | None = None,
    with_front: bool = False,
    tell: Told | None = None,
) -> Survey:
    """Price every candidate of a space whose schedules have closed forms.

    Parameters
    ----------
    space
        What may vary.
    estimator
        The model and the machine.
    num_kept
        How many of the best are kept.
    deadline
        Reading of `time.monotonic` after which no further cut is begun, once a candidate was found; None:
        all are.
    with_front
        Whether the Pareto front is kept.
    tell
        Told the share done.
    """
    found = Survey(front=Front() if with_front else None)
    cuts = cuts_of(space)
    for number, cut in enumerate(cuts):
        # Until one candidate fits there is nothing to stop with.
        if deadline is not None and found.kept and time.monotonic() > deadline:
            found.num_unseen = sum(rest.num_candidates for rest in cuts[number:])
            found.bound_ns = min(
                estimator.least_ns(space, rest.tp, rest.cp, rest.microbatch) for rest in cuts[number:]
            )
            break
        _see(cut, estimator, found, num_kept)
        if tell is not None:
            tell((number + 1) / len(cuts))
    return found


def _see(cut: Cut, estimator: Estimator, found: Survey, num_kept: int) -> None:
    """Price one cut and keep what is worth it."""
    alive = np.arange(cut.num_candidates)
    for rule, refused, excess in cut.broken_rules():
        gone = refused[alive]
        _count(cut, alive[gone], excess[alive[gone]], rule, found)
        alive = alive[~gone]
    if not len(alive):
        return
    table = LayoutTable(cut, alive, estimator)
    for rule, index, why in table.refused:
        found.refuse(Rejection(cut.candidate(index), rule, why))
    if not len(table.index):
        return
    fullest = memory_bytes(table.few(), table.rows(), estimator.formats).max(axis=1)
    over = fullest > estimator.budget_bytes
    _count(cut, table.index[over], fullest[over] - estimator.budget_bytes, "memory", found)
    table.keep(~over)
    if not len(table.index):
        return
    columns, rows = table.all(), table.rows()
    step = passes_ns(columns, rows) + tail_ns(columns, rows)
    if found.front is not None:
        found.front.add(cut, table.index, step, fullest[~over])
    _keep(cut, table.index, step, found, num_kept)


def _firsts(cut: Cut, order: Indices) -> Iterator[tuple[str, Indices]]:
    """For each choice the first candidate with each value, of candidates in some order."""
    for choice in CHOICES:
        column = cut.column(choice)[order]
        yield choice, order[np.unique(column, return_index=True)[1]]


def _count(cut: Cut, index: Indices, excess: NDArray[np.generic], rule: str, found: Survey) -> None:
    """Count refused candidates, and put the nearest with each value of each choice in the books."""
    if not len(index):
        return
    place = {int(each): float(by) for each, by in zip(index, excess, strict=True)}
    order = index[np.argsort(excess, kind="stable")]
    told = {int(order[0])}
    for _, firsts in _firsts(cut, order):
        told.update(map(int, firsts))
    for each in sorted(told):
        found.refuse(Rejection(cut.candidate(each), rule, "", round(place[each])))
    found.counts[rule] += len(index) - len(told)
    found.num_refused += len(index) - len(told)


def _keep(cut: Cut, index: Indices, step: NDArray[np.float64], found: Survey, num_kept: int) -> None:
    """Keep the best of a cut, and the best with each value of each choice."""
    found.num_priced += len(index)
    by_step = np.argsort(step, kind="stable")
    order = index[by_step]
    ns = dict(zip(map(int, index), map(float, step), strict=True))
    for choice, firsts in _firsts(cut, order):
        for each in map(int, firsts):
            candidate = cut.candidate(each)
            key = (choice, getattr(candidate, choice))
            known = found.best_of.get(key)
            if known is None or (ns[each], candidate) < known:
                found.best_of[key] = (ns[each], candidate)
    worst = found.kept[num_kept - 1][0] if len(found.kept) >= num_kept else float("inf")
    best = [each for each in map(int, order[:num_kept]) if ns[each] <= worst]
    found.kept += [(ns[each], cut.candidate(each)) for each in best]
    found.kept.sort()
    del found.kept[num_kept:]
