"""Find an order for measured times under a memory limit: the entry of the automatic scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor
from time import monotonic

from exactmap.errors import InvalidInputError
from exactmap.sim.schedules.auto.bounds import lower_bound
from exactmap.sim.schedules.auto.fusing import fusable
from exactmap.sim.schedules.auto.portfolio import hand_made
from exactmap.sim.schedules.auto.problem import NO_LIMIT, Memory, Problem
from exactmap.sim.schedules.auto.search import Candidate, Search, remake
from exactmap.sim.schedules.auto.timing import Timing, peaks, time_sequences
from exactmap.sim.schedules.order import Order, loop_placement, vee_placement
from exactmap.sim.schedules.timeline import WorkTimes

__all__ = ["AutoResult", "find_order"]

OBJECTIVES = ("barrier", "period")
PLACEMENTS = ("loop", "vee", "best")
#: Works that are tried by default: some ten seconds of one core.
DEFAULT_BUDGET = 6_000_000


@dataclass(frozen=True, slots=True)
class AutoResult:
    """An order and what is known about it.

    Parameters
    ----------
    order
        The order.
    makespan_ns
        From the first start to the last end: a step with a barrier.
    period_ns
        Longest span of a rank from its first start to its last end: a step without one.
    lower_bound_ns, bound_name
        What no order of this placement can beat in the objective, and by which argument.
    peak_stash
        Most memory of a rank: in microbatches of a rank's layers, or in the units of `Memory`.
    limit
        The limit it was held to in the same unit; 0: none.
    objective, placement
        What was asked for, and the placement that won.
    method
        How the order was found.
    num_candidates, seconds
        Orders tried, time taken.
    """

    order: Order
    makespan_ns: int
    period_ns: int
    lower_bound_ns: int
    bound_name: str
    peak_stash: float
    limit: float
    objective: str
    placement: str
    method: str
    num_candidates: int
    seconds: float

    @property
    def value_ns(self) -> int:
        """The objective."""
        return self.makespan_ns if self.objective == "barrier" else self.period_ns

    @property
    def gap(self) -> float:
        """How far the value lies above the bound, as a share of it."""
        return self.value_ns / self.lower_bound_ns - 1


def find_order(
    num_ranks: int,
    num_microbatches: int,
    times: WorkTimes,
    *,
    stash_limit: float = 0,
    placement: str = "loop",
    chunks: int = 1,
    objective: str = "barrier",
    budget: int = DEFAULT_BUDGET,
    memory: Memory | None = None,
    start_from: Iterable[Order] = (),
    portfolio: bool = True,
    fuse: bool = True,
    time_limit_s: float | None = None,
) -> AutoResult:
    """The best order found for `times` within a memory limit.

    Parameters
    ----------
    num_ranks, num_microbatches
        p and m.
    times
        Durations of F, I and W of every stage of the placement, in ns; stages may differ.
    stash_limit
        Most stash of a rank, in microbatches of its layers; 0: no limit.
    placement
        ``loop`` (stage s on rank s mod p), ``vee`` (down and up again, two chunks), ``best`` of both.
    chunks
        Stages per rank; ``vee`` has two at least.
    objective
        ``barrier`` (makespan) or ``period`` (longest span of a rank).
    budget
        Works that may be tried in all; the same budget gives the same order everywhere.
    memory
        Weights of F, I and W per stage and a limit, instead of `stash_limit`.
    start_from
        Orders to begin with; those of another placement or over the limit are passed over.
    portfolio
        Whether to begin with the hand-made orders of the placement that fit, beside `start_from`.
    fuse
        Whether I and W that follow each other become B where that delays nothing.
    time_limit_s
        Stop after this time even if budget is left; results then depend on the machine.

    Raises
    ------
    InvalidInputError
        If a name or number makes no sense or a duration is missing.
    InfeasibleError
        If not even one microbatch fits.

    Examples
    --------
    >>> found = find_order(4, 8, WorkTimes.unit(4), stash_limit=4, budget=100_000)
    >>> found.makespan_ns, found.lower_bound_ns, found.peak_stash
    (27000000, 27000000, 4.0)
    """
    begin_s = monotonic()
    _check(num_ranks, num_microbatches, placement, chunks, objective, budget, stash_limit)
    placements = _placements(num_ranks, placement, chunks)
    given = tuple(start_from)
    deadline_s = None if time_limit_s is None else begin_s + time_limit_s
    results: list[AutoResult] = []
    for name, stages in placements:
        chunk_count = len(stages) // num_ranks
        limit: Memory | None = memory
        if memory is None and stash_limit > 0:
            places = floor(stash_limit * chunk_count + 1e-9)
            limit = Memory((1,) * len(stages), (0,) * len(stages), places)
        problem = Problem.of(num_ranks, num_microbatches, stages, times, limit)
        best, num = _search(problem, objective, budget // len(placements), deadline_s, given, portfolio)
        unit = chunk_count if memory is None else 1
        results.append(_result(problem, best, num, objective, name, unit, fuse, begin_s))
    return min(results, key=lambda result: (result.value_ns, result.makespan_ns + result.period_ns))


def _search(
    problem: Problem,
    objective: str,
    works: int,
    deadline_s: float | None,
    given: Sequence[Order],
    portfolio: bool,
) -> tuple[Candidate, int]:
    """The best candidate and how many were tried; long steps are searched in a short form first."""
    m, p = problem.num_microbatches, problem.num_ranks
    short = max(2 * p + 4, 24)
    search = Search(problem, objective, works, deadline_s)
    for order in given:
        if _same_pipeline(order, problem):
            search.start_from("given", lambda _, q=order: problem.sequences(q))
    if portfolio:
        for name, make in hand_made(problem):
            search.start_from(name, make)
    if m > 1.4 * short:
        first = Search(problem.with_microbatches(short), objective, int(works * 0.45), deadline_s)
        first.list_scheduling(works * 0.12)
        first.patterns(works * 0.33)
        search.works_left -= int(works * 0.45) - first.works_left
        search.num_candidates += first.num_candidates
        remake(search, first.best)
    else:
        search.list_scheduling(works * 0.15)
        search.patterns(works * 0.4)
    search.improve(search.works_left)
    if not search.best:
        # The budget did not reach for one candidate: take the first rule there is.
        search.list_scheduling(problem.num_works)
        while not search.best:
            search.works_left += problem.num_works
            search.deadline_s = None
            search.list_scheduling(problem.num_works)
    return search.best[0], search.num_candidates


def _result(
    problem: Problem,
    best: Candidate,
    num_candidates: int,
    objective: str,
    placement: str,
    unit: int,
    fuse: bool,
    begin_s: float,
) -> AutoResult:
    timing = time_sequences(problem, best.sequences)
    assert isinstance(timing, Timing)
    bound = lower_bound(problem, objective)
    limit = max(problem.limits)
    return AutoResult(
        order=problem.order(best.sequences, fusable(problem, best.sequences, timing) if fuse else None),
        makespan_ns=timing.makespan_ns,
        period_ns=timing.period_ns,
        lower_bound_ns=bound.value_ns,
        bound_name=bound.name,
        peak_stash=max(peaks(problem, best.sequences)) / unit,
        limit=0 if limit == NO_LIMIT else limit / unit,
        objective=objective,
        placement=placement,
        method=best.name,
        num_candidates=num_candidates,
        seconds=monotonic() - begin_s,
    )


def _placements(
    num_ranks: int, placement: str, chunks: int
) -> list[tuple[str, tuple[tuple[int, ...], ...]]]:
    loop = ("loop", loop_placement(num_ranks, chunks))
    vee = ("vee", vee_placement(num_ranks, max(chunks, 2)))
    if placement == "loop" or (placement == "best" and chunks == 1):
        return [loop]
    return [vee] if placement == "vee" else [loop, vee]


def _same_pipeline(order: Order, problem: Problem) -> bool:
    return (
        order.placement == problem.placement
        and order.num_microbatches == problem.num_microbatches
        and order.num_slices == 1
    )


def _check(
    num_ranks: int,
    num_microbatches: int,
    placement: str,
    chunks: int,
    objective: str,
    budget: int,
    stash_limit: float,
) -> None:
    for what, value in (
        ("ranks", num_ranks),
        ("microbatches", num_microbatches),
        ("chunks", chunks),
        ("budget", budget),
    ):
        if value < 1:
            raise InvalidInputError(f"number of {what} is below 1", got=str(value), expected="at least 1")
    if stash_limit < 0:
        raise InvalidInputError("stash limit is negative", got=str(stash_limit), expected="0 (none) or more")
    for what, value, known in (("placement", placement, PLACEMENTS), ("objective", objective, OBJECTIVES)):
        if value not in known:
            raise InvalidInputError(f"unknown {what}", got=repr(value), expected=", ".join(known))
