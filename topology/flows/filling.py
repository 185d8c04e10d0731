"""Water filling: the max-min fair rates of weighted flows over links, all local bottlenecks at once.

Raise the rates of all flows together. A link l whose flows all still rise would be full at the level ::

    level(l) = left(l) / sum of weights of its open flows

The textbook (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2) fills the one link of least level,
freezes its flows, and starts again: as many rounds as there are different levels. But a level never falls
while others freeze: whoever freezes at a rate r <= level leaves (left - w r) / (weights - w) >= level. So a
link is sure to be the one that stops its flows as soon as none of them meets a lower level on another link,
however high its level is (a *local bottleneck*: Ros-Giralt et al., On the Bottleneck Structure of
Congestion-Controlled Networks, 2019). All of these freeze in one round here, and rounds are as few as the
longest chain of bottlenecks that wait for each other.

A bound of a flow's own (its sender) acts as a link that only this flow takes.
"""

from __future__ import annotations

import numpy as np

from exactmap.topology.links import Floats, Ints

__all__ = ["TIE", "fill"]

TIE = 1e-12
"""Levels that differ by less than this part are one level: sums of floats have their last bits by chance."""


def fill(start: Ints, link: Ints, weight: Floats, capacity: Floats, most: Floats) -> Floats:
    """Fair rate of each flow.

    Parameters
    ----------
    start
        [flows + 1] first entry of each flow; each has one at least.
    link
        [entries] a link, numbered from 0 without gaps.
    weight
        [entries] what a rate of 1 of this flow takes of the link; above 0.
    capacity
        [links] rate of each link.
    most
        [flows] rate that each cannot pass.

    Returns
    -------
    Floats
        [flows] rate; infinite where nothing bounds it.
    """
    rate = np.full(len(start) - 1, np.inf)
    left = capacity.astype(np.float64)
    level = np.zeros(len(left))
    open_flows = np.arange(len(start) - 1)
    lengths = np.diff(start)
    first = start[:-1]
    while len(open_flows):
        load = np.bincount(link, weight, len(left))
        now = np.full(len(left), np.inf)
        np.divide(left, load, out=now, where=load > 0.0)
        # Levels never fall; where nearly all of a link is taken a difference of floats might.
        np.maximum(level, now, out=level)
        met = level[link]
        lowest = np.minimum.reduceat(met, first)
        by_itself = most <= lowest * (1.0 + TIE)
        np.minimum(lowest, most, out=lowest)
        is_waiting = np.zeros(len(left), dtype=np.bool_)
        is_waiting[link[np.repeat(lowest * (1.0 + TIE), lengths) < met]] = True
        done = by_itself | ~np.logical_and.reduceat(is_waiting[link], first)
        rate[open_flows[done]] = lowest[done]
        stays = ~done
        keep = np.repeat(stays, lengths)
        gone = ~keep
        taken = np.repeat(lowest, lengths)[gone] * weight[gone]
        is_finite = np.isfinite(taken)
        left -= np.bincount(link[gone][is_finite], taken[is_finite], len(left))
        np.maximum(left, 0.0, out=left)
        open_flows, most, lengths = open_flows[stays], most[stays], lengths[stays]
        link, weight = link[keep], weight[keep]
        first = np.cumsum(lengths) - lengths
    return rate
