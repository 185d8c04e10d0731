"""One link for all that are alike: routes of sprayed flows on large trees.

A flow that a fat tree sprays puts an equal share on each link of a *fan*, those that leave a subtree upwards
or reach it downwards, in all planes. If every flow is sprayed, the links of a fan carry the same load whatever
flows there are, so one of them stands for all: fair rates on it are those on the fan. A route then has two
links per tier instead of thousands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exactmap.topology.fabric.fabric import Fabric, Spread
from exactmap.topology.fabric.fat_tree import FatTree
from exactmap.topology.links import Ints, Routes

__all__ = ["AlikeRoutes", "alike_routes"]


@dataclass(frozen=True, slots=True, eq=False)
class AlikeRoutes:
    """Routes on links that stand for others.

    Parameters
    ----------
    routes
        Links of each flow.
    num_alike
        [entries] how many links the entry's link stands for, itself included.
    """

    routes: Routes
    num_alike: Ints


def alike_routes(fabric: Fabric, first: Ints, second: Ints, *, spread: Spread, seed: int = 0) -> AlikeRoutes:
    """Links of a flow between each pair, as `Fabric.routes`, one for each fan of a tree that all spray on."""
    if spread is not Spread.SPRAY or not isinstance(fabric, FatTree):
        routes = fabric.routes(first, second, spread=spread, seed=seed)
        return AlikeRoutes(routes, np.ones(len(routes.link), dtype=np.int64))
    links, num_planes = fabric.links, fabric.spec.planes
    tier = fabric.tier_between(first, second)
    highest = int(tier.max(initial=0))
    table = np.zeros((len(first), 2 * highest), dtype=np.int64)
    sizes = np.zeros(2 * highest, dtype=np.int64)
    for side, (gpu, up) in enumerate(((first, True), (second, False))):
        for below in range(highest):
            column = 2 * below + side
            if below == 0:
                table[:, column] = links.gpu_link(gpu, up=up)
                sizes[column] = num_planes
            else:
                table[:, column] = links.fan(below, links.subtree(links.leaf(gpu), below), up=up)
                sizes[column] = num_planes * links.fan_size(below)
    used = tier[:, np.newaxis] > np.repeat(np.arange(highest), 2)
    num_alike = np.broadcast_to(sizes, table.shape)[used]
    start = np.concatenate(([0], np.cumsum(used.sum(axis=1)))).astype(np.int64)
    return AlikeRoutes(Routes(start, table[used], 1.0 / num_alike), num_alike)
