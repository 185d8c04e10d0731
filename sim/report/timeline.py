"""Timelines: what each rank does when, as a picture (matplotlib) and for Perfetto or chrome://tracing (JSON).

A `Timeline` is plain data: lanes of slices in integer nanoseconds. Predictions and executions give the same
kind, so a comparison is two lanes a rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Lane", "Slice", "Timeline", "draw_timeline", "time_unit", "to_chrome_trace"]

# Okabe and Ito's palette, which colour-blind readers can tell apart; waits stay pale.
COLOURS = {
    "F": "#0072B2",
    "B": "#009E73",
    "I": "#CC79A7",
    "W": "#E69F00",
    "RC": "#56B4E9",
    "FB": "#F0E442",
    "OPT": "#D55E00",
    "move": "#999999",
    "wait": "#E5E5E5",
}
MAX_LABELLED_SLICES = 400
MAX_EDGED_SLICES = 3000
MAX_DRAWN_SLICES = 60_000


@dataclass(frozen=True, slots=True)
class Slice:
    """One op on a lane; `kind` chooses the colour, `label` names it, `line` is its line in the plan."""

    start_ns: int
    end_ns: int
    kind: str
    label: str
    line: int = -1


@dataclass(frozen=True, slots=True)
class Lane:
    """A rank's slices in order of time; `group` puts lanes of one process together in a trace viewer."""

    name: str
    slices: tuple[Slice, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """Lanes from top to bottom."""

    title: str
    lanes: tuple[Lane, ...]

    @property
    def end_ns(self) -> int:
        """End of the last slice."""
        return max((piece.end_ns for lane in self.lanes for piece in lane.slices), default=0)


def draw_timeline(timeline: Timeline, *, width_in: float = 12.0) -> Figure:
    """Draw a Gantt chart: a row per lane, time to the right, one colour per op class.

    Labels are written where they fit and there are few slices; a chart of more than 60,000 slices shows the
    first ones of each lane and says so.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    num_lanes = max(1, len(timeline.lanes))
    figure = Figure(figsize=(width_in, min(1.4 + 0.42 * num_lanes, 24.0)), layout="constrained")
    axes = figure.add_subplot()
    scale, unit = time_unit(timeline.end_ns)
    budget = MAX_DRAWN_SLICES
    drawn = 0
    kinds: list[str] = []
    total = sum(len(lane.slices) for lane in timeline.lanes)
    for row, lane in enumerate(timeline.lanes):
        shown = lane.slices[: max(0, budget // (num_lanes - row))]
        budget -= len(shown)
        drawn += len(shown)
        by_kind: dict[str, list[list[tuple[float, float]]]] = {}
        for piece in shown:
            x0, x1 = piece.start_ns / scale, piece.end_ns / scale
            box = [(x0, row - 0.4), (x0, row + 0.4), (x1, row + 0.4), (x1, row - 0.4)]
            by_kind.setdefault(piece.kind, []).append(box)
        for kind, boxes in by_kind.items():
            if kind not in kinds:
                kinds.append(kind)
            # A thin slice would be all border.
            edge = "white" if total <= MAX_EDGED_SLICES and kind not in {"wait", "move"} else "none"
            colour = COLOURS.get(kind, "#666666")
            axes.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors=edge, linewidths=0.3))
        if total <= MAX_LABELLED_SLICES:
            _label(axes, row, shown, scale, timeline.end_ns)
    axes.set_xlim(0, max(timeline.end_ns / scale, 1e-9))
    axes.set_ylim(num_lanes - 0.5, -0.5)
    axes.set_yticks(range(len(timeline.lanes)), [lane.name for lane in timeline.lanes])
    axes.set_xlabel(f"time [{unit}]")
    axes.set_title(timeline.title + ("" if drawn == total else f" ({drawn} of {total} ops)"), loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    ordered = [kind for kind in COLOURS if kind in kinds]
    figure.legend(
        handles=[Patch(facecolor=COLOURS[kind], label=kind) for kind in ordered],
        ncols=max(1, len(ordered)),
        loc="outside lower center",
        frameon=False,
    )
    return figure


def _label(axes: object, row: int, slices: Sequence[Slice], scale: float, end_ns: int) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    for piece in slices:
        wide = (piece.end_ns - piece.start_ns) / max(end_ns, 1)
        if piece.kind in {"wait", "move"} or wide < 0.006 * len(piece.label):
            continue
        middle = (piece.start_ns + piece.end_ns) / 2 / scale
        axes.text(middle, row, piece.label, ha="center", va="center", fontsize=7, color="white", clip_on=True)


def time_unit(span_ns: int) -> tuple[float, str]:
    """Nanoseconds per unit, and the unit, that suit an axis of this length."""
    for scale, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if span_ns >= 2 * scale:
            return scale, unit
    return 1.0, "ns"


def to_chrome_trace(timelines: Iterable[Timeline]) -> str:
    """Write timelines as Chrome trace JSON, which Perfetto opens: a process per timeline, a thread per lane.

    Times are microseconds as the format asks, with three decimals, so nanoseconds survive.
    """
    events: list[str] = []
    for pid, timeline in enumerate(timelines):
        events.append(_metadata("process_name", pid, 0, timeline.title))
        for tid, lane in enumerate(timeline.lanes):
            events.append(_metadata("thread_name", pid, tid, lane.name))
            for piece in lane.slices:
                head = f'{{"ph":"X","pid":{pid},"tid":{tid},"ts":{_us(piece.start_ns)}'
                length = _us(piece.end_ns - piece.start_ns)
                name = json.dumps(piece.label)
                args = "" if piece.line < 0 else f',"args":{{"plan_line":{piece.line}}}'
                events.append(f'{head},"dur":{length},"cat":"{piece.kind}","name":{name}{args}}}')
    return '{"displayTimeUnit":"ns","traceEvents":[\n' + ",\n".join(events) + "\n]}\n"


def _us(ns: int) -> str:
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // 1000}.{abs(ns) % 1000:03d}"


def _metadata(kind: str, pid: int, tid: int, name: str) -> str:
    return json.dumps({"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": {"name": name}})
