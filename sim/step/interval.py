"""How far a prediction may be off: an interval from the scatter of checked rows, wider outside their range.

log(measured / predicted) is taken as normal. Its deviation: the scatter of the GPU type's checked rows (dense
models and mixtures of experts apart), and, added in squares, what is not known: a release that no constants
were fitted for, a model or a machine outside the range of the rows (``data/checked-range.csv``), by how many
doublings.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp, log2, sqrt

from exactmap.sim.cost.kernels.constants import gpu_constants, has_own_constants, nearest_release
from exactmap.sim.cost.setup import TrainingSetup

__all__ = ["Interval", "interval_of"]

_SIGMAS = 1.2816
"""Of a normal distribution 80 % lie within so many standard deviations."""
_UNKNOWN_RELEASE = 0.05
"""The same layout under another release: 5 % in the median (68 layouts of Megatron-Bridge's releases)."""
_PER_DOUBLING = 0.04
"""Per doubling outside the checked range."""
_UNCHECKED = 0.15
"""A GPU type or a kind of model that no row checks."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Factors below and above a prediction, and why they are wider than usual."""

    low: float
    high: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Range:
    gpus: tuple[int, int]
    seq: tuple[int, int]
    hidden: tuple[int, int]


@cache
def _ranges() -> dict[tuple[str, str], _Range]:
    text = files("exactmap.sim.cost").joinpath("data", "checked-range.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {
        (row["gpu"], row["kind"]): _Range(
            (int(row["gpus_low"]), int(row["gpus_high"])),
            (int(row["seq_low"]), int(row["seq_high"])),
            (int(row["hidden_low"]), int(row["hidden_high"])),
        )
        for row in csv.DictReader(lines)
    }


def _doublings(value: int, checked: tuple[int, int]) -> float:
    low, high = checked
    return log2(max(value / high, low / value, 1.0))


def interval_of(setup: TrainingSetup) -> Interval:
    """80 % interval of a setup's prediction, as factors of it."""
    gpu, constants = setup.cluster.gpu, gpu_constants(setup.cluster.gpu)
    kind = "experts" if setup.model.experts else "dense"
    sigma = constants.scatter_experts if setup.model.experts else constants.scatter
    added: list[float] = []
    warnings: list[str] = []
    software = setup.software
    if not has_own_constants(software):
        added.append(_UNKNOWN_RELEASE)
        name = f"software {software.family} {software.release}".rstrip()
        nearest = nearest_release(software)
        warnings.append(f"{name}: no constants of its own" + (f", taken from {nearest}" if nearest else ""))
    checked = _ranges().get((gpu.kernels or gpu.curves, kind))
    if checked is None:
        added.append(_UNCHECKED)
        warnings.append(f"{gpu.name}, {kind}: no published run was checked")
    else:
        for name, value, span in (
            ("GPUs", setup.split.num_ranks, checked.gpus),
            ("tokens a sequence", setup.batch.seq, checked.seq),
            ("hidden", setup.model.hidden, checked.hidden),
        ):
            beyond = _doublings(value, span)
            if beyond > 0.01:
                added.append(_PER_DOUBLING * beyond)
                warnings.append(
                    f"{value:,} {name}: {2**beyond:.3g} x outside the checked {span[0]:,} to {span[1]:,}"
                )
    sigma = sqrt(sigma * sigma + sum(value * value for value in added))
    width = exp(_SIGMAS * sigma)
    return Interval(1.0 / width, width, tuple(warnings))
