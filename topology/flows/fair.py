"""Max-min fair rates of flows that share links.

A rate is fair if it cannot grow without a smaller or equal one shrinking. Each round the links of least level
are full: the flows on them are done, and their rate is taken off all other links.
"""

from __future__ import annotations

import numpy as np

from exactmap.topology.links import Floats, Routes

__all__ = ["fair_rates"]


def fair_rates(
    routes: Routes, capacity: Floats, *, count: Floats | None = None, most: Floats | None = None
) -> Floats:
    """Fair rate of each flow, in the unit of `capacity`.

    Parameters
    ----------
    routes
        Links of each flow.
    capacity
        [links] rate of each link.
    count
        [flows] equal flows that each stands for; 1 if left out.
    most
        [flows] rate that the sender cannot pass; none if left out.

    Returns
    -------
    Floats
        [flows] rate of one flow; infinite where neither a link nor `most` bounds it.
    """
    num_flows = routes.num_flows
    flow = np.repeat(np.arange(num_flows), np.diff(routes.start))
    weight = routes.share * (1.0 if count is None else count[flow])
    rate = np.full(num_flows, np.inf)
    own = np.full(num_flows, np.inf) if most is None else most
    left = capacity.astype(np.float64).copy()
    is_open = np.ones(num_flows, dtype=np.bool_)
    while is_open.any():
        active = is_open[flow]
        load = np.bincount(routes.link[active], weight[active], minlength=len(left))
        level = np.full(len(left), np.inf)
        np.divide(left, load, out=level, where=load > 0.0)
        bound = min(level.min(initial=np.inf), own[is_open].min())
        full = level <= bound
        done = is_open & (own <= bound)
        done[flow[active & full[routes.link]]] = True
        if not np.isfinite(bound):
            break
        rate[done] = bound
        fixed = done[flow] & active
        left -= np.bincount(routes.link[fixed], weight[fixed] * bound, minlength=len(left))
        np.maximum(left, 0.0, out=left)
        is_open &= ~done
    return rate
