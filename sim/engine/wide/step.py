"""A step of the tape: nodes that are settled together, by a few numpy calls on blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints

__all__ = ["Run", "Step"]

Run = tuple[int, int, int]  #: first row of the step, end, first row of durations


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Nodes that are settled together."""

    sources: Ints  #: [edges] pool rows
    num_nodes: int
    further: list[tuple[int, int]]  #: n-th edges: (number of nodes that have one, first of these edges)
    edge_runs: list[Run]
    node_runs: list[Run]
    row: int  #: first pool row of the nodes
    axes: int  #: mask of the axes on which columns meet within the step
    floor: Ints | None  #: [nodes, 1]
    results: list[tuple[int, int, int]]  #: (node within the step, kind in `ASKED`, line)
