"""From a trace to a timeline: works and waits of each rank as slices; from two, a lane of each per rank."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.encoded import KINDS, WAIT_KINDS, WORK_KINDS
from exactmap.sim.report.timeline import Lane, Slice, Timeline

if TYPE_CHECKING:
    from exactmap.sim.engine.trace import Trace

__all__ = ["chrome_lanes", "paired_timeline", "timeline_of"]


def timeline_of(trace: Trace, title: str, *, ranks: int = 0) -> Timeline:
    """One lane per rank of a trace that holds a single step; `ranks` > 0: at most so many, evenly spread."""
    actors = _actors(trace)
    if 0 < ranks < len(actors):
        actors = [actors[round(at)] for at in np.linspace(0, len(actors) - 1, ranks).tolist()]
    lanes = [Lane(_name(trace, first), _slices(trace, first, last)) for first, last in actors]
    return Timeline(title, tuple(lanes))


def paired_timeline(first: Trace, second: Trace, names: tuple[str, str], title: str) -> Timeline:
    """Two lanes per rank, one of each trace, on one time axis; only ranks that both traces hold."""
    seconds = {_name(second, at): (at, last) for at, last in _actors(second)}
    lanes: list[Lane] = []
    for at, last in _actors(first):
        rank = _name(first, at)
        if rank not in seconds:
            continue
        lanes.append(Lane(f"{rank} {names[0]}", _slices(first, at, last)))
        lanes.append(Lane(f"{rank} {names[1]}", _slices(second, *seconds[rank])))
    return Timeline(title, tuple(lanes))


def chrome_lanes(trace: Trace, title: str) -> Timeline:
    """Lanes for a trace viewer: per rank its works and waits, and a lane for what its posts move."""
    lanes: list[Lane] = []
    for first, last in _actors(trace):
        name = _name(trace, first)
        lanes.append(Lane(name, _slices(trace, first, last)))
        moves = [
            Slice(max(start, 0), end, "move", trace.op[row], line)
            for row, start, end, line in zip(
                range(first, last),
                trace.s_ns[first:last].tolist(),
                trace.done_ns[first:last].tolist(),
                trace.line[first:last].tolist(),
                strict=True,
            )
            if end >= 0 and start >= 0 and end > start
        ]
        if moves:
            lanes.append(Lane(f"{name} moves", tuple(moves)))
    return Timeline(title, tuple(lanes))


def _actors(trace: Trace) -> list[tuple[int, int]]:
    starts = trace.actor_starts().tolist()
    return list(pairwise(starts))


def _name(trace: Trace, row: int) -> str:
    dp, inner = int(trace.dp[row]), int(trace.inner[row])
    replica = f" dp {dp}" if len(np.unique(trace.dp)) > 1 else ""
    return f"rank {int(trace.pp[row])}{replica}" + (f" inner {inner}" if inner else "")


def _slices(trace: Trace, first: int, last: int) -> tuple[Slice, ...]:
    kinds = trace.kind[first:last]
    shown = np.flatnonzero(
        (WORK_KINDS[kinds] | WAIT_KINDS[kinds]) & (trace.e_ns[first:last] > trace.a_ns[first:last])
    )
    out: list[Slice] = []
    for offset in shown.tolist():
        row = first + offset
        word = KINDS[int(trace.kind[row])].value
        is_wait = bool(WAIT_KINDS[trace.kind[row]])
        start = int(trace.a_ns[row]) if is_wait else max(int(trace.s_ns[row]), int(trace.a_ns[row]))
        text = trace.op[row]
        label = text if is_wait else _short(text)
        out.append(
            Slice(start, int(trace.e_ns[row]), "wait" if is_wait else word, label, int(trace.line[row]))
        )
    return tuple(out)


def _short(text: str) -> str:
    """The op and its item, without slots: `F 3.4 h0 a1 w1` -> `F3.4`."""
    words = text.split(" ")
    return words[0] + (words[1] if len(words) > 1 else "")
