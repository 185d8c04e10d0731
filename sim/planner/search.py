"""The search: enumerate, refuse what cannot be, estimate, walk the best orders, simulate the finalists.

Each step prices fewer candidates more exactly: closed forms for all, a walk of the order for `num_walked` of
them, the whole plan through the checks and the replay engine for `num_finalists`. What ranks first is a plan
that was checked and simulated, never an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    nearest_miss,
)
from exactmap.sim.planner.estimate import Estimate, Estimator
from exactmap.sim.schedules.build import OptimizerSettings, build_plan
from exactmap.sim.schedules.registry import make_order
from exactmap.sim.schedules.timeline import WorkTimes, walk

if TYPE_CHECKING:
    from exactmap.sim.cost.profile import Profile
    from exactmap.sim.engine.summary import StepSummary
    from exactmap.sim.plan.plan import Plan, Precision

__all__ = ["Finalist", "Progress", "Ranking", "search"]

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
    """What a search found: finalists, best first, and everything that fell away, with its reason."""

    finalists: tuple[Finalist, ...]
    estimates: tuple[Estimate, ...]
    rejections: tuple[Rejection, ...]

    @property
    def winner(self) -> Finalist:
        """The fastest finalist."""
        return self.finalists[0]

    @property
    def num_candidates(self) -> int:
        """All layouts that were looked at."""
        return len(self.estimates) + len(self.rejections)


def search(
    space: SearchSpace,
    estimator: Estimator,
    *,
    optimizer: OptimizerSettings,
    precision: Precision,
    made: tuple[tuple[str, str], ...] = (),
    num_walked: int = 24,
    num_finalists: int = 5,
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
        How many candidates are priced from their order, and from their whole plan.
    progress
        Told how far the search is.

    Raises
    ------
    InfeasibleError
        If no candidate fits; the counts of the reasons are in the message.
    """
    tell = progress or _silent
    estimates: list[Estimate] = []
    rejections: list[Rejection] = []
    tell(0.0, "estimating candidates")
    for candidate in enumerate_candidates(space):
        priced = candidate if isinstance(candidate, Rejection) else estimator.price(candidate)
        if isinstance(priced, Rejection):
            rejections.append(priced)
        else:
            estimates.append(priced)
    if not estimates:
        raise _nothing_fits(rejections)
    estimates.sort(key=lambda estimate: (estimate.step_ns, estimate.candidate))
    walked = estimates[:num_walked]
    for index, estimate in enumerate(walked):
        tell(0.1 + 0.3 * index / len(walked), f"walking {estimate.candidate.label}")
        walked[index] = replace(estimate, step_ns=_walk_ns(estimate))
    walked.sort(key=lambda estimate: (estimate.step_ns, estimate.candidate))
    finalists: list[Finalist] = []
    for estimate in walked:
        if len(finalists) == num_finalists:
            break
        tell(0.4 + 0.6 * len(finalists) / num_finalists, f"simulating {estimate.candidate.label}")
        finalist = _finish(estimate, estimator, optimizer, precision, made)
        if isinstance(finalist, Rejection):
            rejections.append(finalist)
        else:
            finalists.append(finalist)
    if not finalists:
        raise _nothing_fits(rejections)
    finalists.sort(key=lambda finalist: (finalist.step_ns, finalist.candidate))
    tell(1.0, "done")
    gone = {rejection.candidate for rejection in rejections}
    rest = tuple(
        sorted(
            (e for e in [*walked, *estimates[num_walked:]] if e.candidate not in gone),
            key=lambda estimate: estimate.step_ns,
        )
    )
    return Ranking(tuple(finalists), rest, tuple(rejections))


def _silent(_fraction: float, _what: str) -> None:
    """Progress that nobody watches."""


def _walk_ns(estimate: Estimate) -> int:
    candidate = estimate.candidate
    order = make_order(candidate.schedule, candidate.pp, candidate.num_microbatches, candidate.chunks)
    return walk(order, WorkTimes(estimate.work_ns, estimate.hop_ns)).makespan_ns


def _finish(
    estimate: Estimate,
    estimator: Estimator,
    optimizer: OptimizerSettings,
    precision: Precision,
    made: tuple[tuple[str, str], ...],
) -> Finalist | Rejection:
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
    "no pipeline": "allow 1f1b under parallel.schedule, or more pipeline ranks",
}
"""What to change, by the rule that the nearest miss broke."""


def _nothing_fits(rejections: list[Rejection]) -> InfeasibleError:
    counts: dict[str, int] = {}
    for rejection in rejections:
        counts[rejection.rule] = counts.get(rejection.rule, 0) + 1
    reasons = ", ".join(f"{rule}: {num}" for rule, num in sorted(counts.items(), key=lambda item: -item[1]))
    tight = [rejection for rejection in rejections if rejection.rule == "memory"]
    near = nearest_miss(tight or rejections)
    return InfeasibleError(
        "no candidate fits",
        got=f"{len(rejections)} refused ({reasons}); nearest: {near.candidate.label}: {near.why}",
        hint=_HINTS.get(near.rule, "allow more values under parallel"),
    )
