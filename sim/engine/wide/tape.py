"""The tape: nodes in the order in which they are settled, where their rows lie, which durations they take.

Nodes are sorted by (phase, level, axes on which columns meet): all nodes of one such step are settled by a
few numpy calls on blocks of rows. A phase ends where columns meet that are not stepped together; there are as
many phases as such meetings follow from each other, however many meetings there are. Rows lie in a pool; a
node's row is given back once the last node that needs it is settled, so the pool holds what is on its way and
nothing else. Durations fill another buffer, one window of steps at a time, in the order of their use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.sim.engine.levels import arrange, levels_of
from exactmap.sim.engine.wide.graph import COMP, NOTHING, OPERATION, WIRE
from exactmap.sim.engine.wide.rows import assign_rows
from exactmap.sim.engine.wide.step import Run, Step
from exactmap.sim.engine.wide.windows import RowSources, operation_times, windows_of

if TYPE_CHECKING:
    from exactmap.sim.engine.compiled import CompiledPlan
    from exactmap.sim.engine.encoded import Ints
    from exactmap.sim.engine.levels import Levels
    from exactmap.sim.engine.wide.graph import Flags, WideGraph
    from exactmap.sim.engine.wide.windows import OperationTimes, Window

__all__ = ["Meeting", "Tape", "make_tape"]


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """An operation that starts once all columns on `axes` have been stepped up to it."""

    times: OperationTimes  #: its row is a pool row
    axes: int


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """All steps of a plan."""

    num_rows: int  #: of the pool; row 0 is the start of the step, and stays 0
    phases: list[list[Window]]
    meetings: list[list[Meeting]]  #: after each phase
    most_edges: int  #: of a step
    most_rows: int  #: of durations in a window


def make_tape(compiled: CompiledPlan, graph: WideGraph, *, apart: int, window_rows: int) -> Tape:
    """Order the nodes of a graph.

    Parameters
    ----------
    compiled
        The plan.
    graph
        Its nodes and edges.
    apart
        Mask of axes whose columns are not all stepped together.
    window_rows
        How many durations (of each column) a window has at most, unless a single step needs more.
    """
    meets = (graph.axes & apart) > 0
    level = levels_of(graph.num_nodes, graph.src, graph.dst, np.ones(graph.num_nodes, dtype=np.int64))
    phase = levels_of(graph.num_nodes, graph.src, graph.dst, meets.astype(np.int64))
    assert level is not None and phase is not None, "a compiled plan has no cycle"  # noqa: PT018
    num_levels, num_masks = int(level.max()) + 1, int(graph.axes.max()) + 1
    keys, place = np.unique((phase * num_levels + level) * num_masks + graph.axes, return_inverse=True)
    levels = arrange(graph.src, graph.dst, place.astype(np.int64))
    order = np.argsort(levels.number)
    phase_of_step = keys[1:] // num_masks // num_levels

    step_of = place - 1  # of nodes; node 0 stands before all steps
    phase_ends = np.searchsorted(phase_of_step, np.arange(int(phase.max()) + 1), side="right")
    last_use = step_of + 1
    np.maximum.at(last_use, graph.src, step_of[graph.dst])
    # Whoever awaits a meeting does so in a later phase: until the meeting its row stays its own.
    last_use[0] = len(keys)
    row, num_rows = assign_rows(np.bincount(step_of[1:]), last_use[order])
    rows = np.empty(graph.num_nodes, dtype=np.int64)
    rows[order] = row

    sources, edge_runs, node_runs = _durations(compiled, graph, levels, order, step_of, meets)
    steps = _steps(graph, levels, rows, order, step_of, meets, edge_runs, node_runs)
    windows = [
        windows_of(compiled, sources, steps[low:high], low, window_rows)
        for low, high in zip([0, *phase_ends[:-1].tolist()], phase_ends.tolist(), strict=True)
    ]
    return Tape(
        num_rows=num_rows,
        phases=windows,
        meetings=[
            _meetings(compiled, graph, rows, np.flatnonzero(meets & (phase == number)))
            for number in range(len(phase_ends))
        ],
        most_edges=max((len(step.sources) for step in steps), default=0),
        most_rows=max((window.num_rows for part in windows for window in part), default=0),
    )


def _durations(
    compiled: CompiledPlan, graph: WideGraph, levels: Levels, order: Ints, step_of: Ints, meets: Flags
) -> tuple[RowSources, list[list[Run]], list[list[Run]]]:
    """Rows of durations: those of a step's edges, then those of its nodes; and where each step adds them."""
    edge_step = step_of[graph.dst[levels.edge]]
    edge_takes = ((graph.message >= 0) | (graph.constant > 0))[levels.edge]
    node_step = step_of[order]
    node_takes = ((graph.takes != NOTHING) & ~meets)[order]
    num_steps = len(levels.steps)
    num_edges = np.bincount(edge_step[edge_takes], minlength=num_steps)
    num_nodes = np.bincount(node_step[node_takes], minlength=num_steps)
    ends = np.cumsum(num_edges + num_nodes)
    edge_base, node_base = ends - num_nodes - num_edges, ends - num_nodes

    edges, nodes = levels.edge[edge_takes], order[node_takes]
    edge_row = np.arange(len(edges)) + (edge_base - np.cumsum(num_edges) + num_edges)[edge_step[edge_takes]]
    node_row = np.arange(len(nodes)) + (node_base - np.cumsum(num_nodes) + num_nodes)[node_step[node_takes]]
    num_rows = len(edges) + len(nodes)

    def by_row(of_edges: Ints, of_nodes: Ints) -> Ints:
        out = np.empty(num_rows, dtype=np.int64)
        out[edge_row], out[node_row] = of_edges, of_nodes
        return out

    takes, number = graph.takes[nodes], graph.number[nodes]
    nothing = np.full(len(edges), -1, dtype=np.int64)
    is_wire = takes == WIRE
    sources = RowSources(
        step=by_row(edge_step[edge_takes], node_step[node_takes]),
        instruction=by_row(nothing, np.where(takes == COMP, number, -1)),
        message=by_row(graph.message[edges], np.where(is_wire, number, -1)),
        takes_wire=by_row(graph.takes_wire[edges].astype(np.int64), is_wire.astype(np.int64)) > 0,
        takes_lat=by_row(
            graph.takes_lat[edges].astype(np.int64), (is_wire & compiled.inline).astype(np.int64)
        )
        > 0,
        constant=by_row(graph.constant[edges], np.zeros(len(nodes), dtype=np.int64)),
        operation=by_row(nothing, np.where(takes == OPERATION, number, -1)),
    )
    first_edge = np.array([low for _, low, _, _, _, _ in levels.steps], dtype=np.int64)
    first_node = np.array([first for _, _, _, first, _, _ in levels.steps], dtype=np.int64)
    return (
        (
            sources,
            _runs(
                np.flatnonzero(edge_takes) - first_edge[edge_step[edge_takes]],
                edge_step[edge_takes],
                edge_row,
            ),
            _runs(
                np.flatnonzero(node_takes) - first_node[node_step[node_takes]],
                node_step[node_takes],
                node_row,
            ),
        )
        if num_steps
        else (sources, [], [])
    )


def _runs(place: Ints, step: Ints, row: Ints) -> list[list[Run]]:
    """For each step: stretches of its edges or nodes that take durations."""
    out: list[list[Run]] = [[] for _ in range(int(step.max(initial=-1)) + 1)]
    starts = np.flatnonzero((np.diff(place, prepend=-2) != 1) | (np.diff(step, prepend=-1) != 0))
    ends = np.append(starts[1:], len(place))
    for number, low, size, first in zip(
        step[starts].tolist(),
        place[starts].tolist(),
        (ends - starts).tolist(),
        row[starts].tolist(),
        strict=True,
    ):
        out[number].append((low, low + size, first))
    return out


def _steps(
    graph: WideGraph,
    levels: Levels,
    rows: Ints,
    order: Ints,
    step_of: Ints,
    meets: Flags,
    edge_runs: list[list[Run]],
    node_runs: list[list[Run]],
) -> list[Step]:
    results: list[list[tuple[int, int, int]]] = [[] for _ in levels.steps]
    firsts = [first for _, _, _, first, _, _ in levels.steps]
    for kind, nodes in enumerate(graph.asked):
        for line, node in enumerate(nodes.tolist()):
            if node > 0:  # the start of the step is 0
                step = int(step_of[node])
                results[step].append((int(levels.number[node]) - firsts[step], kind, line))
    row_of_number = rows[order]
    axes = np.where(meets, 0, graph.axes)[order]
    floor = None if graph.floor is None else graph.floor[order, None]
    return [
        Step(
            sources=row_of_number[sources],
            num_nodes=end - first,
            further=further,
            edge_runs=edge_runs[number] if number < len(edge_runs) else [],
            node_runs=node_runs[number] if number < len(node_runs) else [],
            row=int(row_of_number[first]),
            axes=int(axes[first]),
            floor=None if floor is None else floor[first:end],
            results=results[number],
        )
        for number, (sources, _, _, first, end, further) in enumerate(levels.steps)
    ]


def _meetings(compiled: CompiledPlan, graph: WideGraph, rows: Ints, nodes: Ints) -> list[Meeting]:
    times = operation_times(compiled, graph.number[nodes], rows[nodes])
    return [Meeting(each, axes) for each, axes in zip(times, graph.axes[nodes].tolist(), strict=True)]
