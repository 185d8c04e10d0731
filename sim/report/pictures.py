"""Pictures of a result as files: timeline and memory as PNG, the trace as Chrome JSON."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from exactmap.files import write_atomically
from exactmap.sim.report.lanes import chrome_lanes, timeline_of
from exactmap.sim.report.memory import draw_memory, memory_curve
from exactmap.sim.report.timeline import draw_timeline, to_chrome_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from exactmap.sim.engine.trace import Trace
    from exactmap.sim.plan.plan import Plan

__all__ = ["save_figure", "write_pictures"]

MAX_DRAWN_RANKS = 32
MAX_CHROME_ROWS = 2_000_000


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 110) -> None:
    """Write a figure as PNG, whole or not at all; no time stamp, so equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def write_pictures(plan: Plan, trace: Trace, folder: Path, title: str) -> list[Path]:
    """Write ``timeline.png``, ``memory.png`` and ``trace.json`` for a trace of a single step.

    The timeline shows up to 32 ranks, evenly spread, the memory the first and the last; a trace of over two
    million rows is not written for the viewer.
    """
    out = [folder / "timeline.png", folder / "memory.png"]
    save_figure(draw_timeline(timeline_of(trace, title, ranks=MAX_DRAWN_RANKS)), out[0])
    replica = int(trace.dp[0])
    shown = sorted({0, plan.mesh.pp - 1})
    curves = [memory_curve(plan, trace, pp, replica) for pp in shown]
    save_figure(draw_memory(curves, f"{title}: memory"), out[1])
    if len(trace) <= MAX_CHROME_ROWS:
        out.append(folder / "trace.json")
        write_atomically(out[-1], to_chrome_trace([chrome_lanes(trace, title)]))
    return out
