"""The search: survey the space in arrays, walk the best orders, simulate the finalists as whole plans.

Each step prices fewer candidates more exactly: closed forms for all (`exactmap.sim.planner.survey`), a walk
of the order for the best of them, the whole plan through checks and the replay engine for `num_finalists`.
What ranks first is a plan that was checked and simulated, never an estimate.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from exactmap.errors import InfeasibleError
from exactmap.sim.cost.cost_lines import to_cost_lines
from exactmap.sim.engine.durations import resolve
from exactmap.sim.engine.replay import replay
from exactmap.sim.plan.check import check_plan
from exactmap.sim.planner.candidate import (
    Candidate,
    Rejection,
    SearchSpace,
    enumerate_candidates,
    has_kinds,
    nearest_miss,
)
from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.estimate import Estimate, Estimator
from exactmap.sim.planner.order_form import walked_time_ns
from exactmap.sim.planner.survey import Survey, survey
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.schedules.timeline import WorkTimes

if TYPE_CHECKING:
    from exactmap.sim.cost.profile import Profile
    from exactmap.sim.engine.summary import StepSummary
    from exactmap.sim.plan.plan import Plan, Precision

__all__ = ["Finalist", "Progress", "Ranking", "finish", "search"]

Progress = Callable[[float, str], None]
"""Told the fraction done (0 to 1) and what is being done."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """A candidate whose plan was lowered, checked and simulated."""

    estimate: Estimate
    plan: Plan
    profile: Profile
    summary: StepSummary

    @property
    def candidate(self) -> Candidate:
        """The layout."""
        return self.estimate.candidate

    @property
    def step_ns(self) -> int:
        """Barrier makespan of the simulated step."""
        return self.summary.makespan_ns

    @property
    def peak_bytes(self) -> int:
        """The largest arena of any rank."""
        return max(arena.bytes for arena in self.plan.arenas)


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a search found.

    Attributes
    ----------
    finalists
        Best first.
    estimates
        Candidates that fit and were worth a closer look: the best of all, and the best with each choice; by
        estimated step.
    survey
        Everything else: how many were priced, what was refused and why.
    """

    finalists: tuple[Finalist, ...]
    estimates: tuple[Estimate, ...]
    survey: Survey

    @property
    def winner(self) -> Finalist:
        """The fastest finalist."""
        return self.finalists[0]

    @property
    def num_candidates(self) -> int:
        """All layouts that were looked at."""
        return self.survey.num_priced + self.survey.num_refused

    @property
    def gap(self) -> float:
        """By how much a layout that was not looked at could be faster at most; 0: all were seen."""
        if not self.survey.num_unseen:
            return 0.0
        best = min(self.estimates[0].step_ns, self.winner.step_ns)
        return max(0.0, 1.0 - self.survey.bound_ns / best)


def search(
    space: SearchSpace,
    estimator: Estimator,
    *,
    optimizer: OptimizerSettings,
    precision: Precision,
    made: tuple[tuple[str, str], ...] = (),
    num_walked: int = 24,
    num_finalists: int = 5,
    budget_s: float | None = None,
    with_front: bool = False,
    progress: Progress | None = None,
) -> Ranking:
    """Find the plan with the shortest step.

    Parameters
    ----------
    space
        What may vary.
    estimator
        Prices candidates of this model on this machine.
    optimizer, precision, made
        What goes into every plan.
    num_walked, num_finalists
        How many candidates are priced from their order at least (more, while their closed form is within a
        tenth of the best walk), and from their whole plan.
    budget_s
        Seconds to search for; None: until done. One finalist is always finished.
    with_front
        Whether the survey keeps the Pareto front over step time, GPUs and memory.
    progress
        Told how far the search is.

    Raises
    ------
    InfeasibleError
        If no candidate fits; the counts of the reasons are in the message.
    """
    tell = progress or _silent
    clock = _Clock(budget_s)
    tell(0.0, "estimating candidates")
    found = _survey(space, estimator, max(num_walked, _NUM_KEPT), clock, tell, with_front=with_front)
    if not found.kept:
        raise _nothing_fits(space, estimator, found)
    walked = _walk_best(found, estimator, num_walked, clock, tell)
    finalists: list[Finalist] = []
    num_best = len(walked)
    for number, estimate in enumerate(chain(tuple(walked), _unwalked(found, estimator, walked))):
        if len(finalists) == num_finalists or (finalists and (number >= num_best or clock.is_over(1.0))):
            break
        tell(0.4 + 0.6 * len(finalists) / num_finalists, f"simulating {estimate.candidate.label}")
        finalist = finish(estimate, estimator, optimizer, precision, made)
        if isinstance(finalist, Rejection):
            found.take_back(finalist)
            walked = [each for each in walked if each is not estimate]
        else:
            finalists.append(finalist)
    if not finalists:
        raise _nothing_fits(space, estimator, found)
    finalists.sort(key=lambda finalist: (finalist.step_ns, finalist.candidate))
    tell(1.0, "done")
    known = {estimate.candidate: estimate for estimate in walked}
    for _, candidate in [*found.kept, *found.best_of.values()]:
        if candidate not in known:
            priced = estimator.price(candidate)
            assert isinstance(priced, Estimate), "columns and the estimate of one differ"
            known[candidate] = priced
    found.put_in_words(space, estimator)
    estimates = sorted(known.values(), key=lambda estimate: (estimate.step_ns, estimate.candidate))
    return Ranking(tuple(finalists), tuple(estimates), found)


_NUM_KEPT = 256
_CLOSE = 1.1
"""A closed form is within a tenth of its walk; what is further behind the best walk than that cannot win."""


class _Clock:
    """Time that a search may take."""

    def __init__(self, budget_s: float | None) -> None:
        self.start = time.monotonic()
        self.budget_s = budget_s

    def deadline(self, share: float) -> float | None:
        """When a share of the time is over, as `time.monotonic` reads it."""
        return None if self.budget_s is None else self.start + share * self.budget_s

    def is_over(self, share: float) -> bool:
        """Whether a share of the time is over."""
        deadline = self.deadline(share)
        return deadline is not None and time.monotonic() > deadline


def _survey(
    space: SearchSpace,
    estimator: Estimator,
    num_kept: int,
    clock: _Clock,
    tell: Progress,
    *,
    with_front: bool,
) -> Survey:
    """Closed forms in arrays, schedules without one by their orders, one by one."""
    forms = tuple(name for name in space.schedules if name in CLOSED_FORMS)
    others = tuple(name for name in space.schedules if name not in CLOSED_FORMS)
    found = Survey()
    if forms and has_kinds(forms, space.chunks):
        found = survey(
            replace(space, schedules=forms),
            estimator,
            num_kept=num_kept,
            deadline=clock.deadline(0.5),
            with_front=with_front,
            tell=lambda share: tell(0.1 * share, "estimating candidates"),
        )
    if others and has_kinds(others, space.chunks):
        for candidate in enumerate_candidates(replace(space, schedules=others)):
            if isinstance(candidate, Rejection):
                found.refuse(candidate)
            elif found.kept and clock.is_over(0.6):
                one = candidate
                found.num_unseen += 1
                least_ns = estimator.least_ns(space, one.tp, one.cp, one.microbatch)
                found.bound_ns = min(found.bound_ns, least_ns)
            else:
                found.add(estimator.price(candidate), num_kept)
    return found


def _walk_best(
    found: Survey, estimator: Estimator, num_walked: int, clock: _Clock, tell: Progress
) -> list[Estimate]:
    """Estimates of the best candidates with their orders walked, best first."""
    walked: list[Estimate] = []
    best = float("inf")
    for number, (form_ns, candidate) in enumerate(found.kept):
        if number >= num_walked and form_ns > _CLOSE * best:
            break
        if walked and clock.is_over(0.7):
            break
        tell(0.1 + 0.3 * number / len(found.kept), f"walking {candidate.label}")
        estimate = estimator.price(candidate)
        assert isinstance(estimate, Estimate), "columns and the estimate of one differ"
        estimate = replace(estimate, passes_ns=_walk_ns(estimate))
        walked.append(estimate)
        best = min(best, estimate.step_ns)
    return sorted(walked, key=lambda estimate: (estimate.step_ns, estimate.candidate))


def _silent(_fraction: float, _what: str) -> None:
    """Progress that nobody watches."""


def _walk_ns(estimate: Estimate) -> int:
    candidate = estimate.candidate
    return walked_time_ns(
        candidate.schedule,
        estimate.work_ns,
        num_ranks=candidate.pp,
        num_microbatches=candidate.num_microbatches,
        chunks=candidate.chunks,
        hop_ns=estimate.hop_ns,
    )


def _unwalked(found: Survey, estimator: Estimator, walked: list[Estimate]) -> Iterator[Estimate]:
    """The other candidates that were kept, best first: for searches whose best are all over memory."""
    known = {estimate.candidate for estimate in walked}
    for _, candidate in list(found.kept):
        priced = estimator.price(candidate)
        if candidate not in known and isinstance(priced, Estimate):
            yield priced


def finish(
    estimate: Estimate,
    estimator: Estimator,
    optimizer: OptimizerSettings,
    precision: Precision,
    made: tuple[tuple[str, str], ...],
) -> Finalist | Rejection:
    """Lower, check and simulate a candidate as a whole plan; a rejection if its arena is over the budget."""
    candidate = estimate.candidate
    mesh = estimator.mesh(candidate)
    pricing = estimator.pricing
    try:
        plan = build_plan(
            estimator.model,
            schedule=candidate.schedule,
            pp=candidate.pp,
            num_microbatches=candidate.num_microbatches,
            seq=estimator.seq,
            microbatch=candidate.microbatch,
            chunks=candidate.chunks,
            dp=candidate.dp,
            tp=candidate.tp,
            cp=candidate.cp,
            mesh_order=tuple(axis.value for axis in mesh.order),
            layers=[stage.num_layers for stage in estimate.stages],
            optimizer=optimizer,
            precision=precision,
            shard_params=candidate.zero > 0,
            times=WorkTimes(estimate.work_ns, estimate.hop_ns),
            budget_bytes=estimator.budget_bytes,
            made=made,
        )
    except InfeasibleError as error:
        return _over_budget(candidate, error)
    profile = pricing.profile(plan, mesh, estimate.work_ns)
    check_plan(plan)
    summary = replay(plan, resolve(plan, profile)).summary()
    pred = (
        ("step_ns", str(summary.makespan_ns)),
        ("period_ns", str(summary.period_ns)),
        ("bubble", f"{summary.bubble:.6f}"),
    )
    plan = replace(plan, cost=to_cost_lines(profile), pred=pred)
    return Finalist(estimate, plan, profile, summary)


def _over_budget(candidate: Candidate, error: InfeasibleError) -> Rejection:
    """The arena of the finished plan is larger than the estimate was, and than the budget."""
    sizes = [re.search(r"(\d+) bytes", text or "") for text in (error.got, error.expected)]
    if None in sizes:
        raise error
    need, budget = (int(size[1]) for size in sizes if size is not None)
    why = (
        f"{error.where} needs {need / 2**30:.1f} GiB as a whole plan, {(need - budget) / 2**30:.1f} GiB over "
        f"the {budget / 2**30:.1f} GiB to use"
    )
    return Rejection(candidate, "memory", why, need - budget)


_HINTS = {
    "memory": "allow more values of tp and pp under parallel, more GPUs, or a smaller microbatch",
    "too few GPUs": "allow smaller values under parallel, or more GPUs",
    "batch not divisible": "choose a batch that dp x microbatch divides, or leave dp to the search",
    "too few layers": "allow fewer pipeline ranks or chunks",
    "schedule": "choose numbers that the schedule takes, or allow other schedules",
    "map": "drop a constraint of map.require, or allow other sizes under parallel",
    "nothing to shard": "allow zero 0 under parallel, or more replicas",
    "no pipeline": "allow 1f1b under parallel.schedule, or more pipeline ranks",
}
"""What to change, by the rule that the nearest miss broke."""


def _nothing_fits(space: SearchSpace, estimator: Estimator, found: Survey) -> InfeasibleError:
    found.put_in_words(space, estimator)
    by_count = sorted(found.counts.items(), key=lambda item: -item[1])
    reasons = ", ".join(f"{rule}: {num:,}" for rule, num in by_count)
    near = nearest_miss(
        [each for each in found.nearest.values() if each.rule == "memory"] or found.nearest.values()
    )
    return InfeasibleError(
        "no candidate fits",
        got=f"{found.num_refused:,} refused ({reasons}); nearest: {near.candidate.label}: {near.why}",
        hint=_HINTS.get(near.rule, "allow more values under parallel"),
    )
