"""Leaf switches as a cluster's state sees them: which GPU hangs on which, and how many uplinks it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exactmap.topology.fabric.build import build_fabric
from exactmap.topology.fabric.spec import FabricKind

if TYPE_CHECKING:
    from exactmap.topology.hardware import Cluster
    from exactmap.topology.links import Ints

__all__ = ["Leaves", "leaves_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Leaf switches of a cluster.

    Parameters
    ----------
    leaf
        [GPUs] leaf of each GPU's first port.
    num_uplinks
        [leaves] uplinks of each, at the rate of an interface's port; 0 where a leaf has none.
    """

    leaf: Ints
    num_uplinks: Ints

    @property
    def num_leaves(self) -> int:
        """Number of leaves."""
        return len(self.num_uplinks)


def leaves_of(cluster: Cluster) -> Leaves:
    """Leaves of a cluster's fabric; with several planes those of the first, which stand for all planes.

    A leaf of a fat tree of two tiers or more has as many uplinks as ports to GPUs, divided by the
    oversubscription of its tier; other fabrics have no uplinks.
    """
    fabric = build_fabric(cluster)
    leaf = fabric.leaf(np.arange(cluster.num_gpus, dtype=np.int64))
    attached = np.bincount(leaf)
    spec = fabric.spec
    if spec.kind not in {FabricKind.FAT_TREE, FabricKind.DUAL_TOR} or spec.num_tiers < 2:
        return Leaves(leaf, np.zeros(len(attached), dtype=np.int64))
    ratio = spec.oversubscription[0] if spec.oversubscription else 1.0
    return Leaves(leaf, np.ceil(attached / ratio).astype(np.int64))
