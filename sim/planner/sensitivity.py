"""Whether the winner still wins on another machine, and what it would take there.

Each variant changes one number of the cluster. The whole space is surveyed anew on it, and the winner is
priced beside the best of that survey, both in closed form; so is the machine as it is, where walks and plans
may have chosen another than the closed form would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exactmap.sim.planner.closed_form import CLOSED_FORMS
from exactmap.sim.planner.estimate import Estimate, Estimator
from exactmap.sim.planner.pricing import ClusterPricing
from exactmap.sim.planner.survey import survey

if TYPE_CHECKING:
    from exactmap.sim.planner.candidate import Candidate, SearchSpace
    from exactmap.topology.hardware import Cluster

__all__ = ["Shift", "sensitivity", "variants"]

_HALF, _TWICE, _TENTH_LESS = 0.5, 2, 0.9


@dataclass(frozen=True, slots=True)
class Shift:
    """The winner on another machine.

    Attributes
    ----------
    change
        What is other, in words.
    step_ns
        Closed-form step of the winner there.
    longer
        How much longer that is than on the machine as it is, as a share.
    best
        The best candidate there.
    faster
        How much faster that is there than the winner, as a share; 0: the winner stays the best.
    """

    change: str
    step_ns: int
    longer: float
    best: Candidate
    faster: float


def variants(cluster: Cluster) -> Iterator[tuple[str, Cluster]]:
    """The machines to try, each with what is other about it.

    The network inside domains is as it was measured, whatever its rate is said to be, so it is not varied.
    """
    yield "as it is", cluster
    out, gpu = cluster.scale_out, cluster.gpu
    half = round(_HALF * out.bytes_per_s)
    yield (
        f"network between domains at half the rate, {half / 125e6:,.4g} Gb/s",
        replace(cluster, scale_out=replace(out, bytes_per_s=half)),
    )
    # A second interface, on planes of its own: switches stay as they are.
    planes = _TWICE * cluster.fabric.planes
    yield (
        f"network between domains at twice the rate, {_TWICE * out.bytes_per_s / 125e6:,.4g} Gb/s",
        replace(
            cluster,
            scale_out=replace(out, bytes_per_s=_TWICE * out.bytes_per_s),
            fabric=replace(cluster.fabric, planes=planes),
        ),
    )
    yield (
        "network latency twice as long",
        replace(cluster, scale_out=replace(out, latency_ns=_TWICE * out.latency_ns)),
    )
    yield (
        "memory bandwidth 10 % less",
        replace(cluster, gpu=replace(gpu, memory_bytes_per_s=round(_TENTH_LESS * gpu.memory_bytes_per_s))),
    )


def sensitivity(
    space: SearchSpace,
    estimator: Estimator,
    winner: Candidate,
    told: Callable[[str], None] = lambda _what: None,
) -> tuple[Shift, ...]:
    """Try the winner of a space on other machines.

    None of a measured host, nor for a schedule without a closed form.

    Parameters
    ----------
    space, estimator
        Of the search.
    winner
        What it chose.
    told
        Told which variant is surveyed.
    """
    pricing = estimator.pricing
    if not isinstance(pricing, ClusterPricing) or winner.schedule not in CLOSED_FORMS:
        return ()
    forms = tuple(name for name in space.schedules if name in CLOSED_FORMS)
    space = replace(space, schedules=forms)
    now = estimator.price(winner)
    assert isinstance(now, Estimate), "a winner that does not fit"
    out = []
    for change, cluster in variants(pricing.cluster):
        told(change)
        other = Estimator(
            estimator.model,
            estimator.seq,
            estimator.formats,
            ClusterPricing(cluster, estimator.formats),
            estimator.budget_bytes,
            estimator.order,
        )
        here = other.price(winner)
        assert isinstance(here, Estimate), "memory does not depend on rates"
        best_ns, best = survey(space, other, num_kept=1).kept[0]
        faster = max(0.0, 1.0 - best_ns / here.step_ns)
        out.append(
            Shift(
                change,
                here.step_ns,
                here.step_ns / now.step_ns - 1.0,
                best if faster else winner,
                faster,
            )
        )
    return tuple(out)
