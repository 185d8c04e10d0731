"""What bounds a step: for each resource the step that it would be if that resource took no time.

Each is predicted anew, so what was hidden behind something else comes to light. Bubble and the slowest GPU
are no resource of the machine: their own part is taken away, the bubble with its share of the waiting for the
slowest.
"""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.ideal import Resource, idealised, kernel_clock
from exactmap.sim.step.parts import PartGroup, group_of
from exactmap.sim.step.predict import StepPrediction, predict_step

__all__ = ["Freed", "free_resources"]


@dataclass(frozen=True, slots=True)
class Freed:
    """A resource, and the step without it."""

    resource: Resource
    step_ns: float
    saved_ns: float


def free_resources(setup: TrainingSetup, prediction: StepPrediction) -> tuple[Freed, ...]:
    """Steps with each resource free, the one that bounds the step first."""
    parts = prediction.parts_ns
    slowest, bubble = parts.get("slowest rank", 0.0), parts.get("bubble", 0.0)
    computed = sum(time for name, time in parts.items() if group_of(name) is PartGroup.COMPUTE)
    waiting = slowest * bubble / (computed + bubble) if bubble else 0.0
    steps = {
        Resource.BUBBLE: prediction.step_ns - bubble - waiting,
        Resource.SPREAD: prediction.step_ns - slowest,
    }
    for resource in Resource:
        if resource not in steps:
            ideal = idealised(setup, resource)
            steps[resource] = predict_step(ideal, kernel_clock(setup, resource)).step_ns
    freed = [Freed(resource, step, prediction.step_ns - step) for resource, step in steps.items()]
    return tuple(sorted(freed, key=lambda each: each.step_ns))
