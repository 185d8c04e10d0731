"""Pictures of a whole cluster: a heat map of its racks, and histograms of step and replica times."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.report.timeline import time_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from exactmap.topology.links import Floats, Ints

__all__ = ["RackMap", "draw_histograms", "draw_rack_map"]

MAX_NAMED = 8
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#B0B0B0"


@dataclass(frozen=True, slots=True, eq=False)
class RackMap:
    """What the heat map shows.

    Parameters
    ----------
    title
        Above it.
    slower
        [racks] how much longer works take there than nominal, mean over the GPUs that take ranks; NaN where
        none does.
    named
        Racks to point out, the worst first, with a word on each.
    """

    title: str
    slower: Floats
    named: Sequence[tuple[int, str]]


def draw_rack_map(racks: RackMap) -> Figure:
    """Racks on a grid, row after row; colour: how slow; boxes: who was waited for."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    num = len(racks.slower)
    width = max(1, ceil(sqrt(1.6 * num)))
    height = ceil(num / width)
    grid = np.full(width * height, np.nan)
    grid[:num] = racks.slower
    percent = 100 * grid.reshape(height, width)
    figure = Figure(figsize=(9.5, min(9.5, 2.2 + 7.3 * height / width)), layout="constrained")
    axes = figure.add_subplot()
    known = percent[np.isfinite(percent)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    image = axes.imshow(percent, cmap="cividis", vmin=low, vmax=max(high, low + 1e-6), aspect="equal")
    axes.set_facecolor("#EEEEEE")
    for order, (rack, _) in enumerate(racks.named[:MAX_NAMED]):
        row, column = divmod(rack, width)
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_ORANGE, linewidth=1.8)
        )
        left = column > width / 2
        axes.annotate(
            f"{order + 1}",
            (column, row),
            xytext=(-9 if left else 9, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": _ORANGE},
        )
    words = [
        f"{order + 1}: rack {rack}, {word}" for order, (rack, word) in enumerate(racks.named[:MAX_NAMED])
    ]
    lines = ["   ".join(words[at : at + 4]) for at in range(0, len(words), 4)]
    axes.set_title(racks.title)
    waited = ["boxes: racks that were waited for, and how long a step"] if lines else []
    axes.set_xlabel("\n".join([f"racks, {width} to a row; pale: no ranks", *waited, *lines]))
    axes.set_xticks(_ticks(width))
    rows = _ticks(height)
    axes.set_yticks(rows, [str(row * width) for row in rows])
    axes.set_ylabel("first rack of the row")
    figure.colorbar(image, ax=axes, label="works take longer than nominal by, %", shrink=0.85)
    return figure


def draw_histograms(
    step_ns: Ints, replica_ns: Ints, nominal_ns: int, nominal_own_ns: int, title: str
) -> Figure:
    """Histograms of when replicas would be through alone, and of step times where there are several."""
    from matplotlib.figure import Figure

    several = len(step_ns) > 1
    figure = Figure(figsize=(9.5, 6.4 if several else 3.6), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(2 if several else 1, 1, squeeze=False)[:, 0]
    _histogram(
        panels[0], replica_ns.ravel(), nominal_own_ns, "replicas: through, were it not for the others", _BLUE
    )
    if several:
        _histogram(panels[1], step_ns, nominal_ns, "steps", _ORANGE)
    return figure


def _histogram(axes: Axes, times_ns: Ints, nominal_ns: int, what: str, colour: str) -> None:
    scale, unit = time_unit(int(times_ns.max()))
    num_bins = int(np.clip(2 * len(times_ns) ** (1 / 3), 10, 120))
    axes.hist(times_ns / scale, bins=num_bins, color=colour)
    axes.axvline(nominal_ns / scale, color=_GREY, linestyle="--", label="all components alike")
    axes.axvline(
        float(times_ns.mean()) / scale,
        color="black",
        linewidth=1,
        label=f"mean {times_ns.mean() / scale:.4g} {unit}",
    )
    axes.set_xlabel(f"{what}, {unit}")
    axes.set_ylabel("number")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(num: int) -> list[int]:
    every = max(1, ceil(num / 10))
    return list(range(0, num, every))
