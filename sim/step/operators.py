"""Compute of a step by operator and pass: time, work, how near to the peak, and what bounds it.

Prices are those that the step is made of: kernels of the busiest pipeline rank, one by one, over all
microbatches. Each operator is also priced with arithmetic, memory and launches free in turn; what saves most
bounds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from exactmap.sim.cost.layers import LayerClock
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.step.ideal import Resource, kernel_clock
from exactmap.sim.step.parts import PartGroup, group_of
from exactmap.sim.step.predict import StepPrediction
from exactmap.sim.workload.layer_work import Kernel, KernelKind, LayerWork
from exactmap.sim.workload.operators import Pass

__all__ = ["OperatorTime", "operator_times"]

_BOUNDS = (Resource.ARITHMETIC, Resource.MEMORY, Resource.LAUNCH)


@dataclass(slots=True)
class OperatorTime:
    """One operator over a step.

    Parameters
    ----------
    name
        As the parts of a step have it.
    pass_ns
        By pass; empty where an operator has no passes of its own.
    again_ns
        Of backward: computed again.
    other_ns
        What no pass is known of.
    flop, num_bytes
        Work, what is computed again included.
    at_peak_ns
        The same work at the peak of its number format.
    saved_ns
        What each resource would save if it were free.
    """

    name: str
    pass_ns: dict[Pass, float] = field(default_factory=dict)
    again_ns: float = 0.0
    other_ns: float = 0.0
    flop: float = 0.0
    num_bytes: float = 0.0
    at_peak_ns: float = 0.0
    saved_ns: defaultdict[Resource, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total_ns(self) -> float:
        """All of it."""
        return sum(self.pass_ns.values()) + self.again_ns + self.other_ns

    @property
    def flop_per_s(self) -> float:
        """Rate that it reaches."""
        return self.flop * 1e9 / self.total_ns if self.total_ns else 0.0

    @property
    def share_of_peak(self) -> float:
        """That rate over the peak of its number format."""
        return self.at_peak_ns / self.total_ns if self.total_ns else 0.0

    @property
    def bound(self) -> str:
        """What bounds it; empty where nothing is known of its work."""
        return max(self.saved_ns, key=lambda each: self.saved_ns[each]).value if self.saved_ns else ""


def operator_times(
    setup: TrainingSetup, work: Iterable[tuple[LayerWork, float]], prediction: StepPrediction
) -> tuple[OperatorTime, ...]:
    """Operators of a step, the longest first; they sum to the step's compute.

    Parameters
    ----------
    setup
        What is trained.
    work
        Layers of the busiest rank (`exactmap.sim.step.rank_work`).
    prediction
        The step's.
    """
    clock = LayerClock(setup)
    ideal = {resource: kernel_clock(setup, resource) for resource in _BOUNDS}
    found: dict[str, OperatorTime] = {}
    for layer, count in work:
        for kernel in layer.kernels:
            entry = found.setdefault(kernel.name, OperatorTime(kernel.name))
            # A kernel by itself: its time, and what backward does of it again.
            parts = clock.price(LayerWork((kernel,), ())).parts_ns
            time, again = parts[kernel.name], parts.get("recompute", 0.0)
            entry.pass_ns[kernel.step] = entry.pass_ns.get(kernel.step, 0.0) + count * time
            entry.again_ns += count * again
            times = count * (1.0 + again / time) if time else count
            entry.flop += times * kernel.flop
            entry.num_bytes += times * kernel.num_bytes
            entry.at_peak_ns += times * kernel.flop * 1e9 / _peak(setup, kernel)
            for resource, free in ideal.items():
                entry.saved_ns[resource] += times * (time - free.time_ns(kernel))
    _add_others(found, prediction)
    return tuple(sorted(found.values(), key=lambda each: (-each.total_ns, each.name)))


def _peak(setup: TrainingSetup, kernel: Kernel) -> int:
    precision, gpu = setup.precision, setup.cluster.gpu
    wide = precision.narrow and kernel.wide
    if wide or precision.compute == "fp16" or kernel.kind in (KernelKind.ATTENTION, KernelKind.SCAN):
        return gpu.peak("bf16")
    return gpu.peak(precision.compute)


def _add_others(found: dict[str, OperatorTime], prediction: StepPrediction) -> None:
    """Compute that is no layer's kernel: exchanges that are repeated, copies of sharded parameters."""
    again = prediction.parts_ns.get("recompute", 0.0) - sum(each.again_ns for each in found.values())
    if again > 1e-6 * prediction.step_ns:
        found["exchanges again"] = OperatorTime("exchanges again", again_ns=again)
    for name, time in prediction.parts_ns.items():
        if group_of(name) is PartGroup.COMPUTE and name not in found and name != "recompute":
            found[name] = OperatorTime(name, other_ns=time)
