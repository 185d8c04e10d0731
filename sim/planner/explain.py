"""Why the winner wins: what its step is made of, the best of each family that lost, and what never fitted."""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.sim.planner.candidate import Candidate
from exactmap.sim.planner.estimate import Estimate
from exactmap.sim.planner.search import Finalist, Ranking
from exactmap.sim.planner.survey import CHOICES

__all__ = [
    "FamilyBest",
    "RejectionCount",
    "StepParts",
    "family_bests",
    "rejection_counts",
    "step_parts",
]

FAMILIES = CHOICES


@dataclass(frozen=True, slots=True)
class StepParts:
    """What one step of a finalist is made of on its busiest rank, in ns; the parts add up to the step.

    Attributes
    ----------
    passes_ns
        F, I, W and B, communication inside the layers included.
    exposed_messages_ns
        Waits for messages beyond what an unending pipeline would wait: bubble and exposed transfers together.
    exposed_collectives_ns
        Waits for gradient reduction and the norm.
    optimizer_ns
        OPT and the rest of the works.
    idle_ns
        After its END, until the last rank's.
    """

    passes_ns: int
    exposed_messages_ns: int
    exposed_collectives_ns: int
    optimizer_ns: int
    idle_ns: int


@dataclass(frozen=True, slots=True)
class FamilyBest:
    """The best layout with another value of some choices, and how much slower it is, by estimate.

    `choices` are those for which this layout is the best one, such as ``("tp 32", "pp 48")``; `best` is None
    where no layout with that value fits.
    """

    choices: tuple[str, ...]
    best: Estimate | None
    slower: float
    why: str


@dataclass(frozen=True, slots=True)
class RejectionCount:
    """How many candidates broke one rule, and one example in words."""

    rule: str
    num: int
    example: str


def step_parts(finalist: Finalist) -> StepParts:
    """Take the simulated step of the busiest rank apart."""
    rank = max(finalist.summary.ranks, key=lambda each: each.pass_ns)
    messages = sum(rank.exposed_ns.get(word, 0) for word in ("WR", "WS"))
    collectives = sum(rank.exposed_ns.values()) - messages
    works = sum(rank.busy_ns.values()) - rank.pass_ns
    idle = finalist.step_ns - rank.end_ns
    return StepParts(rank.pass_ns, messages, collectives, works, idle)


def family_bests(ranking: Ranking) -> tuple[FamilyBest, ...]:
    """For each value of a choice that the winner does not have: the best candidate with it, and why it lost.

    All are compared by estimate, none by a simulated plan: the walk of its order where the search made
    one, else the closed form; gradients that nothing hides and the optimizer are in both.
    """
    winner, survey = ranking.winner.estimate, ranking.survey
    lost: dict[Candidate, list[str]] = {}
    never: list[FamilyBest] = []
    estimates = {estimate.candidate: estimate for estimate in ranking.estimates}
    for family in FAMILIES:
        mine = getattr(winner.candidate, family)
        # By walk where one was made; the survey knows closed forms.
        best: dict[str | int, Estimate] = {}
        for estimate in ranking.estimates:
            best.setdefault(getattr(estimate.candidate, family), estimate)
        for value, found in best.items():
            if value != mine:
                lost.setdefault(found.candidate, []).append(f"{family} {value}")
        refused = [key for key in survey.nearest_of if key[0] == family and key[1] not in {mine, *best}]
        for key in sorted(refused, key=lambda each: (isinstance(each[1], str), each[1])):
            nearest = survey.nearest_of[key]
            why = f"never fits; nearest: {nearest.candidate.label}, {nearest.why}"
            never.append(FamilyBest((f"{family} {key[1]}",), None, float("inf"), why))
    out = [
        FamilyBest(tuple(choices), found, found.step_ns / winner.step_ns - 1, _why(winner, found))
        for candidate, choices in lost.items()
        for found in [estimates[candidate]]
    ]
    return (*sorted(out, key=lambda entry: entry.slower), *never)


def _why(winner: Estimate, other: Estimate) -> str:
    """The larger of two causes: longer passes, or more time between them."""
    passes = other.busy_ns - winner.busy_ns
    rest = (other.step_ns - other.busy_ns) - (winner.step_ns - winner.busy_ns)
    if max(passes, rest) <= 0:
        return "no slower by estimate; the simulated plans decided"
    if passes >= rest:
        efficiency = other.busy_ns / winner.busy_ns - 1
        return f"its busiest rank works {100 * efficiency:.1f} % longer"
    share = 100 * (1 - other.busy_ns / other.step_ns)
    mine = 100 * (1 - winner.busy_ns / winner.step_ns)
    return f"{share:.1f} % of its step is bubble and hops, against {mine:.1f} %"


def rejection_counts(ranking: Ranking) -> tuple[RejectionCount, ...]:
    """Reasons of all rejections, the most frequent first; the example of memory is the nearest miss."""
    counts = [
        RejectionCount(rule, num, f"{near.candidate.label}: {near.why}")
        for rule, num in ranking.survey.counts.items()
        for near in [ranking.survey.nearest[rule]]
    ]
    return tuple(sorted(counts, key=lambda count: -count.num))
