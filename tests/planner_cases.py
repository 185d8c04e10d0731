"""A search space of 175B on H100, and brute force over it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from exactmap.sim.cost.formats import find_formats
from exactmap.sim.planner.candidate import Rejection, SearchSpace, enumerate_candidates
from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.estimate import Estimate, Estimator
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.scenario.scenario import load_scenario
from exactmap.sim.verbs.plan import space_of

__all__ = ["WIDE", "h100", "one_by_one"]

SCENARIO = Path(__file__).parents[1] / "scenarios" / "h100-1024.yaml"


@cache
def h100(*overrides: str) -> tuple[SearchSpace, Estimator]:
    """Space and estimator of 175B on 1,024 H100."""
    loaded = load_scenario(SCENARIO, overrides)
    formats = find_formats(loaded.training.precision)
    estimator = Estimator(
        loaded.model,
        loaded.training.sequence,
        formats,
        ClusterPricing(loaded.cluster, formats),
        loaded.memory_budget_bytes,
        loaded.cluster.map_request.order,
    )
    return space_of(loaded), estimator


WIDE = {
    "tp": (2, 3, 8),
    "cp": (1, 2),
    "pp": (1, 4, 6, 16, 96),
    "chunks": (1, 2, 3, 7),
    "microbatch": (1, 2, 5),
    "schedules": CLOSED_FORMS,
    "zero": (0, 1),
    "all_replicas": True,
}


def one_by_one(space: SearchSpace, estimator: Estimator) -> tuple[list[Estimate], list[Rejection]]:
    """Brute force: each candidate as an object, priced by itself."""
    priced = [
        found if isinstance(found, Rejection) else estimator.price(found)
        for found in enumerate_candidates(space)
    ]
    fit = [each for each in priced if isinstance(each, Estimate)]
    return fit, [each for each in priced if isinstance(each, Rejection)]
