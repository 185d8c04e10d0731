"""Fit the named constants on the rows that may be used for it: a robust search, one constant after the other.

Loss: mean over sets x GPU types of the mean of huber(log(predicted / measured)) over their rows, flat where a
row is lost, so that a large set does not drown a small one, plus a weak pull of every constant to its
default. Each constant is tried at a few values around its own in turn, in shrinking steps; only rows of its
scope are priced again. The order is fixed, so the same rows give the same constants.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from math import exp, log

from exactmap.errors import ExactmapError, InvalidInputError
from exactmap.sim.cost.kernels.constants import (
    GpuConstants,
    SoftwareConstants,
    constants_table,
    forget_constants,
    nearest_release,
)
from exactmap.sim.cost.setup import TrainingSetup
from exactmap.sim.published.row import Row, may_fit
from exactmap.sim.published.setup_of import setup_of
from exactmap.sim.step.predict import predict_step

__all__ = ["Fitter", "FreeConstant", "fit_scatter", "free_constants"]

_MOST = 12
"""Constants of one GPU type or one release."""
_FEWEST = 5
"""Rows without which a scatter is not stated."""
_HUBER = 0.15
_LOST = 0.4
"""Beyond this a row pulls no more: what makes it half or twice as long is nothing that a constant says."""
_PULL = 0.002
_STEPS = (0.15, 0.07, 0.03, 0.012)
"""Steps of the search, as shares of a constant's range."""


@dataclass(frozen=True, slots=True)
class FreeConstant:
    """A constant that may move, and how far."""

    scope: str
    whose: str
    name: str
    low: float
    high: float

    @property
    def default(self) -> float:
        """What it is where nothing else is said."""
        value: float = getattr(GpuConstants() if self.scope == "gpu" else SoftwareConstants(), self.name)
        return min(max(value, self.low), self.high)


def free_constants() -> list[FreeConstant]:
    """Return the constants that may be fitted.

    Raises
    ------
    InvalidInputError
        If a GPU type or a release has more than twelve.
    """
    text = files("exactmap.sim.cost").joinpath("data", "free-constants.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    out = [
        FreeConstant(row["scope"], row["whose"], row["constant"], float(row["low"]), float(row["high"]))
        for row in csv.DictReader(lines)
    ]
    count: defaultdict[tuple[str, str], int] = defaultdict(int)
    for constant in out:
        count[constant.scope, constant.whose] += 1
    for (scope, whose), number in count.items():
        if number > _MOST:
            raise InvalidInputError(
                f"too many constants for {scope} {whose}", got=str(number), expected=f"at most {_MOST}"
            )
    return out


def _huber(error: float) -> float:
    size = min(abs(error), _LOST)
    return 0.5 * size * size if size <= _HUBER else _HUBER * (size - 0.5 * _HUBER)


class Fitter:
    """Rows that may be fitted, each with its setup and its last error."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.cases: list[tuple[TrainingSetup, float, str]] = []
        for row in rows:
            if not may_fit(row) or not row["step_time_s"]:
                continue
            try:
                setup = setup_of(row)
            except ExactmapError:
                continue
            self.cases.append((setup, log(float(row["step_time_s"]) * 1e9), f"{row['set']}/{row['gpu']}"))
        size: defaultdict[str, int] = defaultdict(int)
        for _, _, part in self.cases:
            size[part] += 1
        # A set's weight grows slowly with its rows.
        self.weights = [float(size[part] ** -0.5) for _, _, part in self.cases]
        self.errors = [self._error(index) for index in range(len(self.cases))]

    def _error(self, index: int) -> float:
        setup, measured, _ = self.cases[index]
        return log(predict_step(setup).step_ns) - measured

    def rows_of(self, constant: FreeConstant) -> list[int]:
        """Indices of the cases that a constant moves."""
        family, _, release = constant.whose.partition("@")
        return [
            index
            for index, (setup, _, _) in enumerate(self.cases)
            if (
                (setup.cluster.gpu.kernels or setup.cluster.gpu.curves) == constant.whose
                if constant.scope == "gpu"
                else setup.software.family == family
                and (not release or nearest_release(setup.software) == release)
            )
        ]

    def loss(self, indices: Iterable[int]) -> float:
        """Weighted loss of some cases at the constants as they are."""
        return sum(self.weights[index] * _huber(self.errors[index]) for index in indices)

    def fit(
        self, constants: list[FreeConstant], report: Callable[[str], None] = lambda _: None
    ) -> dict[FreeConstant, tuple[float, int]]:
        """Search; returns each constant's value and the rows that it was fitted on."""
        table = constants_table()
        out: dict[FreeConstant, tuple[float, int]] = {}
        for constant in constants:
            table.setdefault((constant.scope, constant.whose), {})
        touched = {constant: self.rows_of(constant) for constant in constants}
        for step in _STEPS:
            for constant in constants:
                indices = touched[constant]
                if not indices:
                    continue
                values = table.setdefault((constant.scope, constant.whose), {})
                best = values.get(constant.name, constant.default)
                best_loss = self._try(constant, best, indices)
                width = constant.high - constant.low
                for direction in (1.0, -1.0):
                    moved = False
                    while True:
                        value = min(max(best + direction * step * width, constant.low), constant.high)
                        loss = self._try(constant, value, indices) if value != best else best_loss
                        if loss >= best_loss - 1e-9:
                            break
                        best, best_loss, moved = value, loss, True
                    if moved:
                        break
                self._try(constant, best, indices)
                out[constant] = (best, len(indices))
            report(f"step {step}: median error {self.median():.1%}")
        return out

    def _try(self, constant: FreeConstant, value: float, indices: list[int]) -> float:
        constants_table()[constant.scope, constant.whose][constant.name] = value
        forget_constants()
        for index in indices:
            self.errors[index] = self._error(index)
        away = (value - constant.default) / (constant.high - constant.low)
        return float(self.loss(indices) + _PULL * away * away * len(indices) ** 0.5)

    def median(self) -> float:
        """Median of |predicted / measured - 1|."""
        sizes = sorted(abs(exp(error) - 1.0) for error in self.errors)
        return sizes[len(sizes) // 2]


def fit_scatter(fitter: Fitter) -> dict[tuple[str, str], tuple[float, int]]:
    """Deviation of log(measured / predicted) on the fitted rows: (GPU type, constant) -> value, rows.

    The deviation is that of the normal distribution that has as many within three quarters of the rows:
    outliers weigh nothing. It has 75 % within 1.1503 deviations; constants that were fitted on the same rows
    make them look a little better than others, so a fifteenth is added.
    """
    sizes: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for (setup, _, _), error in zip(fitter.cases, fitter.errors, strict=True):
        gpu = setup.cluster.gpu
        name = "scatter_experts" if setup.model.experts else "scatter"
        sizes[gpu.name, name].append(abs(error))
    out = {}
    for key, values in sizes.items():
        if len(values) >= _FEWEST:
            values.sort()
            found = values[int(0.75 * len(values))] / 1.1503 * 16 / 15
            # Few rows say little: as many as _FEWEST rows of the default scatter are counted with them.
            usual = GpuConstants().scatter
            out[key] = ((found * len(values) + usual * _FEWEST) / (len(values) + _FEWEST), len(values))
    return out
