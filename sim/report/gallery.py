"""Pictures of orders: a panel per schedule, a row per rank, one time axis for all, so that lengths compare.

A box is a work: its colour is the kind, lighter for later chunks of a rank; the works of a braid share a box,
the first above. What stays white is idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.plan.instruction import KINDS, Op
from exactmap.sim.report.timeline import COLOURS, MAX_DRAWN_SLICES, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from exactmap.sim.schedules.order import Order
    from exactmap.sim.schedules.timeline import Timeline

__all__ = ["Panel", "draw_gallery"]

MAX_ROWS = 16
MAX_LABELLED_WORKS = 700
LIGHTEST = 0.55
_COPIES = frozenset({Op.OFF, Op.LD})


@dataclass(frozen=True, slots=True)
class Panel:
    """One schedule of a gallery: its order and when its works start and end."""

    title: str
    order: Order
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class _Box:
    start_ns: int
    end_ns: int
    low: float  #: in heights of the row, 0 at its bottom
    high: float
    kind: str
    shade: float  #: 0: the kind's colour, towards 1: white
    label: str


def draw_gallery(panels: Sequence[Panel], *, width_in: float = 12.0) -> Figure:
    """Draw orders below each other.

    At most 16 ranks of an order are shown, evenly spread; works are numbered where they are few.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [min(MAX_ROWS, panel.order.num_ranks) for panel in panels]
    height_in = 0.9 + sum(0.5 + 0.24 * num for num in rows)
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    grid = figure.subplots(
        len(panels), 1, squeeze=False, sharex=True, height_ratios=[0.6 + num / 4 for num in rows]
    )
    end_ns = max((panel.timeline.makespan_ns for panel in panels), default=1)
    scale, unit = time_unit(end_ns)
    kinds: set[str] = set()
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        kinds |= _draw_panel(axes, panel, scale, end_ns, MAX_DRAWN_SLICES // len(panels))
    grid[-1, 0].set_xlabel(f"time [{unit}]")
    ordered = [kind for kind in COLOURS if kind in kinds]
    figure.legend(
        handles=[Patch(facecolor=COLOURS[kind], label=kind) for kind in ordered],
        ncols=max(1, len(ordered)),
        loc="outside lower center",
        frameon=False,
    )
    return figure


def _draw_panel(axes: Axes, panel: Panel, scale: float, end_ns: int, budget: int) -> set[str]:
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    num_ranks = panel.order.num_ranks
    shown = sorted({round(at) for at in np.linspace(0, num_ranks - 1, min(MAX_ROWS, num_ranks)).tolist()})
    boxes = [_boxes(panel, rank)[: max(1, budget // len(shown))] for rank in shown]
    labelled = sum(map(len, boxes)) <= MAX_LABELLED_WORKS
    for row, works in enumerate(boxes):
        shapes, colours = [], []
        for box in works:
            x0, x1 = box.start_ns / scale, box.end_ns / scale
            y0, y1 = row + 0.42 - 0.84 * box.low, row + 0.42 - 0.84 * box.high
            shapes.append([(x0, y0), (x0, y1), (x1, y1), (x1, y0)])
            pure = np.array(to_rgb(COLOURS[box.kind]))
            colours.append(tuple(pure + (1 - pure) * box.shade))
            if labelled and (box.end_ns - box.start_ns) / max(end_ns, 1) > 0.006 * len(box.label):
                axes.text(
                    (x0 + x1) / 2,
                    (y0 + y1) / 2,
                    box.label,
                    ha="center",
                    va="center",
                    fontsize=6,
                    color="black" if box.shade > 0 else "white",
                    clip_on=True,
                )
        edge = "white" if labelled else "none"
        axes.add_collection(PolyCollection(shapes, facecolors=colours, edgecolors=edge, linewidths=0.4))
    axes.set_xlim(0, max(end_ns / scale, 1e-9))
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_yticks(range(len(shown)), [str(rank) for rank in shown])
    axes.tick_params(labelsize=7)
    axes.set_ylabel("rank", fontsize=8)
    axes.set_title(panel.title, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return {box.kind for works in boxes for box in works}


def _boxes(panel: Panel, rank: int) -> list[_Box]:
    """Boxes of one rank: copies beside compute are left out, braids are stacked."""
    order = panel.order
    works = list(order.works(rank))
    starts, ends = panel.timeline.start_ns[rank].tolist(), panel.timeline.end_ns[rank].tolist()
    here = sorted({work.stage for work in works})
    shade = {
        stage: LIGHTEST * number / (len(here) - 1) if len(here) > 1 else 0.0
        for number, stage in enumerate(here)
    }
    boxes: list[_Box] = []
    at = 0
    while at < len(works):
        stop = at + 1
        while works[at].braid >= 0 and stop < len(works) and works[stop].braid == works[at].braid:
            stop += 1
        for place, row in enumerate(range(at, stop)):
            work, share = works[row], 1 / (stop - at)
            if work.op not in _COPIES:
                label = str(work.microbatch) + (f".{work.slice}" if order.num_slices > 1 else "")
                high = 1 - place * share
                boxes.append(
                    _Box(starts[row], ends[row], high - share, high, work.op.value, shade[work.stage], label)
                )
        at = stop
    assert all(box.kind in {kind.value for kind in KINDS} for box in boxes)
    return boxes
