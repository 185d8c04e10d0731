"""Notches priced: step, memory, and whether it fits, the largest gain first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from exactmap.errors import ExactmapError
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.notches import Notch, notches
from exactmap.sim.step.predict import StepPrediction, predict_step

__all__ = ["NotchPrice", "memory_limit_bytes", "price_notches"]


@dataclass(frozen=True, slots=True)
class NotchPrice:
    """A notch that can be had, and its step.

    Parameters
    ----------
    notch
        Which.
    step_ns
        Time of its step.
    change
        That time over the step's now, minus 1.
    memory_bytes
        Peak of its fullest rank.
    fits
        Whether the GPU has as much.
    """

    notch: Notch
    step_ns: float
    change: float
    memory_bytes: float
    fits: bool


def memory_limit_bytes(setup: TrainingSetup) -> int:
    """Memory of a GPU that a framework's allocator can have."""
    gpu = setup.cluster.gpu
    return gpu.memory_bytes - gpu.reserved_bytes


def price_notches(
    setup: TrainingSetup, prediction: StepPrediction, limit_bytes: int
) -> tuple[tuple[NotchPrice, ...], tuple[Notch, ...]]:
    """Price every notch next to a setup; those that cannot be had come apart, in their order."""
    priced: list[NotchPrice] = []
    refused: list[Notch] = []
    for notch in notches(setup):
        if notch.setup is None:
            refused.append(notch)
            continue
        try:
            other = predict_step(notch.setup)
        except ExactmapError as error:
            refused.append(replace(notch, setup=None, why=" ".join(str(error).split())))
            continue
        change = other.step_ns / prediction.step_ns - 1.0
        priced.append(
            NotchPrice(notch, other.step_ns, change, other.memory_bytes, other.memory_bytes <= limit_bytes)
        )
    return tuple(sorted(priced, key=lambda each: each.change)), tuple(refused)
