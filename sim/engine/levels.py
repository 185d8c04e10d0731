"""Order of evaluation: nodes by level, each level's nodes and edges behind each other, found once.

A node's level is one more than the highest level that an edge into it comes from, so all nodes of a level
are settled at once: one `take`, one addition, and a maximum per further edge.
"""

# ruff: noqa: PLR1730 - max() would cost a call in the innermost loop.

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from exactmap.sim.engine.encoded import Ints

__all__ = ["Levels", "arrange", "levels_of", "solve"]


def levels_of(num_nodes: int, src: Ints, dst: Ints, step: Ints) -> Ints | None:
    """Level of each node; None if the edges have a cycle.

    Parameters
    ----------
    num_nodes
        How many nodes.
    src, dst
        [edges] ends of the edges.
    step
        [nodes] what a node adds to the level of the nodes behind it, 0 or 1.

    Examples
    --------
    >>> import numpy as np
    >>> ones = np.ones(3, dtype=np.int64)
    >>> levels_of(3, np.array([0, 0, 2]), np.array([1, 2, 1]), ones).tolist()
    [0, 2, 1]
    >>> levels_of(2, np.array([0, 1]), np.array([1, 0]), ones[:2]) is None
    True
    """
    behind = dst[np.argsort(src, kind="stable")].tolist()
    ends = np.concatenate(([0], np.cumsum(np.bincount(src, minlength=num_nodes)))).tolist()
    missing = np.bincount(dst, minlength=num_nodes)
    order = np.flatnonzero(missing == 0).tolist()
    missing = missing.tolist()
    level, steps = [0] * num_nodes, step.tolist()
    for node in order:  # grows as it is walked
        reached = level[node] + steps[node]
        for other in behind[ends[node] : ends[node + 1]]:
            if level[other] < reached:
                level[other] = reached
            missing[other] -= 1
            if not missing[other]:
                order.append(other)
    return np.array(level, dtype=np.int64) if len(order) == num_nodes else None


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """Nodes and edges in the order of evaluation.

    Parameters
    ----------
    num_nodes
        How many nodes; those of level 0 come first and stay 0.
    number
        [nodes given] new number of each node, -1 for those without a level.
    edge
        [edges] which of the edges given stands here. Within a level: the first edge of each node, then the
        second of those that have two or more, and so on.
    steps
        For each level from 1: (sources of its edges, first edge, end, first node, end, further edges as
        (number of nodes, first of these edges within the level)).
    """

    num_nodes: int
    number: Ints
    edge: Ints
    steps: list[tuple[Ints, int, int, int, int, list[tuple[int, int]]]]


def arrange(src: Ints, dst: Ints, level: Ints) -> Levels:
    """Put nodes and edges in order; `level` is -1 for nodes that have none, and no edge touches those."""
    num_edges_in = np.bincount(dst, minlength=len(level))
    most = int(num_edges_in.max(initial=0)) + 1
    placed = np.flatnonzero(level >= 0)
    # Within a level, nodes with more edges come first: the nodes that have an n-th edge are a prefix.
    order = placed[np.argsort(level[placed] * most + (most - 1 - num_edges_in[placed]), kind="stable")]
    number = np.full(len(level), -1, dtype=np.int64)
    number[order] = np.arange(len(order))
    num_levels = int(level.max(initial=0)) + 1
    node_ends = np.concatenate(([0], np.cumsum(np.bincount(level[placed], minlength=num_levels))))

    to = number[dst]
    by_node = np.argsort(to, kind="stable")
    to = to[by_node]
    counts = num_edges_in[order]
    nth = np.arange(len(to)) - (np.cumsum(counts) - counts)[to]
    at_level = level[order][to]
    block = at_level * most + nth
    sizes = np.bincount(block, minlength=num_levels * most)
    block_starts = np.cumsum(sizes) - sizes
    edge = np.empty(len(to), dtype=np.int64)
    edge[block_starts[block] + to - node_ends[at_level]] = by_node

    sources = number[src[edge]]
    edge_ends = np.concatenate((block_starts.reshape(num_levels, most)[:, 0], [len(to)])).tolist()
    further: list[list[tuple[int, int]]] = [[] for _ in range(num_levels)]
    filled = np.flatnonzero((sizes > 0) & (np.arange(len(sizes)) % most > 0))
    for at, size, start in zip(
        filled.tolist(), sizes[filled].tolist(), block_starts[filled].tolist(), strict=True
    ):
        further[at // most].append((size, start - edge_ends[at // most]))
    steps = [
        (sources[low:high], low, high, first, end, more)
        for (low, high), (first, end), more in zip(
            pairwise(edge_ends), pairwise(node_ends.tolist()), further, strict=True
        )
    ]
    return Levels(len(order), number, edge, steps[1:])


def solve(levels: Levels, constant: Ints, floor: Ints | None = None) -> Ints:
    """The least times that fulfil all edges: t(to) >= t(from) + constant, and t(to) >= floor.

    Parameters
    ----------
    levels
        The order of evaluation.
    constant
        In ns, of shape [draws, edges], in the order of `Levels.edge`.
    floor
        Of the same shape, or None.

    Returns
    -------
    Ints
        In ns, of shape [draws, nodes], by new number.
    """
    # Draws stand behind each other for each edge, so that one edge of all draws is one stretch of memory; one
    # axis less makes each of the many small steps of a single draw cheaper.
    single = len(constant) == 1
    by_edge = constant[0] if single else np.ascontiguousarray(constant.T)
    lowest = floor if floor is None else floor[0] if single else np.ascontiguousarray(floor.T)
    times = np.zeros((levels.num_nodes, *by_edge.shape[1:]), dtype=np.int64)
    maximum = np.maximum
    for sources, low, high, first, end, further in levels.steps:
        reached = times.take(sources, 0)
        reached += by_edge[low:high]
        if lowest is not None:
            maximum(reached, lowest[low:high], out=reached)
        for num, start in further:
            maximum(reached[:num], reached[start : start + num], out=reached[:num])
        times[first:end] = reached[: end - first]
    return times[None] if single else times.T
