"""Max-min fair rates of flows that share links.

A rate is fair if it cannot grow without a smaller or equal one shrinking: every flow either is at a bound of
its own, or crosses a full link on which no other flow is faster. There is exactly one such set of rates.
`exactmap.topology.flows.filling` finds it, after `exactmap.topology.flows.shares` has made the problem small.
"""

from __future__ import annotations

from exactmap.topology.flows.shares import Shares
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
        [links] rate of each link; 0 where it is lost.
    count
        [flows] equal flows that each stands for; 1 if left out.
    most
        [flows] rate that the sender cannot pass; none if left out.

    Returns
    -------
    Floats
        [flows] rate of one flow; infinite where neither a link nor `most` bounds it; 0 where `count` is 0.

    Examples
    --------
    A long flow over two links, and a short one on each:

    >>> import numpy as np
    >>> fair_rates(Routes.of([[0, 1], [0], [1]]), np.array([1.0, 2.0]))
    array([0.5, 0.5, 1.5])
    """
    return Shares(routes, capacity, count=count, most=most).rates()
