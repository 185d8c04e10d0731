"""Which row of the pool each node has: first fit, and given back after the last use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exactmap.sim.engine.encoded import Ints

__all__ = ["assign_rows"]


def assign_rows(num_nodes: Ints, last_use: Ints) -> tuple[Ints, int]:
    """Rows for all nodes, those of a step behind each other.

    Parameters
    ----------
    num_nodes
        [steps] how many nodes each settles.
    last_use
        [nodes] the last step that needs a node's row; nodes are in the order of steps, behind one that has
        row 0 from the start. A step may write where what it reads for the last time lay.

    Returns
    -------
    tuple
        Row of each node, and how many rows there are.

    Examples
    --------
    >>> import numpy as np
    >>> assign_rows(np.array([2, 1, 1]), np.array([9, 1, 2, 2, 3]))
    (array([0, 1, 2, 1, 1]), 3)
    """
    rows = np.zeros(len(last_use), dtype=np.int64)
    over = np.argsort(last_use, kind="stable")
    bounds = np.searchsorted(last_use[over], np.arange(len(num_nodes) + 1)).tolist()
    free = np.ones(1 + int(num_nodes.max(initial=0)), dtype=np.bool_)
    free[0] = False
    num_rows = 1
    at = 1
    for step, num in enumerate(num_nodes.tolist()):
        free[rows[over[bounds[step] : bounds[step + 1]]]] = True
        edges = np.flatnonzero(np.diff(free, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]
        fits = np.flatnonzero(ends - starts >= num)
        if len(fits):
            start = int(starts[fits[0]])
        else:
            start = int(starts[-1]) if free[-1] else len(free)
            free = np.append(free, np.ones(start + num - len(free) + len(free) // 2, dtype=np.bool_))
        free[start : start + num] = False
        rows[at : at + num] = np.arange(start, start + num)
        num_rows = max(num_rows, start + num)
        at += num
    return rows, num_rows
